<?php // php verify.php USER, the code on standard input
function second_factor(string $user, string $code): bool {
    $daemon = @stream_socket_client('unix:///run/otpbridge/verify', $errno, $error, 10);
    if (!$daemon) return false;
    stream_set_timeout($daemon, 10);
    $call = ['method' => 'org.otpbridge.Verify.Check',
             'parameters' => ['user' => $user, 'client' => 'acme', 'responses' => [$code]]];
    fwrite($daemon, json_encode($call) . "\0");
    $reply = json_decode(stream_get_line($daemon, 65536, "\0"), true);
    return ($reply['parameters']['verdict'] ?? '') === 'success';
}
exit(second_factor($argv[1], trim(fgets(STDIN))) ? 0 : 1);

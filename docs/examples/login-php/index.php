<?php // A login page with password and code. See README.md.
declare(strict_types=1);

const SOCKET = 'unix:///run/otpbridge/verify';

/** Ask the daemon; null where it cannot be asked, does not answer or cannot judge. */
function check(string $user, string $password, string $code): ?array {
    $daemon = @stream_socket_client(SOCKET, $errno, $error, 10);
    if (!$daemon) return null;
    stream_set_timeout($daemon, 10);
    $call = ['method' => 'org.otpbridge.Verify.Check', 'parameters' => [
        'user' => $user, 'client' => 'acme', 'stack' => 'portal', 'responses' => [$password, $code],
        'context' => ['service' => 'login-php', 'rhost' => $_SERVER['REMOTE_ADDR']]]];
    fwrite($daemon, json_encode($call, JSON_INVALID_UTF8_SUBSTITUTE) . "\0");
    $reply = json_decode((string) stream_get_line($daemon, 65536, "\0"), true);
    // A name that no user can have is no fault of the daemon.
    if (($reply['error'] ?? '') === 'org.varlink.service.InvalidParameter') return ['verdict' => 'auth_err'];
    return isset($reply['error']) ? null : $reply['parameters'] ?? null;
}

function field(string $name): string {
    return is_string($_POST[$name] ?? null) ? $_POST[$name] : '';
}

function show(int $status, string $body): never {
    http_response_code($status);
    exit("<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>Example</title>\n$body\n");
}

function text(string $text): string {
    return htmlspecialchars($text, ENT_QUOTES | ENT_SUBSTITUTE | ENT_HTML5, 'UTF-8');
}

function form(int $status = 200, string $said = ''): never {
    $alert = $said === '' ? '' : '<p role="alert">' . text($said) . '</p>';
    $user = text(field('user'));
    show($status, "$alert<form method=\"post\">
<p><label>User <input name=\"user\" value=\"$user\" autocomplete=\"username\"></label>
<p><label>Password <input name=\"password\" type=\"password\" autocomplete=\"current-password\"></label>
<p><label>Code <input name=\"code\" autocomplete=\"one-time-code\"></label>
<p><button>Log in</button></form>");
}

header('Cache-Control: no-store');
header('X-Content-Type-Options: nosniff');
header("Content-Security-Policy: default-src 'none'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'");
session_name('__Host-session');
session_start(['use_strict_mode' => '1', 'use_only_cookies' => '1', 'cookie_path' => '/', 'cookie_secure' => '1',
    'cookie_httponly' => '1', 'cookie_samesite' => 'Strict', 'cache_limiter' => '']);

if ($_SERVER['REQUEST_METHOD'] === 'POST') {
    if (!in_array($_SERVER['HTTP_SEC_FETCH_SITE'] ?? 'same-origin', ['same-origin', 'none'], true)) {
        show(403, '<p role="alert">Sent from another site.</p>');
    }
    if (isset($_POST['logout'])) {
        $_SESSION = [];
        session_regenerate_id(true);
    } else {
        $reply = check(field('user'), field('password'), field('code'));
        if ($reply === null) form(503, 'Logging in is not possible now. Try again later.');
        if ($reply['verdict'] === 'maxtries') form(429, "Too many attempts. Try again in $reply[retryAfter] s.");
        if ($reply['verdict'] !== 'success') form(401, 'That did not work. Wait for the next code.');
        session_regenerate_id(true); // a session that was there before the login does not become the person's
        $_SESSION = ['user' => field('user'), 'notices' => array_column($reply['notices'], 'text')];
    }
    header('Location: /', true, 303);
    exit;
}
if (!isset($_SESSION['user'])) form();
$notices = $_SESSION['notices'];
$_SESSION['notices'] = []; // said once
show(200, '<h1>Welcome, ' . text($_SESSION['user']) . '</h1>'
    . implode('', array_map(fn ($notice) => '<p>' . text($notice) . '</p>', $notices))
    . '<form method="post"><button name="logout" value="1">Log out</button></form>');

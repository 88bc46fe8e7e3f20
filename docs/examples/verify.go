package main // go run verify.go USER, the code on standard input
import ("bufio"; "encoding/json"; "net"; "os"; "strings"; "time")
func secondFactor(user, code string) bool {
	daemon, err := net.Dial("unix", "/run/otpbridge/verify")
	if err != nil { return false }
	defer daemon.Close(); daemon.SetDeadline(time.Now().Add(10 * time.Second))
	parameters := map[string]any{"user": user, "client": "acme", "responses": []string{code}}
	call, _ := json.Marshal(map[string]any{"method": "org.otpbridge.Verify.Check", "parameters": parameters})
	daemon.Write(append(call, 0)); text, _ := bufio.NewReader(daemon).ReadString(0)
	var reply struct{ Parameters struct{ Verdict string } }
	return json.Unmarshal([]byte(strings.TrimSuffix(text, "\x00")), &reply) == nil && reply.Parameters.Verdict == "success" }
func main() { code, _ := bufio.NewReader(os.Stdin).ReadString('\n')
	if !secondFactor(os.Args[1], strings.TrimSpace(code)) { os.Exit(1) } }

// A login page with password and code. See README.md.
package main

import (
	"bufio"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	socket = "/run/otpbridge/verify"
	cookie = "__Host-session"
	lasts  = 30 * time.Minute
)

type session struct {
	User    string
	Notices []string
	ends    time.Time
}

var (
	lock     sync.Mutex
	sessions = map[string]*session{}
)

type reply struct {
	Error      string
	Parameters struct {
		Verdict    string
		RetryAfter int
		Notices    []struct{ Text string }
	}
}

// check asks the daemon; an error where it cannot be asked, does not answer or cannot judge.
func check(user, password, code, rhost string) (*reply, error) {
	daemon, err := net.DialTimeout("unix", socket, 10*time.Second)
	if err != nil {
		return nil, err
	}
	defer daemon.Close()
	daemon.SetDeadline(time.Now().Add(10 * time.Second))
	call, err := json.Marshal(map[string]any{"method": "org.otpbridge.Verify.Check", "parameters": map[string]any{
		"user": user, "client": "acme", "stack": "portal", "responses": []string{password, code},
		"context": map[string]string{"service": "login-go", "rhost": rhost}}})
	if err != nil {
		return nil, err
	}
	if _, err = daemon.Write(append(call, 0)); err != nil {
		return nil, err
	}
	text, err := bufio.NewReader(daemon).ReadString(0)
	if err != nil {
		return nil, err
	}
	said := &reply{}
	if err = json.Unmarshal([]byte(strings.TrimSuffix(text, "\x00")), said); err != nil {
		return nil, err
	}
	// A name that no user can have is no fault of the daemon.
	if said.Error != "" && said.Error != "org.varlink.service.InvalidParameter" {
		return nil, errors.New(said.Error)
	}
	return said, nil
}

// html/template escapes what is put in.
var page = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Example</title>
{{with .Said}}<p role="alert">{{.}}</p>{{end}}
{{with .Session}}<h1>Welcome, {{.User}}</h1>{{range .Notices}}<p>{{.}}</p>{{end}}
<form method="post"><button name="logout" value="1">Log out</button></form>
{{else}}<form method="post">
<p><label>User <input name="user" value="{{.User}}" autocomplete="username"></label>
<p><label>Password <input name="password" type="password" autocomplete="current-password"></label>
<p><label>Code <input name="code" autocomplete="one-time-code"></label>
<p><button>Log in</button></form>{{end}}
`))

type shown struct {
	Said, User string
	Session    *session
}

func show(w http.ResponseWriter, status int, what shown) {
	w.WriteHeader(status)
	page.Execute(w, what)
}

// take gives the session that a browser names, with its notices, which are said once.
func take(r *http.Request) *session {
	named, err := r.Cookie(cookie)
	if err != nil {
		return nil
	}
	lock.Lock()
	defer lock.Unlock()
	found := sessions[named.Value]
	if found == nil || time.Now().After(found.ends) {
		return nil
	}
	copied := *found
	found.Notices = nil
	return &copied
}

// replace ends the session that a browser names, and begins another one unless it is nil.
func replace(r *http.Request, next *session) *http.Cookie {
	lock.Lock()
	defer lock.Unlock()
	if named, err := r.Cookie(cookie); err == nil {
		delete(sessions, named.Value)
	}
	for name, old := range sessions {
		if time.Now().After(old.ends) {
			delete(sessions, name)
		}
	}
	set := &http.Cookie{Name: cookie, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteStrictMode}
	if next == nil {
		set.MaxAge = -1
		return set
	}
	name := make([]byte, 32)
	if _, err := rand.Read(name); err != nil {
		panic(err)
	}
	set.Value = base64.RawURLEncoding.EncodeToString(name)
	sessions[set.Value] = next
	return set
}

func post(w http.ResponseWriter, r *http.Request) {
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" && site != "none" {
		show(w, http.StatusForbidden, shown{Said: "Sent from another site."})
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, 10_000)
	if r.ParseForm() != nil {
		show(w, http.StatusRequestEntityTooLarge, shown{Said: "That is too long."})
		return
	}
	var next *session
	if !r.PostForm.Has("logout") {
		user := r.PostForm.Get("user")
		rhost, _, _ := net.SplitHostPort(r.RemoteAddr)
		said, err := check(user, r.PostForm.Get("password"), r.PostForm.Get("code"), rhost)
		switch {
		case err != nil:
			show(w, 503, shown{Said: "Logging in is not possible now. Try again later.", User: user})
			return
		case said.Parameters.Verdict == "maxtries":
			wait := fmt.Sprintf("Too many attempts. Try again in %d s.", said.Parameters.RetryAfter)
			show(w, 429, shown{Said: wait, User: user})
			return
		case said.Parameters.Verdict != "success":
			show(w, 401, shown{Said: "That did not work. Wait for the next code.", User: user})
			return
		}
		next = &session{User: user, ends: time.Now().Add(lasts)}
		for _, notice := range said.Parameters.Notices {
			next.Notices = append(next.Notices, notice.Text)
		}
	}
	http.SetCookie(w, replace(r, next))
	w.Header().Set("Location", "/")
	w.WriteHeader(http.StatusSeeOther)
}

func serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Security-Policy",
		"default-src 'none'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
	if r.Method == http.MethodPost {
		post(w, r)
		return
	}
	show(w, http.StatusOK, shown{Session: take(r)})
}

func main() {
	port := "8080"
	if len(os.Args) > 1 {
		port = os.Args[1]
	}
	listener, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("http://%s/\n", listener.Addr())
	log.Fatal((&http.Server{Handler: http.HandlerFunc(serve), ReadTimeout: 10 * time.Second}).Serve(listener))
}

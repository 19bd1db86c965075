package e2e

import (
	"bufio"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// beside is a program with a route that takes requests beside its sockets. Its times and sizes are small.
func beside(t *testing.T, h http.HandlerFunc, options string) *edge {
	t.Helper()
	e := startIn(t, room(t), `state: ./state
certificates: {internal: true}
log: {format: json, level: debug}
listeners: [{name: wss, address: "127.0.0.1:0", tls: true, body_timeout: 1s, body_size: 64MiB}]
admin: {address: "127.0.0.1:0"}
drain: 2s
routes:
  - {name: app, host: localhost, path: /*, websocket: {to: "ws://`+httpBackend(t, h)+`", http: true`+options+`}}
`)
	e.addr("admin")
	return e
}

// say opens a connection and says the beginning of what a client says.
func (e *edge) say(text string) (*tls.Conn, *bufio.Reader) {
	e.t.Helper()
	conn, err := tls.Dial("tcp", e.addr("wss"), e.tls())
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	io.WriteString(conn, text)
	return conn, bufio.NewReader(conn)
}

// answered reads an answer with its body.
func answered(t *testing.T, br *bufio.Reader, method string) (*http.Response, string) {
	t.Helper()
	resp, err := http.ReadResponse(br, &http.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

// Events come one by one, for longer than a request may take; a SIGTERM cuts them when the window is over, and no sooner.
func TestEventsStreamUntilTheProgramEnds(t *testing.T) {
	t.Parallel()
	next := make(chan string)
	e := beside(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for {
			http.NewResponseController(w).Flush()
			select {
			case text := <-next:
				fmt.Fprintf(w, "data: %s\n\n", text)
			case <-r.Context().Done():
				return
			}
		}
	}, "")
	_, br := e.say("GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatal(err)
	}
	events := bufio.NewReader(resp.Body)
	hear := func(text string) {
		t.Helper()
		next <- text
		if line, err := events.ReadString('\n'); line != "data: "+text+"\n" {
			t.Fatalf("%q, %v", line, err)
		}
		events.ReadString('\n')
	}
	hear("one")
	<-time.After(1500 * time.Millisecond) // beyond body_timeout
	hear("two")
	e.process.Process.Signal(syscall.SIGTERM)
	e.await(func(line map[string]any) bool { return line["msg"] == "draining" })
	hear("three")
	if err := e.wait(); err != nil {
		t.Errorf("it did not end in good order: %v", err)
	}
}

// A server that does not read holds the client back; then all of a body arrives, with its trailer.
func TestAnUploadIsHeldBackAndArrives(t *testing.T) {
	t.Parallel()
	const size = 48 << 20
	read, sent := make(chan bool), new(atomic.Int64)
	e := beside(t, func(w http.ResponseWriter, r *http.Request) {
		<-read
		sum := sha256.New()
		n, err := io.Copy(sum, r.Body)
		fmt.Fprintf(w, "%d %v %s %x", n, err, r.Trailer.Get("X-Sum"), sum.Sum(nil))
	}, "")
	conn, br := e.say("POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n")
	sum, part := sha256.New(), []byte(strings.Repeat("0123456789abcdef", 1<<12))
	go func() {
		for sent.Load() < size {
			fmt.Fprintf(conn, "%x\r\n%s\r\n", len(part), part)
			sum.Write(part)
			sent.Add(int64(len(part)))
		}
		fmt.Fprintf(conn, "0\r\nX-Sum: %x\r\n\r\n", sum.Sum(nil))
	}()
	for before := int64(-1); before != sent.Load(); { // until it moves no more
		before = sent.Load()
		<-time.After(300 * time.Millisecond)
	}
	if held := sent.Load(); held >= size/2 {
		t.Errorf("%d bytes were taken that nobody reads", held)
	}
	close(read)
	resp, body := answered(t, br, "POST")
	if want := fmt.Sprintf("%d <nil> %x %x", size, sum.Sum(nil), sum.Sum(nil)); resp.StatusCode != http.StatusOK || body != want {
		t.Fatalf("%s %q, want %q", resp.Status, body, want)
	}
}

// What is the server's to say of a file passes as it is.
func TestConditionsAndRangesAreTheServers(t *testing.T) {
	t.Parallel()
	e := beside(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"v1"`)
		http.ServeContent(w, r, "app.js", time.Time{}, strings.NewReader("0123456789"))
	}, "")
	for _, c := range []struct {
		method, header string
		status         int
		body           string
		length         int64
	}{
		{"GET", "", 200, "0123456789", 10},
		{"HEAD", "", 200, "", 10},
		{"GET", "Range: bytes=2-4\r\n", 206, "234", 3},
		{"GET", "Range: bytes=20-\r\n", 416, "invalid range: failed to overlap\n", 33},
		{"GET", "If-None-Match: \"v1\"\r\n", 304, "", 0},
	} {
		_, br := e.say(c.method + " /app.js HTTP/1.1\r\nHost: localhost\r\n" + c.header + "\r\n")
		if resp, body := answered(t, br, c.method); resp.StatusCode != c.status || body != c.body || resp.ContentLength != c.length {
			t.Errorf("%s %s: %s %q, %d bytes", c.method, c.header, resp.Status, body, resp.ContentLength)
		}
	}
}

// A request and a socket are told apart once, by us.
func TestNothingIsSmuggledPastTheSocketsPolicies(t *testing.T) {
	t.Parallel()
	const key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	evil := "GET /evil HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" + key + "\r\n"
	e := beside(t, func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		if r.URL.Path == "/evil" || r.Header.Get("Upgrade") != "" || websocket.IsWebSocketUpgrade(r) {
			t.Errorf("the server sees %s %s %v", r.Method, r.URL, r.Header)
		}
	}, "")
	for name, c := range map[string]struct {
		text     string
		statuses []int
	}{
		"in a body":          {fmt.Sprintf("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", len(evil), evil), []int{200}},
		"behind a request":   {"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" + evil, []int{200, 403}},
		"behind both":        {"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + evil, []int{200, 403}},
		"behind an upgrade":  {"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n" + evil, []int{426}},
		"with a bad version": {strings.Replace(strings.Replace(evil, "13", "777", 1), "https://evil.example", "https://localhost", 1), []int{426}},
		"in a list":          {strings.Replace(evil, "Upgrade: websocket", "Upgrade: h2c, websocket", 1), []int{403}},
		"without its token":  {strings.Replace(evil, "Connection: Upgrade", "Connection: close", 1), []int{400}},
		"by CONNECT":         {"CONNECT localhost:443 HTTP/1.1\r\nHost: localhost:443\r\n\r\n" + evil, []int{405}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, br := e.say(c.text)
			for i, want := range c.statuses {
				if resp, _ := answered(t, br, "GET"); resp.StatusCode != want {
					t.Fatalf("answer %d: %s, want %d", i, resp.Status, want)
				}
			}
		})
	}
}

package connect

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestRefusals(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		rule      string
		status    int
		header    http.Header
		body      string
		o         Options
		told, err string // SERVER stands for the server's
	}{
		{"a page from nowhere", 403, nil, "no \x1b[31mpage\nmay", Options{}, "* HTTP/1.1 403 Forbidden\n  no \\x1b[31mpage\n  may\n",
			"SERVER/room answers 403 Forbidden: if it wants to know the page that asks, try --origin http://"},
		{"the host that was asked for", 403, nil, "", Options{Headers: []string{"Host: example.com"}}, "", "try --origin http://example.com"},
		{"a wrong page", 403, nil, "", Options{Origin: "https://x"}, "", "is the origin https://x among those that it allows, in bridgehead `origins`"},
		{"no credentials", 401, http.Header{"Www-Authenticate": {`Bearer realm="x"`}}, "", Options{},
			"\n  Www-Authenticate: Bearer realm=\"x\"\n", "401 Unauthorized: send credentials, as in -H 'Authorization: Bearer TOKEN'"},
		{"nothing there", 404, nil, "", Options{}, "* HTTP/1.1 404 Not Found\n", "are host, port and path right"},
		{"no upgrade", 426, http.Header{"Sec-Websocket-Version": {"13"}}, "", Options{}, "\n  Sec-Websocket-Version: 13\n", "pass the Upgrade header on?"},
		{"a wrong request", 400, nil, "bad", Options{}, "\n  bad\n", "400 Bad Request: are host, port and path right"},
		{"nginx's wrong port", 400, nil, "The plain HTTP request was sent to HTTPS port", Options{}, "", "it speaks TLS there: use wss://"},
		{"too much", 429, http.Header{"Retry-After": {"7"}}, "", Options{}, "\n  Retry-After: 7\n", "try again after 7 (Retry-After)"},
		{"too much, for a time", 429, nil, "", Options{}, "", "try again later"},
		{"no room", 503, http.Header{"Retry-After": {"7"}}, "", Options{}, "", "try again after 7"},
		{"a dead server behind it", 502, nil, "", Options{}, "", "502 Bad Gateway: the server, or one behind it, is in trouble"},
		{"a page", 200, nil, strings.Repeat("x", 4096), Options{}, "\n  " + strings.Repeat("x", 1024) + "\n", "200 OK: that is a page and no WebSocket"},
		{"elsewhere", 301, http.Header{"Location": {"https://x.example/ws"}}, "", Options{}, "\n  Location: https://x.example/ws\n",
			"if you trust where it points to, bridgehead connect wss://x.example/ws"},
		{"another path", 302, http.Header{"Location": {"/login"}}, "", Options{}, "", "bridgehead connect SERVER/login"},
		{"nowhere", 302, http.Header{"Location": {"http://[x"}}, "", Options{}, "", `it points to "http://[x", which is no URL`},
		{"all headers", 500, http.Header{"X-Why": {"because"}}, "", Options{Verbose: true}, "\n  X-Why: because\n", "in trouble"},
		{"not all headers", 500, http.Header{"X-Why": {"because"}}, "", Options{}, "* HTTP/1.1 500 Internal Server Error\n", "in trouble"},
	} {
		t.Run(c.rule, func(t *testing.T) {
			t.Parallel()
			url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				maps.Copy(w.Header(), c.header)
				w.WriteHeader(c.status)
				io.WriteString(w, c.body)
			}))
			c.o.URL = url + "/room?token=secret"
			out, notes, err := piped(t, c.o, "hi\n")
			wantError(t, err, strings.ReplaceAll(c.err, "SERVER", url))
			if !strings.Contains(notes, c.told) || out != "" {
				t.Errorf("told %q, want %q; shown %q", notes, c.told, out)
			}
			if strings.Contains(err.Error()+notes, "secret") || c.rule == "not all headers" && strings.Contains(notes, "X-Why") {
				t.Errorf("too much is told: %q, %v", notes, err)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("%q has more than one line", err)
			}
		})
	}
}

// listen runs a server that knows nothing of HTTP: it reads a request and answers with a text, or hangs up.
func listen(t *testing.T, answer string) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.SetDeadline(time.Now().Add(patience))
			conn.Read(make([]byte, 4096))
			io.WriteString(conn, answer)
			conn.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-ended })
	return l.Addr().String()
}

func TestHandshakesThatComeToNothing(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // never accepts
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	gone := listen(t, "")
	for _, c := range []struct {
		rule string
		o    Options
		want string
	}{
		{"no TLS", Options{URL: "wss://" + listen(t, "SSH-2.0-x\r\n")}, "it does not speak TLS there: use ws://127.0.0.1:"},
		{"a TLS alert", Options{URL: "ws://" + listen(t, "\x15\x03\x01\x00\x02\x02\x16")}, "if it speaks TLS there, use wss://127.0.0.1:"},
		{"no HTTP", Options{URL: "ws://" + listen(t, "SSH-2.0-x\r\n")}, "malformed HTTP"},
		{"it hangs up", Options{URL: "ws://" + gone + "/x?token=secret"}, "connect to ws://" + gone + "/x: unexpected EOF; if it speaks TLS"},
		{"it hangs up in the TLS handshake", Options{URL: "wss://" + gone}, "is it a WebSocket server that listens there?"},
		{"a key that is not answered", Options{
			URL: "ws://" + listen(t, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"),
		}, "it answers 101, but not to this handshake"},
		{"it says nothing", Options{URL: "ws://" + silent.Addr().String(), Timeout: 2 * time.Second}, "it did not answer within 2s; --timeout waits longer"},
		{"it says nothing in the TLS handshake", Options{URL: "wss://" + silent.Addr().String(), Timeout: 2 * time.Second}, "it did not answer within 2s"},
		{"a refusal in colours", Options{URL: "ws://" + listen(t, "HTTP/1.1 429 \x1b[31mNo\r\nRetry-After: \u009b1m7\r\n\r\n")},
			`answers 429 \x1b[31mNo: it is too much at this moment; try again after \u009b1m7 (Retry-After)`},
		{"nobody listens", Options{URL: "ws://127.0.0.1:1"}, "connection refused; does it run, and on that port?"},
	} {
		t.Run(c.rule, func(t *testing.T) {
			t.Parallel()
			_, _, err := piped(t, c.o, "")
			wantError(t, err, c.want)
		})
	}
}

// The name is not asked of a DNS server: its answer is made here.
func TestANameThatIsNotFound(t *testing.T) {
	t.Parallel()
	c, err := New(Options{URL: "wss://nowhere.invalid/", Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	err = c.failed(&net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "nowhere.invalid", IsNotFound: true}})
	wantError(t, err, "lookup nowhere.invalid: no such host; is the name right? --address HOST:PORT goes elsewhere")
	wantError(t, c.failed(context.DeadlineExceeded), "it did not answer within 1s")
	wantError(t, c.failed(errors.New("\x1b[31m")), `connect to wss://nowhere.invalid/: \x1b[31m`)
}

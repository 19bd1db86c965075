package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
)

// serveHello runs a server that greets each socket and closes it with 1000, and gives its host and port.
func serveHello(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := new(websocket.Upgrader).Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer conn.Close()
		conn.WriteMessage(websocket.TextMessage, []byte("hello"))
		conn.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""))
		conn.NextReader()
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func TestConnect(t *testing.T) {
	t.Parallel()
	host := serveHello(t)
	const help = "; see bridgehead connect --help\n"
	for _, c := range []struct {
		args           []string
		code           int
		stdout, stderr string
	}{
		{[]string{host}, exitOK, "hello\n", "* connected to ws://" + host + ": 101 Switching Protocols\n* closed"},
		{[]string{"-q", "-n", "1", "http://" + host}, exitOK, "hello\n", ""},
		{[]string{"-q", "-n", "2", host}, exitFailed, "hello\n", "bridgehead: closed by the server: 1000 normal closure; 1 of 2 messages came\n"},
		{[]string{"--origin", "https://elsewhere.example", host}, exitFailed, "", "* HTTP/1.1 403 Forbidden\n"},
		{[]string{"-q", "wss://" + host}, exitFailed, "", "bridgehead: connect to wss://" + host + ": tls: "},
		{nil, exitUsage, "", "bridgehead: connect needs one URL, as in wss://example.com/path" + help},
		{[]string{"a", "b"}, exitUsage, "", "bridgehead: connect needs one URL"},
		{[]string{"ftp://x"}, exitUsage, "", `bridgehead: URL "ftp://x": the scheme must be ws or wss` + help},
		{[]string{"--ca", t.TempDir() + "/none", host}, exitUsage, "", "bridgehead: read the roots: open "},
		{[]string{"-H", "x", host}, exitUsage, "", `bridgehead: header "x": write it as 'Name: value'` + help},
		{[]string{"--timeout", "soon", host}, exitUsage, "", "bridgehead: invalid argument "},
	} {
		var stdout, stderr bytes.Buffer
		code := run(append([]string{"connect", "--wait", "10s"}, c.args...), &stdout, &stderr)
		if code != c.code || stdout.String() != c.stdout || !strings.HasPrefix(stderr.String(), c.stderr) || c.stderr == "" && stderr.Len() > 0 {
			t.Errorf("%q ended with %d, want %d\nstandard output %q, want %q\nstandard error %q, want %q",
				c.args, code, c.code, stdout.String(), c.stdout, stderr.String(), c.stderr)
		}
	}
}

func TestWhatIsATerminal(t *testing.T) {
	t.Parallel()
	if isTerminal(new(bytes.Buffer)) {
		t.Error("a buffer")
	}
	for path, want := range map[string]bool{os.DevNull: false, "connect_test.go": false, "/dev/ptmx": true} {
		f, err := os.Open(path)
		if err != nil {
			continue // not on every system
		}
		defer f.Close()
		if isTerminal(f) != want {
			t.Errorf("%s is a terminal: %t, want %t", path, !want, want)
		}
	}
}

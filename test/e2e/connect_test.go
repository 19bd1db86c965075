package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
)

// connecting is `bridgehead connect` to a path of the wss listener, by a client that trusts the local authority.
func (e *edge) connecting(path string, args ...string) *exec.Cmd {
	e.t.Helper()
	root := filepath.Join(filepath.Dir(e.process.Args[3]), "state", "ca", "root.pem")
	ctx, cancel := context.WithTimeout(e.t.Context(), patience)
	e.t.Cleanup(cancel)
	_, port, _ := net.SplitHostPort(e.addrs["wss"])
	return exec.CommandContext(ctx, program, append([]string{"connect", "--ca", root, "wss://localhost:" + port + path}, args...)...)
}

// talks runs it with this input to its end.
func (e *edge) talks(input, path string, args ...string) result {
	e.t.Helper()
	var stdout, stderr bytes.Buffer
	c := e.connecting(path, args...)
	c.Stdin, c.Stdout, c.Stderr = strings.NewReader(input), &stdout, &stderr
	if err := c.Run(); err != nil {
		if _, ok := errors.AsType[*exec.ExitError](err); !ok {
			e.t.Fatal(err)
		}
	}
	return result{c.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

func TestConnectInAPipe(t *testing.T) {
	t.Parallel()
	e := start(t, `
routes:
  - {name: echo, path: /echo, websocket: {to: "ws://`+backend(t, echo)+`"}}
  - name: dies
    path: /dies
    websocket:
      to: "ws://`+backend(t, func(conn *websocket.Conn, _ *http.Request) {
		conn.NetConn().(*net.TCPConn).SetLinger(0) // as a killed process
	})+`"
`)
	random := make([]byte, 300<<10)
	rand.Read(random)
	bytesOf := string(random)
	for _, c := range []struct {
		rule, input, path string
		args              []string
		code              int
		stdout            string
		stderr            string // a pattern
	}{
		{"lines", "hi\n\x1b[1mthere\n", "/echo", nil, 0, "hi\n\x1b[1mthere\n",
			`^\* connected to wss://localhost:\d+/echo: 101 Switching Protocols, TLS 1\.3\n\* closed: 1000 normal closure\n$`},
		{"bytes", bytesOf, "/echo", []string{"--binary", "-q"}, 0, bytesOf, "^$"},
		{"a number of messages", "a\nb\nc\n", "/echo", []string{"-n", "2", "-q"}, 0, "a\nb\n", "^$"},
		{"what was negotiated", "hi\n", "/echo", []string{"-v", "-s", "chat.v1", "--compression", "-n", "1"}, 0, "hi\n",
			`(?s), subprotocol chat\.v1, permessage-deflate; .*certificate: .*localhost.*issued by CN=bridgehead.*X-Backend: here`},
		{"commands", "/ping abc\n/close 4001 so long\n", "/echo", []string{"--commands", "-v"}, 0, "",
			`\n\* closed: 4001 the application's own\n$`},
		{"a backend that dies", "", "/dies", []string{"-q", "--wait", "-1s"}, 1, "",
			`^bridgehead: closed by the server: 1014 bad gateway, "backend gone"\n$`},
		{"a page from elsewhere", "", "/echo", []string{"--origin", "https://elsewhere.example"}, 1, "",
			`^\* HTTP/1\.1 403 Forbidden\n.*\nbridgehead: wss://localhost:\d+/echo answers 403 Forbidden: is the origin https://elsewhere\.example`},
		{"no route", "", "/none", []string{"-q"}, 1, "", `^bridgehead: wss://\S+/none answers 404 Not Found: are host, port and path right`},
		{"a root that is not trusted", "", "/echo", []string{"--ca", os.DevNull}, 2, "", `holds no certificate in PEM`},
	} {
		t.Run(c.rule, func(t *testing.T) {
			t.Parallel()
			got := e.talks(c.input, c.path, c.args...)
			if got.code != c.code || got.stdout != c.stdout || !regexp.MustCompile(c.stderr).MatchString(got.stderr) {
				t.Errorf("ended with %d, want %d\nstandard output %.200q (%d bytes), want %.200q (%d)\nstandard error %s",
					got.code, c.code, got.stdout, len(got.stdout), c.stdout, len(c.stdout), got.stderr)
			}
		})
	}
}

// When whoever reads the messages has enough, or somebody presses Ctrl-C, the bridge is told.
func TestConnectEndsInGoodOrder(t *testing.T) {
	t.Parallel()
	config := `
routes:
  - {name: echo, websocket: {to: "ws://` + backend(t, echo) + `"}}
`
	for _, c := range []struct {
		rule string
		end  func(c *exec.Cmd, stdin io.Writer, stdout io.Closer)
	}{
		{"a reader that ends", func(_ *exec.Cmd, stdin io.Writer, stdout io.Closer) {
			stdout.Close()
			io.WriteString(stdin, "two\n")
		}},
		{"Ctrl-C", func(c *exec.Cmd, _ io.Writer, _ io.Closer) { c.Process.Signal(os.Interrupt) }},
	} {
		t.Run(c.rule, func(t *testing.T) {
			t.Parallel()
			e := start(t, config)
			process := e.connecting("/")
			stdin, err := process.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			stdout, err := process.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := process.Start(); err != nil {
				t.Fatal(err)
			}
			io.WriteString(stdin, "one\n")
			if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "one\n" {
				t.Fatalf("shown %q, %v", line, err)
			}
			c.end(process, stdin, stdout)
			if err := process.Wait(); err != nil {
				t.Errorf("ended with %v", err)
			}
			if err := subset(e.closedLine("echo"), map[string]any{"cause": "client closed", "by": "client", "code": 1000}); err != nil {
				t.Error(err)
			}
		})
	}
}

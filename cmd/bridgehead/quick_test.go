package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"bridgehead/config"
)

// printed runs quick --print and reads the file that it gives.
func printed(t *testing.T, args ...string) (*config.Config, string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if code := run(append([]string{"quick", "--print"}, args...), &stdout, &stderr); code != exitOK || stderr.Len() > 0 {
		t.Fatalf("%q: exit code %d: %s", args, code, stderr.String())
	}
	c, _, err := config.Parse(filepath.Join(t.TempDir(), "config.yaml"), stdout.Bytes(), noEnvironment)
	if err != nil {
		t.Fatalf("%q: %v in\n%s", args, err, stdout.String())
	}
	return c, stdout.String()
}

// summary is what matters of one bridge.
func summary(c *config.Config) string {
	l, r := c.Listeners[0], c.Routes[0]
	scheme := map[bool]string{true: "wss", false: "ws"}[l.TLS]
	text := fmt.Sprintf("%s %s%s", scheme, l.Address[0], r.Path)
	switch {
	case r.TCP != nil:
		text += fmt.Sprint(" tcp ", r.TCP.To[0], " ", r.TCP.Framing, " ", r.TCP.Message, " ", r.TCP.Subprotocols)
	case r.WebSocket != nil:
		text += " websocket " + r.WebSocket.To[0]
	case r.Webhook != nil:
		text += " webhook " + r.Webhook.To[0]
	}
	if len(c.Routes) > 1 {
		text += " beside " + c.Routes[1].Files.Dir
	}
	return fmt.Sprint(text, " ping ", r.Socket.Ping, " log ", c.Log.Level)
}

// Every form of the command line, ours and websockify's, gives a file that serve takes and that says what the flags say.
func TestQuickForms(t *testing.T) {
	t.Parallel()
	const raw, rest = " raw binary [binary]", " ping 30s log info"
	for line, want := range map[string]string{
		"--to localhost:5900":                                  "wss 127.0.0.1:8443 tcp tcp://localhost:5900" + raw + rest,
		"--from :8443 --to tcp://localhost:5900":               "wss :8443 tcp tcp://localhost:5900" + raw + rest,
		"--from wss://:8443/vnc --to unix:/run/x":              "wss :8443/vnc tcp unix:/run/x" + raw + rest,
		"--from ws://:80 --to :7000 --framing line --text":     "ws :80 tcp tcp://localhost:7000 line text [binary]" + rest,
		"--to tls://h:993 --subprotocol a --subprotocol b":     "wss 127.0.0.1:8443 tcp tls://h:993 raw binary [a b]" + rest,
		"--to ws://h:9000/x --log warn":                        "wss 127.0.0.1:8443 websocket ws://h:9000/x ping 30s log warn",
		"--to http://h/x":                                      "wss 127.0.0.1:8443 webhook http://h/x" + rest,
		"--to http://h/x --as websocket":                       "wss 127.0.0.1:8443 websocket http://h/x" + rest,
		"--to ws://h:1 --web /srv":                             "wss 127.0.0.1:8443/ws websocket ws://h:1 beside /srv" + rest,
		"6080 localhost:5900":                                  "ws :6080 tcp tcp://localhost:5900" + raw + rest,
		"127.0.0.1:6080 localhost:5900 --web=/srv":             "ws 127.0.0.1:6080/websockify tcp tcp://localhost:5900" + raw + " beside /srv" + rest,
		"--web /srv --cert=/c.pem --key=/k.pem 443 h:1":        "wss :443/websockify tcp tcp://h:1" + raw + " beside /srv" + rest,
		"--ssl-only 6080 h:1":                                  "wss :6080 tcp tcp://h:1" + raw + rest,
		"--unix-target=/run/vnc.sock 6080":                     "ws :6080 tcp unix:/run/vnc.sock" + raw + rest,
		"--ssl-target 6080 h:1":                                "ws :6080 tcp tls://h:1" + raw + rest,
		"-v --heartbeat=25 --idle-timeout=60 6080 h:1":         "ws :6080 tcp tcp://h:1" + raw + " ping 25s log debug",
		"--heartbeat 0 -6 --auto-pong --file-only 6080 h:1":    "ws :6080 tcp tcp://h:1" + raw + " ping 0s log info",
		"--verbose --heartbeat 90 --to h:1 --from localhost:1": "wss localhost:1 tcp tcp://h:1" + raw + " ping 1m30s log debug",
	} {
		c, text := printed(t, strings.Fields(line)...)
		if got := summary(c); got != want {
			t.Errorf("quick %s is\n %s, want\n %s", line, got, want)
		}
		first, _, _ := strings.Cut(text, "\n")
		again, ok := strings.CutPrefix(first, "# The same as: bridgehead quick ")
		if _, second := printed(t, strings.Fields(again)...); !ok || second != text {
			t.Errorf("quick %s says that it is the same as %s, which is\n%s", line, again, second)
		}
	}
}

func TestQuickMisused(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"":                                     "--to is missing: ",
		"--to localhost:1 --log loud":          `--log "loud" is none of debug, info, warn, error`,
		"6080":                                 "the target is missing: ",
		"6080 -- vncserver :1":                 "a program behind -- is not started: ",
		"6080 h:1 --heartbeat=-1":              "--heartbeat and --idle-timeout are seconds, and 0 is never",
		"6080 h:1 -D":                          "--daemon is not known here: run it by a service manager",
		"6080 --token-plugin=TokenFile":        "--token-plugin is not known here: write a file with a route for each target",
		"6080 --target-config /etc/targets":    "--target-config is not known here: write a file with a route for each target",
		"6080 h:1 --wrap-mode=ignore":          "--wrap-mode is not known here: start the program yourself",
		"6080 h:1 --record=x":                  "--record is not known here: ",
		"--inetd h:1":                          "--inetd is not known here: ",
		"6080 h:1 --libserver":                 "--libserver is not known here: ",
		"6080 h:1 --auth-plugin=BasicHTTPAuth": "--auth-plugin is not known here: ",
	} {
		var stdout, stderr bytes.Buffer
		code := run(append([]string{"quick"}, strings.Fields(line)...), &stdout, &stderr)
		if code != exitUsage || !strings.HasPrefix(stderr.String(), "bridgehead: "+want) || strings.Count(stderr.String(), "\n") != 1 {
			t.Errorf("quick %s: exit code %d and %q, want one line %q", line, code, stderr.String(), want)
		}
	}
}

// Captures are the one thing that only the configuration checks.
func TestQuickTellsWhatTheFileTells(t *testing.T) {
	t.Parallel()
	var stdout, stderr bytes.Buffer
	code := run([]string{"quick", "--to", "ws://127.0.0.1:1/{room}"}, &stdout, &stderr)
	if code != exitUsage || !strings.Contains(stderr.String(), "--print") || !strings.Contains(stderr.String(), "{room}") {
		t.Errorf("exit code %d and %q", code, stderr.String())
	}
}

func TestWhatNobodyUsesIsIdle(t *testing.T) {
	t.Parallel()
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody.Close()
	if _, err := anyOpen(t.Context(), nobody.Addr().String()); err == nil {
		t.Error("a program that is gone has told of its sockets")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	endIdle(ctx, func() { t.Error("it has ended what ends anyway") }, nobody.Addr(), 1<<40)
}

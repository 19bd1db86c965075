package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bridgehead/server"
)

const explainedConfig = `
state: ./state
listeners: [{name: plain, address: "127.0.0.1:8080"}]
routes:
  - {name: chat, host: chat.example.com, path: "/rooms/{room}", websocket: {to: "ws://127.0.0.1:9000/{room}"}}
  - {name: lines, path: /lines, tcp: {to: "127.0.0.1:7000", subprotocols: lines}}
`

// explainedFile is a configuration in a directory where nothing else is to be found afterwards.
func explainedFile(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(file, []byte(explainedConfig), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
			t.Errorf("it left %v, %v", left, err)
		}
	})
	return file
}

func TestExplain(t *testing.T) {
	t.Parallel()
	file := explainedFile(t)
	const help = "; see bridgehead explain --help\n"
	for _, c := range []struct {
		args           []string
		code           int
		stdout, stderr string // a part of either; "" is nothing
	}{
		{[]string{"ws://chat.example.com:8080/rooms/5"}, exitOK, "ws://127.0.0.1:9000/5\n", ""},
		{[]string{"wss://chat.example.com/rooms/5", "--origin", "https://chat.example.com"}, exitOK, "answer      101 Switching Protocols", ""},
		{[]string{"chat.example.com/rooms/5", "--origin", "https://evil.example"}, exitFailed, "list \"https://evil.example\" under origins of route \"chat\"\n",
			"bridgehead: refused (origin): 403 Forbidden\n"},
		{[]string{"ws://chat.example.com:8080/room/5"}, exitFailed, "did you mean \"/rooms/5\"?\n", "bridgehead: refused (route): 404 Not Found\n"},
		{[]string{"http://chat.example.com:8080/rooms/5"}, exitFailed, "this is a WebSocket endpoint", "bridgehead: refused (handshake): 426 Upgrade Required\n"},
		{[]string{"ws://localhost:8080/lines", "-s", "mqtt,lines"}, exitOK, "with the subprotocol lines\n", ""},
		{[]string{"ws://localhost:8080/lines", "--client", "198.51.100.7"}, exitOK, "per client.ip = 198.51.100.7: ", ""},
		{[]string{"ws://localhost:8080/rooms/5", "-H", "Host:chat.example.com"}, exitOK, "rooms/{room}; room = \"5\"\n", ""},
		{[]string{}, exitUsage, "", "bridgehead: explain needs one URL, as in wss://example.com/path" + help},
		{[]string{"ftp://x"}, exitUsage, "", `bridgehead: URL "ftp://x": the scheme must be ws or wss` + help},
		{[]string{"ws://x", "--client", "x.example"}, exitUsage, "", `bridgehead: client "x.example": write an IP address, as in 203.0.113.7` + help},
		{[]string{"ws://x", "-H", "nonsense"}, exitUsage, "", `bridgehead: header "nonsense": write it as 'Name: value'` + help},
		{[]string{"ws://x", "-H", "A: 1\r\nB: 2"}, exitUsage, "", "write it as 'Name: value'" + help},
		{[]string{"ws://x", "-H", "Upgrade: h2c"}, exitUsage, "", `bridgehead: header "Upgrade": the handshake has its own` + "; subprotocols are offered by -s" + help},
		{[]string{"ws://bücher.example/"}, exitUsage, "", `bridgehead: host "bücher.example": write it as clients send it, in its xn-- form` + help},
		{[]string{"ws://x/", "-c", file + ".none"}, exitUsage, "", "bridgehead: read the configuration: "},
	} {
		var stdout, stderr bytes.Buffer
		args := append([]string{"explain"}, c.args...)
		if !slices.Contains(c.args, "-c") {
			args = append(args, "-c", file)
		}
		code := run(args, &stdout, &stderr)
		if code != c.code || !holds(stdout.String(), c.stdout) || !holds(stderr.String(), c.stderr) {
			t.Errorf("%q ended with %d, want %d\nstandard output %q, want %q\nstandard error %q, want %q",
				c.args, code, c.code, stdout.String(), c.stdout, stderr.String(), c.stderr)
		}
	}
}

// holds tells whether a text holds a part; the empty part is the empty text.
func holds(text, part string) bool {
	return strings.Contains(text, part) && (text == "") == (part == "")
}

func TestExplainForScripts(t *testing.T) {
	t.Parallel()
	var stdout, stderr bytes.Buffer
	code := run([]string{"explain", "-c", explainedFile(t), "--json", "ws://user:secret@chat.example.com:8080/rooms/a%2Fb?x"}, &stdout, &stderr)
	if code != exitOK || stderr.Len() > 0 {
		t.Fatalf("exit code %d and %q", code, stderr.String())
	}
	var e server.Explanation
	if err := json.Unmarshal(stdout.Bytes(), &e); err != nil {
		t.Fatal(err)
	}
	if !e.OK || e.Status != 101 || e.Route != "chat" || e.Listener != "plain" || e.Client != "127.0.0.1" || e.Captures["room"] != "a/b" ||
		!slices.Equal(e.Backends, []string{"ws://127.0.0.1:9000/a%2Fb"}) || len(e.Steps) == 0 || strings.Contains(e.URL, "secret") {
		t.Errorf("%+v", e)
	}
	for _, name := range []string{"url", "config", "listener", "client", "route", "captures", "backends", "steps", "ok", "status", "subject", "verdict", "asked", "text"} {
		if !strings.Contains(stdout.String(), `"`+name+`": `) {
			t.Errorf("there is no %q in\n%s", name, stdout.String())
		}
	}
}

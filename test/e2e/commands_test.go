package e2e

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"bridgehead/ws"
)

// A result is what a command has left when it ended.
type result struct {
	code           int
	stdout, stderr string
}

// command runs the program in a directory to its end.
func command(t *testing.T, dir string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var stdout, stderr bytes.Buffer
	c := exec.CommandContext(ctx, program, args...)
	c.Dir, c.Stdout, c.Stderr = dir, &stdout, &stderr
	c.Env = append(os.Environ(), "E2E_TOKEN=hush-hush")
	if err := c.Run(); err != nil {
		if _, ok := errors.AsType[*exec.ExitError](err); !ok || ctx.Err() != nil {
			t.Fatalf("%v: %v", args, err)
		}
	}
	return result{c.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// wants checks the exit code, and what stands in standard error.
func (r result) wants(t *testing.T, code int, stderr ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code %d, want %d", r.code, code)
	}
	for _, text := range stderr {
		if !strings.Contains(r.stderr, text) {
			t.Errorf("standard error has no %q", text)
		}
	}
	if t.Failed() {
		t.Fatalf("standard output:\n%s\nstandard error:\n%s", r.stdout, r.stderr)
	}
}

func TestCheckPrintsWhatAConfigurationAmountsTo(t *testing.T) {
	t.Parallel()
	dir := room(t)
	write(t, dir, "config.yaml", `
state: ./state
listeners: [{name: public, address: "0.0.0.0:8080"}]
routes:
  - {name: all, websocket: {to: "ws://127.0.0.1:9000"}}
  - {name: never, path: /x, tcp: {to: "127.0.0.1:7000", framing: line}}
push: {address: "127.0.0.1:9901", tokens: [{name: app, token: "${E2E_TOKEN}", may: push}]}
`)
	got := command(t, dir, "check", "-c", "config.yaml")
	got.wants(t, 0, "warning: config.yaml:3:", `listener "public"`, "warning: config.yaml:6:", `route "never" is never reached`)
	if n := strings.Count(got.stderr, "\n"); n != 2 {
		t.Errorf("standard error has %d lines, want the two warnings:\n%s", n, got.stderr)
	}
	for _, text := range []string{"state: " + dir + "/state\n", "token: '***'\n", "framing: line\n", "message_size: 1MiB\n", "drain: 8s\n"} {
		if !strings.Contains(got.stdout, text) {
			t.Errorf("standard output has no %q:\n%s", text, got.stdout)
		}
	}
	if strings.Contains(got.stdout+got.stderr, "hush") {
		t.Errorf("the token is shown:\n%s%s", got.stdout, got.stderr)
	}

	write(t, dir, "effective.yaml", got.stdout)
	again := command(t, dir, "check", "-c", "effective.yaml")
	again.wants(t, 0)
	if again.stdout != got.stdout {
		t.Errorf("what it printed amounts to something else:\n%s\nthan\n%s", again.stdout, got.stdout)
	}
	if _, err := os.Stat(filepath.Join(dir, "state")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("check made the state directory: %v", err)
	}
}

func TestCheckShowsTheDefaultListeners(t *testing.T) {
	t.Parallel()
	dir := room(t)
	write(t, dir, "config.yaml", `
state: ./state
certificates: {internal: true}
routes: [{host: chat.example.com, websocket: {to: "ws://127.0.0.1:9000"}}]
`)
	got := command(t, dir, "check")
	got.wants(t, 0)
	listeners := regexp.MustCompile(`(?m)^ +(- name|address|tls|redirect): (.*)$`).FindAllString(got.stdout[:strings.Index(got.stdout, "defaults:")], -1)
	want := "- name: https, address: [':443'], tls: true, redirect: false, - name: http, address: [':80'], tls: false, redirect: true"
	for i, line := range listeners {
		listeners[i] = strings.TrimSpace(line)
	}
	if text := strings.Join(listeners, ", "); text != want {
		t.Errorf("listeners %s, want %s", text, want)
	}
}

func TestABadFileIsToldAllItsProblemsAtOnce(t *testing.T) {
	t.Parallel()
	dir := room(t)
	write(t, dir, "bad.yaml", `state: ./state
max_conections: 5
listeners: [{address: "127.0.0.1:99999"}]
routes:
  - {path: nope, websocket: {to: "ftp://x"}}
  - {name: hook, webhook: {to: "http://x", timeout: -1s, secret: whsec_aHVzaGh1c2g=}}
`)
	for _, name := range []string{"check", "serve", "health"} {
		got := command(t, dir, name, "-c", "bad.yaml")
		got.wants(t, 2,
			`bad.yaml:2:1: unknown key "max_conections"; did you mean "max_connections"?`,
			"bad.yaml:3:23: listeners[0].address: ",
			"bad.yaml:5:12: routes[0].path: ",
			"bad.yaml:5:34: routes[0].websocket.to[0]: ",
			"bad.yaml:6:53: routes[1].webhook.timeout: must not be negative",
			"bad.yaml:6:66: routes[1].webhook.secret[0]: ")
		if got.stdout != "" || strings.Count(got.stderr, "\n") != 6 {
			t.Errorf("%s printed %q and more than the six problems:\n%s", name, got.stdout, got.stderr)
		}
		if strings.Contains(got.stderr, "aHVza") {
			t.Errorf("the secret is shown:\n%s", got.stderr)
		}
	}
}

func TestTheFileIsLookedForInTwoPlaces(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/etc/bridgehead/config.yaml"); err == nil {
		t.Skip("this machine has a configuration")
	}
	dir := room(t)
	command(t, dir, "check", "-c", "none.yaml").wants(t, 2, "none.yaml: no such file")
	for _, name := range []string{"check", "serve", "health"} {
		command(t, dir, name).wants(t, 2, "./config.yaml", "/etc/bridgehead/config.yaml", "-c", "bridgehead demo")
	}
	write(t, dir, "config.yaml", "routes: []\n")
	command(t, dir, "check").wants(t, 2, "config.yaml:1:1: ")
}

func TestServeThatCannotListen(t *testing.T) {
	t.Parallel()
	taken := listen(t)
	defer taken.Close()
	dir := room(t)
	write(t, dir, "config.yaml", `
state: ./state
listeners: [{name: plain, address: "127.0.0.1:0"}]
routes: [{websocket: {to: "ws://127.0.0.1:9000"}}]
push: {address: "`+taken.Addr().String()+`"}
`)
	got := command(t, dir, "serve")
	got.wants(t, 1, "listener push: ", "address already in use", "stop the program that listens there, or choose another address")
	if strings.Contains(got.stderr, "msg=listening") {
		t.Errorf("it said that it listens:\n%s", got.stderr)
	}
	if _, err := os.Lstat(filepath.Join(dir, "state", "admin.sock")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the admin socket, which was open by then, is left: %v", err)
	}
}

func TestServeWithoutAStateDirectory(t *testing.T) {
	t.Parallel()
	dir := room(t)
	write(t, dir, "file", "in the way")
	write(t, dir, "config.yaml", `
state: ./file/state
listeners: [{name: plain, address: "127.0.0.1:0"}]
routes: [{websocket: {to: "ws://127.0.0.1:9000"}}]
`)
	command(t, dir, "serve").wants(t, 1, "state: ", dir+"/file", "name a directory that this user may write")
}

func TestTheAdminSocketOfARunningProgramIsNotTaken(t *testing.T) {
	t.Parallel()
	dir := room(t)
	config := `
state: ./state
log: {format: json}
listeners: [{name: plain, address: "127.0.0.1:0"}]
routes: [{websocket: {to: "ws://127.0.0.1:9000"}}]
`
	e := startIn(t, dir, config)
	command(t, dir, "serve").wants(t, 1, "listener admin: ", "another program answers there")
	command(t, dir, "health").wants(t, 0)

	e.process.Process.Kill() // and one that was killed leaves its socket
	e.wait()
	startIn(t, dir, config)
	command(t, dir, "health").wants(t, 0)
}

func TestHealth(t *testing.T) {
	t.Parallel()
	dir := room(t)
	e := startIn(t, dir, `
state: ./state
log: {format: json}
certificates: {internal: true}
drain: 60s
listeners: [{name: wss, address: "127.0.0.1:0", tls: true}]
routes: [{name: r, socket: {close_timeout: 60s}, websocket: {to: "ws://`+backend(t, echo)+`"}}]
`)
	if info, err := os.Stat(strings.TrimPrefix(e.addrs["admin"], "unix:")); err != nil || info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("the admin socket is %v, %v, want one for this user alone", info.Mode(), err)
	}
	for _, args := range [][]string{{"health"}, {"health", "-c", "config.yaml"}, {"health", "--ready"}} {
		if got := command(t, dir, args...); got.code != 0 || got.stdout == "" || got.stderr != "" {
			t.Errorf("%v: %+v", args, got)
		}
	}

	silent := e.raw("/") // never answers the close
	silent.Write(rawFrame(ws.Header{Fin: true, Opcode: ws.Text}, "here"))
	wsReadFrame(t, silent)
	e.process.Process.Signal(syscall.SIGTERM)
	e.await(func(line map[string]any) bool { return line["msg"] == "draining" })
	command(t, dir, "health").wants(t, 0)
	command(t, dir, "health", "--ready").wants(t, 1, "503", "draining")

	e.process.Process.Signal(syscall.SIGTERM)
	e.wait()
	command(t, dir, "health").wants(t, 1, "admin.sock", "does it run, with this configuration?")
}

func TestHealthOverTCP(t *testing.T) {
	t.Parallel()
	e := start(t, "routes: [{websocket: {to: \"ws://127.0.0.1:9000\"}}]\n")
	_, port, _ := net.SplitHostPort(e.addrs["admin"])
	for _, address := range []string{e.addrs["admin"], "localhost:" + port} {
		dir := room(t)
		write(t, dir, "config.yaml", `
state: ./state
listeners: [{address: "127.0.0.1:0"}]
routes: [{websocket: {to: "ws://127.0.0.1:9000"}}]
admin: {address: "`+address+`"}
`)
		command(t, dir, "health").wants(t, 0)
		command(t, dir, "health", "--ready").wants(t, 0)
	}
	if err := e.terminate(); err != nil {
		t.Fatalf("exit: %v", err)
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args   string
		code   int
		stdout string // a pattern
		stderr string
	}{
		{"version", 0, `^bridgehead \S.* go1\.\S+ [a-z]+/[a-z0-9]+\n$`, "^$"},
		{"--version", 0, `^bridgehead version \S`, "^$"},
		{"", 0, `(?s)Usage:.*Examples:.*Available Commands:`, "^$"},
		{"serv", 2, "^$", `^bridgehead: unknown command "serv"; did you mean serve\?; see bridgehead --help\n$`},
		{"unheard-of", 2, "^$", `^bridgehead: unknown command "unheard-of"; see bridgehead --help\n$`},
		{"check --confg x", 2, "^$", `^bridgehead: unknown flag: --confg; see bridgehead check --help\n$`},
		{"check -c", 2, "^$", `^bridgehead: flag needs an argument: .*; see bridgehead check --help\n$`},
		{"check config.yaml", 2, "^$", `^bridgehead: "config.yaml": check takes no arguments; see bridgehead check --help\n$`},
		{"demo --log loud", 2, "^$", `^bridgehead: --log "loud" is none of debug, info, warn, error\n$`},
	} {
		got := command(t, t.TempDir(), strings.Fields(c.args)...)
		if got.code != c.code || !regexp.MustCompile(c.stdout).MatchString(got.stdout) || !regexp.MustCompile(c.stderr).MatchString(got.stderr) {
			t.Errorf("%q ended with %d, want %d\nstandard output:\n%s\nstandard error:\n%s", c.args, got.code, c.code, got.stdout, got.stderr)
		}
	}
	for _, name := range []string{"serve", "demo", "check", "health", "version"} {
		got := command(t, t.TempDir(), name, "--help")
		if got.code != 0 || !strings.Contains(got.stdout, "Examples:\n  bridgehead "+name) {
			t.Errorf("%s --help ended with %d and shows no example:\n%s", name, got.code, got.stdout)
		}
	}
}

func TestTheExampleConfigurationRunsAsItIs(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join("..", "..", "config.example.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	dir := room(t)
	ports := regexp.MustCompile(`(?m)^    address: 127\.0\.0\.1:[0-9]+`) // they may be taken on this machine
	if n := len(ports.FindAll(text, -1)); n != 2 {
		t.Fatalf("%d addresses to rewrite, want those of the two listeners", n)
	}
	config := ports.ReplaceAllString(string(text), "    address: 127.0.0.1:0")
	write(t, dir, "config.yaml", config)
	if got := command(t, dir, "check"); got.code != 0 || got.stderr != "" {
		t.Fatalf("check ended with %d:\n%s", got.code, got.stderr)
	}
	e := startIn(t, dir, config)
	resp, err := http.Get("http://" + e.addr("plain") + "/chat")
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	resp.Body.Close()
	if resp.StatusCode != http.StatusUpgradeRequired {
		t.Errorf("a route of it answers a plain request with %s", resp.Status)
	}
	command(t, dir, "health", "--ready").wants(t, 0)
	if err := e.terminate(); err != nil {
		t.Errorf("exit: %v", err)
	}
}

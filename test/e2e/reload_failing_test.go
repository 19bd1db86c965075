package e2e

import (
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/gorilla/websocket"
)

// parts are a configuration in pieces, so that a reload can change or spoil one of them.
type parts struct{ head, listeners, routes string }

func (p parts) text() string {
	return own + p.head + "listeners:\n" + p.listeners + "routes:\n" + p.routes
}

func soundParts(t *testing.T) parts {
	return parts{
		head:      "certificates: {internal: true}\n",
		listeners: "  - {name: wss, address: \"127.0.0.1:0\", tls: true}\n  - {name: ws, address: \"127.0.0.1:0\"}\n",
		routes:    "  - {name: stays, path: /stays, websocket: {to: \"ws://" + backend(t, echo) + "\"}}\n",
	}
}

func TestAFailingReloadChangesNothing(t *testing.T) {
	t.Parallel()
	sound := soundParts(t)
	taken := listen(t) // by another program
	t.Cleanup(func() { taken.Close() })
	add := func(p *parts, address string) { p.listeners += "  - {name: added, address: \"" + address + "\"}\n" }
	for _, c := range []struct {
		name   string
		spoils func(p *parts, free string) // free is an address to open, which must not stay open
		told   string                      // is in every answer
	}{
		{"syntax", func(p *parts, _ string) { p.routes += "  - {name: [\n" }, "config.yaml:1"},
		{"unknown key", func(p *parts, _ string) { p.routes = strings.Replace(p.routes, "path:", "lmits: [], path:", 1) }, "lmits"},
		{"two problems", func(p *parts, _ string) { p.head += "drain: soon\nmax_conections: 3\n" }, "max_conections"},
		{"no such certificate", func(p *parts, _ string) { p.head = "certificates: {files: [{cert: none.pem, key: none.key}]}\n" }, "none.pem"},
		{"port in use", func(p *parts, free string) {
			add(p, free)
			p.listeners += "  - {name: late, address: \"" + taken.Addr().String() + "\"}\n"
		}, "address already in use"},
		{"unreadable CA", func(p *parts, free string) {
			add(p, free)
			p.head += "upstreams: {up: {servers: [\"wss://127.0.0.1:1\"], tls: {ca: none.ca}}}\n"
			p.routes += "  - {name: far, path: /far, websocket: {to: up}}\n"
		}, "none.ca"},
		{"a file in the place of the state", func(p *parts, _ string) { p.head += "state: ./config.yaml\n" }, "state"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			e := startIn(t, room(t), sound.text())
			e.addr("ws")
			spoilt, free := sound, fixedPort(t)
			c.spoils(&spoilt, free)
			e.refusesToBecome(t, sound.text(), withState(spoilt.text()), c.told, free)
		})
	}
}

// withState lets a state that stands behind the first take its place.
func withState(text string) string {
	if strings.Count(text, "state:") > 1 {
		return strings.Replace(text, "state: ./state\n", "", 1)
	}
	return text
}

// refusesToBecome tries to reload a configuration by the API and by the signal, and then one that is sound.
func (e *edge) refusesToBecome(t *testing.T, sound, spoilt, told, free string) {
	t.Helper()
	conn := e.dial("/stays", nil)
	before := e.samples()
	e.revise(spoilt)

	status, answer := e.reload()
	if text := fmt.Sprint(answer["error"]); status != http.StatusUnprocessableEntity || !strings.Contains(text, told) {
		t.Errorf("the API answers %d, %v; want 422 with %q", status, answer, told)
	}
	if line := e.hup(); line["level"] != "ERROR" || !strings.Contains(fmt.Sprint(line["error"]), told) {
		t.Errorf("the log says %v, want %q", line, told)
	}

	after := e.samples()
	for _, name := range []string{"bridgehead_config_generation", "bridgehead_config_last_success_timestamp_seconds"} {
		if before[name] != after[name] {
			t.Errorf("%s was %v, and is %v", name, before[name], after[name])
		}
	}
	if after["bridgehead_config_last_reload_successful"] != 0 || after[`bridgehead_config_reloads_total{outcome="failed"}`] < 2 {
		t.Error("the metrics do not tell")
	}
	if conn, err := net.Dial("tcp", free); err == nil {
		conn.Close()
		t.Error("a listener was left open")
	}
	eventually(t, "no file is left open", func() bool { return e.samples()["process_open_fds"] <= before["process_open_fds"] })
	repeat(t, "open", conn, "still here", promptly)
	repeat(t, "new", e.dial("/stays", nil), "still here", promptly)

	e.becomes(sound + "max_connections: 77\n")
	e.counted(map[string]float64{"bridgehead_config_generation": before["bridgehead_config_generation"] + 1, "bridgehead_config_last_reload_successful": 1})
	repeat(t, "open", conn, "still here", promptly)
}

// fixedPort is a port that was free a moment ago.
func fixedPort(t *testing.T) string {
	t.Helper()
	l := listen(t)
	defer l.Close()
	return l.Addr().String()
}

// TestTheReloadCommand uses an admin socket, as a configuration does that says nothing of it.
func TestTheReloadCommand(t *testing.T) {
	t.Parallel()
	dir, sound := room(t), soundParts(t)
	text := strings.Replace(sound.text(), "admin: {address: \"127.0.0.1:0\"}\n", "admin: {address: \"unix:./admin.sock\"}\n", 1)
	e := startIn(t, dir, text)
	e.addr("ws")
	conn := e.dial("/stays", nil)
	next := strings.Replace(text, "path: /stays,", "path: /stays, max_connections: 9,", 1) + "  - {name: more, path: /more, tcp: {to: \"127.0.0.1:1\"}}\n"

	e.revise(next)
	want := "route stays: changed (max_connections); open sockets that live on: 1\nroute more: added\nroutes as they were: 0\n"
	dry := command(t, dir, "reload", "--dry-run")
	dry.wants(t, 0)
	if strings.Replace(want, "; open sockets that live on: 1", "", 1) != dry.stdout {
		t.Errorf("--dry-run says\n%s\nwant\n%s", dry.stdout, want)
	}
	if resp := e.refused("/more", nil); resp.StatusCode != http.StatusNotFound {
		t.Errorf("--dry-run changed something: %s", resp.Status)
	}
	wet := command(t, dir, "reload", "-c", "config.yaml")
	wet.wants(t, 0)
	if wet.stdout != want {
		t.Errorf("it says\n%s\nwant\n%s", wet.stdout, want)
	}
	if again := command(t, dir, "reload"); again.code != 0 || again.stdout != "nothing has changed\n" {
		t.Errorf("once more: %+v", again)
	}
	if resp := e.refused("/more", nil); resp.StatusCode != http.StatusBadGateway {
		t.Errorf("it changed nothing: %s", resp.Status)
	}
	repeat(t, "open", conn, "still here", promptly)

	e.revise(text + "  - {name: bad\n")
	command(t, dir, "reload").wants(t, 2, "config.yaml:")
	taken := listen(t)
	defer taken.Close()
	e.revise(strings.Replace(text, "listeners:\n", "listeners:\n  - {name: late, address: \""+taken.Addr().String()+"\"}\n", 1))
	command(t, dir, "reload").wants(t, 2, "listener late", "address already in use")
	e.revise(text + "upstreams: {up: {servers: [\"wss://127.0.0.1:1\"], tls: {ca: none.ca}}}\n")
	command(t, dir, "reload").wants(t, 2, "upstream up", "none.ca")
	e.revise(text)
	e.process.Process.Kill()
	e.wait()
	command(t, dir, "reload").wants(t, 1, "does it run")
}

func TestNoReloadDuringADrain(t *testing.T) {
	t.Parallel()
	sound := soundParts(t)
	sound.head += "drain: 20s\n"
	held, hold := make(chan struct{}), make(chan struct{})
	slow := httpBackend(t, func(http.ResponseWriter, *http.Request) { close(held); <-hold })
	sound.routes += "  - {name: slow, path: /slow, websocket: {to: \"ws://" + slow + "\", connect: {timeout: 1m}}}\n"
	e := startIn(t, room(t), sound.text())
	var dialling sync.WaitGroup
	dialling.Go(func() { e.dialer().Dial(e.url("/slow"), nil) })
	<-held
	e.process.Process.Signal(syscall.SIGTERM)
	e.await(func(line map[string]any) bool { return line["msg"] == "draining" })
	if status, answer := e.reload(); status != http.StatusServiceUnavailable || !strings.Contains(fmt.Sprint(answer["error"]), "ending") {
		t.Errorf("%d, %v", status, answer)
	}
	if line := e.hup(); line["level"] != "ERROR" {
		t.Errorf("%v", line)
	}
	close(hold)
	dialling.Wait()
	if err := e.wait(); err != nil {
		t.Errorf("exit: %v", err)
	}
}

func TestReloadsAtOnceAreOneAfterAnother(t *testing.T) {
	t.Parallel()
	sound := soundParts(t)
	e := startIn(t, room(t), sound.text())
	const n = 20
	generations := make(chan float64, n)
	var calls sync.WaitGroup
	for range n {
		calls.Go(func() {
			_, answer, _ := call(t, "POST", "http://"+e.addrs["admin"]+"/v1/reload", "", "")
			g, _ := answer["generation"].(float64)
			generations <- g
		})
	}
	calls.Wait()
	close(generations)
	seen := map[float64]bool{}
	for g := range generations {
		seen[g] = true
	}
	if len(seen) != n || !seen[2] || !seen[n+1] {
		t.Errorf("generations %v", seen)
	}
}

func TestTheAdminListenerMoves(t *testing.T) {
	t.Parallel()
	sound := soundParts(t).text()
	e := startIn(t, room(t), sound)
	conn := e.dial("/stays", nil)
	old, moved := e.addrs["admin"], fixedPort(t)
	e.revise(strings.Replace(sound, `admin: {address: "127.0.0.1:0"}`, `admin: {address: "`+moved+`"}`, 1))
	if status, answer := e.reload(); status != http.StatusOK {
		t.Fatalf("%d, %v", status, answer)
	}
	e.addrs["admin"] = moved
	if status, _ := e.get("/healthz"); status != http.StatusOK {
		t.Errorf("the new one answers %d", status)
	}
	if resp, err := http.Get("http://" + old + "/healthz"); err == nil {
		resp.Body.Close()
		t.Error("the old one still answers")
	}
	e.becomes(sound) // and back, by the one that goes
	repeat(t, "open", conn, "still here", promptly)
}

// TestAdminTokensChange does so on the port in use.
func TestAdminTokensChange(t *testing.T) {
	t.Parallel()
	sound := soundParts(t).text()
	with := func(token string) string {
		return strings.Replace(sound, `admin: {address: "127.0.0.1:0"}`,
			`admin: {address: "127.0.0.1:0", tokens: [{name: ops, token: "`+token+`", may: admin}]}`, 1)
	}
	e := startIn(t, room(t), with("first-first-first"))
	reload := func(token string) int {
		status, _, _ := call(t, "POST", "http://"+e.addrs["admin"]+"/v1/reload", token, "")
		return status
	}
	e.revise(with("second-second-second"))
	if got := reload("first-first-first"); got != http.StatusOK {
		t.Fatalf("status %d", got)
	}
	if got := reload("first-first-first"); got != http.StatusUnauthorized {
		t.Errorf("the old token gets %d", got)
	}
	if got := reload("second-second-second"); got != http.StatusOK {
		t.Errorf("the new token gets %d", got)
	}
}

func TestListenersComeAndGo(t *testing.T) {
	t.Parallel()
	sound, address := soundParts(t), fixedPort(t)
	e := startIn(t, room(t), sound.text())
	more := sound
	more.listeners += "  - {name: more, address: \"" + address + "\"}\n"
	e.becomes(more.text())
	conn, _, err := websocket.DefaultDialer.Dial("ws://"+address+"/stays", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	secure := sound
	secure.listeners += "  - {name: more, address: \"" + address + "\", tls: true}\n"
	e.becomes(secure.text()) // the same port, now under TLS
	under, _, err := e.dialer().Dial("wss://"+address+"/stays", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer under.Close()
	e.becomes(sound.text())
	if gone, _, err := websocket.DefaultDialer.Dial("ws://"+address+"/stays", nil); err == nil {
		gone.Close()
		t.Error("the listener is still there")
	}
	repeat(t, "open before TLS", conn, "still here", promptly) // sockets outlive their listener
	repeat(t, "open under TLS", under, "still here", promptly)
}

// TestAWatchedFile reloads by itself, and not for a file that is broken.
func TestAWatchedFile(t *testing.T) {
	t.Parallel()
	sound := soundParts(t)
	e := startBy(t, exec.Command(program, "serve", "-c", write(t, room(t), "config.yaml", sound.text()), "--watch"))
	conn := e.dial("/stays", nil)
	for i := range scaled(5, 3) {
		e.revise(strings.Replace(sound.text(), "path: /stays,", fmt.Sprintf("path: /stays, max_connections: %d,", 5+i), 1))
		if line := e.tellsOfReload(); line["msg"] != "reloaded" || fmt.Sprint(line["routes_changed"]) != "1" {
			t.Fatalf("%v", line)
		}
		e.revise(sound.text() + "nonsense")
		if line := e.tellsOfReload(); line["msg"] == "reloaded" {
			t.Fatalf("%v", line)
		}
	}
	repeat(t, "open", conn, "still here", promptly)
}

// TestTheCAOfAnUpstreamChanges has a reload trust an upstream's new certificate, whose file has the same name.
func TestTheCAOfAnUpstreamChanges(t *testing.T) {
	t.Parallel()
	cert, key := makePair(t, 1, "up.example")
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	other, _ := makePair(t, 2, "up.example")
	for kind, handler := range map[string]http.HandlerFunc{
		"websocket": func(w http.ResponseWriter, r *http.Request) {
			upgrader := websocket.Upgrader{}
			if conn, err := upgrader.Upgrade(w, r, nil); err == nil {
				defer conn.Close()
				echo(conn, r)
			}
		},
		"webhook": func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) },
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			l := tls.NewListener(listen(t), &tls.Config{Certificates: []tls.Certificate{pair}, MaxVersion: maxTLS, NextProtos: []string{"http/1.1"}})
			s := &http.Server{Handler: handler, ErrorLog: log.New(io.Discard, "", 0)} // it will not be trusted at first
			var serving sync.WaitGroup
			serving.Go(func() { s.Serve(l) })
			t.Cleanup(func() { s.Close(); serving.Wait() })
			e := trusting(t, kind, l.Addr().String(), other)
			if resp := e.refused("/r", nil); resp.StatusCode != http.StatusBadGateway {
				t.Errorf("before: %s", resp.Status)
			}
			dir := filepath.Dir(e.process.Args[3])
			replace(t, dir, "up.pem", cert)
			if status, answer := e.reload(); status != http.StatusOK {
				t.Fatalf("%d, %v", status, answer)
			}
			e.dial("/r", nil)
			replace(t, dir, "new.pem", cert)
			replace(t, dir, "up.pem", other)
			e.becomes(strings.Replace(read(t, e.process.Args[3]), "up.pem", "new.pem", 1))
			e.dial("/r", nil)
		})
	}
}

// trusting runs a route to a named upstream whose certificate is checked by up.pem.
func trusting(t *testing.T, kind, address string, ca []byte) *edge {
	t.Helper()
	dir := room(t)
	write(t, dir, "up.pem", string(ca))
	scheme, secret := "wss", ""
	if kind == "webhook" {
		scheme, secret = "https", ", secret: "+secrets()
	}
	e := startIn(t, dir, twoListeners+`
upstreams: {up: {servers: ["`+scheme+`://`+address+`"], tls: {ca: up.pem, server_name: up.example}}}
routes: [{name: r, path: /r, `+kind+`: {to: up`+secret+`}}]
`)
	return e
}

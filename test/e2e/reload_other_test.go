package e2e

import (
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
)

// TestTheSameFileChangesNothing has values of every sort read twice.
func TestTheSameFileChangesNothing(t *testing.T) {
	t.Parallel()
	dir := room(t)
	cert, key := makePair(t, 1, "chat.example.com")
	write(t, dir, "cert.pem", string(cert))
	write(t, dir, "key.pem", string(key))
	write(t, dir, "index.html", "a page")
	text := twoListeners + pushers + `
trusted_proxies: [private, 203.0.113.7]
upstreams: {up: {servers: ["wss://127.0.0.1:1", {url: "wss://127.0.0.1:2"}], tls: {ca: cert.pem, cert: cert.pem, key: key.pem}}}
defaults:
  origins: [self, "https://*.example.com"]
  limits: [{per: client.ip, connect_rate: 9/s, bytes: 4MiB/s, except: [loopback]}, {per: header.x-key, messages: 5/s, on_exceed: close}]
routes:
  - {name: a, host: "{tenant}.example.com", path: "/{room}/{rest...}", websocket: {to: up, headers: {set: {X: "{tenant}"}, remove: [Cookie]}}}
  - {name: b, path: /b, tcp: {to: "tls://127.0.0.1:3", framing: line, subprotocols: [x]}}
  - {name: c, path: /c, webhook: {to: "http://127.0.0.1:4/{query.x}", secret: ` + secrets() + `, forward_headers: [Cookie]}}
  - {name: d, path: /d/*, files: {dir: .}}
`
	e := startIn(t, dir, text)
	diff := e.becomes(text + "\n# a comment\n")
	if diff["routes"] != nil || diff["listeners"] != nil || diff["other"] != nil || diff["unchanged_routes"] != 4.0 || diff["generation"] != 2.0 {
		t.Errorf("it differs: %v", diff)
	}
}

func TestListenersSwapTheirAddresses(t *testing.T) {
	t.Parallel()
	one, two := fixedPort(t), fixedPort(t)
	text := func(first, second string) string {
		return own + `
listeners: [{name: first, address: "` + first + `"}, {name: second, address: "` + second + `"}]
routes:
  - {name: first, listeners: [first], websocket: {to: "ws://` + named(t, "first") + `"}}
  - {name: second, listeners: [second], websocket: {to: "ws://` + named(t, "second") + `"}}
`
	}
	before := text(one, two)
	e := startIn(t, room(t), before)
	came := func(address, name string) *websocket.Conn {
		conn, _, err := websocket.DefaultDialer.Dial("ws://"+address, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		hears(t, conn, name)
		return conn
	}
	open := came(one, "first")
	e.becomes(strings.NewReplacer(one, two, two, one).Replace(before))
	came(one, "second")
	came(two, "first")
	repeat(t, "open", open, "still here", promptly)
}

func TestARouteChangesItsKind(t *testing.T) {
	t.Parallel()
	dir := room(t)
	write(t, dir, "page.html", "a page")
	e := startIn(t, dir, routeR(`websocket: {to: "ws://`+backend(t, echo)+`"}`))
	e.addr("ws")
	for _, c := range []struct{ name, route string }{
		{"a stream", `tcp: {to: "` + echoTCP(t) + `"}`},
		{"files", `files: {dir: .}`},
		{"an application", `webhook: {to: "http://` + newApplication(t, nil).addr + `/", secret: ` + secrets() + `}`},
		{"files again", `files: {dir: .}`},
		{"a relay", `websocket: {to: "ws://` + backend(t, echo) + `"}`},
	} {
		conn, _, err := e.plainly("", "/r/page.html")
		diff := e.becomes(routeR(c.route))
		if route := diff["routes"].([]any)[0].(map[string]any); route["drains"] != true || (err == nil) != (route["sockets"] == 1.0) {
			t.Errorf("%s: %v", c.name, diff)
		}
		if err == nil {
			if err := wants1012(conn); err != nil {
				t.Errorf("to %s: %v", c.name, err)
			}
			conn.Close()
		}
		want := http.StatusUpgradeRequired
		if strings.HasPrefix(c.name, "files") {
			want = http.StatusOK
		}
		if resp, _ := e.fetch(t, "ws", "http://localhost/r/page.html"); resp.StatusCode != want {
			t.Errorf("to %s: a request gets %s, want %d", c.name, resp.Status, want)
		}
	}
}

// routeR is a configuration with one route of any kind.
func routeR(route string) string {
	return twoListeners + "routes:\n  - {name: r, path: /r/*, " + route + "}\n"
}

func TestThePushListenerComesAndGoes(t *testing.T) {
	t.Parallel()
	app := newApplication(t, nil)
	address := fixedPort(t)
	without := twoListeners + `routes: [{name: r, path: /r, webhook: {to: "http://` + app.addr + `/", secret: ` + secrets() + `}}]` + "\n"
	with := without + `push: {address: "` + address + `", tokens: [{name: app, token: may-push-this, may: push}]}` + "\n"
	e := startIn(t, room(t), without)
	open := e.dial("/r", nil)
	id := app.await("connect", 1).Connection.ID
	push := func(text string) int {
		status, _, _ := call(t, "POST", "http://"+address+"/v1/send", "may-push-this", `{"to": {"connection": "`+id+`"}, "text": "`+text+`"}`)
		return status
	}
	e.becomes(with)
	if status := push("hello"); status/100 != 2 {
		t.Fatalf("a push gets %d", status)
	}
	hears(t, open, "hello")
	e.dial("/r", nil)
	if url := app.await("connect", 2).Connection.PushURL; url != "http://"+address {
		t.Errorf("the application is told to push to %q", url)
	}
	e.becomes(without)
	if resp, err := http.Get("http://" + address + "/healthz"); err == nil {
		resp.Body.Close()
		t.Error("the listener is still there")
	}
	send(t, open, "still here")
	app.await("message", 1)
}

// TestTheStateMoves makes another authority, which new clients must trust; who is there already stays.
func TestTheStateMoves(t *testing.T) {
	t.Parallel()
	text := twoListeners + `routes: [{name: r, path: /r, websocket: {to: "ws://` + backend(t, echo) + `"}}]` + "\n"
	e := startIn(t, room(t), text)
	open := e.dial("/r", nil)
	diff := e.becomes(strings.Replace(text, "./state", "./moved", 1))
	if fmt.Sprint(diff["other"]) != "[state]" {
		t.Errorf("it differs by %v", diff)
	}
	if _, _, err := e.dialer().Dial(e.url("/r"), nil); err == nil {
		t.Error("the old root is still good")
	}
	pem, err := os.ReadFile(filepath.Join(filepath.Dir(e.process.Args[3]), "moved", "ca", "root.pem"))
	if err != nil {
		t.Fatal(err)
	}
	e.roots = x509.NewCertPool()
	e.roots.AppendCertsFromPEM(pem)
	e.dial("/r", nil)
	repeat(t, "open", open, "still here", promptly)
}

package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"bridgehead/ws"
)

// closedAtOnce opens a socket that is there for its Close alone, and gives the answer too.
func (e *edge) closedAtOnce(path string, header http.Header, subprotocols ...string) (told string, resp *http.Response) {
	e.t.Helper()
	d := e.dialer()
	d.Subprotocols, d.EnableCompression = subprotocols, true
	conn, resp, err := d.Dial(e.url(path), header)
	if err != nil {
		e.t.Fatalf("%s: %v", path, err)
	}
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(patience))
	code, reason := closeCode(e.t, conn)
	if _, _, err := conn.NextReader(); err == nil {
		e.t.Errorf("%s: something follows the Close", path)
	}
	return fmt.Sprint(code, " ", reason), resp
}

func TestRefusalsThatScriptsCanRead(t *testing.T) {
	t.Parallel()
	up := backend(t, echo)
	gone := httptest.NewUnstartedServer(nil)
	gone.Listener.Close()
	login := httpBackend(t, func(w http.ResponseWriter, r *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "state", Value: "1"})
		http.Redirect(w, r, "https://login.example/", http.StatusFound)
	})
	e := start(t, byToken+`
  sso: {forward: {url: "http://`+login+`/auth"}}
defaults: {refuse: close, origins: ["https://good.example"]}
routes:
  - {name: id, path: /id, auth: id, require: {claim.plan: pro}, limits: [{per: user, connections: 1}], websocket: {to: "ws://`+up+`"}}
  - {name: sso, path: /sso, auth: sso, tcp: {to: "`+tcpBackend(t, copyBack)+`"}}
  - {name: once, path: /once, limits: [{per: client.ip, connect_rate: 1/h, except: []}], websocket: {to: "ws://`+up+`"}}
  - {name: full, path: /full, max_connections: 1, websocket: {to: "ws://`+up+`"}}
  - {name: dead, path: /dead, websocket: {to: "ws://`+gone.Listener.Addr().String()+`"}}
  - {name: status, path: /status, refuse: status, websocket: {to: "ws://`+up+`"}}
  - {name: app, path: "/app/*", auth: id, websocket: {to: "ws://`+login+`", http: true}}
`)
	foreign := http.Header{"Origin": {"https://evil.example"}}
	pro := tokenFor(t, "ann", map[string]any{"plan": "pro"})
	open := []*websocket.Conn{e.dial("/id?token="+pro, nil), e.dial("/full", nil), e.dial("/once", nil)}
	for _, c := range []struct {
		path         string
		header       http.Header
		subprotocols []string
		told         string
		chosen       string
	}{
		{"/full", foreign, nil, "4403 not allowed", ""},
		{"/full", foreign, []string{"chat.v2", "chat.v1"}, "4403 not allowed", "chat.v2"},
		{"/id", nil, nil, "4401 authentication needed", ""},
		{"/id", nil, []string{"bearer", pro + "x"}, "4401 authentication needed", "bearer"},
		{"/id?token=" + pro, http.Header{"Authorization": {"Bearer x"}}, nil, "4401 authentication needed", ""},
		{"/id", nil, []string{"bearer", tokenFor(t, "bob", nil), "chat"}, "4403 not allowed", "bearer"},
		{"/id", nil, []string{"bearer", pro}, "4429 too many connections, retry in 1 s", "bearer"},
		{"/sso", nil, []string{"line"}, "4401 authentication needed", "line"},
		{"/once", nil, nil, "4429 too many connections, retry in 3600 s", ""},
		{"/full", nil, nil, "1013 not available now, retry in 5 s", ""},
		{"/dead", nil, nil, "1013 not available now", ""},
		{"/app/socket", nil, nil, "4401 authentication needed", ""},
	} {
		told, resp := e.closedAtOnce(c.path, c.header, c.subprotocols...)
		chosen := resp.Header.Get("Sec-Websocket-Protocol")
		if c.path == "/once" { // the hour has begun to pass
			told, c.told = told[:len("4429 too many connections, retry in ")], c.told[:len("4429 too many connections, retry in ")]
		}
		if told != c.told || chosen != c.chosen || resp.Header.Get("Sec-Websocket-Extensions") != "" {
			t.Errorf("%s %v %q: %q, %v; want %q, %q", c.path, c.header, c.subprotocols, told, resp.Header, c.told, c.chosen)
		}
		if c.path == "/sso" && (resp.Header.Get("Set-Cookie") != "state=1" || resp.Header.Get("Location") != "") {
			t.Errorf("the login gets %v", resp.Header)
		}
	}
	for path, status := range map[string]int{"/status": 403, "/nowhere": 404} {
		if resp := e.refused(path, foreign); resp.StatusCode != status {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
	for path, status := range map[string]int{"/full": 426, "/app/page": 401} {
		resp, err := http.Get("http://" + e.addrs["ws"] + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != status {
			t.Errorf("GET %s: %s", path, resp.Status)
		}
	}
	line := e.await(func(line map[string]any) bool { return line["msg"] == "refused" && line["reason"] == "not authorized" })
	if line["code"] != 4403. || line["status"] != 403. || line["route"] != "id" {
		t.Errorf("%v", line)
	}
	for _, conn := range open { // none of this was theirs
		send(t, conn, "still here")
		if receive(t, conn) != "still here" {
			t.Error("an open socket is disturbed")
		}
	}
	_, metrics := e.get("/metrics")
	for _, want := range []string{
		`bridgehead_refusals_closed_total{code="4401",route="id"} 3`, `bridgehead_refusals_closed_total{code="1013",route="dead"} 1`,
		`bridgehead_refusals_total{reason="origin",route="full"} 2`, `bridgehead_connections{route="full"} 1`,
		`bridgehead_handshakes_total{outcome="accepted",route="full"} 1`,
	} {
		if !strings.Contains(metrics, "\n"+want+"\n") {
			t.Errorf("the metrics lack %s", want)
		}
	}
	if !slices.ContainsFunc(e.log(), func(line map[string]any) bool { return line["msg"] == "open" }) || strings.Contains(e.text.String(), pro) {
		t.Error("the log has the token")
	}
	e.awaitConnections("wss", len(open)) // none is left of those that were refused
}

// awaitConnections waits until so many connections are open on a listener.
func (e *edge) awaitConnections(listener string, n int) {
	e.t.Helper()
	want := fmt.Sprintf("bridgehead_listener_connections{listener=%q} %d", listener, n)
	eventually(e.t, want, func() bool {
		_, metrics := e.get("/metrics")
		return strings.Contains(metrics, "\n"+want+"\n")
	})
}

// A client that is told and does not answer is a connection of its listener for a while, and holds up nothing.
func TestARefusedClientThatStays(t *testing.T) {
	t.Parallel()
	e := start(t, `
drain: 20s
routes: [{name: r, path: /r, refuse: close, websocket: {to: "ws://`+backend(t, echo)+`"}}]
`)
	const foreign = "Origin: https://evil.example"
	plain, err := net.Dial("tcp", e.addrs["ws"])
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	plain.SetDeadline(time.Now().Add(patience))
	io.WriteString(plain, handshake("/r", foreign))
	if answer, err := io.ReadAll(plain); err != nil || !strings.HasSuffix(string(answer), "\x11\x33not allowed") {
		t.Errorf("by plain HTTP: %q, %v", answer, err)
	}
	silent := []*rawConn{e.raw("/r", foreign), e.raw("/r", foreign)}
	for _, conn := range silent {
		if f, err := readFrame(conn); err != nil || f.op != ws.Close {
			t.Fatalf("%+v, %v", f, err)
		}
	}
	e.awaitConnections("ws", 0) // after a few seconds
	e.awaitConnections("wss", 0)
	e.raw("/r", foreign) // and says nothing either
	if err := e.terminate(); err != nil {
		t.Errorf("it ended with %v", err)
	}
}

// How a route tells its refusals changes for the next handshake, and for no open socket.
func TestRefuseFollowsReloads(t *testing.T) {
	t.Parallel()
	e := start(t, `
routes: [{name: r, path: /r, refuse: status, websocket: {to: "ws://`+backend(t, echo)+`"}}]
`)
	file, err := os.ReadFile(e.process.Args[3])
	if err != nil {
		t.Fatal(err)
	}
	whole := string(file)
	foreign := http.Header{"Origin": {"https://evil.example"}}
	conn := e.dial("/r", nil)
	for range 3 {
		if resp := e.refused("/r", foreign); resp.StatusCode != 403 {
			t.Errorf("answered %s", resp.Status)
		}
		diff := e.becomes(strings.Replace(whole, "refuse: status", "refuse: close", 1))
		if text := fmt.Sprint(diff["routes"]); !strings.Contains(text, "keys:[refuse]") || strings.Contains(text, "drains") {
			t.Errorf("the reload says %s", text)
		}
		if told, _ := e.closedAtOnce("/r", foreign); told != "4403 not allowed" {
			t.Errorf("closed with %s", told)
		}
		e.becomes(whole)
	}
	send(t, conn, "still here")
	if receive(t, conn) != "still here" {
		t.Error("the socket is disturbed")
	}
}

func TestConnectShowsARefusal(t *testing.T) {
	t.Parallel()
	e := start(t, `
routes: [{name: r, path: /r, refuse: close, websocket: {to: "ws://`+backend(t, echo)+`"}}]
`)
	got := e.talks("hello\n", "/r", "--origin", "https://evil.example")
	if got.code == 0 || !strings.Contains(got.stderr, `closed by the server: 4403 forbidden, "not allowed"`) {
		t.Errorf("%+v", got)
	}
}

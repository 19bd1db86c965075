package server

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"bridgehead/admin"
	"bridgehead/config"
)

// A live program runs a configuration that a test changes.
type live struct {
	*Server
	t     *testing.T
	state string
	text  atomic.Pointer[string]
	level slog.LevelVar
}

// start runs a configuration. Its state, and the names of what it reads, stay the same through all reloads.
func start(t *testing.T, text string) *live {
	t.Helper()
	c := parse(t, text)
	l := &live{Server: nil, t: t, state: c.State}
	l.text.Store(&text)
	s, err := New(c, "test", discard())
	if err != nil {
		t.Fatal(err)
	}
	l.Server = s
	s.ReloadFrom(Source{Load: l.load, Level: &l.level})
	s.Start()
	t.Cleanup(s.Stop)
	return l
}

func (l *live) load() (*config.Config, []config.Warning, error) {
	return config.Parse("test.yaml", []byte("state: "+l.state+"\n"+*l.text.Load()), func(string) (string, bool) { return "", false })
}

// becomes reloads with another text.
func (l *live) becomes(text string) *Diff {
	l.t.Helper()
	l.text.Store(&text)
	d, err := l.Reload()
	if err != nil {
		l.t.Fatal(err)
	}
	return d
}

// open opens a socket at a path.
func (l *live) open(path string) *websocket.Conn {
	l.t.Helper()
	conn, _, err := websocket.DefaultDialer.Dial("ws://"+l.Addr("plain").String()+path, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { conn.Close() })
	conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	return conn
}

func talks(t *testing.T, conn *websocket.Conn) {
	t.Helper()
	if err := conn.WriteMessage(websocket.TextMessage, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, data, err := conn.ReadMessage(); err != nil || string(data) != "hello" {
		t.Fatalf("%q, %v", data, err)
	}
}

func drains(t *testing.T, conn *websocket.Conn) {
	t.Helper()
	_, data, err := conn.ReadMessage()
	if closed, ok := errors.AsType[*websocket.CloseError](err); !ok || closed.Code != 1012 || closed.Text != "route changed" {
		t.Fatalf("%q, %v; want a Close with 1012", data, err)
	}
}

const around = `
listeners: [{name: plain, address: "127.0.0.1:0"}]
admin: {address: "127.0.0.1:0"}
`

func TestReloadLeavesAloneWhatHasNotChanged(t *testing.T) {
	t.Parallel()
	to := echo(t)
	text := around + `
routes:
  - {path: /a, websocket: {to: "ws://` + to + `"}}
  - {path: /b, websocket: {to: "ws://` + to + `"}}
`
	l := start(t, text)
	before := *l.now.Load()
	a, b := l.open("/a"), l.open("/b")
	if d := l.becomes(text); !d.Empty() || d.Unchanged != 2 || d.Generation != 2 {
		t.Errorf("%+v", d)
	}
	after := l.now.Load()
	if after.rows["/a"] != before.rows["/a"] || after.fronts[0] != before.fronts[0] {
		t.Error("a route or a listener was made anew")
	}
	l.becomes(strings.Replace(text, "path: /b", "path: /c", 1))
	drains(t, b)
	talks(t, a)
	l.open("/c")
}

func TestReloadDrainsWhatLeadsElsewhere(t *testing.T) {
	t.Parallel()
	to := echo(t)
	route := func(rest string) string { return around + "routes: [{name: r, " + rest + "}]\n" }
	chat := func(server string) string {
		return around + "upstreams: {chat: {servers: [\"ws://" + server + "\"]}}\nroutes: [{name: r, websocket: {to: chat}}]\n"
	}
	plain := route(`websocket: {to: "ws://` + to + `"}`)
	for name, c := range map[string]struct{ from, to, keys string }{
		"group": {plain, chat(to), "websocket.to"},
		"kind":  {plain, route(`tcp: {to: "` + to + `"}`), "websocket tcp"},
		"files": {plain, route(`files: {dir: .}`), "websocket files"},
		"host":  {plain, route(`host: chat.example, websocket: {to: "ws://` + to + `"}`), "host"},
		"path":  {plain, route(`path: "/x/*", websocket: {to: "ws://` + to + `"}`), "path"},
		"gone":  {plain, strings.Replace(plain, "name: r", "name: s", 1), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := start(t, c.from)
			conn := l.open("/x/y")
			d := l.becomes(c.to)
			found := byName(d.Routes, func(c *Change) string { return c.Name })["r"]
			if found == nil || !found.Drains || found.Sockets != 1 || strings.Join(found.Keys, " ") != c.keys {
				t.Errorf("%+v", d.Routes)
			}
			drains(t, conn)
		})
	}
}

// What a group's servers hold ends with them; the sockets of the others live on, and go on counting.
func TestReloadDrainsTheServersThatLeave(t *testing.T) {
	t.Parallel()
	first, second, third := "ws://"+echo(t), "ws://"+echo(t), "ws://"+echo(t)
	own := func(servers string) string {
		return around + "routes: [{name: r, websocket: {to: [" + servers + "]}}]\n"
	}
	named := func(servers string) string {
		return around + "upstreams: {chat: {servers: [" + servers + "]}}\nroutes: [{name: r, websocket: {to: chat}}]\n"
	}
	for name, c := range map[string]struct{ from, to, keys string }{
		"a route's own": {own(first + ", " + second), own(second + ", " + third), "websocket.to"},
		"replaced":      {named(first + ", " + second), named(third + ", " + second), "upstreams.chat.servers"},
		"to drain":      {named(first + ", " + second), named("{url: \"" + first + "\", drain: true}, " + second), "upstreams.chat.servers"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := start(t, c.from)
			leaves, stays := l.open("/"), l.open("/")
			talks(t, leaves) // so its lease knows it
			talks(t, stays)
			d := l.becomes(c.to)
			if len(d.Routes) != 1 {
				t.Fatalf("%+v", d)
			}
			r := d.Routes[0]
			if r.Drains || r.Sockets != 2 || r.Draining != 1 || strings.Join(r.Leaving, " ") != first || strings.Join(r.Keys, " ") != c.keys {
				t.Errorf("%+v", r)
			}
			if got := d.String(); !strings.Contains(got, "that live on: 1, that drain: 1, since their servers leave: "+first+"\n") {
				t.Errorf("the difference reads %s", got)
			}
			drains(t, leaves)
			talks(t, stays)
		})
	}
}

func TestReloadAppliesTheRestLive(t *testing.T) {
	t.Parallel()
	to := echo(t)
	l := start(t, around+`routes: [{name: r, websocket: {to: "ws://`+to+`"}}]`)
	conn := l.open("/")
	d := l.becomes(around + `
trusted_proxies: private
max_connections: 2
log: {level: debug}
routes:
  - name: r
    origins: ["https://app.example"]
    max_connections: 1
    socket: {message_size: 5}
    websocket: {to: "ws://` + to + `", headers: {set: {X-A: b}}}
`)
	if len(d.Routes) != 1 || d.Routes[0].Drains || d.Routes[0].Sockets != 1 ||
		strings.Join(d.Routes[0].Keys, " ") != "origins max_connections socket.message_size websocket.headers.set" {
		t.Errorf("%+v", d.Routes)
	}
	if got := strings.Join(d.Other, " "); got != "trusted_proxies max_connections log.level" {
		t.Errorf("other keys: %s", got)
	}
	if l.level.Level() != slog.LevelDebug {
		t.Errorf("the log's level is %s", l.level.Level())
	}
	talks(t, conn)
	if _, resp, err := websocket.DefaultDialer.Dial("ws://"+l.Addr("plain").String()+"/", nil); err == nil || resp.StatusCode != 503 {
		t.Errorf("a second socket: %v", err)
	}
	conn.WriteMessage(websocket.TextMessage, []byte("too long"))
	_, _, err := conn.ReadMessage()
	if closed, ok := errors.AsType[*websocket.CloseError](err); !ok || closed.Code != 1009 {
		t.Errorf("a message beyond the new size: %v", err)
	}
}

func TestAReloadThatFailsChangesNothing(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	text := around + `routes: [{name: r, websocket: {to: "ws://` + echo(t) + `"}}]`
	l := start(t, text)
	conn, before := l.open("/"), l.now.Load()
	for want, broken := range map[string]string{
		"test.yaml:2:9":          "routes: [",
		"unknown key":            text + "\nroute: 1",
		"no such file":           text + "\ncertificates: {files: [{cert: none.pem, key: none.pem}]}",
		"address already in use": strings.Replace(text, "listeners: [", `listeners: [{name: next, address: "`+taken.Addr().String()+`"}, `, 1),
		"upstream u: ca: open":   text + "\nupstreams: {u: {servers: [\"wss://h\"], tls: {ca: none.pem}}}",
		"routes: is missing":     around,
	} {
		l.text.Store(&broken)
		if d, err := l.Reload(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v, %v; want %s", d, err, want)
		}
		if l.now.Load() != before {
			t.Errorf("%s: another generation is in force", want)
		}
	}
	talks(t, conn)
	l.open("/")
	metrics := httptest.NewRecorder()
	l.metrics.Handler().ServeHTTP(metrics, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if body := metrics.Body.String(); !strings.Contains(body, "bridgehead_config_generation 1\n") ||
		!strings.Contains(body, `bridgehead_config_reloads_total{outcome="failed"} 6`) {
		t.Error("the metrics do not tell of the failures")
	}
	l.becomes(text)
}

func TestListenersComeAndGo(t *testing.T) {
	t.Parallel()
	routes := `routes: [{websocket: {to: "ws://` + echo(t) + `"}}]`
	with := func(listeners string) string {
		return "admin: {address: \"127.0.0.1:0\"}\nlisteners: [" + listeners + "]\n" + routes
	}
	const plain = `{name: plain, address: "127.0.0.1:0"}`
	l := start(t, with(plain))
	conn, first := l.open("/"), l.Addr("plain").String()

	d := l.becomes(with(plain + `, {name: second, address: "127.0.0.1:0"}`))
	if len(d.Listeners) != 1 || d.Listeners[0].Change != Added {
		t.Errorf("%+v", d.Listeners)
	}
	second := l.Addr("second").String()
	for _, address := range []string{first, second} {
		if c, _, err := websocket.DefaultDialer.Dial("ws://"+address, nil); err != nil {
			t.Error(err)
		} else {
			c.Close()
		}
	}
	d = l.becomes(with(strings.Replace(plain, "}", ", header_timeout: 1s}", 1)))
	if len(d.Listeners) != 2 || strings.Join(d.Listeners[0].Keys, " ") != "header_timeout" || d.Listeners[1].Change != Removed {
		t.Errorf("%+v", d.Listeners)
	}
	if l.Addr("plain").String() != first || l.Addr("second") != nil {
		t.Errorf("the listeners are at %s and %s", l.Addr("plain"), l.Addr("second"))
	}
	if c, err := net.Dial("tcp", second); err == nil {
		c.Close()
		t.Error("a listener that is gone answers")
	}
	talks(t, conn)
	l.open("/")
	l.becomes(with(plain))
	l.open("/")
}

func TestPreviewChangesNothing(t *testing.T) {
	t.Parallel()
	text := around + `routes: [{name: r, websocket: {to: "ws://` + echo(t) + `"}}]`
	l := start(t, text)
	changed := strings.Replace(text, "name: r", "name: s", 1)
	l.text.Store(&changed)
	before := l.now.Load()
	d, err := l.Preview()
	if err != nil || d.String() != "route s: added\nroute r: removed\nroutes as they were: 0\n" || d.Generation != 1 {
		t.Errorf("%v, %v", d, err)
	}
	if l.now.Load() != before {
		t.Error("another generation is in force")
	}
}

func TestAReloadThatCannotBe(t *testing.T) {
	t.Parallel()
	s := run(t, config1("127.0.0.1:1"))
	if _, err := s.Reload(); !errors.Is(err, admin.ErrNotNow) {
		t.Errorf("without a file: %v", err)
	}
	l := start(t, config1("127.0.0.1:1"))
	if err := l.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Reload(); !errors.Is(err, admin.ErrNotNow) {
		t.Errorf("after a drain: %v", err)
	}
}

// A webhook's open sockets follow its secret.
func TestWebhooksFollowTheirOptions(t *testing.T) {
	t.Parallel()
	signatures := make(chan string, 10)
	app := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		signatures <- r.Header.Get("Webhook-Signature")
	}))
	t.Cleanup(app.Close)
	route := func(secret string) string {
		return around + fmt.Sprintf(`routes: [{name: hook, webhook: {to: %q, secret: [%s]}}]`, app.URL, secret)
	}
	const key = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	l := start(t, route(key))
	conn := l.open("/")
	l.becomes(route(key + ", whsec_" + strings.Repeat("AAAA", 8)))
	if err := conn.WriteMessage(websocket.TextMessage, []byte("x")); err != nil {
		t.Fatal(err)
	}
	<-signatures // of the handshake
	if both := <-signatures; len(strings.Fields(both)) != 2 {
		t.Errorf("the signatures are %q, want one for each secret", both)
	}
	conn.Close()
	<-signatures // the application is told of the end
}

func TestDiffIsReadable(t *testing.T) {
	t.Parallel()
	d := Diff{
		Routes: []Change{
			{Name: "a", Change: Changed, Keys: []string{"limits", "socket.ping"}, Sockets: 3},
			{Name: "b", Change: Removed, Drains: true, Sockets: 2}, {Name: "c", Change: Added},
		},
		Listeners: []Change{{Name: "l", Change: Changed, Keys: []string{"tls"}}},
		Other:     []string{"drain"}, Unchanged: 4, Notes: []string{"warning: w"},
	}
	const want = `route a: changed (limits, socket.ping); open sockets that live on: 3
route b: removed; open sockets that drain: 2
route c: added
listener l: changed (tls)
drain: changed
routes as they were: 4
note: warning: w
`
	if got := d.String(); got != want {
		t.Errorf("got\n%s", got)
	}
	if got := (&Diff{Unchanged: 4}).String(); got != "nothing has changed\n" {
		t.Errorf("got %q", got)
	}
}

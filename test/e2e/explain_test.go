package e2e

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// explained is what the program explains of its configuration, of which it must not change anything.
type explained struct {
	OK       bool     `json:"ok"`
	Status   int      `json:"status"`
	Route    string   `json:"route"`
	Backends []string `json:"backends"`
}

// explain asks for a client of the wss listener, as a URL with a port that only the running program knows.
func (e *edge) explain(path string, args ...string) (explained, result) {
	e.t.Helper()
	got := command(e.t, e.t.TempDir(), append([]string{"explain", "--json", "-c", e.process.Args[3], e.url(path)}, args...)...)
	var told explained
	if err := json.Unmarshal([]byte(got.stdout), &told); err != nil {
		e.t.Fatalf("%v: %s%s", err, got.stdout, got.stderr)
	}
	if want := map[bool]int{true: 0, false: 1}[told.OK]; got.code != want {
		e.t.Errorf("%s: exit code %d, want %d", path, got.code, want)
	}
	return told, got
}

// What is explained is what then happens, for every kind of refusal that is known beforehand, and for every kind of backend.
func TestWhatIsExplainedHappens(t *testing.T) {
	t.Parallel()
	asked := make(chan string, 1)
	app := httpBackend(t, func(w http.ResponseWriter, r *http.Request) {
		select {
		case asked <- r.URL.String(): // `connect`; the next one is `close`
		default:
		}
	})
	pages := t.TempDir()
	if err := os.WriteFile(filepath.Join(pages, "page.html"), []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	e := start(t, `
routes:
  - {name: chat, path: /chat/*, origins: "https://www.example.com", websocket: {to: "ws://`+backend(t, echo)+`/inner"}}
  - {name: browsers, path: /browsers, require_origin: true, websocket: {to: "ws://127.0.0.1:1"}}
  - {name: room, path: /room, websocket: {to: "ws://127.0.0.1:1/{query.room}"}}
  - {name: lines, path: /lines, tcp: {to: "127.0.0.1:1", subprotocols: lines, require_subprotocol: true}}
  - {name: hook, path: "/hook/{name}", webhook: {to: "http://`+app+`/app/{name}"}}
  - {name: plain, path: /plain, listeners: ws, websocket: {to: "ws://127.0.0.1:1"}}
  - {name: pages, path: /pages/*, files: {dir: `+pages+`}}
`)
	for _, c := range []struct {
		rule, path string
		header     http.Header
		status     int
		route      string
	}{
		{"a socket", "/chat/5?x=1", nil, 101, "chat"},
		{"a page that is listed", "/chat", http.Header{"Origin": {"https://www.example.com"}}, 101, "chat"},
		{"a page that is not", "/chat", http.Header{"Origin": {"https://evil.example"}}, 403, "chat"},
		{"no page where one is needed", "/browsers", nil, 403, "browsers"},
		{"no value for the URL", "/room", nil, 400, "room"},
		{"a value with dot segments", "/room?room=..", nil, 400, "room"},
		{"no subprotocol", "/lines", nil, 400, "lines"},
		{"an application", "/hook/a%2Fb", nil, 101, "hook"},
		{"no route", "/nothing", nil, 404, ""},
		{"a dot segment", "/chat/%2e%2e/x", nil, 404, ""},
		{"a route of another listener", "/plain", nil, 404, ""},
		{"a file, by a client that wants a socket", "/pages/page.html", nil, 200, "pages"},
		{"no file, by a client that wants a socket", "/pages/none.html", nil, 404, "pages"},
	} {
		var args []string
		for name := range c.header {
			args = append(args, "-H", name+": "+c.header.Get(name))
		}
		told, _ := e.explain(c.path, args...)
		conn, resp, err := e.dialer().Dial(e.url(c.path), c.header)
		if err == nil {
			conn.Close()
		}
		if resp == nil {
			t.Errorf("%s: %v", c.rule, err)
			continue
		}
		answered := c.status
		if http2 && answered == http.StatusOK { // which would open a socket there
			answered = http.StatusBadRequest
		}
		if told.Status != c.status || resp.StatusCode != answered || told.OK != (c.status == 101) || told.Route != c.route {
			t.Errorf("%s: explained as %+v, answered %s, want %d by route %q", c.rule, told, resp.Status, c.status, c.route)
		}
		if c.route == "hook" {
			if to := "http://" + app + <-asked; len(told.Backends) != 1 || told.Backends[0] != to {
				t.Errorf("the application was asked at %s, not at %v", to, told.Backends)
			}
		}
	}
}

// The limits that are told are those that are kept, and nothing is left of an explanation.
func TestExplainTellsTheLimitsAndTouchesNothing(t *testing.T) {
	t.Parallel()
	e := start(t, `
routes: [{name: one, path: /one, limits: [{per: query.token, connections: 1}], websocket: {to: "ws://`+backend(t, echo)+`"}}]
`)
	told, got := e.explain("/one?token=t")
	if !told.OK || !strings.Contains(got.stdout, "per query.token = t: at most 1 open") {
		t.Errorf("explained as %s", got.stdout)
	}
	e.dial("/one?token=t", nil)
	if resp := e.refused("/one?token=t", nil); resp.StatusCode != http.StatusTooManyRequests {
		t.Errorf("the second is answered %s", resp.Status)
	}

	dir := room(t)
	write(t, dir, "config.yaml", "certificates: {internal: true}\nstate: ./state\nroutes: [{websocket: {to: \"ws://127.0.0.1:1\"}}]\n")
	command(t, dir, "explain", "wss://chat.example.com/").wants(t, 0)
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("it left %v, %v", left, err)
	}
}

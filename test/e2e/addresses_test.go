package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// heard are the headers that stood in a request, by who got it: ws, http, auth or hook.
type heard struct {
	by     string
	header http.Header
}

// listener is an application that tells what it hears of its clients, whichever way.
func listener(t *testing.T) (addr string, told chan heard) {
	t.Helper()
	told = make(chan heard, 10)
	return httpBackend(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/auth":
			told <- heard{"auth", r.Header}
		case r.URL.Path == "/hook":
			var body struct {
				Events []struct {
					Type    string
					Headers map[string]string
				}
			}
			if err := json.NewDecoder(r.Body).Decode(&body); err != nil || len(body.Events) != 1 || body.Events[0].Type != "connect" {
				return
			}
			header := http.Header{}
			for name, value := range body.Events[0].Headers {
				header.Set(name, value)
			}
			told <- heard{"hook", header}
		case websocket.IsWebSocketUpgrade(r):
			told <- heard{"ws", r.Header}
			if conn, err := (&websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}).Upgrade(w, r, nil); err == nil {
				defer conn.Close()
				echo(conn, r)
			}
		default:
			told <- heard{"http", r.Header}
		}
	}), told
}

// forgeries are what a client may write to pass for another, in spellings that servers take for one.
var forgeries = []string{
	"X-Forwarded-For", "X_Forwarded_For", "x.forwarded.for", "X-Forwarded-Host", "X-Forwarded_Proto", "X-Forwarded-Port", "X-Forwarded-User", "X-Real-IP",
	"X_REAL_IP", "Forwarded", "FORWARDED", "True-Client-IP", "CF-Connecting-IP", "CF_Connecting_IP", "Cf.Connecting.Ip", "X-Client-IP", "Client-Cert",
}

// What a stranger says of itself in headers that proxies write reaches nobody, and what a trusted proxy says reaches all.
func TestWhoTheClientIsFarBehind(t *testing.T) {
	t.Parallel()
	addr, told := listener(t)
	const proxied = "203.0.113.9"
	for _, c := range []struct {
		rule, believed string
		trusted        bool
		header         http.Header // beside the forgeries
		client         string
		forwarded      string // as the upstream gets it, without our own element
	}{
		{"a stranger", "X-Forwarded-For", false, nil, "127.0.0.1", ""},
		{"a stranger, where a single header is believed", "CF-Connecting-IP", false, nil, "127.0.0.1", ""},
		{"a stranger, where Forwarded is", "Forwarded", false, nil, "127.0.0.1", ""},
		{"a proxy that adds", "X-Forwarded-For", true, http.Header{"X-Forwarded-For": {"6.6.6.6, " + proxied}}, proxied, "for=203.0.113.9;proto=https"},
		{"a proxy that adds a line", "Forwarded", true, http.Header{"Forwarded": {`for="6.6.6.6`, "for=203.0.113.9;proto=https"}}, proxied, "for=203.0.113.9;proto=https"},
		{"a proxy that sets", "CF-Connecting-IP", true, http.Header{"CF-Connecting-IP": {proxied}}, proxied, "for=203.0.113.9;proto=https"},
		{"a proxy that lets two pass", "CF-Connecting-IP", true, http.Header{"CF-Connecting-IP": {"6.6.6.6", proxied}}, "127.0.0.1", ""},
	} {
		t.Run(c.rule, func(t *testing.T) {
			names, _ := json.Marshal(forgeries) // which YAML reads too
			trusted := ""
			if c.trusted {
				trusted = "loopback"
			}
			e := start(t, fmt.Sprintf(`
trusted_proxies: [%s]
client_header: %s
authenticators: {sso: {forward: {url: "http://%s/auth", request_headers: %s}}}
routes:
  - {name: hook, path: /hook, webhook: {to: "http://%[3]s/hook", forward_headers: %[4]s}}
  - {name: all, auth: sso, origins: ["*"], websocket: {to: "ws://%[3]s", http: true}}
`, trusted, c.believed, addr, names))
			header := http.Header{}
			for _, name := range forgeries {
				family := strings.HasPrefix(name, "X-Forwarded-") && !strings.Contains(name, "_")
				if !c.trusted || !family || name == "X-Forwarded-For" { // a trusted proxy's word is not forged
					header[http.CanonicalHeaderKey(name)] = []string{"6.6.6.6"}
				}
			}
			for name, lines := range c.header {
				header[http.CanonicalHeaderKey(name)] = lines
			}
			if c.believed != "Forwarded" && c.trusted {
				header.Set("X-Forwarded-Proto", "https")
			}
			e.dial("/ws", header)
			e.dial("/hook", header)
			request, err := http.NewRequest(http.MethodGet, strings.Replace(e.url("/page"), "wss", "https", 1), nil)
			if err != nil {
				t.Fatal(err)
			}
			request.Header = header
			transport := &http.Transport{TLSClientConfig: e.tls()}
			defer transport.CloseIdleConnections()
			resp, err := transport.RoundTrip(request)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()

			got := map[string]int{}
			for range 5 { // the endpoint is asked twice
				var h heard
				select {
				case h = <-told:
				case <-time.After(patience):
					t.Fatalf("only these have heard: %v", got)
				}
				got[h.by]++
				if text := fmt.Sprint(h.header); strings.Contains(text, "6.6.6.6") {
					t.Errorf("%s got %s", h.by, text)
				}
				for _, name := range slices.Sorted(maps.Keys(h.header)) {
					if strings.ContainsAny(name, "_.") {
						t.Errorf("%s got %s", h.by, name)
					}
				}
				switch h.by {
				case "auth":
					if h.header.Get("X-Forwarded-For") != c.client || h.header.Get("X-Forwarded-Proto") != "https" {
						t.Errorf("the endpoint got %v", h.header)
					}
					continue
				case "hook":
					if got, want := h.header.Get("X-Forwarded-For"), c.client; c.client == proxied && got != want || c.client != proxied && got != "" {
						t.Errorf("the application got X-Forwarded-For: %s", got)
					}
					continue
				}
				addresses := strings.Join(slices.Compact([]string{c.client, "127.0.0.1"}), ", ")
				elements := h.header.Get("Forwarded")
				if c.forwarded != "" {
					elements = strings.TrimPrefix(elements, c.forwarded+", ")
				}
				if h.header.Get("X-Forwarded-For") != addresses || h.header.Get("X-Real-Ip") != c.client || !strings.HasPrefix(elements, "for=127.0.0.1;host=") {
					t.Errorf("%s got X-Forwarded-For: %q, X-Real-IP: %q, Forwarded: %q", h.by, h.header["X-Forwarded-For"], h.header["X-Real-Ip"], h.header["Forwarded"])
				}
				if single := h.header.Get("CF-Connecting-IP"); (single == proxied) != (c.believed == "CF-Connecting-IP" && c.client == proxied) {
					t.Errorf("%s got CF-Connecting-IP: %q", h.by, single)
				}
			}
			if got["ws"] != 1 || got["http"] != 1 || got["auth"] != 2 || got["hook"] != 1 {
				t.Errorf("heard %v", got)
			}
			line := e.await(func(line map[string]any) bool { return line["msg"] == "open" && line["route"] == "all" })
			if line["client"] != c.client {
				t.Errorf("logged as %v", line)
			}
		})
	}
}

// An address is refused before anything else is asked, and a file that begins to deny one ends its sockets and no others.
func TestAddressesAreDenied(t *testing.T) {
	t.Parallel()
	dir := room(t)
	list := filepath.Join(dir, "deny.txt")
	deny := func(text string) {
		if err := os.Rename(write(t, dir, "deny.txt.new", text), list); err != nil {
			t.Fatal(err)
		}
	}
	deny("# who floods\n198.51.100.0/24\n")
	e := startIn(t, dir, `state: ./state
certificates: {internal: true}
log: {format: json, level: debug}
listeners: [{name: wss, address: "127.0.0.1:0", tls: true}]
admin: {address: "127.0.0.1:0"}
drain: 1s
trusted_proxies: loopback
client_header: X-Real-IP
defaults: {addresses: {deny_files: deny.txt}}
routes:
  - {name: chat, websocket: {to: "ws://`+backend(t, echo)+`"}}
`)
	e.addr("wss")
	from := func(client string) http.Header { return http.Header{"X-Real-Ip": {client}} }
	resp := e.refused("/", from("198.51.100.7"))
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusForbidden || string(body) != "clients may not come here from this address\n" {
		t.Fatalf("%s %q", resp.Status, body)
	}
	line := e.await(func(line map[string]any) bool { return line["msg"] == "refused" })
	if line["reason"] != "address" || line["error"] != "198.51.100.7 is denied by 198.51.100.0/24 in "+list+":2; to let it in, take that out" {
		t.Errorf("logged as %v", line)
	}
	e.counted(map[string]float64{`bridgehead_refusals_total{reason="address",route="chat"}`: 1})

	bad, good := e.dial("/", from("203.0.113.1")), e.dial("/", from("203.0.113.2"))
	deny("203.0.113.1\n")
	if code, reason := closeCode(t, bad); code != 1008 || reason != "address not allowed" {
		t.Errorf("closed with %d %q", code, reason)
	}
	if line := e.closedLine("chat"); line["cause"] != "client barred" || line["by"] != "gateway" || line["client"] != "203.0.113.1" {
		t.Errorf("logged as %v", line)
	}
	send(t, good, "still here")
	if receive(t, good) != "still here" {
		t.Error("the other client suffers")
	}
	deny("203.0.113.2\n203.0.113.999\n")
	line = e.await(func(line map[string]any) bool { return line["level"] == "ERROR" })
	if text := fmt.Sprint(line["error"]); !strings.HasPrefix(text, list+`:2: "203.0.113.999" is no network`) {
		t.Errorf("logged as %v", line)
	}
	send(t, good, "and still")
	if receive(t, good) != "and still" {
		t.Error("the broken file is in force")
	}
}

// check and serve name the line of a file that is wrong.
func TestAFileOfAddressesThatIsWrongAtTheStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	list := write(t, dir, "deny.txt", "10.0.0.0/8\n\n10.0.0.1/8\n")
	write(t, dir, "config.yaml", own+`
listeners: [{address: "127.0.0.1:0"}]
routes: [{path: /, addresses: {deny_files: deny.txt}, websocket: {to: "ws://127.0.0.1:9"}}]
`)
	want := list + `:3: "10.0.0.1/8" has bits set behind its prefix: write 10.0.0.0/8`
	for name, code := range map[string]int{"check": 2, "serve": 1} {
		got := command(t, dir, name, "-c", "config.yaml")
		if got.code != code || !strings.Contains(strings.ReplaceAll(got.stderr, `\"`, `"`), want) {
			t.Errorf("%s: exit code %d, %s", name, got.code, got.stderr)
		}
	}
}

package server

import (
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// A visitor comes through the trusted proxy that a test is.
func (l *live) through(path, client string) (*websocket.Conn, *http.Response, error) {
	l.t.Helper()
	conn, resp, err := websocket.DefaultDialer.Dial("ws://"+l.Addr("plain").String()+path, http.Header{"X-Forwarded-For": {client}})
	if err == nil {
		l.t.Cleanup(func() { conn.Close() })
		conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	}
	return conn, resp, err
}

func (l *live) enters(path, client string) *websocket.Conn {
	l.t.Helper()
	conn, _, err := l.through(path, client)
	if err != nil {
		l.t.Fatal(err)
	}
	talks(l.t, conn)
	return conn
}

// isBarred waits for the end of a socket whose address is not allowed any more.
func isBarred(t *testing.T, conn *websocket.Conn) {
	t.Helper()
	_, data, err := conn.ReadMessage()
	if closed, ok := errors.AsType[*websocket.CloseError](err); !ok || closed.Code != 1008 || closed.Text != "address not allowed" {
		t.Fatalf("%q, %v; want a Close with 1008", data, err)
	}
}

// get asks for what is no socket.
func (l *live) get(path, client string) (status int, body string) {
	l.t.Helper()
	r, err := http.NewRequest(http.MethodGet, "http://"+l.Addr("plain").String()+path, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	r.Header.Set("X-Forwarded-For", client)
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		l.t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		l.t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func replace(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.WriteFile(path+".new", []byte(text), 0o600), os.Rename(path+".new", path)); err != nil {
		t.Fatal(err)
	}
}

const guarded = around + `
trusted_proxies: [loopback]
drain: 1s
defaults: {addresses: {deny_files: DENY}}
routes:
  - {name: chat, path: /chat, websocket: {to: "ws://TO", http: true}}
  - {name: other, path: /other, addresses: {deny_files: []}, websocket: {to: "ws://TO"}}
  - {name: pages, path: "/pages/*", files: {dir: DIR}}
`

func guardedBy(t *testing.T, deny string) string {
	t.Helper()
	dir := t.TempDir()
	replace(t, filepath.Join(dir, "page.txt"), "a page")
	return strings.NewReplacer("TO", echo(t), "DENY", deny, "DIR", dir).Replace(guarded)
}

// Sockets, requests beside them and files are refused alike, and open sockets end when a file denies them.
func TestAFileOfAddressesChanges(t *testing.T) {
	t.Parallel()
	deny := filepath.Join(t.TempDir(), "deny.txt")
	replace(t, deny, "198.51.100.0/24\n")
	text := guardedBy(t, deny)
	l := start(t, text)
	for _, path := range []string{"/chat", "/pages/page.txt"} {
		if status, body := l.get(path, "198.51.100.7"); status != http.StatusForbidden || !strings.HasPrefix(body, "clients may not come here") {
			t.Errorf("%s: %d %q", path, status, body)
		}
		if status, _ := l.get(path, "203.0.113.1"); status == http.StatusForbidden {
			t.Errorf("%s: %d", path, status)
		}
	}
	if _, resp, err := l.through("/chat", "198.51.100.7"); err == nil || resp == nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("a socket: %v", err)
	}
	for _, want := range []string{`bridgehead_refusals_total{reason="address",route="chat"} 2`, `bridgehead_refusals_total{reason="address",route="pages"} 1`} {
		if got := counted(l.Server, want[:strings.IndexByte(want, ' ')]); got != want[strings.IndexByte(want, ' ')+1:] {
			t.Errorf("%s is counted %q", want, got)
		}
	}
	first, second, elsewhere := l.enters("/chat", "203.0.113.1"), l.enters("/chat", "203.0.113.2"), l.enters("/other", "203.0.113.1")
	replace(t, deny, "203.0.113.1\n")
	isBarred(t, first)
	if _, resp, err := l.through("/chat", "203.0.113.1"); err == nil || resp == nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("it comes in again: %v", err)
	}
	talks(t, second)
	talks(t, elsewhere)
	l.enters("/chat", "198.51.100.7")

	// A reload that has nothing to do with it keeps the lists, one that changes them ends sockets too, and drains none.
	was := l.now.Load().addresses
	l.becomes(strings.Replace(text, "name: other, ", "name: other, max_connections: 5, ", 1))
	if l.now.Load().addresses != was {
		t.Error("the lists were read again")
	}
	d := l.becomes(strings.Replace(text, "{deny_files: []}", "{deny_files: [], allow: private}", 1))
	if len(d.Routes) != 1 || d.Routes[0].Drains || strings.Join(d.Routes[0].Keys, " ") != "addresses.allow max_connections" {
		t.Errorf("%+v", d.Routes)
	}
	isBarred(t, elsewhere)
	talks(t, second)
	replace(t, deny, "203.0.113.2\n") // which the new lists watch as the old ones did
	isBarred(t, second)
	for range 2 { // files of routes that have not changed themselves
		if status, _ := l.get("/pages/page.txt", "203.0.113.2"); status != http.StatusForbidden {
			t.Errorf("%d", status)
		}
		l.becomes(strings.Replace(text, "{deny_files: []}", "{deny_files: [], allow: loopback}", 1))
	}
}

func TestABrokenFileOfAddresses(t *testing.T) {
	t.Parallel()
	deny := filepath.Join(t.TempDir(), "deny.txt")
	replace(t, deny, "198.51.100.7\n")
	text := guardedBy(t, deny)
	l := start(t, text)
	open := l.enters("/chat", "203.0.113.1")
	broken := deny + ".broken"
	replace(t, broken, "203.0.113.1\n203.0.113.0/33\n")
	next := strings.Replace(text, deny, broken, 1)
	l.text.Store(&next)
	if _, err := l.Reload(); err == nil || !strings.Contains(err.Error(), broken+`:2: "203.0.113.0/33" is no network`) {
		t.Errorf("error %v", err)
	}
	talks(t, open)
	if _, _, err := l.through("/chat", "198.51.100.7"); err == nil {
		t.Error("the old entries are gone")
	}
	if _, err := New(parse(t, next), "test", discard()); err == nil || !strings.Contains(err.Error(), broken+":2: ") {
		t.Errorf("error %v", err)
	}
	replace(t, deny, "nonsense\n") // goes on as it was, also in a configuration that changes around it
	l.becomes(strings.Replace(text, "{deny_files: []}", "{allow: loopback, deny_files: []}", 1))
	talks(t, open)
	if _, _, err := l.through("/chat", "198.51.100.7"); err == nil {
		t.Error("the old entries are gone")
	}
}

// The header that is believed is another from the next handshake on.
func TestClientHeaderChangesLive(t *testing.T) {
	t.Parallel()
	deny := filepath.Join(t.TempDir(), "deny.txt")
	replace(t, deny, "198.51.100.7\n")
	text := guardedBy(t, deny)
	l := start(t, text)
	if status, _ := l.get("/pages/page.txt", "198.51.100.7"); status != http.StatusForbidden {
		t.Errorf("%d", status)
	}
	open := l.enters("/chat", "203.0.113.1")
	if d := l.becomes("client_header: X-Real-IP\n" + text); strings.Join(d.Other, " ") != "client_header" || len(d.Routes) > 0 {
		t.Errorf("%+v", d)
	}
	talks(t, open)
	l.enters("/chat", "198.51.100.7")
	if status, _ := l.get("/pages/page.txt", "198.51.100.7"); status != http.StatusOK {
		t.Errorf("%d", status)
	}
}

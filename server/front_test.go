package server

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"bridgehead/internal/proxyproto"
)

// A teller is an upstream that says headers of its handshake, and then echoes.
func teller(t *testing.T, headers ...string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	upgrader := websocket.Upgrader{}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !websocket.IsWebSocketUpgrade(r) {
			w.Header().Set("Alt-Svc", `h3=":9000"`)
			return
		}
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer conn.Close()
		var told []string
		for _, name := range headers {
			told = append(told, r.Header.Get(name))
		}
		_ = conn.WriteMessage(websocket.TextMessage, []byte(strings.Join(told, " ")))
		for {
			kind, data, err := conn.ReadMessage()
			if err != nil || conn.WriteMessage(kind, data) != nil {
				return
			}
		}
	})}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return l.Addr().String()
}

// through connects as a proxy in front does, which says something first.
func through(network, address, preamble string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		if err == nil {
			conn.SetDeadline(time.Now().Add(20 * time.Second))
			_, err = io.WriteString(conn, preamble)
		}
		return conn, err
	}
}

// rootOf is what trusts the program's own authority.
func rootOf(t *testing.T, s *Server) *tls.Config {
	t.Helper()
	path, ok := s.Root()
	if !ok {
		return nil
	}
	pem, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return &tls.Config{RootCAs: roots, ServerName: "localhost"}
}

const said = "203.0.113.7"

// preambles are what proxies say of a client.
func preambles(t *testing.T) map[string]string {
	t.Helper()
	h := proxyproto.Header{
		Version: 2, Source: netip.MustParseAddrPort(said + ":50000"), Destination: netip.MustParseAddrPort("198.51.100.1:443"),
		TLVs: []proxyproto.TLV{
			{Type: proxyproto.Authority, Value: []byte("chat.example")}, {Type: proxyproto.UniqueID, Value: []byte("id-1")},
			{Type: proxyproto.SSL, Value: append([]byte{1, 0, 0, 0, 1, proxyproto.SSLVersion, 0, 7}, "TLSv1.3"...)},
		},
	}
	raw, err := h.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]string{"1": "PROXY TCP4 " + said + " 198.51.100.1 50000 443\r\n", "2": string(raw)}
}

// The client is whom the header names: for the upstream, for the limits, for the log; before TLS and without, on both drivers.
func TestPROXYHeaders(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"auto", "goroutines"} {
		var log lockedBuffer
		c := parse(t, `
driver: `+driver+`
certificates: {internal: true}
trusted_proxies: [loopback]
listeners:
  - {name: plain, address: "127.0.0.1:0", proxy_protocol: true}
  - {name: secure, address: "127.0.0.1:0", proxy_protocol: true, tls: true}
admin: {address: "127.0.0.1:0"}
routes:
  - path: /ws
    limits: [{per: client.ip, connections: 1}]
    websocket:
      to: "ws://`+teller(t, "X-Forwarded-For", "X-Forwarded-Proto", "X-Told")+`"
      headers: {set: {X-Told: "{proxy.authority} {proxy.unique_id} {proxy.tls_version}"}}
`)
		s, err := New(c, "test", slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		s.Start()
		t.Cleanup(s.Stop)
		for version, preamble := range preambles(t) {
			for name, scheme := range map[string]string{"plain": "ws", "secure": "wss"} {
				dialer := websocket.Dialer{NetDialContext: through("tcp", s.Addr(name).String(), preamble), TLSClientConfig: rootOf(t, s)}
				conn, _, err := dialer.Dial(scheme+"://localhost/ws", nil)
				if err != nil {
					t.Fatalf("%s, version %s on %s: %v", driver, version, name, err)
				}
				_, told, err := conn.ReadMessage()
				want := said + " http "
				if version == "2" { // the client spoke TLS with the proxy
					want = said + " https chat.example id-1 TLSv1.3"
				} else if name == "secure" {
					want = said + " https "
				}
				if err != nil || string(told) != want {
					t.Errorf("%s, version %s on %s: the upstream is told %q, %v", driver, version, name, told, err)
				}
				talks(t, conn)
				if _, resp, err := dialer.Dial(scheme+"://localhost/ws", nil); err == nil || resp == nil || resp.StatusCode != 429 {
					t.Errorf("%s, version %s on %s: a second socket of the address: %v", driver, version, name, err)
				}
				conn.Close()
				awaitSockets(t, s, 0)
			}
		}
		for _, part := range []string{"client=" + said, "proxy=127.0.0.1", "proxy_id=id-1"} {
			if !strings.Contains(log.String(), part) {
				t.Errorf("%s: no %q in the log:\n%s", driver, part, log.String())
			}
		}
		awaitEmpty(t, s, "plain")
		awaitEmpty(t, s, "secure")
	}
}

func awaitSockets(t *testing.T, s *Server, n int) {
	t.Helper()
	await(t, fmt.Sprintf("%d sockets", n), func() bool { return s.hub.Len() == n })
}

func await(t *testing.T, what string, so func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(20 * time.Second); !so(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// counted is what a metric of a listener says.
func counted(s *Server, metric string) string {
	w := record(s.metrics.Handler(), httptestRequest())
	for line := range strings.Lines(w.body.String()) {
		if rest, ok := strings.CutPrefix(line, metric+" "); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

func httptestRequest() *http.Request {
	r, _ := http.NewRequest(http.MethodGet, "http://localhost/metrics", nil)
	return r
}

// awaitEmpty waits until nothing of a listener's room is held.
func awaitEmpty(t *testing.T, s *Server, listener string) {
	t.Helper()
	await(t, "an empty listener "+listener, func() bool {
		return counted(s, `bridgehead_listener_connections{listener="`+listener+`"}`) == "0" &&
			counted(s, `bridgehead_listener_handshakes{listener="`+listener+`"}`) == "0"
	})
}

// What is said behind the header in the same piece is not lost when an event loop takes the connection over.
func TestBytesBehindAPROXYHeader(t *testing.T) {
	t.Parallel()
	s := run(t, `
trusted_proxies: [loopback]
listeners: [{name: plain, address: "127.0.0.1:0", proxy_protocol: true}]
admin: {address: "127.0.0.1:0"}
routes: [{path: /ws, websocket: {to: "ws://`+teller(t)+`"}}]
`)
	for version, preamble := range preambles(t) {
		frame := "\x81\x85\x00\x00\x00\x00hello"
		conn, err := through("tcp", s.Addr("plain").String(), preamble+"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"+
			"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"+frame)(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		r := bufio.NewReader(conn)
		if resp, err := http.ReadResponse(r, nil); err != nil || resp.StatusCode != 101 {
			t.Fatalf("version %s: %v, %v", version, resp, err)
		}
		got := make([]byte, len("\x81\x00\x81\x05hello"))
		if _, err := io.ReadFull(r, got); err != nil || string(got) != "\x81\x00\x81\x05hello" {
			t.Errorf("version %s: %q, %v", version, got, err)
		}
	}
}

func TestAReloadOfProxyProtocol(t *testing.T) {
	t.Parallel()
	text := func(more string) string {
		return `
trusted_proxies: [loopback]
listeners: [{name: plain, address: "127.0.0.1:0"` + more + `}]
admin: {address: "127.0.0.1:0"}
routes: [{path: /ws, websocket: {to: "ws://` + teller(t, "X-Forwarded-For") + `"}}]
`
	}
	without := text("")
	with := strings.Replace(without, `:0"}]`, `:0", proxy_protocol: true}]`, 1)
	l := start(t, without)
	at := l.Addr("plain").String()
	before := l.open("/ws")
	d := l.becomes(with)
	if l.Addr("plain").String() != at || len(d.Listeners) != 1 || d.Listeners[0].Keys[0] != "proxy_protocol" {
		t.Errorf("at %s, %+v", l.Addr("plain"), d)
	}
	if _, resp, err := websocket.DefaultDialer.Dial("ws://"+at+"/ws", nil); err == nil || resp == nil || resp.StatusCode != 400 {
		t.Errorf("a handshake without a header: %v", err)
	}
	dialer := websocket.Dialer{NetDialContext: through("tcp", at, preambles(t)["1"])}
	conn, _, err := dialer.Dial("ws://"+at+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, told, err := conn.ReadMessage(); string(told) != said || err != nil {
		t.Errorf("%q, %v", told, err)
	}
	l.becomes(strings.Replace(with, "[loopback]", `["192.0.2.1"]`, 1)) // the listener is as it was
	if _, resp, err := dialer.Dial("ws://"+at+"/ws", nil); err == nil || resp == nil || resp.StatusCode != 403 {
		t.Errorf("a handshake through a proxy that is not trusted any more: %v", err)
	}
	l.becomes(without)
	l.open("/ws")
	if _, _, err := before.ReadMessage(); err != nil {
		t.Fatal(err)
	}
	talks(t, before)
	talks(t, conn)
}

// A socket has its place until it ends, whoever carries it.
func TestMaxConnectionsOfAListener(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"auto", "goroutines"} {
		s := run(t, `
driver: `+driver+`
certificates: {internal: true}
listeners:
  - {name: plain, address: "127.0.0.1:0", max_connections: 2}
  - {name: secure, address: "127.0.0.1:0", max_connections: 1, tls: true}
admin: {address: "127.0.0.1:0"}
routes: [{path: /ws, websocket: {to: "ws://`+echo(t)+`"}}]
`)
		one, two := dial(t, s), dial(t, s)
		secure := websocket.Dialer{NetDialContext: through("tcp", s.Addr("secure").String(), ""), TLSClientConfig: rootOf(t, s)}
		three, _, err := secure.Dial("wss://localhost/ws", nil)
		if err != nil {
			t.Fatal(err)
		}
		for name, d := range map[string]*websocket.Dialer{"ws://" + s.Addr("plain").String(): websocket.DefaultDialer, "wss://localhost": &secure} {
			if conn, _, err := d.Dial(name+"/ws", nil); err == nil {
				conn.Close()
				t.Errorf("%s: one more than there is room for at %s", driver, name)
			}
		}
		if got := counted(s, `bridgehead_listener_refused_total{listener="plain",reason="full"}`); got != "1" {
			t.Errorf("%s: %s were refused", driver, got)
		}
		if resp, err := http.Get("http://" + s.Addr("admin").String() + "/healthz"); err != nil || resp.StatusCode != 200 {
			t.Errorf("%s: admin: %v", driver, err)
		} else {
			resp.Body.Close()
		}
		one.Close()
		three.Close()
		awaitSockets(t, s, 1)
		dial(t, s)
		if three, _, err = secure.Dial("wss://localhost/ws", nil); err != nil {
			t.Fatal(err)
		}
		three.Close()
		two.Close()
		awaitEmpty(t, s, "secure")
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestSeveralAddresses(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("modes are not for Windows")
	}
	dir, err := os.MkdirTemp("", "bh")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "ws.sock")
	to := echo(t)
	text := func(addresses, more string) string {
		return `
listeners: [{name: plain, address: [` + addresses + `]` + more + `}]
admin: {address: "127.0.0.1:0"}
routes: [{path: /ws, websocket: {to: "ws://` + to + `"}}]
`
	}
	l := start(t, text(`"127.0.0.1:0", "unix:`+path+`"`, ""))
	open := func() *websocket.Conn {
		t.Helper()
		conn, _, err := (&websocket.Dialer{NetDialContext: through("unix", path, "")}).Dial("ws://localhost/ws", nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	mode := func(want fs.FileMode) {
		t.Helper()
		if info, err := os.Stat(path); err != nil || info.Mode() != fs.ModeSocket|want {
			t.Errorf("%v, %v; want %v", info, err, want)
		}
	}
	mode(0o660)
	first, tcp := open(), l.open("/ws")
	talks(t, first)

	fronts := l.now.Load().fronts
	l.becomes(text(`"127.0.0.1:0", "unix:`+path+`"`, `, mode: "0600"`))
	mode(0o600)
	talks(t, open())
	l.becomes(text(`"unix:`+path+`"`, `, mode: "0600"`))
	if _, err := net.Dial("tcp", fronts[0].socket.Addr().String()); err == nil {
		t.Error("an address that is gone is listened on")
	}
	talks(t, open())
	text2 := text(`"unix:`+path+`"`, `, mode: "0666", owner: "nobody-has-this-name"`)
	l.text.Store(&text2)
	if _, err := l.Reload(); err == nil || !strings.Contains(err.Error(), "nobody-has-this-name") {
		t.Errorf("an owner that there is not: %v", err)
	}
	mode(0o600)
	l.becomes(text(`"127.0.0.1:0"`, ""))
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket stays: %v", err)
	}
	talks(t, first)
	talks(t, tcp)
}

func TestHeadersOfOurOwn(t *testing.T) {
	t.Parallel()
	s := run(t, `
certificates: {internal: true}
listeners:
  - {name: plain, address: "127.0.0.1:0"}
  - {name: secure, address: "127.0.0.1:0", tls: true, hsts: {subdomains: true}}
admin: {address: "127.0.0.1:0"}
routes: [{path: /there, websocket: {to: "ws://`+teller(t)+`", http: true}}]
`)
	for name, want := range map[string]string{"plain": "", "secure": "max-age=31536000; includeSubDomains"} {
		transport := &http.Transport{DialContext: through("tcp", s.Addr(name).String(), ""), TLSClientConfig: rootOf(t, s), DisableKeepAlives: true}
		scheme := map[string]string{"plain": "http", "secure": "https"}[name]
		for _, path := range []string{"/there", "/not-there"} {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, scheme+"://localhost"+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := transport.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if got := resp.Header.Get("Strict-Transport-Security"); got != want {
				t.Errorf("%s%s: HSTS %q", name, path, got)
			}
			if len(resp.Header["Server"])+len(resp.Header["Alt-Svc"]) > 0 {
				t.Errorf("%s%s: %v", name, path, resp.Header)
			}
		}
	}
}

func TestASystemdSocketThatIsNotThere(t *testing.T) {
	t.Parallel()
	_, err := New(parse(t, strings.Replace(config1("127.0.0.1:1"), "127.0.0.1:0", "systemd:web", 1)), "test", discard())
	if err == nil || !strings.Contains(err.Error(), "listener plain: systemd has handed over no sockets; a socket unit does that") {
		t.Error(err)
	}
}

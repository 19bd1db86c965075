package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"bridgehead/test/h2test"
)

// patience bounds every wait for something that ought to happen soon.
const patience = 20 * time.Second

// A guest is a client of HTTP/2, on one connection.
type guest struct {
	t *testing.T
	*h2test.Session
}

// visit connects to the listener wss of a program with a local authority, or else to the listener plain, by prior knowledge.
func visit(t *testing.T, s *Server) *guest {
	t.Helper()
	session, err := session(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { session.Close() })
	return &guest{t, session}
}

func session(s *Server) (*h2test.Session, error) {
	wss := s.Addr("wss")
	if wss == nil {
		conn, err := net.Dial("tcp", s.Addr("plain").String())
		if err != nil {
			return nil, err
		}
		return h2test.NewSession(conn)
	}
	path, _ := s.Root()
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "localhost"}
	config.RootCAs.AppendCertsFromPEM(pem)
	return h2test.DialSession(wss.String(), config)
}

// dial opens a socket, or gives the answer that refuses it.
func (g *guest) dial(path string, header http.Header, subprotocols ...string) (*websocket.Conn, *http.Response, error) {
	d := websocket.Dialer{
		HandshakeTimeout: patience, Subprotocols: subprotocols,
		NetDialContext: func(context.Context, string, string) (net.Conn, error) { return g.Open(), nil },
	}
	return d.Dial("ws://localhost"+path, header)
}

// open opens a socket.
func (g *guest) open(path string) *websocket.Conn {
	g.t.Helper()
	conn, resp, err := g.dial(path, nil)
	if err != nil {
		g.t.Fatal(err, resp)
	}
	g.t.Cleanup(func() { conn.Close() })
	conn.SetReadDeadline(time.Now().Add(patience))
	return conn
}

// ask sends a request that asks for no socket, and gives the answer with its whole body.
func (g *guest) ask(method, path, body string, lines ...string) (*http.Response, string) {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, "https://localhost"+path, strings.NewReader(body))
	if err != nil {
		g.t.Fatal(err)
	}
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		r.Header[name] = append(r.Header[name], value)
	}
	resp, err := g.Do(r)
	if err != nil {
		g.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	return resp, string(data)
}

// leaves waits until the server has told the client to open no more streams.
func (g *guest) leaves() {
	g.t.Helper()
	for deadline := time.Now().Add(patience); g.Alive(); <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			g.t.Fatal("no GOAWAY came")
		}
	}
}

// application is a backend with sockets that echo, and requests beside them whose answers have trailers.
func application(t *testing.T) string {
	t.Helper()
	upgrader := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }, Subprotocols: []string{"chat"}}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !websocket.IsWebSocketUpgrade(r) {
			data, _ := io.ReadAll(r.Body)
			w.Header().Set("Trailer", "X-Sum")
			w.Header().Set("Keep-Alive", "timeout=5")
			fmt.Fprintf(w, "%s %s %s", r.Method, r.URL.Path, data)
			w.Header().Set("X-Sum", fmt.Sprint(len(data), r.Trailer.Get("X-Sent")))
			return
		}
		for name := range r.Header {
			if strings.Contains(name, ":") {
				t.Errorf("the backend was sent %s", name)
			}
		}
		conn, err := upgrader.Upgrade(w, r, http.Header{"X-Seen": {r.Header.Get("X-Forwarded-Proto")}})
		if err != nil {
			return
		}
		defer conn.Close()
		for {
			kind, data, err := conn.ReadMessage()
			if err != nil || conn.WriteMessage(kind, data) != nil {
				return
			}
		}
	}))
	t.Cleanup(s.Close)
	t.Cleanup(s.CloseClientConnections)
	return strings.TrimPrefix(s.URL, "http://")
}

// overHTTP2 are programs that speak it: with TLS, and without.
func overHTTP2(t *testing.T, test func(t *testing.T, s *live, g *guest)) {
	pages := t.TempDir()
	if err := os.WriteFile(filepath.Join(pages, "page.html"), bytes.Repeat([]byte("page "), 100_000), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, listener := range map[string]string{
		"TLS":             `{name: wss, address: "127.0.0.1:0", tls: true, http2: true}`,
		"prior knowledge": `{name: plain, address: "127.0.0.1:0", http2: true}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			certificates := ""
			if name == "TLS" {
				certificates = "certificates: {internal: true}"
			}
			s := start(t, fmt.Sprintf(`
%s
admin: {address: "127.0.0.1:0"}
drain: 2s
listeners: [%s]
routes:
  - {name: pages, path: /pages/*, files: {dir: %q}}
  - {name: small, path: /small, socket: {message_size: 100}, websocket: {to: "ws://%[4]s"}}
  - {name: page, path: /page, origins: ["https://www.example.com"], websocket: {to: "ws://%[4]s"}}
  - {name: all, path: /*, socket: {write_timeout: 2s}, limits: [], websocket: {to: "ws://%[4]s", http: true}}
`, certificates, listener, pages, application(t)))
			test(t, s, visit(t, s.Server))
		})
	}
}

// A page, its requests and its sockets come over one connection, which refusals do not end.
func TestOneConnectionForAll(t *testing.T) {
	t.Parallel()
	overHTTP2(t, func(t *testing.T, s *live, g *guest) {
		if resp, body := g.ask("GET", "/pages/page.html", ""); resp.StatusCode != 200 || len(body) != 500_000 || resp.ProtoMajor != 2 {
			t.Errorf("a file: %s, %d bytes", resp.Status, len(body))
		}
		conn := g.open("/socket")
		talks(t, conn)
		resp, body := g.ask("POST", "/things", strings.Repeat("x", 200_000))
		if resp.StatusCode != 200 || len(body) != len("POST /things ")+200_000 || resp.Trailer.Get("X-Sum") != "200000" {
			t.Errorf("a request: %s, %d bytes, trailer %v", resp.Status, len(body), resp.Trailer)
		}
		if resp.Header["Keep-Alive"] != nil || resp.Header["Connection"] != nil {
			t.Errorf("the answer speaks of a connection: %v", resp.Header)
		}
		for _, c := range []struct {
			path   string
			header http.Header
			status int
		}{
			{"/page", http.Header{"Origin": {"https://evil.example"}}, 403},
			{"/pages/page.html", nil, 400},
			{"/pages/none.html", nil, 404},
		} {
			if conn, resp, err := g.dial(c.path, c.header); err == nil || resp == nil || resp.StatusCode != c.status {
				t.Errorf("a socket at %s: %v, %v, %v; want %d", c.path, conn, resp, err, c.status)
			}
		}
		if resp, body := g.ask("GET", "/small", ""); resp.StatusCode != 426 || resp.Header["Upgrade"] != nil {
			t.Errorf("no socket where there are sockets alone: %s %v %s", resp.Status, resp.Header, body)
		}
		chat, resp, err := g.dial("/socket", nil, "other", "chat")
		if err != nil || chat.Subprotocol() != "chat" || resp.Header.Get("X-Seen") == "" {
			t.Fatalf("a subprotocol: %v, %v", resp, err)
		}
		defer chat.Close()
		talks(t, chat)
		small := g.open("/small")
		small.WriteMessage(websocket.TextMessage, make([]byte, 101))
		if _, _, err := small.ReadMessage(); !websocket.IsCloseError(err, 1009) {
			t.Errorf("a message that is too big: %v", err)
		}
		conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(4321, "bye"), time.Now().Add(patience))
		if _, _, err := conn.ReadMessage(); !websocket.IsCloseError(err, 4321) {
			t.Errorf("a close: %v", err)
		}
		if !g.Alive() {
			t.Error("the connection takes no more streams")
		}
	})
}

// One socket that never reads is ended in its time. The hundred others of its connection feel nothing, nor do requests beside them.
func TestOneThatNeverReads(t *testing.T) {
	t.Parallel()
	overHTTP2(t, func(t *testing.T, s *live, g *guest) {
		stalled := g.open("/socket")
		flooding := make(chan error, 1)
		go func() {
			for {
				if err := stalled.WriteMessage(websocket.BinaryMessage, make([]byte, 64<<10)); err != nil {
					flooding <- err
					return
				}
			}
		}()
		conns := make([]*websocket.Conn, 100)
		for i := range conns {
			conns[i] = g.open("/socket")
		}
		for over := false; !over; {
			select {
			case <-flooding:
				over = true
			case <-time.After(patience):
				t.Fatal("the one that never reads lives on")
			default:
			}
			var all sync.WaitGroup
			for _, conn := range conns {
				all.Go(func() { echoes(t, conn, 5000) })
			}
			all.Wait()
			if t.Failed() {
				return
			}
			g.ask("GET", "/beside", "")
		}
	})
}

func echoes(t *testing.T, conn *websocket.Conn, size int) {
	message := bytes.Repeat([]byte("m"), size)
	if err := conn.WriteMessage(websocket.BinaryMessage, message); err != nil {
		t.Error(err)
		return
	}
	conn.SetReadDeadline(time.Now().Add(patience))
	if _, data, err := conn.ReadMessage(); err != nil || !bytes.Equal(data, message) {
		t.Errorf("%d bytes, %v", len(data), err)
	}
}

// At the end of the program the client is told to open no more streams, and each socket still gets its own close first.
func TestDrainOverHTTP2(t *testing.T) {
	t.Parallel()
	overHTTP2(t, func(t *testing.T, s *live, g *guest) {
		idle := visit(t, s.Server)
		idle.ask("GET", "/beside", "")
		conns := []*websocket.Conn{g.open("/socket"), g.open("/socket"), g.open("/small")}
		closed := make(chan error, len(conns))
		for _, conn := range conns {
			go func() {
				_, _, err := conn.ReadMessage()
				closed <- err
			}()
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := s.Drain(ctx); err != nil {
			t.Error(err)
		}
		for range conns {
			if err := <-closed; !websocket.IsCloseError(err, 1001) {
				t.Errorf("a socket ended with %v", err)
			}
		}
		g.leaves()
		idle.leaves()
	})
}

// A listener whose options change tells its clients to come anew. Their sockets live on, and follow what else is changed.
func TestReloadOverHTTP2(t *testing.T) {
	t.Parallel()
	overHTTP2(t, func(t *testing.T, s *live, g *guest) {
		conn := g.open("/socket")
		text := *s.text.Load()
		s.becomes(strings.Replace(text, "write_timeout: 2s", "write_timeout: 3s", 1))
		talks(t, conn)
		if !g.Alive() {
			t.Error("a changed route has ended the connection of its sockets")
		}
		s.becomes(strings.Replace(text, "http2: true", "http2: true, keep_alive: 2m", 1))
		g.leaves()
		talks(t, conn)
		again := visit(t, s.Server)
		talks(t, again.open("/socket"))
		s.becomes(strings.Replace(text, "http2: true", "http2: false", 1))
		again.leaves()
		talks(t, conn)
		s.becomes(strings.Replace(strings.Replace(text, "http2: true", "http2: false", 1), "path: /*, socket", "path: /*, host: other.example, socket", 1))
		if _, _, err := conn.ReadMessage(); !websocket.IsCloseError(err, 1012) {
			t.Errorf("the socket of a route that is gone ended with %v", err)
		}
	})
}

// A socket outlives the times that its listener gives requests.
func TestASocketOutlivesTheTimeOfRequests(t *testing.T) {
	t.Parallel()
	s := run(t, `
admin: {address: "127.0.0.1:0"}
listeners: [{name: plain, address: "127.0.0.1:0", http2: true, header_timeout: 100ms, body_timeout: 100ms, keep_alive: 100ms, body_size: 1KiB}]
routes: [{websocket: {to: "ws://`+application(t)+`"}}]
`)
	conn := visit(t, s).open("/")
	for start := time.Now(); time.Since(start) < 500*time.Millisecond; {
		echoes(t, conn, 2000)
		if t.Failed() {
			return
		}
	}
	<-time.After(300 * time.Millisecond) // and while nothing moves
	echoes(t, conn, 2000)
}

// Without http2 nothing but HTTP/1.1 is spoken.
func TestHTTP2IsAskedFor(t *testing.T) {
	t.Parallel()
	s := run(t, `
admin: {address: "127.0.0.1:0"}
certificates: {internal: true}
listeners: [{name: wss, address: "127.0.0.1:0", tls: true}, {name: plain, address: "127.0.0.1:0"}]
routes: [{websocket: {to: "ws://127.0.0.1:1"}}]
`)
	if _, err := h2test.DialSession(s.Addr("wss").String(), &tls.Config{InsecureSkipVerify: true}); err == nil {
		t.Error("a listener that was not asked speaks HTTP/2")
	}
	conn, err := net.Dial("tcp", s.Addr("plain").String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	io.WriteString(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	if answer, err := io.ReadAll(conn); !strings.HasPrefix(string(answer), "HTTP/1.1 ") && !errors.Is(err, net.ErrClosed) {
		t.Errorf("answered %q, %v", answer, err)
	}
}

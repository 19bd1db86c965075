package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"bridgehead/config"
	"bridgehead/internal/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

// parse reads a configuration whose state is a short-lived directory.
func parse(t *testing.T, text string) *config.Config {
	t.Helper()
	dir, err := os.MkdirTemp("", "bh") // shorter than t.TempDir: the path of a socket is bounded
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c, _, err := config.Parse("test.yaml", []byte("state: "+dir+"\n"+text), func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// run starts a configuration and stops it with the test.
func run(t *testing.T, text string) *Server {
	t.Helper()
	s, err := New(parse(t, text), "test", discard())
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(s.Stop)
	return s
}

// echo is an upstream.
func echo(t *testing.T) string {
	t.Helper()
	upgrader := websocket.Upgrader{}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := upgrader.Upgrade(w, r, nil)
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
	})}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return l.Addr().String()
}

func config1(to string) string {
	return `
listeners: [{name: plain, address: "127.0.0.1:0"}]
admin: {address: "127.0.0.1:0"}
routes: [{path: /ws, websocket: {to: "ws://` + to + `"}}]
`
}

func dial(t *testing.T, s *Server) *websocket.Conn {
	t.Helper()
	conn, _, err := websocket.DefaultDialer.Dial("ws://"+s.Addr("plain").String()+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestTwoProgramsInOneProcess(t *testing.T) {
	t.Parallel()
	to := echo(t)
	a, b := run(t, config1(to)), run(t, config1(to))
	dial(t, a)
	dial(t, a)
	dial(t, b)
	if a.hub.Len() != 2 || b.hub.Len() != 1 {
		t.Fatalf("%d and %d sockets", a.hub.Len(), b.hub.Len())
	}
}

func TestAPortThatIsTakenLeavesNothingOpen(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	free.Close()
	_, err = New(parse(t, fmt.Sprintf(`
listeners: [{name: first, address: %q}, {name: second, address: %q}]
routes: [{websocket: {to: "ws://127.0.0.1:1"}}]
`, address, taken.Addr())), "test", discard())
	if err == nil || !strings.Contains(err.Error(), "listener second") || !strings.Contains(err.Error(), "choose another address") {
		t.Fatalf("error %v", err)
	}
	again, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatalf("the first listener stayed open: %v", err)
	}
	again.Close()
}

func TestDrainEndsWithTheLastSocketAndRefusesNewcomers(t *testing.T) {
	t.Parallel()
	s := run(t, config1(echo(t)))
	conn := dial(t, s)
	closed := make(chan int, 1)
	go func() {
		_, _, err := conn.ReadMessage()
		e := &websocket.CloseError{}
		if errors.As(err, &e) {
			closed <- e.Code
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := s.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	if code := <-closed; code != websocket.CloseGoingAway {
		t.Fatalf("closed with %d", code)
	}
	if _, _, err := websocket.DefaultDialer.Dial("ws://"+s.Addr("plain").String()+"/ws", nil); err == nil {
		t.Fatal("a newcomer was let in")
	}
	if s.hub.Len() != 0 {
		t.Fatalf("%d sockets are left", s.hub.Len())
	}
}

func TestADrainThatCannotEndSaysWhatIsLeft(t *testing.T) {
	t.Parallel()
	s := run(t, config1(echo(t)))
	dial(t, s) // never reads, so never answers the close
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Drain(ctx); err == nil || !strings.Contains(err.Error(), "1 sockets are left") {
		t.Fatalf("error %v", err)
	}
}

func TestRedirect(t *testing.T) {
	t.Parallel()
	s := run(t, `
certificates: {internal: true}
listeners:
  - {name: secure, address: "127.0.0.1:0", tls: true}
  - {name: plain, address: "127.0.0.1:0", redirect: true}
admin: {address: "127.0.0.1:0"}
routes: [{websocket: {to: "ws://127.0.0.1:1"}}]
`)
	_, port, _ := net.SplitHostPort(s.Addr("secure").String())
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer client.CloseIdleConnections()
	for host, want := range map[string]string{
		"chat.example.com": "https://chat.example.com:" + port + "/a%2Fb?c=d", "chat.example.com:80": "https://chat.example.com:" + port + "/a%2Fb?c=d",
		"[::1]:80": "https://[::1]:" + port + "/a%2Fb?c=d",
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.Addr("plain").String()+"/a%2Fb?c=d", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusPermanentRedirect || resp.Header.Get("Location") != want {
			t.Errorf("%s: %s to %s", host, resp.Status, resp.Header.Get("Location"))
		}
	}
}

func TestCertNames(t *testing.T) {
	t.Parallel()
	names := certNames([]config.Route{{Host: "a.example"}, {Host: "{tenant}.app.example"}, {Host: "*.b.example"}, {}})
	if got := strings.Join(names, " "); got != "a.example *.app.example *.b.example " {
		t.Fatalf("got %q", got)
	}
}

// A handshake that no route takes is told once for a host and path; pages that are missing are no news.
func TestAHandshakeWithoutARouteIsTold(t *testing.T) {
	t.Parallel()
	var log lockedBuffer
	s, err := New(parse(t, config1("127.0.0.1:1")), "test", slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(s.Stop)
	for _, path := range []string{"/none", "/none", "/other"} {
		if _, resp, err := websocket.DefaultDialer.Dial("ws://"+s.Addr("plain").String()+path, nil); err == nil || resp.StatusCode != 404 {
			t.Errorf("%s: %v", path, err)
		}
	}
	resp, err := http.Get("http://" + s.Addr("plain").String() + "/page")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	told := log.String()
	if strings.Count(told, "msg=\"no route\"") != 2 || !strings.Contains(told, "path=/none") || !strings.Contains(told, "bridgehead explain") {
		t.Errorf("the log says\n%s", told)
	}
}

// A lockedBuffer takes a log from several goroutines.
type lockedBuffer struct {
	mu   sync.Mutex // guards the following
	text strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

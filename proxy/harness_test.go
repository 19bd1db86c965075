package proxy

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bridgehead/hub"
	"bridgehead/internal/leak"
	"bridgehead/internal/metrics"
	"bridgehead/policy"
	"bridgehead/ws"
)

func TestMain(m *testing.M) { leak.Main(m) }

// patience is how long a test waits for what has to come.
const patience = 20 * time.Second

// A fakeBridge opens sessions that do nothing but what its functions do; nil does nothing.
type fakeBridge struct {
	open  func(context.Context, *Handshake) error
	start func(*Client)
	close func(*Client, ws.Cause)

	opened, closed atomic.Int64
	clients        chan *Client // as they are started
	causes         chan ws.Cause
}

func (b *fakeBridge) Open(ctx context.Context, h *Handshake) (Session, error) {
	b.opened.Add(1)
	if b.open != nil {
		if err := b.open(ctx, h); err != nil {
			return nil, err
		}
	}
	return &fakeSession{bridge: b}, nil
}

func (b *fakeBridge) Plan(*Handshake) (Plan, error) { return Plan{To: []string{"fake://backend"}}, nil }

type fakeSession struct {
	bridge *fakeBridge
	client *Client // nil until Start
}

func (s *fakeSession) Start(c *Client) {
	s.client = c
	if s.bridge.start != nil {
		s.bridge.start(c)
	}
	s.bridge.clients <- c
}

func (s *fakeSession) Close(cause ws.Cause) {
	s.bridge.closed.Add(1)
	s.bridge.causes <- cause
	if s.bridge.close != nil {
		s.bridge.close(s.client, cause)
	}
	if s.client != nil {
		s.client.Conn.Close()
	}
}

// A stage is a proxy with a fake bridge behind a real server.
type stage struct {
	t      *testing.T
	proxy  *Proxy
	bridge *fakeBridge
	server *httptest.Server
	log    journal
	set    *metrics.Set
	held   int // places that others hold of the route and of the program
}

// parts are what a proxy is made of.
type parts struct {
	Config
	Terms
}

// newStage starts a proxy. change may be nil.
func newStage(t *testing.T, change func(*parts, *fakeBridge)) *stage {
	t.Helper()
	s := &stage{t: t, set: metrics.New("test")}
	s.bridge = &fakeBridge{clients: make(chan *Client, 100), causes: make(chan ws.Cause, 100)}
	c := parts{
		Config{
			Route: "chat", Node: "n1", Hub: hub.New(), Limits: policy.NewStore(100), Capacity: policy.NewCapacity(0),
			Metrics: s.set.Route("chat"), Log: slog.New(slog.NewJSONHandler(&s.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		},
		Terms{Kind: "websocket", Options: DefaultOptions(), Bridge: s.bridge},
	}
	c.Options.Limits = nil
	if change != nil {
		change(&c, s.bridge)
	}
	var err error
	if s.proxy, err = New(c.Config, c.Terms); err != nil {
		t.Fatal(err)
	}
	s.server = httptest.NewServer(s.proxy)
	t.Cleanup(s.server.Close)
	t.Cleanup(s.drain)
	return s
}

// drain ends all sockets and waits until they have given everything back.
func (s *stage) drain() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.proxy.Hub.Drain(ctx, 0, ws.Cause{Kind: ws.ShuttingDown}); err != nil {
		s.t.Error(err)
	}
}

// A journal keeps the lines of a log.
type journal struct {
	mu    sync.Mutex // guards the following
	lines []map[string]any
}

func (j *journal) Write(p []byte) (int, error) {
	var line map[string]any
	if err := json.Unmarshal(p, &line); err != nil {
		return 0, err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, line)
	return len(p), nil
}

// line is the one line with this message.
func (j *journal) line(t *testing.T, message string) map[string]any {
	t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	var found []map[string]any
	for _, line := range j.lines {
		if line["msg"] == message {
			found = append(found, line)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d lines say %q in %v", len(found), message, j.lines)
	}
	return found[0]
}

// counted wants a line in what the metrics tell, such as `refusals_total{reason="limit",route="chat"} 1`.
func (s *stage) counted(want ...string) {
	s.t.Helper()
	w := httptest.NewRecorder()
	s.set.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for _, line := range want {
		if !strings.Contains(w.Body.String(), "\nbridgehead_"+line+"\n") {
			s.t.Errorf("the metrics do not tell %s", line)
		}
	}
}

// ask sends a handshake with further header lines and gives the answer and the connection behind it.
func (s *stage) ask(lines ...string) (*http.Response, *bufio.Reader, net.Conn) {
	s.t.Helper()
	conn := s.dial()
	io.WriteString(conn, handshake(lines...))
	br := bufio.NewReader(conn)
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp, br, conn
}

// dial connects to the server.
func (s *stage) dial() net.Conn {
	s.t.Helper()
	conn, err := net.Dial("tcp", s.server.Listener.Addr().String())
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return conn
}

func handshake(lines ...string) string {
	return strings.Join(append([]string{
		"GET /chat?x=1 HTTP/1.1", "Host: 127.0.0.1", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
	}, lines...), "\r\n") + "\r\n\r\n"
}

// accepted asks for a socket that has to be opened, and gives the client as the bridge got it.
func (s *stage) accepted(lines ...string) (*Client, *bufio.Reader, net.Conn) {
	s.t.Helper()
	resp, br, conn := s.ask(lines...)
	if resp.StatusCode != http.StatusSwitchingProtocols {
		s.t.Fatalf("status %s", resp.Status)
	}
	return await(s.t, s.bridge.clients), br, conn
}

// refused asks for a socket that has to be refused, checks that nothing stays behind, and gives the answer.
func (s *stage) refused(lines ...string) (resp *http.Response, body string) {
	s.t.Helper()
	resp, br, _ := s.ask(lines...)
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := br.ReadByte(); err != io.EOF || !resp.Close {
		s.t.Errorf("after a refused upgrade the connection lives on: %v, close %t", err, resp.Close)
	}
	s.isFree()
	return resp, string(data)
}

// hold takes a place of the route and one of the program.
func (s *stage) hold() {
	s.proxy.room.Acquire()
	s.proxy.Capacity.Acquire()
	s.held++
}

// isFree checks that no client holds anything.
func (s *stage) isFree() {
	s.t.Helper()
	if room, all, open := s.proxy.room.Len(), s.proxy.Capacity.Len(), s.proxy.Hub.Len(); room != s.held || all != s.held || open > 0 {
		s.t.Errorf("%d places of the route, %d of the program and %d in the hub are held", room, all, open)
	}
}

func await[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatal("it never came")
		panic("unreachable")
	}
}

package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"bridgehead/hub"
	"bridgehead/internal/unit"
	"bridgehead/policy"
	"bridgehead/proxy"
	"bridgehead/ws"
)

// patience is how long a test waits for what has to come.
const patience = 20 * time.Second

// A call is one request as an application reads it.
type call struct {
	header http.Header
	body   []byte

	Version    int
	Route      string
	Connection struct {
		ID, User, Subprotocol string
		RemoteIP              string `json:"remote_ip"`
		State                 json.RawMessage
	}
	Events []struct {
		ID, Type     string
		Seq          int
		Text         *string
		Data         []byte `json:"data_base64"`
		Code         int
		Reason       string
		Clean        bool
		Initiator    string
		DurationMS   int64 `json:"duration_ms"`
		MessagesIn   int   `json:"messages_in"`
		MessagesOut  int   `json:"messages_out"`
		BytesIn      int   `json:"bytes_in"`
		BytesOut     int   `json:"bytes_out"`
		Path, Origin string
		Subprotocols []string
		Headers      map[string]string
	}
}

// kind is the type of the call's events.
func (c *call) kind() string { return c.Events[0].Type }

// texts are the texts of the call's messages.
func (c *call) texts() string {
	var all []string
	for _, e := range c.Events {
		if e.Text != nil {
			all = append(all, *e.Text)
		}
	}
	return strings.Join(all, ",")
}

// A stage is a route with an application behind it, both real servers on loopback.
type stage struct {
	t   *testing.T
	url string // of the route

	application string // its URL
	bridge      *Bridge
	hub         *hub.Hub
	log         *journal
	calls       chan call // what the application was asked, in order
	peers       []*peer   // opened by dial
}

// newStage starts a route whose application answers with app. Requests are signed, and each is verified. change may be nil.
func newStage(t *testing.T, app func(http.ResponseWriter, *call), change func(*Options, *proxy.Options)) *stage {
	t.Helper()
	s := &stage{t: t, hub: hub.New(), log: new(journal), calls: make(chan call, 1000)}
	key := verifier(t, oldKey)
	application := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := call{header: r.Header}
		c.body, _ = io.ReadAll(r.Body)
		if err := key.Verify(c.body, r.Header); err != nil {
			t.Error(err)
		}
		if err := json.Unmarshal(c.body, &c); err != nil {
			t.Errorf("%v in %s", err, c.body)
			return
		}
		s.calls <- c
		app(w, &c)
	}))
	t.Cleanup(application.Close)
	s.application = application.URL

	shared := proxy.DefaultOptions()
	b := newBridge(t, application.URL, func(o *Options) {
		o.Secret, o.Retries = []unit.Secret{newKey, oldKey}, 1
		if change != nil {
			change(o, &shared)
		}
	})
	s.bridge = b
	p, err := proxy.New(proxy.Config{
		Route: "chat", Node: "n1", Hub: s.hub, Limits: policy.NewStore(10), Capacity: policy.NewCapacity(0), Log: s.logger(),
	}, proxy.Terms{Kind: "webhook", Options: shared, Bridge: b})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	t.Cleanup(s.drain)
	s.url = "ws" + strings.TrimPrefix(server.URL, "http")
	return s
}

func (s *stage) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// drain ends all sockets and waits until they have given everything back.
func (s *stage) drain() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.hub.Drain(ctx, 0, ws.Cause{Kind: ws.ShuttingDown}); err != nil {
		s.t.Error(err)
	}
}

// conn is the one connection there is. It is registered a little after its client has got the answer.
func (s *stage) conn() hub.Conn {
	s.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-time.After(time.Millisecond) {
		if all := s.hub.All(); len(all) == 1 {
			return all[0]
		}
	}
	s.t.Fatalf("%d connections, want one", s.hub.Len())
	panic("unreachable")
}

// info is what the hub knows of the one connection there is.
func (s *stage) info() hub.Info { return s.conn().Info() }

// dial opens a socket.
func (s *stage) dial(subprotocols ...string) *peer {
	s.t.Helper()
	dialer := websocket.Dialer{Subprotocols: subprotocols, HandshakeTimeout: patience}
	conn, resp, err := dialer.Dial(s.url+"/room?x=1", http.Header{"Cookie": {"a=1"}})
	if err != nil {
		s.t.Fatal(err, resp)
	}
	s.t.Cleanup(func() { conn.Close() })
	p := &peer{conn, s.t, resp}
	s.peers = append(s.peers, p)
	return p
}

// refused asks for a socket and gives the answer, which is none.
func (s *stage) refused() (status int, header http.Header, body string) {
	s.t.Helper()
	conn, resp, err := websocket.DefaultDialer.Dial(s.url, nil)
	if err == nil {
		conn.Close()
		s.t.Fatal("the socket opened")
	}
	if resp == nil {
		s.t.Fatal(err)
	}
	text, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, string(text)
}

// next is the next call of the application; its type has to be kind.
func (s *stage) next(kind string) call {
	s.t.Helper()
	select {
	case c := <-s.calls:
		if c.kind() != kind {
			s.t.Fatalf("the application was asked %s, want %s", c.body, kind)
		}
		return c
	case <-time.After(patience):
		s.t.Fatalf("the application was not asked a %s", kind)
		panic("unreachable")
	}
}

// quiet ends what is left of the sockets, and checks that the application is asked nothing more.
func (s *stage) quiet() {
	s.t.Helper()
	for _, p := range s.peers {
		p.Close()
	}
	s.drain()
	select {
	case c := <-s.calls:
		s.t.Errorf("the application was also asked %s", c.body)
	default:
	}
}

// A peer is a client's socket.
type peer struct {
	*websocket.Conn
	t    *testing.T
	resp *http.Response
}

func (p *peer) send(texts ...string) {
	p.t.Helper()
	for _, text := range texts {
		if err := p.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
			p.t.Fatal(err)
		}
	}
}

func (p *peer) want(kind int, data string) {
	p.t.Helper()
	p.SetReadDeadline(time.Now().Add(patience))
	gotKind, got, err := p.ReadMessage()
	if err != nil || gotKind != kind || string(got) != data {
		p.t.Fatalf("got message type %d %.100q, %v; want %d %.100q", gotKind, got, err, kind, data)
	}
}

// wantClose checks that the socket is closed with code and reason.
func (p *peer) wantClose(code int, reason string) {
	p.t.Helper()
	p.SetReadDeadline(time.Now().Add(patience))
	_, got, err := p.ReadMessage()
	closed, ok := errors.AsType[*websocket.CloseError](err)
	if !ok || closed.Code != code || closed.Text != reason {
		p.t.Fatalf("got message %.100q, %v; want close %d %q", got, err, code, reason)
	}
}

// readOn reads, and so answers a Close, until the socket ends.
func (p *peer) readOn() {
	defer p.Close()
	for {
		if _, _, err := p.ReadMessage(); err != nil {
			return
		}
	}
}

// closeWith begins the closing handshake.
func (p *peer) closeWith(payload []byte) {
	p.t.Helper()
	if err := p.WriteControl(websocket.CloseMessage, payload, time.Now().Add(patience)); err != nil {
		p.t.Fatal(err)
	}
}

// A journal keeps what was logged.
type journal struct {
	mu sync.Mutex // guards the following
	b  bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.String()
}

// wantLog checks that a line was logged that holds all of these. What is logged before an answer is sent is there when it came.
func (s *stage) wantLog(words ...string) {
	s.t.Helper()
	for line := range strings.Lines(s.log.String()) {
		found := true
		for _, word := range words {
			found = found && strings.Contains(line, word)
		}
		if found {
			return
		}
	}
	s.t.Errorf("no line of the log has %q:\n%s", words, s.log)
}

// respond answers with a body of a type.
func respond(w http.ResponseWriter, status int, contentType, body string) {
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	io.WriteString(w, body)
}

// onMessage lets everybody in and answers messages with app.
func onMessage(app func(w http.ResponseWriter, c *call)) func(http.ResponseWriter, *call) {
	return func(w http.ResponseWriter, c *call) {
		if c.kind() == typeMessage {
			app(w, c)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}
}

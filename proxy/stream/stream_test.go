package stream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"bridgehead/hub"
	"bridgehead/internal/leak"
	"bridgehead/internal/yamlpos"
	"bridgehead/policy"
	"bridgehead/proxy"
	"bridgehead/proxy/upstream"
	"bridgehead/ws"
)

func TestMain(m *testing.M) { leak.Main(m) }

// patience is how long a test waits for what has to come.
const patience = 20 * time.Second

func TestChoose(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		accepted, offered string // separated by spaces
		require           bool
		want              string // "!" is a refusal
	}{
		{"binary", "binary", false, "binary"},
		{"mqtt mqttv3.1", "other mqttv3.1 mqtt", false, "mqttv3.1"}, // the client's order counts (RFC 6455, section 4.1)
		{"mqtt", "MQTT", false, ""},                                 // they are compared as they are written
		{"mqtt", "other", false, ""},
		{"mqtt", "", false, ""},
		{"", "mqtt", false, ""},
		{"mqtt", "other mqtt", true, "mqtt"},
		{"mqtt", "other", true, "!"},
		{"mqtt", "", true, "!"},
	} {
		b := New(Options{Subprotocols: strings.Fields(c.accepted), RequireSubprotocol: c.require}, nil)
		got, err := b.choose(strings.Fields(c.offered))
		if r, ok := errors.AsType[*proxy.Refusal](err); ok {
			got = "!"
			if r.Status != http.StatusBadRequest || r.Reason != "subprotocol" || string(r.Body) != "offer one of the subprotocols mqtt\n" {
				t.Errorf("refused with %+v", r)
			}
		}
		if got != c.want || (err != nil) != (c.want == "!") {
			t.Errorf("%q of %q: %q, %v; want %q", c.accepted, c.offered, got, err, c.want)
		}
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(*Options){
		"":                                      func(*Options) {},
		"tcp.to: is missing":                    func(o *Options) { o.To = nil },
		"tcp.to[1]: ":                           func(o *Options) { o.To = upstream.To{"h:1", "ws://h"} },
		"tcp.connect.timeout: must be positive": func(o *Options) { o.Connect.Timeout = 0 },
		"tcp.framing: ":                         func(o *Options) { o.Framing = "lines" },
		"tcp.message: ":                         func(o *Options) { o.Message = "" },
		"tcp.preamble: ":                        func(o *Options) { o.Preamble = "proxy-v3" },
		"tcp.require_subprotocol: needs":        func(o *Options) { o.RequireSubprotocol, o.Subprotocols = true, nil },
		"tcp.close.linger: must not be":         func(o *Options) { o.Close.Linger = -1 },
	} {
		o := DefaultOptions()
		o.To = upstream.To{"h:1", "tls://h:1", "unix:/run/x"}
		change(&o)
		var p yamlpos.Problems
		o.Validate(yamlpos.Path{"tcp"}, &p)
		if got := p.Error(); !strings.Contains(got, want) || p.Len() > 1 || (p.Len() == 0) != (want == "") {
			t.Errorf("got %q, want one problem like %q", got, want)
		}
	}
}

// A stage is a route to a stream, both real servers on loopback.
type stage struct {
	t   *testing.T
	url string
	hub *hub.Hub
	log syncBuffer
}

// newStage starts a route to a stream that serve carries until it returns. change may be nil.
func newStage(t *testing.T, serve func(*net.TCPConn), change func(*Options, *proxy.Options)) *stage {
	t.Helper()
	s := &stage{t: t, hub: hub.New()}
	o, shared := DefaultOptions(), proxy.DefaultOptions()
	o.To = upstream.To{listen(t, serve)}
	if change != nil {
		change(&o, &shared)
	}
	group, err := upstream.New(o.To.Own())
	if err != nil {
		t.Fatal(err)
	}
	p, err := proxy.New(proxy.Config{
		Route: "vnc", Node: "n1", Hub: s.hub, Limits: policy.NewStore(10), Capacity: policy.NewCapacity(0),
		Log: slog.New(slog.NewTextHandler(&s.log, nil)),
	}, proxy.Terms{Kind: "tcp", Options: shared, Bridge: New(o, group)})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	t.Cleanup(s.drain)
	s.url = "ws" + strings.TrimPrefix(server.URL, "http")
	return s
}

// listen runs a TCP server that hands each connection to serve and then closes it. It ends with the test.
func listen(t *testing.T, serve func(*net.TCPConn)) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(patience))
				serve(conn.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() { l.Close(); serving.Wait() })
	return l.Addr().String()
}

// drain ends all sockets and waits until they have given everything back.
func (s *stage) drain() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.hub.Drain(ctx, 0, ws.Cause{Kind: ws.ShuttingDown}); err != nil {
		s.t.Error(err)
	}
}

func (s *stage) dial() *websocket.Conn {
	s.t.Helper()
	conn, _, err := websocket.DefaultDialer.Dial(s.url, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	conn.SetReadDeadline(time.Now().Add(patience))
	return conn
}

// wantEnd reads until the socket's Close, and checks its code and the cause in the log.
func (s *stage) wantEnd(conn *websocket.Conn, code int, cause string) {
	s.t.Helper()
	var err error
	for err == nil {
		_, _, err = conn.ReadMessage()
	}
	if closed, ok := errors.AsType[*websocket.CloseError](err); !ok || closed.Code != code {
		s.t.Errorf("the socket ended with %v, want %d", err, code)
	}
	conn.Close()
	s.drain() // so that the line is there
	if log := s.log.String(); !strings.Contains(log, `cause="`+cause+`"`) {
		s.t.Errorf("no %q in the log:\n%s", cause, log)
	}
}

// syncBuffer is a buffer that many may write.
type syncBuffer struct {
	mu  sync.Mutex // guards the following
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// inBothFramings runs a test for raw streams and for lines.
func inBothFramings(t *testing.T, test func(t *testing.T, framing string)) {
	t.Parallel()
	for _, framing := range []string{"raw", "line"} {
		t.Run(framing, func(t *testing.T) {
			t.Parallel()
			test(t, framing)
		})
	}
}

func sayClose(conn *websocket.Conn) {
	conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1000, ""), time.Now().Add(patience))
}

// A stream that never reads holds its client's Close for no longer than the linger.
func TestAClientThatClosesWhileTheStreamNeverReads(t *testing.T) {
	inBothFramings(t, func(t *testing.T, framing string) {
		over := make(chan struct{})
		s := newStage(t, func(*net.TCPConn) { <-over }, func(o *Options, shared *proxy.Options) {
			o.Framing, o.Close.Linger = framing, 50*time.Millisecond
			shared.Socket.WriteTimeout = 0
		})
		defer close(over)
		conn := s.dial()
		conn.WriteMessage(websocket.BinaryMessage, []byte("nobody reads this"))
		sayClose(conn)
		s.wantEnd(conn, 1000, "client closed")
	})
}

// When the stream's buffers are full the client is not read, so its Close is not seen: the write timeout decides.
func TestAClientThatClosesBehindWhatTheStreamDoesNotTake(t *testing.T) {
	inBothFramings(t, func(t *testing.T, framing string) {
		over := make(chan struct{})
		s := newStage(t, func(conn *net.TCPConn) { conn.SetReadBuffer(4 << 10); <-over }, func(o *Options, shared *proxy.Options) {
			o.Framing = framing
			shared.Socket.WriteTimeout = 300 * time.Millisecond
		})
		defer close(over)
		conn := s.dial()
		var flood sync.WaitGroup
		flood.Go(func() {
			message := bytes.Repeat([]byte("x"), 64<<10)
			for range 1024 {
				if conn.WriteMessage(websocket.BinaryMessage, message) != nil {
					return
				}
			}
			sayClose(conn)
		})
		s.wantEnd(conn, 1011, "backend slow")
		flood.Wait()
	})
}

// Without linger the client's Close is the end, whatever the stream still has to say; what the client said before is delivered.
func TestNoLinger(t *testing.T) {
	inBothFramings(t, func(t *testing.T, framing string) {
		heard, over := make(chan string, 1), make(chan struct{})
		s := newStage(t, func(conn *net.TCPConn) {
			all, _ := io.ReadAll(conn)
			heard <- strings.TrimSpace(string(all))
			<-over
		}, func(o *Options, _ *proxy.Options) { o.Framing, o.Close.Linger = framing, 0 })
		defer close(over)
		conn := s.dial()
		conn.WriteMessage(websocket.BinaryMessage, []byte("last words"))
		sayClose(conn)
		s.wantEnd(conn, 1000, "client closed")
		if got := <-heard; got != "last words" {
			t.Errorf("the stream heard %q", got)
		}
	})
}

func TestLinesAreBoundedTowardTheClient(t *testing.T) {
	t.Parallel()
	s := newStage(t, func(conn *net.TCPConn) {
		io.WriteString(conn, "12345\r\n123456\r\n")
		io.Copy(io.Discard, conn)
	}, func(o *Options, shared *proxy.Options) {
		o.Framing, o.Message = "line", "text"
		shared.Socket.BackendMessageSize = 5
	})
	conn := s.dial()
	if kind, data, err := conn.ReadMessage(); kind != websocket.TextMessage || string(data) != "12345" {
		t.Errorf("%q of type %d, %v", data, kind, err)
	}
	s.wantEnd(conn, 1001, "backend message too big")
}

func TestTextLinesAreValidUTF8(t *testing.T) {
	t.Parallel()
	s := newStage(t, func(conn *net.TCPConn) { io.WriteString(conn, "caf\xe9 \xff\xfe!\n") }, func(o *Options, _ *proxy.Options) {
		o.Framing, o.Message = "line", "text"
	})
	conn := s.dial()
	if _, data, err := conn.ReadMessage(); string(data) != "caf\uFFFD \uFFFD!" {
		t.Errorf("%q, %v", data, err)
	}
	s.wantEnd(conn, 1000, "backend closed")
}

// A client may vanish before its socket is open: the stream ends then.
func TestCloseWithoutStartEndsTheStream(t *testing.T) {
	inBothFramings(t, func(t *testing.T, framing string) {
		ended := make(chan error, 1)
		addr := listen(t, func(conn *net.TCPConn) { _, err := io.Copy(io.Discard, conn); ended <- err })
		o := DefaultOptions()
		o.Framing, o.Subprotocols = framing, []string{"binary"}
		group, err := upstream.New(upstream.To{addr}.Own())
		if err != nil {
			t.Fatal(err)
		}
		h := caller{remote: "192.0.2.7:4711"}.handshake()
		h.Offer.Subprotocols, h.User = []string{"binary"}, "ann"
		s, err := New(o, group).Open(t.Context(), h)
		if err != nil {
			t.Fatal(err)
		}
		if h.Reply.Subprotocol != "binary" || h.Reply.User != "ann" || h.Reply.Push || h.Reply.Extensions != "" {
			t.Errorf("reply %+v", h.Reply)
		}
		s.Close(ws.Cause{Kind: ws.ClientGone})
		if err := <-ended; err != nil {
			t.Error(err)
		}
		runtime.KeepAlive(s) // or its descriptor would be closed with it
	})
}

func TestNoStreamIsOpenedForAClientThatIsRefused(t *testing.T) {
	t.Parallel()
	b := New(Options{Subprotocols: []string{"mqtt"}, RequireSubprotocol: true}, nil) // it would panic without a group
	if s, err := b.Open(t.Context(), caller{remote: "192.0.2.7:4711"}.handshake()); s != nil || err == nil {
		t.Errorf("%v, %v", s, err)
	}
}

// A client that leaves while the stream is being opened, or a stream that is too slow for that, leaves nothing behind.
func TestOpeningIsBounded(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 2)
	addr := listen(t, func(conn *net.TCPConn) { _, err := io.Copy(io.Discard, conn); ended <- err })
	group, err := upstream.New(upstream.To{"tls://" + addr}.Own())
	if err != nil {
		t.Fatal(err)
	}
	o := DefaultOptions()
	const soon = 3 * time.Second // in which a busy machine must connect
	o.Connect.Timeout = soon
	if _, err := New(o, group).Open(t.Context(), caller{}.handshake()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want the deadline", err)
	}
	<-ended
	ctx, leave := context.WithCancel(t.Context())
	time.AfterFunc(soon, leave)
	o.Connect.Timeout = patience
	if _, err := New(o, group).Open(ctx, caller{}.handshake()); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want it to be cancelled", err)
	}
	<-ended
}

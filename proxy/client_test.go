package proxy

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"bridgehead/hub"
	"bridgehead/policy"
	"bridgehead/proxy/pump"
	"bridgehead/ws"
)

func TestNothingIsLeftOfASocket(t *testing.T) {
	t.Parallel()
	s := newStage(t, oneEach)
	for range 3 { // with a limit of one
		c, _, _ := s.accepted()
		if s.proxy.room.Len() != 1 || s.proxy.Capacity.Len() != 1 || s.proxy.Hub.Len() != 1 || c.gone.Given() {
			t.Error("an open socket holds no place")
		}
		if resp, _, _ := s.ask(); resp.StatusCode != http.StatusTooManyRequests {
			t.Errorf("a second socket was answered %s", resp.Status)
		}
		c.End(ws.Cause{Kind: ws.Kicked})
		await(t, c.Done())
		s.isFree()
	}
	if opened, closed := s.bridge.opened.Load(), s.bridge.closed.Load(); opened != 3 || closed != 3 {
		t.Errorf("%d sessions opened, %d closed; want 3", opened, closed)
	}
	s.counted(`connections{route="chat"} 0`, `handshakes_total{outcome="accepted",route="chat"} 3`, `handshakes_total{outcome="refused",route="chat"} 3`,
		`connections_closed_total{by="gateway",cause="closed by API",route="chat"} 3`, `backend_total{op="open",outcome="ok",route="chat"} 3`)
}

func TestTheAnswerIsTheBridges(t *testing.T) {
	t.Parallel()
	s := newStage(t, func(_ *parts, b *fakeBridge) {
		b.open = func(_ context.Context, h *Handshake) error {
			if !slices.Equal(h.Subprotocols, []string{"v2", "v1"}) || h.TLS || h.Client.String() != "127.0.0.1" || h.Request.URL.Path != "/chat" {
				t.Errorf("the bridge was shown %+v", h)
			}
			h.Reply = Reply{Header: http.Header{"Set-Cookie": {"a=1"}, "Connection": {"close"}}, Subprotocol: "v1", Extensions: "permessage-deflate"}
			return nil
		}
	})
	resp, _, _ := s.ask("Sec-WebSocket-Protocol: v2, v1", "Sec-WebSocket-Extensions: permessage-deflate")
	c := await(t, s.bridge.clients)
	want := http.Header{
		"Upgrade": {"websocket"}, "Connection": {"Upgrade"}, "Sec-Websocket-Accept": {ws.AcceptKey("dGhlIHNhbXBsZSBub25jZQ==")},
		"Sec-Websocket-Protocol": {"v1"}, "Sec-Websocket-Extensions": {"permessage-deflate"}, "Set-Cookie": {"a=1"},
	}
	if resp.StatusCode != http.StatusSwitchingProtocols || !maps.EqualFunc(resp.Header, want, slices.Equal) {
		t.Errorf("%s, %v", resp.Status, resp.Header)
	}
	if !c.Deflate || c.Subprotocol() != "v1" {
		t.Errorf("the client has deflate %t, subprotocol %q", c.Deflate, c.Subprotocol())
	}
}

func TestATrustedProxySpeaksForItsClient(t *testing.T) {
	t.Parallel()
	secure := make(chan bool, 1)
	s := newStage(t, func(c *parts, b *fakeBridge) {
		c.Proxies.Networks = policy.Networks{policy.Loopback()}
		b.open = func(_ context.Context, h *Handshake) error { secure <- h.TLS; return nil }
	})
	c, _, _ := s.accepted("X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: https")
	if !<-secure || c.Facts().Client.String() != "203.0.113.9" || c.Info().Client != "203.0.113.9" {
		t.Errorf("the client is %+v", c.Facts())
	}
}

// What a client sends right behind its handshake is not lost, and does not outlive net/http's buffer by accident.
func TestEarlyBytesAreKept(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 1, 3000, 10_000} { // net/http's buffer has 4096
		s := newStage(t, nil)
		conn := s.dial()
		early := strings.Repeat("x", size)
		io.WriteString(conn, handshake()+early)
		c := await(t, s.bridge.clients)
		rest := make([]byte, size-len(c.Early))
		if _, err := io.ReadFull(c.Conn, rest); err != nil || string(c.Early)+string(rest) != early {
			t.Errorf("%d bytes came early, %d are there, %v", size, len(c.Early)+len(rest), err)
		}
	}
}

// Whoever ends a socket first says why; the session is closed exactly once, and the log has one line of it.
func TestTheFirstCauseWins(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	c, _, _ := s.accepted()
	c.End(ws.Cause{Kind: ws.IdleTimeout})
	c.End(ws.Cause{Kind: ws.Kicked})
	await(t, c.Done())
	c.End(ws.Cause{Kind: ws.Kicked})
	if cause := await(t, s.bridge.causes); cause.Kind != ws.IdleTimeout || s.bridge.closed.Load() != 1 {
		t.Errorf("closed %d times, first for %s", s.bridge.closed.Load(), cause.Kind)
	}
	if line := s.log.line(t, "closed"); line["cause"] != "idle" {
		t.Errorf("logged as %v", line)
	}
}

func TestManyEndAtOnce(t *testing.T) {
	t.Parallel()
	s := newStage(t, oneEach)
	for range 20 {
		c, _, _ := s.accepted()
		var ending sync.WaitGroup
		begin := make(chan struct{})
		for kind := ws.ClientClosed; kind <= ws.InternalFailure; kind++ {
			ending.Go(func() {
				<-begin
				c.End(ws.Cause{Kind: kind})
			})
		}
		close(begin)
		ending.Wait()
		await(t, c.Done())
		if !c.Ending.Given() {
			t.Error("nobody who waits for its end is told")
		}
		s.isFree()
	}
	if closed := s.bridge.closed.Load(); closed != 20 {
		t.Errorf("20 sessions were closed %d times", closed)
	}
}

// An End that comes before Start has returned waits for it: a session is never closed while it starts.
func TestEndBeforeStart(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*parts, *fakeBridge){
		"by the hub, whose drain began during the handshake": func(c *parts, b *fakeBridge) {
			b.open = func(context.Context, *Handshake) error {
				begin, cancel := context.WithCancel(t.Context())
				cancel() // not to wait for the handshake itself
				if err := c.Hub.Drain(begin, 0, ws.Cause{Kind: ws.ShuttingDown}); err == nil {
					t.Error("the drain does not wait for a handshake under way")
				}
				return nil
			}
		},
		"in it": func(_ *parts, b *fakeBridge) {
			b.start = func(c *Client) { c.End(ws.Cause{Kind: ws.ShuttingDown}) }
		},
		"by another meanwhile": func(_ *parts, b *fakeBridge) {
			b.start = func(c *Client) {
				var ending sync.WaitGroup
				ending.Go(func() { c.End(ws.Cause{Kind: ws.ShuttingDown}) })
				ending.Wait()
				if b.closed.Load() > 0 {
					t.Error("the session was closed while it started")
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, func(c *parts, b *fakeBridge) {
				oneEach(c, b)
				change(c, b)
			})
			resp, _, _ := s.ask()
			c := await(t, s.bridge.clients)
			await(t, c.Done())
			if cause := await(t, s.bridge.causes); cause.Kind != ws.ShuttingDown || s.bridge.closed.Load() != 1 || resp.StatusCode != 101 {
				t.Errorf("%s, closed %d times, first for %s", resp.Status, s.bridge.closed.Load(), cause.Kind)
			}
			s.isFree()
		})
	}
}

// A bridge that panics loses this client alone, and nothing that the client held.
func TestABridgeThatPanics(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*fakeBridge)
		cause  string
	}{
		"in Start": {func(b *fakeBridge) { b.start = func(*Client) { panic("oh no") } }, "internal failure"},
		"in Close": {func(b *fakeBridge) { b.close = func(*Client, ws.Cause) { panic("oh no") } }, "closed by API"},
		"in Start and Close": {func(b *fakeBridge) {
			b.start = func(*Client) { panic("oh no") }
			b.close = func(*Client, ws.Cause) { panic("oh no") }
		}, "internal failure"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, func(config *parts, b *fakeBridge) {
				oneEach(config, b)
				c.change(b)
			})
			resp, br, _ := s.ask()
			if resp.StatusCode != http.StatusSwitchingProtocols {
				t.Fatal(resp.Status)
			}
			if s.bridge.start == nil {
				await(t, s.bridge.clients).End(ws.Cause{Kind: ws.Kicked})
			}
			if _, err := br.ReadByte(); err != io.EOF {
				t.Errorf("the client's connection lives on: %v", err)
			}
			s.drain()
			s.isFree()
			if line := s.log.line(t, "closed"); line["cause"] != c.cause || s.bridge.closed.Load() != 1 {
				t.Errorf("closed %d times, logged as %v", s.bridge.closed.Load(), line)
			}
			s.proxy.Hub = hub.New() // one that does not drain
			if resp, _, _ := s.ask(); resp.StatusCode != http.StatusSwitchingProtocols {
				t.Errorf("its place in the limits is held: %s", resp.Status)
			}
		})
	}
}

// broken is a response whose connection cannot be taken over, or takes no answer.
type broken struct {
	*httptest.ResponseRecorder
	conn net.Conn // nil: it cannot be taken over
}

func (b broken) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if b.conn == nil {
		return nil, nil, http.ErrNotSupported
	}
	return b.conn, bufio.NewReadWriter(bufio.NewReader(b.conn), bufio.NewWriter(b.conn)), nil
}

// A client that is lost between Open and the 101 leaves nothing behind, and its session is closed though it never started.
func TestAnUpgradeThatFails(t *testing.T) {
	t.Parallel()
	for name, panics := range map[string]bool{"": false, ", and Close panics": true} {
		for where, hijacked := range map[string]bool{"no way to the connection": false, "the client is gone": true} {
			t.Run(where+name, func(t *testing.T) {
				t.Parallel()
				s := newStage(t, func(c *parts, b *fakeBridge) {
					oneEach(c, b)
					if panics {
						b.close = func(*Client, ws.Cause) { panic("oh no") }
					}
				})
				w := broken{ResponseRecorder: httptest.NewRecorder()}
				status := http.StatusInternalServerError
				if hijacked {
					ours, theirs := net.Pipe()
					theirs.Close()
					w.conn, status = ours, http.StatusOK // that of a recorder nobody wrote to
				}
				r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(handshake())))
				if err != nil {
					t.Fatal(err)
				}
				r.RemoteAddr = "127.0.0.1:1"
				for range 2 { // with a limit of one
					s.proxy.ServeHTTP(w, r)
					s.isFree()
				}
				if cause := await(t, s.bridge.causes); cause.Kind != ws.ClientGone || cause.Err == nil || s.bridge.closed.Load() != 2 {
					t.Errorf("two sessions were closed %d times, first for %s", s.bridge.closed.Load(), cause)
				}
				if w.Code != status {
					t.Errorf("status %d, want %d", w.Code, status)
				}
				s.counted(`handshakes_total{outcome="failed",route="chat"} 2`, `connections{route="chat"} 0`)
			})
		}
	}
}

// pushable lets others send to the clients.
func pushable(_ *parts, b *fakeBridge) {
	b.open = func(_ context.Context, h *Handshake) error { h.Reply.Push = true; return nil }
}

// message is one whose end is told to the channel.
func message(text string) (ws.Message, <-chan error) {
	done := make(chan error, 2)
	return ws.Message{Op: ws.Text, Data: []byte(text), Done: func(err error) { done <- err }}, done
}

func TestSendSaysWhyNot(t *testing.T) {
	t.Parallel()
	t.Run("the route takes no pushes", func(t *testing.T) {
		t.Parallel()
		s := newStage(t, nil)
		c, _, _ := s.accepted()
		m, done := message("x")
		if err := c.Send(m); err != hub.ErrNoPush || await(t, done) != hub.ErrNoPush {
			t.Error(err)
		}
	})
	t.Run("the client is slow, then closed", func(t *testing.T) {
		t.Parallel()
		s := newStage(t, pushable)
		c, _, _ := s.accepted()
		first, firstDone := message("x")
		if err := c.Send(first); err != nil {
			t.Fatal(err)
		}
		var err error
		var last <-chan error
		for range 100_000 { // nobody empties the outbox
			var m ws.Message
			m, last = message("x")
			if err = c.Send(m); err != nil {
				break
			}
		}
		if err != hub.ErrSlow || await(t, last) != hub.ErrSlow {
			t.Errorf("a full outbox answers %v", err)
		}
		c.End(ws.Cause{Kind: ws.Kicked})
		await(t, c.Done())
		if err := await(t, firstDone); err != hub.ErrClosed {
			t.Errorf("what waited was finished with %v", err)
		}
		m, done := message("x")
		if err := c.Send(m); err != hub.ErrClosed || await(t, done) != hub.ErrClosed {
			t.Errorf("a closed client answers %v", err)
		}
	})
}

// A push may come as soon as the client is in the hub, before its session has a driver. It waits.
func TestWhatIsSentBeforeStartIsDelivered(t *testing.T) {
	t.Parallel()
	m, done := message("early")
	s := newStage(t, func(c *parts, b *fakeBridge) {
		pushable(c, b)
		b.start = func(c *Client) {
			driver := pump.NewMessages(&c.Socket)
			if err := c.Send(m); err != nil {
				t.Error(err)
			}
			c.Attach(driver)
			c.Go(func() { c.End(driver.Serve(func(ws.Message) error { return nil })) })
		}
	})
	c, br, _ := s.accepted()
	frame := make([]byte, 2+len("early"))
	if _, err := io.ReadFull(br, frame); err != nil || string(frame) != "\x81\x05early" {
		t.Errorf("got % x, %v", frame, err)
	}
	if err := await(t, done); err != nil {
		t.Error(err)
	}
	second, done := message("later")
	if err := c.Send(second); err != nil || await(t, done) != nil {
		t.Errorf("a later message: %v", err)
	}
}

// The lines at a socket's open and close are an interface: operators count and search by these keys.
func TestLogLines(t *testing.T) {
	t.Parallel()
	s := newStage(t, func(_ *parts, b *fakeBridge) {
		b.open = func(_ context.Context, h *Handshake) error {
			h.Reply = Reply{User: "ann", Subprotocol: "v1"}
			return nil
		}
	})
	c, _, _ := s.accepted("Sec-WebSocket-Protocol: v1")
	c.Counters.In(2, 20)
	c.Counters.Out(3, 30)
	c.End(ws.Cause{Kind: ws.ClientTooBig, Err: errors.New("2 MiB")})
	await(t, c.Done())

	open, closed := s.log.line(t, "open"), s.log.line(t, "closed")
	who := map[string]any{
		"level": "INFO", "route": "chat", "conn": c.ID(), "client": "127.0.0.1", "user": "ann", "subprotocol": "v1",
	}
	wantLine(t, open, who, "time", "msg")
	maps.Copy(who, map[string]any{
		"messages_in": 2., "bytes_in": 20., "messages_out": 3., "bytes_out": 30., "cause": "client message too big", "by": "limit",
		"code": 1009., "reason": "message too big", "backend_code": 1001., "error": "2 MiB",
	})
	wantLine(t, closed, who, "time", "msg", "duration")
}

// What is not known has no key: neither user nor subprotocol, nor an error, nor a code for the backend that is the client's.
func TestLogLinesLeaveOutWhatIsNotKnown(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	c, _, _ := s.accepted()
	c.End(ws.Cause{Kind: ws.ClientClosed, Code: 4000, Reason: "bye"})
	await(t, c.Done())
	who := map[string]any{"level": "INFO", "route": "chat", "conn": c.ID(), "client": "127.0.0.1"}
	wantLine(t, s.log.line(t, "open"), who, "time", "msg")
	maps.Copy(who, map[string]any{
		"messages_in": 0., "bytes_in": 0., "messages_out": 0., "bytes_out": 0., "cause": "client closed", "by": "client",
		"code": 4000., "reason": "bye",
	})
	wantLine(t, s.log.line(t, "closed"), who, "time", "msg", "duration")
}

// wantLine checks that a line has these keys with these values, the others, and no more.
func wantLine(t *testing.T, line, want map[string]any, others ...string) {
	t.Helper()
	for key, value := range want {
		if line[key] != value {
			t.Errorf("%s is %v, want %v", key, line[key], value)
		}
	}
	keys := slices.Sorted(slices.Values(append(others, slices.Collect(maps.Keys(want))...)))
	if got := slices.Sorted(maps.Keys(line)); !slices.Equal(got, keys) {
		t.Errorf("keys %v, want %v", got, keys)
	}
}

func TestWhatIsKnownOfAClient(t *testing.T) {
	t.Parallel()
	s := newStage(t, func(_ *parts, b *fakeBridge) {
		b.open = func(_ context.Context, h *Handshake) error {
			h.Reply = Reply{User: "ann", Subprotocol: "v1", State: json.RawMessage(`{"n":1}`)}
			return nil
		}
	})
	before := time.Now()
	c, _, _ := s.accepted("Sec-WebSocket-Protocol: v1")
	c.Counters.In(1, 10)
	c.Counters.Out(2, 20)
	want := hub.Info{
		ID: c.ID(), Route: "chat", Kind: "websocket", Client: "127.0.0.1", User: "ann", Subprotocol: "v1", ConnectedAt: c.Since().UTC(),
		MessagesIn: 1, BytesIn: 10, MessagesOut: 2, BytesOut: 20, State: json.RawMessage(`{"n":1}`),
	}
	if got := c.Info(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if c.Since().Before(before) || c.Facts().Request != nil || !strings.HasPrefix(c.ID(), "c_n1_") {
		t.Errorf("since %s, %+v", c.Since(), c.Facts())
	}
	c.SetUser("bob")
	c.SetState(json.RawMessage(`2`))
	if got := c.Info(); got.User != "bob" || string(got.State) != "2" || c.User() != "bob" || string(c.State()) != "2" {
		t.Errorf("got %+v", got)
	}
	if found, ok := s.proxy.Hub.Get(c.ID()); !ok || found != hub.Conn(c) {
		t.Error("the hub does not know it")
	}
}

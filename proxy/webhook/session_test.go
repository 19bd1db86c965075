package webhook

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"bridgehead/proxy"
	"bridgehead/ws"
)

// inTurn answers messages with each of these in turn, the last for ever.
func inTurn(answers ...func(w http.ResponseWriter)) func(http.ResponseWriter, *call) {
	turn := make(chan int, 1)
	turn <- 0
	return onMessage(func(w http.ResponseWriter, c *call) {
		n := <-turn
		turn <- n + 1
		answers[min(n, len(answers)-1)](w)
	})
}

// say answers with a status, a content type and a body.
func say(status int, contentType, body string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) { respond(w, status, contentType, body) }
}

// status answers with a status alone.
func status(code int) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) { w.WriteHeader(code) }
}

// actions answers with a list of actions.
func actions(list string) func(http.ResponseWriter) {
	return say(http.StatusOK, "application/json", `{"actions":[`+list+`]}`)
}

func TestMessages(t *testing.T) {
	t.Parallel()
	s := newStage(t, onMessage(func(w http.ResponseWriter, c *call) {
		e := c.Events[0]
		if e.Text == nil {
			respond(w, http.StatusOK, "application/octet-stream", string(e.Data)+"\xFF")
			return
		}
		respond(w, http.StatusOK, "text/plain", "echo "+*e.Text)
	}), nil)
	c := s.dial()
	id := s.next(typeConnect).Connection.ID
	for i, text := range []string{"ü", ""} {
		seq := i + 1
		c.send(text)
		c.want(websocket.TextMessage, "echo "+text)
		m := s.next(typeMessage)
		if e := m.Events[0]; len(m.Events) != 1 || e.Seq != seq || e.ID != fmt.Sprintf("%s-%d", id, seq) || m.header.Get("webhook-id") != e.ID {
			t.Errorf("the application was told %s", m.body)
		}
	}
	if err := c.WriteMessage(websocket.BinaryMessage, []byte{0, 0xFE}); err != nil {
		t.Fatal(err)
	}
	c.want(websocket.BinaryMessage, "\x00\xFE\xFF")
}

// What comes while a request is under way forms the next one, in order and without gaps; a retry repeats the request as it was.
func TestBatches(t *testing.T) {
	t.Parallel()
	const messages = 40
	firstSeen, release := make(chan struct{}), make(chan struct{})
	s := newStage(t, inTurn(
		func(w http.ResponseWriter) { close(firstSeen); <-release; w.WriteHeader(http.StatusNoContent) },
		status(http.StatusServiceUnavailable),
		status(http.StatusNoContent),
	), nil)
	c := s.dial()
	id := s.next(typeConnect).Connection.ID
	c.send("m1")
	<-firstSeen
	for i := 2; i <= messages; i++ {
		c.send(fmt.Sprint("m", i))
	}
	s.waitIn(messages)
	close(release)

	first, batch, again := s.next(typeMessage), s.next(typeMessage), s.next(typeMessage)
	if first.texts() != "m1" || len(batch.Events) != messages-1 {
		t.Fatalf("requests of %d and %d messages", len(first.Events), len(batch.Events))
	}
	for i, e := range batch.Events {
		if e.Seq != i+2 || *e.Text != fmt.Sprint("m", i+2) || e.ID != fmt.Sprintf("%s-%d", id, i+2) {
			t.Errorf("event %d is %s with %q", i, e.ID, *e.Text)
		}
	}
	if want := fmt.Sprintf("%s-2-%d", id, messages-1); batch.header.Get("webhook-id") != want {
		t.Errorf("the batch is named %q, want %q", batch.header.Get("webhook-id"), want)
	}
	if string(again.body) != string(batch.body) || again.header.Get("webhook-id") != batch.header.Get("webhook-id") ||
		batch.header.Get("Bridgehead-Attempt") != "1" || again.header.Get("Bridgehead-Attempt") != "2" {
		t.Error("the retry differs from the request")
	}
}

// waitIn waits until the gateway has read n messages of its one client.
func (s *stage) waitIn(n int64) {
	s.t.Helper()
	deadline := time.Now().Add(patience)
	for s.info().MessagesIn < n {
		if time.Now().After(deadline) {
			s.t.Fatalf("%d of %d messages were read", s.info().MessagesIn, n)
		}
		<-time.After(time.Millisecond)
	}
}

// A request carries no more bytes than the queue may hold.
func TestBatchBytes(t *testing.T) {
	t.Parallel()
	firstSeen, release := make(chan struct{}), make(chan struct{})
	s := newStage(t, inTurn(
		func(w http.ResponseWriter) { close(firstSeen); <-release; w.WriteHeader(http.StatusNoContent) },
		status(http.StatusNoContent),
	), func(o *Options, _ *proxy.Options) { o.Queue.Bytes = 10 })
	c := s.dial()
	s.next(typeConnect)
	c.send("m1")
	<-firstSeen
	c.send("1234", "5678", strings.Repeat("x", 50), "a", "b")
	close(release)
	for _, want := range []string{"m1", "1234,5678", strings.Repeat("x", 50)} {
		if m := s.next(typeMessage); m.texts() != want {
			t.Errorf("request with %q, want %q", m.texts(), want)
		}
	}
	for got := ""; got != "a,b"; {
		m := s.next(typeMessage)
		if got = strings.TrimPrefix(got+","+m.texts(), ","); !strings.HasPrefix("a,b", got) {
			t.Fatalf("requests with %q, want a and b", got)
		}
	}
}

// An application that does not answer fills the queue, and then the client is not read any more. Nothing is lost by it.
func TestQueueFull(t *testing.T) {
	t.Parallel()
	for name, queue := range map[string]Queue{"messages": {Messages: 3}, "bytes": {Messages: 1000, Bytes: 300 << 10}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testQueueFull(t, queue)
		})
	}
}

// testQueueFull offers far more than the queue, which holds 3 messages of 100 KiB, and the buffers of the sockets.
func testQueueFull(t *testing.T, queue Queue) {
	release := make(chan struct{})
	s := newStage(t, onMessage(func(w http.ResponseWriter, c *call) {
		<-release
		w.WriteHeader(http.StatusNoContent)
	}), func(o *Options, _ *proxy.Options) { o.Queue = queue })
	c := s.dial()
	s.next(typeConnect)
	const messages = 200
	sent := make(chan error, 1)
	go func() {
		big := strings.Repeat("x", 100<<10)
		for i := range messages {
			if err := c.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, "%d %s", i, big)); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	s.waitIn(4)
	select {
	case err := <-sent:
		t.Fatalf("20 MB were taken while the queue was full: %v", err)
	case <-time.After(300 * time.Millisecond): // what is not to happen has no event to wait for
	}
	if got := s.info().MessagesIn; got > 6 {
		t.Errorf("%d messages were read with a request of 3 at most under way and a queue of 3", got)
	}
	close(release)
	for seq := 1; seq <= messages; {
		for _, e := range s.next(typeMessage).Events {
			if number, _, _ := strings.Cut(*e.Text, " "); e.Seq != seq || number != fmt.Sprint(seq-1) {
				t.Fatalf("event %d carries message %s, want %d", e.Seq, number, seq-1)
			}
			seq++
		}
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

// A client that does not take what its request asked for stops its own next request, and nobody else's.
func TestSlowClient(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("x", 15<<20) // more than the buffers of two sockets hold
	s := newStage(t, inTurn(say(http.StatusOK, "text/plain", big), say(http.StatusOK, "text/plain", "small")), nil)
	c := s.dial()
	s.next(typeConnect)
	c.send("m1")
	s.next(typeMessage)
	c.send("m2")
	s.waitIn(2)
	select {
	case m := <-s.calls:
		t.Fatalf("the client has not taken the reply, and the application was asked %.100s", m.body)
	case <-time.After(300 * time.Millisecond): // what is not to happen has no event to wait for
	}
	c.want(websocket.TextMessage, big)
	s.next(typeMessage)
	c.want(websocket.TextMessage, "small")
}

// What each answer to a message does to the socket: what the client sees, and how often the application was asked.
func TestAnswers(t *testing.T) {
	t.Parallel()
	type row struct {
		name      string
		answer    func(http.ResponseWriter)
		onRefused string
		calls     int
		code      int // 0: the socket stays open
		log       string
	}
	for _, r := range []row{
		{"200 without a body", status(200), "drop", 1, 0, ""},
		{"204", status(204), "drop", 1, 0, ""},
		{"400, drop", status(400), "drop", 1, 0, "dropped"},
		{"400, close", status(400), "close", 1, 1011, "400 Bad Request"},
		{"404, drop", status(404), "drop", 1, 0, "dropped"},
		{"410", status(410), "drop", 1, 1001, "410 Gone"},
		{"302", func(w http.ResponseWriter) {
			w.Header().Set("Location", "/login")
			w.WriteHeader(http.StatusFound)
		}, "drop", 1, 1011, "redirects are not followed"},
		{"429 for ever", status(429), "drop", 2, 1011, "given up after 2 attempts"},
		{"500 for ever", status(500), "drop", 2, 1011, "given up after 2 attempts"},
		{"connection cut for ever", func(http.ResponseWriter) { panic(http.ErrAbortHandler) }, "drop", 2, 1011, "given up after 2 attempts"},
		{"unknown member", say(200, "application/json", `{"actions":[{"send":{"text":"no"}}],"colour":1}`), "drop", 1, 0, "colour"},
		{"unknown action", actions(`{"send":{"text":"no"}},{"dance":{}}`), "drop", 1, 0, "dance"},
		{"no JSON", say(200, "application/json", "<b>Fatal error</b>"), "drop", 1, 0, "not understood"},
		{"text not UTF-8", say(200, "text/plain", "\xFF"), "drop", 1, 0, "not UTF-8"},
		{"a reply too large", say(200, "text/plain", strings.Repeat("x", maxReply+1)), "drop", 1, 0, "larger than"},
		{"a message too big for the route", say(200, "text/plain", strings.Repeat("x", 1<<20+1)), "drop", 1, 1001, "1MiB"},
		{"close", actions(`{"close":{"code":4001,"reason":"over"}},{"send":{"text":"no"}}`), "drop", 1, 4001, ""},
		{"close with a code that may not be sent", actions(`{"close":{"code":1006,"reason":"over"}}`), "drop", 1, 1005, "1006"},
	} {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, inTurn(append(repeat(r.calls, r.answer), say(200, "text/plain", "next"))...), func(o *Options, shared *proxy.Options) {
				o.OnRefused = r.onRefused
				shared.Socket.BackendMessageSize = 1 << 20
			})
			c := s.dial()
			s.next(typeConnect)
			c.send("m1")
			if r.code != 0 {
				c.wantCloseCode(r.code)
			}
			for range r.calls {
				if m := s.next(typeMessage); m.Events[0].Seq != 1 {
					t.Errorf("the application was told %s", m.body)
				}
			}
			if r.code == 0 {
				c.send("m2")
				c.want(websocket.TextMessage, "next")
				s.next(typeMessage)
				c.closeWith(nil)
			}
			s.next(typeClose)
			s.quiet()
			if r.log != "" {
				s.wantLog(r.log)
			}
		})
	}
}

func repeat(n int, answer func(http.ResponseWriter)) (all []func(http.ResponseWriter)) {
	for range n {
		all = append(all, answer)
	}
	return all
}

func (p *peer) wantCloseCode(code int) {
	p.t.Helper()
	p.SetReadDeadline(time.Now().Add(patience))
	_, got, err := p.ReadMessage()
	if !websocket.IsCloseError(err, code) {
		p.t.Fatalf("got message %.100q, %v; want close %d", got, err, code)
	}
}

// An application that dies in the middle of its reply has not answered: it is asked again, and the client sees one reply.
func TestDeathInReply(t *testing.T) {
	t.Parallel()
	s := newStage(t, inTurn(func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("Content-Length", "100")
		io.WriteString(w, "half")
		panic(http.ErrAbortHandler)
	}, say(http.StatusOK, "text/plain", "whole")), nil)
	c := s.dial()
	s.next(typeConnect)
	c.send("m1")
	c.want(websocket.TextMessage, "whole")
	first, again := s.next(typeMessage), s.next(typeMessage)
	if string(first.body) != string(again.body) {
		t.Error("the retry differs from the request")
	}
}

// An answer that comes too late was none.
func TestSlowApplication(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	s := newStage(t, inTurn(
		func(http.ResponseWriter) { <-release },
		say(http.StatusOK, "text/plain", "in time"),
	), func(o *Options, _ *proxy.Options) { o.Timeout = 3 * time.Second }) // in which a busy machine must answer the rest
	defer close(release)
	c := s.dial()
	c.send("m1")
	c.want(websocket.TextMessage, "in time")
}

// User and state that the application sets stand in all that follows.
func TestSet(t *testing.T) {
	t.Parallel()
	s := newStage(t, inTurn(
		actions(`{"set":{"user":"u1","state":{"n":1}}},{"send":{"text":"1"}}`),
		say(http.StatusOK, "application/json", `{"state":{"n":2},"actions":[{"send":{"text":"2"}}]}`),
		actions(`{"set":{"state":null}},{"send":{"text":"3"}}`),
		status(http.StatusNoContent),
	), nil)
	c := s.dial()
	s.next(typeConnect)
	for i, want := range []string{" ", `u1 {"n":1}`, `u1 {"n":2}`, "u1 "} {
		c.send("m")
		if i < 3 {
			c.want(websocket.TextMessage, fmt.Sprint(i+1))
		}
		m := s.next(typeMessage)
		if got := m.Connection.User + " " + string(m.Connection.State); got != want {
			t.Errorf("message %d came from %q, want %q", i+1, got, want)
		}
	}
	if info := s.info(); info.User != "u1" || info.State != nil {
		t.Errorf("the hub knows %+v", info)
	}
}

// Pushes reach the client beside the replies.
func TestPush(t *testing.T) {
	t.Parallel()
	s := newStage(t, onMessage(func(w http.ResponseWriter, c *call) { w.WriteHeader(http.StatusNoContent) }), nil)
	c := s.dial()
	written := make(chan error, 1)
	if err := s.conn().Send(ws.Message{Op: ws.Text, Data: []byte("pushed"), Done: func(err error) { written <- err }}); err != nil {
		t.Fatal(err)
	}
	c.want(websocket.TextMessage, "pushed")
	if err := <-written; err != nil {
		t.Error(err)
	}
}

// Whatever ends a socket, the application is told once, with what is known of the end.
func TestCloseEvent(t *testing.T) {
	t.Parallel()
	for _, r := range []struct {
		name      string
		end       func(s *stage, c *peer)
		code      int
		reason    string
		initiator string
		clean     bool
	}{
		{"the client closes", func(_ *stage, c *peer) { c.closeWith(websocket.FormatCloseMessage(4007, "bye")) }, 4007, "bye", "client", true},
		{"the client closes without a code", func(_ *stage, c *peer) { c.closeWith(nil) }, 1005, "", "client", true},
		{"the client vanishes", func(_ *stage, c *peer) { c.NetConn().Close() }, 1006, "client gone", "client", false},
		{"the client's message is too big", func(_ *stage, c *peer) { c.send(strings.Repeat("x", 1001)) }, 1009, "message too big", "limit", true},
		{"the application closes", func(_ *stage, c *peer) { c.send("close") }, 4001, "over", "backend", true},
		{"the application disowns", func(_ *stage, c *peer) { c.send("410") }, 1001, "", "backend", true},
		{"the application fails", func(_ *stage, c *peer) { c.send("500") }, 1011, "backend failed", "backend", true},
		{"the gateway stops", func(s *stage, _ *peer) { s.drain() }, 1001, "shutting down", "shutdown", true},
		{"the API closes", func(s *stage, _ *peer) {
			s.conn().End(ws.Cause{Kind: ws.Kicked, Code: 4002, Reason: "kicked"})
		}, 4002, "kicked", "gateway", true},
	} {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, onMessage(func(w http.ResponseWriter, c *call) {
				switch c.texts() {
				case "hello":
					respond(w, http.StatusOK, "text/plain", "hello you")
				case "close":
					actions(`{"close":{"code":4001,"reason":"over"}},{"set":{"user":"never"}}`)(w)
				case "410":
					w.WriteHeader(http.StatusGone)
				default:
					w.WriteHeader(http.StatusInternalServerError)
				}
			}), func(o *Options, shared *proxy.Options) {
				shared.Socket.MessageSize = 1000
				shared.Socket.CloseTimeout = time.Second
				o.Retries = 0
			})
			c := s.dial()
			s.next(typeConnect)
			c.send("hello")
			c.want(websocket.TextMessage, "hello you")
			s.next(typeMessage)
			go c.readOn()
			r.end(s, c)

			closed := call{}
			for closed.Events == nil || closed.kind() == typeMessage {
				closed = <-s.calls
			}
			e := closed.Events[0]
			if e.Type != typeClose || e.Code != r.code || e.Reason != r.reason || e.Initiator != r.initiator || e.Clean != r.clean {
				t.Errorf("the application was told %s", closed.body)
			}
			if closed.Connection.User != "" || e.MessagesIn < 1 || e.BytesIn < 5 || e.MessagesOut != 1 || e.BytesOut != 9 {
				t.Errorf("the application was told %s", closed.body)
			}
			if seq := e.MessagesIn + 1; e.Seq != seq || e.ID != fmt.Sprintf("%s-%d", closed.Connection.ID, seq) {
				t.Errorf("the end has the id %s after %d messages", e.ID, e.MessagesIn)
			}
			s.quiet()
		})
	}
}

// The end of a connection is told again until it is taken.
func TestCloseEventRetried(t *testing.T) {
	t.Parallel()
	s := newStage(t, func(w http.ResponseWriter, c *call) {
		if c.kind() == typeClose && c.header.Get("Bridgehead-Attempt") == "1" {
			w.WriteHeader(http.StatusNotFound)
		}
	}, nil)
	s.dial().closeWith(nil)
	s.next(typeConnect)
	first, again := s.next(typeClose), s.next(typeClose)
	if string(first.body) != string(again.body) {
		t.Error("the retry differs from the request")
	}
	s.quiet()
}

// What the client had sent before it closed reaches the application before the close does.
func TestFlush(t *testing.T) {
	t.Parallel()
	firstSeen, release := make(chan struct{}), make(chan struct{})
	s := newStage(t, inTurn(
		func(w http.ResponseWriter) {
			close(firstSeen)
			<-release
			actions(`{"set":{"state":7}},{"send":{"text":"no"}}`)(w)
		},
		status(http.StatusNoContent),
	), nil)
	c := s.dial()
	s.next(typeConnect)
	c.send("m1")
	<-firstSeen
	c.send("m2", "m3")
	c.closeWith(websocket.FormatCloseMessage(1000, ""))
	c.wantClose(1000, "") // the client does not wait for the application
	close(release)
	m1, rest, closed := s.next(typeMessage), s.next(typeMessage), s.next(typeClose)
	if m1.texts() != "m1" || rest.texts() != "m2,m3" || closed.Events[0].Seq != 4 || string(closed.Connection.State) != "7" {
		t.Errorf("the application was told %q, %q and %s", m1.texts(), rest.texts(), closed.body)
	}
	s.quiet()
}

// An application that does not answer cannot hold a socket that has ended.
func TestFlushIsBounded(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	s := newStage(t, onMessage(func(http.ResponseWriter, *call) { <-release }), func(o *Options, _ *proxy.Options) {
		o.Timeout, o.Retries = 2*time.Second, 100
	})
	defer close(release)
	c := s.dial()
	s.next(typeConnect)
	c.send("m1")
	s.next(typeMessage)
	c.send("m2")
	s.waitIn(2)
	go c.readOn()
	s.drain()
	s.wantLog("messages lost", "count=2")
	var last call
	for last.Events == nil || last.kind() != typeClose {
		last = <-s.calls
	}
	if last.Events[0].Seq != 3 {
		t.Errorf("the application was told %s", last.body)
	}
}

// A reply to `connect` may close at once: a browser's page sees the code, but never the status of a refused handshake.
func TestWelcomeAndClose(t *testing.T) {
	t.Parallel()
	s := newStage(t, func(w http.ResponseWriter, c *call) {
		if c.kind() == typeConnect {
			actions(`{"send":{"text":"full"}},{"close":{"code":4003,"reason":"room full"}}`)(w)
		}
	}, nil)
	c := s.dial()
	c.want(websocket.TextMessage, "full")
	c.wantClose(4003, "room full")
	s.next(typeConnect)
	if e := s.next(typeClose).Events[0]; e.Seq != 1 || e.Code != 4003 || e.Initiator != "backend" {
		t.Errorf("the application was told %+v", e)
	}
	s.quiet()
}

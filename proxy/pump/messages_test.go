package pump

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bridgehead/hub"
	"bridgehead/ws"
)

// startMessages carries a client as whole messages. Serve runs as a bridge would run it: what it returns ends the socket.
func startMessages(t testing.TB, o Options, handle func(*rig, ws.Message) error) *rig {
	t.Helper()
	return startMessagesOver(t, o, plain, nil, handle)
}

func startMessagesOver(t testing.TB, o Options, clients kind, early []byte, handle func(*rig, ws.Message) error) *rig {
	t.Helper()
	r := newRig(t, o, clients)
	r.socket.Early = early
	r.msgs = NewMessages(r.socket)
	close(r.driven)
	r.socket.Go(func() {
		r.socket.End(r.msgs.Serve(func(m ws.Message) error { return handle(r, m) }))
	})
	return r
}

func echo(r *rig, m ws.Message) error         { return r.msgs.Write(m) }
func nothing(*rig, ws.Message) error          { return nil }
func busyUntilEnd(r *rig, _ ws.Message) error { <-r.ending.Done(); return nil }

func TestMessagesAreWhole(t *testing.T) {
	t.Parallel()
	for _, kind := range []kind{plain, tls12, tls13, http2, pipe} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			up := traffic(11, true)
			all := wire(up)
			const early = 60000 // what came with the handshake, more than a read
			r := startMessagesOver(t, quiet(), kind, all[:early:early], echo)
			go r.client.dribble(all[early:], 12)
			var want string
			for _, f := range up {
				if f.op.IsControl() {
					continue // a ping is answered, a pong is not
				}
				if want += f.payload; !f.fin {
					continue
				}
				got := r.client.next()
				for got.op.IsControl() {
					got = r.client.next()
				}
				if !got.fin || got.payload != want {
					t.Fatalf("got %v, want %d bytes %.20q", got, len(want), want)
				}
				want = ""
			}
			r.client.sendClose(1000, "bye")
			for {
				f := r.client.next()
				if code, reason := f.closing(); f.op == ws.Close {
					if code != 1000 || reason != "bye" {
						t.Errorf("Close %d %q", code, reason)
					}
					break
				}
			}
			r.wantCause(ws.ClientClosed)
			messages, bytes := sum(up)
			r.wantCounts(messages, bytes, messages, bytes)
		})
	}
}

func TestMessagesEnd(t *testing.T) {
	t.Parallel()
	o := quiet()
	o.MessageSize = 100
	fault := errors.New("a fault")
	for _, c := range []struct {
		name   string
		do     func(p *peer)
		handle func(*rig, ws.Message) error
		want   ws.Kind
		code   ws.Code
		reason string
	}{
		{"close echo", func(p *peer) { p.sendClose(4000, "bye") }, nothing, ws.ClientClosed, 4000, "bye"},
		{"close without a code", func(p *peer) { p.send(true, ws.Close, "") }, nothing, ws.ClientClosed, ws.CodeNoStatus, ""},
		{"not UTF-8", func(p *peer) { p.send(true, ws.Text, "\xff") }, nothing, ws.ClientEncoding, 1007, "text is not UTF-8"},
		{"half a rune", func(p *peer) { p.send(true, ws.Text, "\xe2\x82") }, nothing, ws.ClientEncoding, 1007, "text is not UTF-8"},
		{"too big", func(p *peer) { p.send(true, ws.Binary, strings.Repeat("x", 101)) }, nothing, ws.ClientTooBig, 1009, "message too big"},
		{"too big in fragments", func(p *peer) {
			p.send(false, ws.Binary, strings.Repeat("x", 60))
			p.send(true, ws.Continuation, strings.Repeat("x", 60))
		}, nothing, ws.ClientTooBig, 1009, "message too big"},
		{"unmasked", func(p *peer) { p.masked = false; p.send(true, ws.Text, "x"); p.masked = true }, nothing, ws.ClientProtocol, 1002, "protocol error"},
		{"gone", func(p *peer) { p.Close() }, nothing, ws.ClientGone, 0, ""},
		{"gone inside a message", func(p *peer) { p.send(false, ws.Text, "x"); p.Close() }, nothing, ws.ClientGone, 0, ""},
		{"reset", func(p *peer) { abort(p.Conn) }, nothing, ws.ClientGone, 0, ""},
		{"an error of the handler is the backend's", func(p *peer) { p.send(true, ws.Text, "x") },
			func(*rig, ws.Message) error { return fault }, ws.BackendFailed, 1011, "backend failed"},
		{"unless it is a cause", func(p *peer) { p.send(true, ws.Text, "x") },
			func(*rig, ws.Message) error { return ws.Cause{Kind: ws.ClientOpcode} }, ws.ClientOpcode, 1003, "wrong message type"},
		{"a panic of the handler", func(p *peer) { p.send(true, ws.Text, "x") },
			func(*rig, ws.Message) error { panic("a fault") }, ws.InternalFailure, 1011, "internal error"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := startMessages(t, o, c.handle)
			c.do(r.client)
			if c.code != 0 {
				r.client.wantClose(c.code, c.reason)
				r.client.wantEnd()
			}
			r.wantCause(c.want)
		})
	}
}

// What others send and what the bridge writes stand one behind the other; each is sent once and in its order.
func TestMessagesWriteAndFlushAtOnce(t *testing.T) {
	t.Parallel()
	r := startMessages(t, quiet(), nothing)
	var wg, writing sync.WaitGroup
	const writers = 4
	for w := range writers {
		writing.Go(func() {
			for i := range relayed {
				text := fmt.Sprintf("writer %d %d", w, i)
				if err := r.msgs.Write(ws.Message{Op: ws.Text, Data: []byte(text + strings.Repeat(" ", i*20))}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	sent := make(chan struct{})
	var pushes int64
	wg.Go(func() { pushes = r.pushUntil(sent) })
	wg.Go(func() {
		for i := range 300 {
			r.msgs.ping([8]byte{'o', 'w', 'n', ' ', byte(i)})
		}
	})
	go func() {
		writing.Wait()
		close(sent)
		wg.Wait()
		r.msgs.Write(ws.Message{Op: ws.Text, Data: []byte("end")})
	}()
	next := make(map[string]int)
	for {
		f := r.client.next()
		if f.payload == "end" {
			break
		}
		name, number, _ := cutLast(strings.TrimRight(f.payload, " "))
		if number != strconv.Itoa(next[name]) || !f.fin || f.op != ws.Text {
			t.Fatalf("%v came in place of number %d", f, next[name])
		}
		next[name]++
	}
	total := 0
	for _, n := range next {
		total += n
	}
	if want := writers*relayed + int(pushes); total != want {
		t.Errorf("%d messages came of %d", total, want)
	}
}

// A client that breaks a rule while it is written to gets what is written, and behind it the Close that says so.
func TestMessagesBrokenWhileWriting(t *testing.T) {
	t.Parallel()
	o := quiet()
	o.MessageSize = 10
	r := newRig(t, o, plain)
	r.msgs = NewMessages(r.socket)
	close(r.driven)
	r.client.send(true, ws.Text, "eleven bytes")
	cause := r.msgs.Serve(func(ws.Message) error { return nil })
	if err := r.msgs.Write(ws.Message{Op: ws.Text, Data: []byte("x")}); err != nil {
		t.Errorf("before the Close: %v", err)
	}
	r.socket.End(cause)
	r.client.want(true, ws.Text, "x")
	r.client.wantClose(1009, "message too big")
	if err := r.msgs.Write(ws.Message{Op: ws.Text, Data: []byte("x")}); err == nil {
		t.Error("wrote after a Close")
	}
	r.client.wantEnd()
	r.wantCause(ws.ClientTooBig)
}

func cutLast(s string) (before, after string, found bool) {
	i := strings.LastIndex(s, " ")
	return s[:max(i, 0)], s[i+1:], i >= 0
}

// After End the client's messages are read and dropped until its Close.
func TestServeAfterEnd(t *testing.T) {
	t.Parallel()
	var handled atomic.Int64
	r := startMessages(t, quiet(), func(*rig, ws.Message) error { handled.Add(1); return nil })
	r.socket.End(ws.Cause{Kind: ws.ShuttingDown})
	r.client.wantClose(1001, "shutting down")
	for range 10 {
		r.client.send(true, ws.Text, "too late")
	}
	r.client.sendClose(1001, "")
	r.client.wantEnd()
	r.wantCause(ws.ShuttingDown)
	if handled.Load() != 0 {
		t.Errorf("%d messages were handled after the end", handled.Load())
	}
	r.wantCounts(0, 0, 0, 0)
}

func TestMessagesCloseReturns(t *testing.T) {
	t.Parallel()
	o := quiet()
	o.WriteTimeout, o.CloseTimeout = 0, 200*time.Millisecond
	for _, c := range []struct {
		name    string
		handle  func(*rig, ws.Message) error
		prepare func(r *rig)
	}{
		{"silent", nothing, func(*rig) {}},
		{"does not read", nothing, func(r *rig) {
			for r.push(ws.Message{Op: ws.Binary, Data: make([]byte, 1<<20)}) == nil {
			}
		}},
		{"never stops sending", nothing, func(r *rig) {
			go r.client.flood(r.client.frame(true, ws.Binary, "x").append(nil))
			go discard(r.client)
		}},
		{"a handler waits", busyUntilEnd, func(r *rig) { r.client.send(true, ws.Text, "x") }},
		{"a message is cut short", nothing, func(r *rig) { r.client.send(false, ws.Text, "x") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var rigs []*rig
			for _, kind := range []kind{plain, tls13, http2, pipe} {
				r := startMessagesOver(t, o, kind, nil, c.handle)
				c.prepare(r)
				r.socket.End(ws.Cause{Kind: ws.ShuttingDown})
				rigs = append(rigs, r)
			}
			for _, r := range rigs {
				r.wantCause(ws.ShuttingDown)
			}
		})
	}
}

func TestMessagesSlowClient(t *testing.T) {
	t.Parallel()
	o := quiet()
	o.WriteTimeout, o.CloseTimeout = 200*time.Millisecond, 200*time.Millisecond
	for _, kind := range []kind{plain, tls13} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			r := startMessagesOver(t, o, kind, nil, nothing)
			for {
				if err := r.msgs.Write(ws.Message{Op: ws.Binary, Data: make([]byte, 1<<20)}); err != nil {
					r.socket.EndBy(err)
					break
				}
			}
			r.wantCause(ws.ClientSlow)
		})
	}
}

// Done is called once for each message that was given to an outbox, and tells the truth.
func TestDoneOnEveryWay(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(t *testing.T, o Options) *rig{
		"Link":     func(t *testing.T, o Options) *rig { return startLink(t, o) },
		"Messages": func(t *testing.T, o Options) *rig { return startMessages(t, o, nothing) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := quiet()
			o.CloseTimeout = 200 * time.Millisecond
			r := start(t, o)
			var mu sync.Mutex
			var calls []int // how often for each
			kinds := make(map[bool]int)
			put := func() error {
				mu.Lock()
				i := len(calls)
				calls = append(calls, 0)
				mu.Unlock()
				return r.push(ws.Message{Op: ws.Binary, Data: make([]byte, 50<<10), Done: func(err error) {
					mu.Lock()
					defer mu.Unlock()
					calls[i]++
					kinds[err == nil]++
				}})
			}
			finished := func() (n int) {
				mu.Lock()
				defer mu.Unlock()
				return kinds[true] + kinds[false]
			}
			if err := put(); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the first message is written", func() bool { return finished() == 1 })
			o.WriteTimeout = 200 * time.Millisecond
			r.options.Store(&o)
			for refused := 0; refused < 1000; { // nobody reads: some are written, one is cut, others wait
				switch err := put(); {
				case errors.Is(err, hub.ErrClosed):
					refused = 1000
				case err != nil:
					refused++
					<-time.After(time.Millisecond)
				}
			}
			r.wantCause(ws.ClientSlow)
			if err := put(); !errors.Is(err, hub.ErrClosed) {
				t.Errorf("after the end: %v", err)
			}
			eventually(t, "Done of the message that was being written", func() bool { return finished() >= len(calls) })
			mu.Lock()
			defer mu.Unlock()
			for i, n := range calls {
				if n != 1 {
					t.Errorf("message %d of %d: Done was called %d times", i, len(calls), n)
				}
			}
			if kinds[true] == 0 || kinds[false] < 2 {
				t.Errorf("%v", kinds)
			}
		})
	}
}

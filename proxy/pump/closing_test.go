package pump

import (
	"strings"
	"testing"
	"time"

	"bridgehead/ws"
)

// told is what both sides of a relay read on the wire for a cause; code 0 is the end of the connection without a Close. It repeats
// the table of package ws on purpose: what stands here is what was promised.
var told = map[ws.Kind]struct {
	client, backend ws.Code
	reason          string
}{
	ws.ClientClosed:    {1000, 1000, ""},
	ws.ClientGone:      {0, 1001, "client gone"},
	ws.ClientDead:      {1001, 1001, "no answer to ping"},
	ws.ClientSlow:      {1013, 1001, "client too slow"},
	ws.ClientProtocol:  {1002, 1001, "protocol error"},
	ws.ClientOpcode:    {1003, 1001, "wrong message type"},
	ws.ClientEncoding:  {1007, 1001, "text is not UTF-8"},
	ws.ClientContent:   {1008, 1001, "message not allowed"},
	ws.ClientTooBig:    {1009, 1001, "message too big"},
	ws.ClientRate:      {1008, 1001, "rate limit exceeded"},
	ws.ClientBarred:    {1008, 1001, "address not allowed"},
	ws.ClientFragments: {1008, 1001, "too many fragments"},
	ws.ClientUnproven:  {1008, 1001, "credentials no longer accepted"},
	ws.BackendClosed:   {1000, 1000, ""},
	ws.BackendGone:     {1014, 0, "backend gone"},
	ws.BackendReset:    {1011, 0, "backend reset the connection"},
	ws.BackendDead:     {1014, 1001, "no answer to ping"},
	ws.BackendSlow:     {1011, 1013, "backend too slow"},
	ws.BackendProtocol: {1011, 1002, "protocol error"},
	ws.BackendTooBig:   {1001, 1009, "message too big"},
	ws.BackendFailed:   {1011, 1011, "backend failed"},
	ws.BackendDisowned: {1001, 1001, ""},
	ws.IdleTimeout:     {1001, 1001, "idle"},
	ws.LifetimeReached: {1001, 1001, "lifetime reached"},
	ws.TokenExpired:    {1008, 1001, "authentication expired"},
	ws.Unauthorized:    {1008, 1001, "authentication withdrawn"},
	ws.Kicked:          {1000, 1001, ""},
	ws.RouteRemoved:    {1012, 1012, "route changed"},
	ws.ShuttingDown:    {1001, 1001, "shutting down"},
	ws.InternalFailure: {1011, 1011, "internal error"},
}

// Every cause tells each side its code, waits for the answers, and ends both connections in good order.
func TestEveryCauseTellsBothSides(t *testing.T) { bothDrivers(t, testEveryCauseTellsBothSides) }

func testEveryCauseTellsBothSides(t *testing.T) {
	t.Parallel()
	for cause := ws.ClientClosed; cause <= ws.InternalFailure; cause++ {
		t.Run(cause.String(), func(t *testing.T) {
			t.Parallel()
			want, ok := told[cause]
			if !ok {
				t.Fatal("not in the table")
			}
			o := quiet()
			o.CloseTimeout = time.Hour // none of it is used
			r := startLink(t, o)
			r.socket.End(ws.Cause{Kind: cause})
			answer(r.client, want.client, want.reason)
			answer(r.backend, want.backend, want.reason)
			r.wantCause(cause)
		})
	}
}

// answer reads a Close, sends it back, and reads the end of the connection.
func answer(p *peer, code ws.Code, reason string) {
	p.t.Helper()
	p.wantClose(code, reason)
	if code == 0 { // it is told nothing, and is gone
		p.Close()
		return
	}
	p.sendClose(code, reason)
	p.wantEnd()
}

func TestWhoSpeaksOfACloseIsBelieved(t *testing.T) { bothDrivers(t, testWhoSpeaksOfACloseIsBelieved) }

func testWhoSpeaksOfACloseIsBelieved(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name         string
		cause        ws.Cause
		code         ws.Code
		reason       string
		backend      ws.Code
		backedReason string
	}{
		{"a code and a reason by the API go to the client", ws.Cause{Kind: ws.Kicked, Code: 4401, Reason: "expired"}, 4401, "expired", 1001, ""},
		{"no code is an empty Close", ws.Cause{Kind: ws.Kicked, Code: ws.CodeNoStatus}, ws.CodeNoStatus, "", 1001, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := startLink(t, quiet())
			r.socket.End(c.cause)
			r.client.wantClose(c.code, c.reason)
			r.backend.wantClose(c.backend, c.backedReason)
			r.client.Close()
			r.backend.Close()
			r.wantCause(ws.Kicked)
		})
	}
}

// The Close of either side passes to the other, its answer comes back, and then the connections end.
func TestClosePassesAndItsAnswerComesBack(t *testing.T) {
	bothDrivers(t, testClosePassesAndItsAnswerComesBack)
}

func testClosePassesAndItsAnswerComesBack(t *testing.T) {
	t.Parallel()
	for _, kind := range []ws.Kind{ws.ClientClosed, ws.BackendClosed} {
		t.Run(kind.String(), func(t *testing.T) {
			t.Parallel()
			r := startLink(t, quiet())
			first, second := r.client, r.backend
			if kind == ws.BackendClosed {
				first, second = second, first
			}
			first.sendClose(4002, "done")
			second.wantClose(4002, "done")
			second.send(true, ws.Text, "one more") // allowed until its own Close
			first.want(true, ws.Text, "one more")
			second.sendClose(4003, "so be it")
			first.wantClose(4003, "so be it")
			first.wantEnd()
			second.wantEnd()
			r.wantCause(kind)
			if r.cause.Code != 4002 || r.cause.Reason != "done" {
				t.Errorf("cause %+v is not the first one's", r.cause)
			}
		})
	}
}

// Who closed first is the cause also when the other side answers, vanishes or resets faster than we look.
func TestTheFirstCloseIsTheCause(t *testing.T) { bothDrivers(t, testTheFirstCloseIsTheCause) }

func testTheFirstCloseIsTheCause(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		reply func(backend *peer)
	}{
		{"answered", func(backend *peer) { backend.sendClose(1000, "") }},
		{"ended", func(backend *peer) { backend.Close() }},
		{"reset", func(backend *peer) { abort(backend.Conn) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for range 100 {
				r := startLink(t, quiet())
				r.client.sendClose(1000, "")
				r.backend.wantClose(1000, "")
				c.reply(r.backend)
				r.client.wantClose(1000, "")
				r.client.wantEnd()
				r.backend.Close()
				r.wantCause(ws.ClientClosed)
			}
		})
	}
}

func TestConnectionsThatEndWithoutAClose(t *testing.T) {
	bothDrivers(t, testConnectionsThatEndWithoutAClose)
}

func testConnectionsThatEndWithoutAClose(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		end  func(r *rig)
		want ws.Kind
	}{
		{"client ends", func(r *rig) { r.client.Close() }, ws.ClientGone},
		{"client resets", func(r *rig) { abort(r.client.Conn) }, ws.ClientGone},
		{"client ends inside a frame", func(r *rig) { r.client.write([]byte{0x82, 0xFE, 9}); r.client.Close() }, ws.ClientGone},
		{"backend ends", func(r *rig) { r.backend.Close() }, ws.BackendGone},
		{"backend resets", func(r *rig) { abort(r.backend.Conn) }, ws.BackendGone},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := startLink(t, quiet())
			c.end(r)
			if want := told[c.want]; c.want == ws.ClientGone {
				answer(r.backend, want.backend, want.reason)
			} else {
				answer(r.client, want.client, want.reason)
			}
			r.wantCause(c.want)
		})
	}
}

func TestOffences(t *testing.T) { bothDrivers(t, testOffences) }

func testOffences(t *testing.T) {
	t.Parallel()
	o := quiet()
	o.MessageSize, o.BackendMessageSize = 100, 200
	long := strings.Repeat("x", 201)
	for _, c := range []struct {
		name   string
		offend func(r *rig)
		want   ws.Kind
	}{
		{"unmasked client", func(r *rig) { r.client.masked = false; r.client.send(true, ws.Text, "x"); r.client.masked = true }, ws.ClientProtocol},
		{"client message too big", func(r *rig) { r.client.send(true, ws.Text, long[:101]) }, ws.ClientTooBig},
		{"masked backend", func(r *rig) { r.backend.masked = true; r.backend.send(true, ws.Text, "x"); r.backend.masked = false }, ws.BackendProtocol},
		{"backend message too big", func(r *rig) { r.backend.send(true, ws.Text, long) }, ws.BackendTooBig},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := startLink(t, o)
			r.client.send(true, ws.Text, "in order")
			r.backend.want(true, ws.Text, "in order")
			c.offend(r)
			want := told[c.want]
			answer(r.client, want.client, want.reason)
			answer(r.backend, want.backend, want.reason)
			r.wantCause(c.want)
		})
	}
}

func TestChangedSizesHoldForOpenSockets(t *testing.T) {
	bothDrivers(t, testChangedSizesHoldForOpenSockets)
}

func testChangedSizesHoldForOpenSockets(t *testing.T) {
	t.Parallel()
	r := startLink(t, quiet())
	o := quiet()
	o.MessageSize = 10
	r.options.Store(&o)
	r.link.Wake()
	r.client.send(true, ws.Text, "eleven bytes")
	r.client.wantClose(1009, "message too big")
	r.client.Close()
	r.backend.Close()
	r.wantCause(ws.ClientTooBig)
}

// A Close of ours waits for the frame under way, and no longer than it may.
func TestCloseInsideAFrame(t *testing.T) { bothDrivers(t, testCloseInsideAFrame) }

func testCloseInsideAFrame(t *testing.T) {
	t.Parallel()
	half := func(r *rig) []byte {
		b := r.backend.frame(true, ws.Binary, "the whole frame").append(nil)
		r.backend.write(b[:10])
		if _, err := r.client.r.Peek(10); err != nil {
			t.Error(err)
		}
		return b[10:]
	}
	t.Run("which is ended", func(t *testing.T) {
		t.Parallel()
		r := startLink(t, quiet())
		rest := half(r)
		r.socket.End(ws.Cause{Kind: ws.Kicked})
		r.backend.wantClose(1001, "")
		r.backend.write(rest)
		r.client.want(true, ws.Binary, "the whole frame")
		r.client.wantClose(1000, "")
		r.backend.send(true, ws.Text, "too late")
		r.backend.sendClose(1001, "")
		r.backend.wantEnd()
		r.client.sendClose(1000, "")
		r.client.wantEnd()
		r.wantCause(ws.Kicked)
		r.wantCounts(0, 0, 1, 15)
	})
	t.Run("which is never ended", func(t *testing.T) {
		t.Parallel()
		o := quiet()
		o.CloseTimeout = 100 * time.Millisecond
		r := startLink(t, o)
		half(r)
		r.socket.End(ws.Cause{Kind: ws.Kicked})
		r.backend.wantClose(1001, "")
		r.client.wantCut("the whol")
		r.client.Close()
		r.backend.wantEnd()
		r.wantCause(ws.Kicked)
	})
	t.Run("which is cut off", func(t *testing.T) {
		t.Parallel()
		r := startLink(t, quiet())
		half(r)
		r.backend.Close()
		r.client.wantCut("the whol")
		r.client.Close()
		r.wantCause(ws.BackendGone)
	})
	t.Run("between two frames of a message", func(t *testing.T) {
		t.Parallel()
		r := startLink(t, quiet())
		r.backend.send(false, ws.Text, "beginning")
		r.client.want(false, ws.Text, "beginning")
		r.socket.End(ws.Cause{Kind: ws.Kicked})
		r.client.wantClose(1000, "")
		r.client.Close()
		r.backend.Close()
		r.wantCause(ws.Kicked)
	})
}

// Close returns whatever the peers do, over TLS too, without a write timeout, and with one that is far away. (How soon is not
// measured: that is for the machine to say.)
func TestCloseReturns(t *testing.T) { bothDrivers(t, testCloseReturns) }

func testCloseReturns(t *testing.T) {
	t.Parallel()
	o := quiet()
	o.CloseTimeout = 200 * time.Millisecond
	large := func(p *peer) []byte { return p.frame(true, ws.Binary, strings.Repeat("x", 1<<20)).append(nil) }
	states := []struct {
		name    string
		prepare func(r *rig)
	}{
		{"peers are silent", func(*rig) {}},
		{"peers do not read", func(r *rig) {
			done := make(chan struct{})
			go func() { defer close(done); r.client.stuff(large(r.client)) }()
			r.backend.stuff(large(r.backend))
			<-done
		}},
		{"peers never stop sending", func(r *rig) {
			go r.client.flood(large(r.client))
			go r.backend.flood(large(r.backend))
			r.client.next()
			go discard(r.client)
			go discard(r.backend)
		}},
		{"frames are cut short", func(r *rig) {
			r.client.write(large(r.client)[:1000])
			r.backend.write(large(r.backend)[:1000])
		}},
		{"peers are gone", func(r *rig) { abort(r.client.Conn); abort(r.backend.Conn) }},
	}
	for _, state := range states {
		t.Run(state.name, func(t *testing.T) {
			t.Parallel()
			o := o // the states run at once
			var rigs []*rig
			for _, kinds := range [][2]kind{{plain, plain}, {tls13, tls12}, {plain, unix}, {http2, plain}, {pipe, pipe}} {
				for i := range 4 {
					stream := i&1 == 0
					if o.WriteTimeout = 0; i&2 == 0 {
						o.WriteTimeout = time.Hour
					}
					r := newLinkRig(t, o, kinds[0], kinds[1], Backend{Stream: stream, Message: ws.Binary})
					r.link.Start()
					state.prepare(r)
					r.socket.End(ws.Cause{Kind: ws.ShuttingDown})
					rigs = append(rigs, r)
				}
			}
			for _, r := range rigs {
				if state.name == "peers are gone" { // and this may have been noticed first
					r.wantClosed()
				} else {
					r.wantCause(ws.ShuttingDown)
				}
			}
		})
	}
}

func (p *peer) flood(b []byte) {
	for {
		if _, err := p.Write(b); err != nil {
			return
		}
	}
}

func discard(p *peer) {
	for {
		if _, err := p.r.Discard(1); err != nil {
			return
		}
	}
}

// A panic in a goroutine of a link ends this socket alone, and its Close does not wait for what will never come.
func TestPanicEndsTheSocket(t *testing.T) { bothDrivers(t, testPanicEndsTheSocket) }

func testPanicEndsTheSocket(t *testing.T) {
	t.Parallel()
	t.Run("while copying", func(t *testing.T) {
		t.Parallel()
		r := newLinkRig(t, quiet(), plain, plain, Backend{})
		r.link.(probe).onControl(client, func(ws.Opcode, []byte) bool { panic("a fault") })
		r.link.Start()
		r.client.send(true, ws.Ping, "")
		r.client.wantClose(1011, "internal error")
		r.client.wantEnd() // nobody reads it any more
		r.backend.wantClose(1011, "internal error")
		r.backend.sendClose(1011, "")
		r.backend.wantEnd()
		r.wantCause(ws.InternalFailure)
	})
	t.Run("in Done", func(t *testing.T) {
		t.Parallel()
		r := startLink(t, quiet())
		r.push(ws.Message{Op: ws.Text, Data: []byte("x"), Done: func(error) { panic("a fault") }})
		r.client.want(true, ws.Text, "x")
		r.backend.wantClose(1011, "internal error")
		r.client.Close()
		r.backend.Close()
		r.wantCause(ws.InternalFailure)
	})
}

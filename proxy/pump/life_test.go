package pump

import (
	"testing"
	"testing/synctest"
	"time"

	"bridgehead/ws"
)

// These tests run on the fake time of synctest: what they say about times is exact.

// inBubble runs a test of a link over pipes.
func inBubble(t *testing.T, o Options, to Backend, test func(t *testing.T, r *rig)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newLinkRig(t, o, pipe, pipe, to)
		r.link.Start()
		test(t, r)
	})
}

// wantAfter checks that so much time has passed since start.
func wantAfter(t *testing.T, start time.Time, want time.Duration, what string) {
	t.Helper()
	if got := time.Since(start); got != want {
		t.Errorf("%s after %v, want %v", what, got, want)
	}
}

// ended waits for the end without reading what the peers are told.
func (r *rig) ended() {
	<-r.ending.Done()
	r.client.Close()
	if r.backend != nil {
		r.backend.Close()
	}
	<-r.closed
}

// pong answers the ping that comes next.
func (p *peer) pong() {
	p.t.Helper()
	f := p.next()
	if f.op != ws.Ping || len(f.payload) != 8 {
		p.t.Fatalf("got %v, want a ping with 8 bytes", f)
	}
	p.send(true, ws.Pong, f.payload)
}

// answerPings lives until the connection ends.
func (p *peer) answerPings() {
	for {
		f, err := readFrame(p.r)
		if err != nil {
			return
		}
		if f.op == ws.Ping {
			p.Write(p.frame(true, ws.Pong, f.payload).append(nil))
		}
	}
}

func pinging() Options {
	o := quiet()
	o.Ping, o.Pong = 30*time.Second, 20*time.Second
	return o
}

func TestBothSidesArePinged(t *testing.T) {
	inBubble(t, pinging(), Backend{}, func(t *testing.T, r *rig) {
		start := time.Now()
		for i := range 10 {
			r.client.pong()
			r.backend.pong()
			wantAfter(t, start, time.Duration(i+1)*30*time.Second, "pinged")
		}
		r.client.send(true, ws.Pong, "unasked") // what answers no ping of ours passes on, what does not
		r.backend.want(true, ws.Pong, "unasked")
		r.backend.send(true, ws.Ping, "a ping of its own")
		r.client.want(true, ws.Ping, "a ping of its own")
	})
}

func TestAnyBytesAreLife(t *testing.T) {
	inBubble(t, pinging(), Backend{}, func(t *testing.T, r *rig) {
		go r.backend.answerPings()
		go discard(r.client)
		long := r.client.frame(true, ws.Binary, "a byte every 29 seconds").append(nil)
		for i := range long {
			time.Sleep(29 * time.Second)
			r.client.write(long[i : i+1])
		}
		select {
		case <-r.ending.Done():
			t.Errorf("ended for %v", r.cause)
		default:
		}
	})
}

func TestWhoAnswersNoPingIsDead(t *testing.T) {
	for _, kind := range []ws.Kind{ws.ClientDead, ws.BackendDead} {
		t.Run(kind.String(), func(t *testing.T) {
			inBubble(t, pinging(), Backend{}, func(t *testing.T, r *rig) {
				start := time.Now()
				dead, alive := r.client, r.backend
				if kind == ws.BackendDead {
					dead, alive = alive, dead
				}
				go discard(dead)
				alive.pong()
				f := alive.next()
				wantAfter(t, start, 50*time.Second, "told")
				if code, _ := f.closing(); code != 1001 && code != 1014 {
					t.Errorf("told %v", f)
				}
				r.ended()
				r.wantCause(kind)
			})
		})
	}
}

// A ping that cannot be written, since a side does not read, must not hold up the other's.
func TestABlockedPingHoldsUpNobody(t *testing.T) {
	o := pinging()
	o.WriteTimeout = 0
	inBubble(t, o, Backend{}, func(t *testing.T, r *rig) { // nobody reads the client's pipe
		start := time.Now()
		r.backend.pong()
		wantAfter(t, start, 30*time.Second, "the backend was pinged")
		r.ended()
		wantAfter(t, start, 50*time.Second, "ended")
		r.wantCause(ws.ClientDead)
	})
}

// While a side is not read, since the other does not take what it sends, it is neither pinged nor given up.
func TestAPausedSideIsNotDead(t *testing.T) {
	o := pinging()
	o.WriteTimeout = 0
	const pause = 305 * time.Second
	inBubble(t, o, Backend{}, func(t *testing.T, r *rig) {
		start := time.Now()
		go func() { // the backend takes nothing for a while
			time.Sleep(pause)
			r.backend.answerPings()
		}()
		go func() { // but lives
			for range pause / (7 * time.Second) {
				time.Sleep(7 * time.Second)
				r.backend.Write(r.backend.frame(true, ws.Pong, "unasked").append(nil))
			}
		}()
		go r.client.Write(r.client.frame(true, ws.Text, "stuck").append(nil))
		for {
			f, err := readFrame(r.client.r)
			if err != nil {
				break
			}
			if f.op == ws.Ping && time.Since(start) < pause {
				t.Errorf("the client was pinged after %v", time.Since(start))
			}
		}
		if after := time.Since(start) - pause; after < 20*time.Second || after > 50*time.Second {
			t.Errorf("the client, silent, ended %v after the pause", after)
		}
		r.ended()
		r.wantCause(ws.ClientDead)
	})
}

// A ping that has to wait for the end of a frame, or for a message that is being written, cannot be answered in time.
func TestAPingThatHadToWaitIsVoid(t *testing.T) {
	inBubble(t, pinging(), Backend{}, func(t *testing.T, r *rig) {
		start := time.Now()
		go func() { // the backend sends a frame until 77 s have passed
			long := r.backend.frame(true, ws.Binary, "12345").append(nil)
			for i := range long {
				time.Sleep(11 * time.Second)
				r.backend.write(long[i : i+1])
			}
			r.backend.Close()
		}()
		r.client.want(true, ws.Binary, "12345")
		wantAfter(t, start, 77*time.Second, "the frame ended")
		r.client.pong()
		r.client.pong() // both that were due meanwhile
		r.client.wantClose(1014, "backend gone")
		r.client.Close()
		r.wantCause(ws.BackendGone)
	})
}

func TestIdle(t *testing.T) {
	o := quiet()
	o.Ping, o.Idle = 10*time.Second, time.Minute
	message := ws.Message{Op: ws.Text, Data: []byte("x")}
	for name, move := range map[string]func(r *rig){
		"client":  func(r *rig) { r.client.send(true, ws.Text, "x") },
		"backend": func(r *rig) { r.backend.send(true, ws.Text, "x") },
		"push":    func(r *rig) { r.push(message) },
	} {
		t.Run("a message of the "+name, func(t *testing.T) {
			inBubble(t, o, Backend{}, func(t *testing.T, r *rig) {
				go discard(r.client)
				go discard(r.backend)
				for range 3 {
					time.Sleep(59 * time.Second)
					move(r)
				}
				start := time.Now()
				for range 5 { // no sign of activity: pings, pongs, an unfinished message
					time.Sleep(11 * time.Second)
					r.client.send(true, ws.Pong, "x")
					r.backend.send(true, ws.Ping, "x")
				}
				r.backend.send(false, ws.Text, "x")
				r.ended()
				wantAfter(t, start, time.Minute, "ended")
				r.wantCause(ws.IdleTimeout)
			})
		})
	}
}

func TestLifetimeVaries(t *testing.T) {
	o := quiet()
	o.Lifetime = time.Hour
	inBubble(t, o, Backend{}, func(t *testing.T, first *rig) {
		start := time.Now()
		lives := make(map[time.Duration]bool)
		rigs := []*rig{first}
		for range 9 {
			r := newLinkRig(t, o, pipe, pipe, Backend{})
			r.link.Start()
			rigs = append(rigs, r)
		}
		ends := make(chan time.Duration)
		for _, r := range rigs {
			go func() { r.ended(); ends <- time.Since(start) }()
		}
		for range rigs {
			life := <-ends
			lives[life] = true
			if life > time.Hour || life < time.Hour*9/10 {
				t.Errorf("lived %v", life)
			}
		}
		for _, r := range rigs {
			r.wantCause(ws.LifetimeReached)
		}
		if len(lives) < 5 {
			t.Errorf("10 sockets ended at %d times", len(lives))
		}
	})
}

// The other side has the close timeout to answer, counted once, and is not pinged to death meanwhile.
func TestAnUnansweredCloseEndsInTime(t *testing.T) {
	o := quiet()
	o.CloseTimeout, o.Ping, o.Pong = 10*time.Second, time.Second, time.Second
	inBubble(t, o, Backend{}, func(t *testing.T, r *rig) {
		go r.backend.answerPings() // but no Close
		start := time.Now()
		r.client.sendClose(1000, "bye")
		r.client.wantClose(1000, "bye")
		wantAfter(t, start, 10*time.Second, "answered")
		<-r.closed
		wantAfter(t, start, 10*time.Second, "closed")
		r.wantCause(ws.ClientClosed)
	})
}

// What a client sends after its stream has ended is discarded for as long as it may take to close.
func TestAfterTheStreamsEndTheClientMayGoOn(t *testing.T) {
	inBubble(t, quiet(), Backend{Stream: true, Message: ws.Binary}, func(t *testing.T, r *rig) {
		r.client.send(true, ws.Binary, "data")
		r.backend.read(4)
		r.backend.Close()
		r.client.wantClose(1000, "")
		for range 3 {
			time.Sleep(5 * time.Second)
			r.client.send(true, ws.Binary, "for nobody")
		}
		r.client.sendClose(1000, "")
		r.wantCause(ws.BackendClosed)
		r.wantCounts(1, 4, 0, 0)
	})
}

// A socket that a side has closed is not idle, nor too old.
func TestAClosingSocketIsNotIdle(t *testing.T) {
	o := quiet()
	o.CloseTimeout, o.Idle, o.Lifetime = 10*time.Second, time.Minute, time.Minute
	inBubble(t, o, Backend{}, func(t *testing.T, r *rig) {
		start := time.Now()
		time.Sleep(53 * time.Second) // a lifetime has at least 54
		r.client.sendClose(1000, "")
		r.backend.wantClose(1000, "")
		r.client.wantClose(1000, "")
		wantAfter(t, start, 63*time.Second, "closed")
		r.wantCause(ws.ClientClosed)
	})
}

func TestOurCloseWaitsForTheAnswers(t *testing.T) {
	o := quiet()
	o.CloseTimeout = 10 * time.Second
	inBubble(t, o, Backend{}, func(t *testing.T, r *rig) {
		start := time.Now()
		r.socket.End(ws.Cause{Kind: ws.ShuttingDown})
		go discard(r.client)
		go discard(r.backend)
		<-r.closed
		wantAfter(t, start, 10*time.Second, "closed")
	})
}

// Changed options hold at once; and may come before the traffic begins.
func TestWake(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newLinkRig(t, quiet(), pipe, pipe, Backend{})
		r.link.Wake()
		r.link.Flush()
		r.link.Start()
		start := time.Now()
		time.Sleep(time.Minute)
		o := quiet()
		o.Idle = 90 * time.Second
		r.options.Store(&o)
		r.link.Wake()
		r.ended()
		wantAfter(t, start, 90*time.Second, "ended")
		r.wantCause(ws.IdleTimeout)
		r.link.Wake() // after the end, nothing
	})
}

func TestMessagesClocks(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		set   func(o *Options)
		after time.Duration
		want  ws.Kind
	}{
		{"dead", func(o *Options) { o.Ping, o.Pong = 30*time.Second, 20*time.Second }, 50 * time.Second, ws.ClientDead},
		{"idle", func(o *Options) { o.Idle = time.Minute }, time.Minute, ws.IdleTimeout},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				o := quiet()
				c.set(&o)
				r := startMessagesOver(t, o, pipe, nil, nothing)
				go discard(r.client)
				start := time.Now()
				r.ended()
				wantAfter(t, start, c.after, "ended")
				r.wantCause(c.want)
			})
		})
	}
	t.Run("answered", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			r := startMessagesOver(t, pinging(), pipe, nil, nothing)
			start := time.Now()
			for range 5 {
				r.client.pong()
			}
			wantAfter(t, start, 150*time.Second, "pinged five times")
		})
	})
	t.Run("a write may wait as long as the write timeout, also a ping's", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			o := pinging()
			o.WriteTimeout = 10 * time.Second
			r := startMessagesOver(t, o, pipe, nil, nothing)
			time.Sleep(39 * time.Second) // the ping has waited for 9
			r.client.pong()
			go r.msgs.Write(ws.Message{Op: ws.Text, Data: []byte("still here")})
			r.client.want(true, ws.Text, "still here")
		})
	})
}

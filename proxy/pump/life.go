package pump

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"bridgehead/ws"
)

// A side is one of the two ends of a bridge.
type side int

const (
	client side = iota
	backend
	sides
)

// A life runs the clocks of one socket: pings to each side that speaks WebSocket, idle, lifetime, and the time a closing
// handshake may take. One timer serves them all; nothing runs between its ticks.
type life struct {
	socket *Socket

	// ping sends a ping to a side, and reports whether it went out at once: inside a frame, or behind a Close, it cannot. nil: the
	// side is never pinged. Set before begin.
	ping [sides]func(payload [8]byte) (sent bool)

	// busy is set while we choose not to read from a side: its pongs cannot be seen then, so it is not pinged. (A ping that is
	// under way when a pause begins is void: the bytes that led to the pause were life.)
	busy [sides]atomic.Bool

	pinging [sides]atomic.Bool // a ping is on its way out, which may take long when the side does not read

	mu      sync.Mutex  // guards the following
	timer   *time.Timer // nil before begin
	stopped bool
	beat    [sides]ws.Keepalive
	start   time.Time
	share   float64 // how much of the lifetime this socket lives, so that sockets do not end together
	active  time.Time
	closeBy time.Time // zero: no closing handshake is under way
	closing ws.Cause
}

// newLife prepares the clocks. None runs before begin.
func newLife(s *Socket) *life { return &life{socket: s, share: 1 - rand.Float64()/10} }

// begin starts the clocks.
func (l *life) begin() {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.start, l.active = now, now
	for i := range l.beat {
		l.beat[i].Seen(now)
	}
	l.timer = time.AfterFunc(0, l.tick) // the first tick finds out when the next is due
}

// came notes that bytes came from a side, which therefore lives, and whether they completed a message, so that the socket is
// not idle.
func (l *life) came(from side, message bool, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.beat[from].Seen(now)
	if message {
		l.active = now
	}
}

// moved notes that a message of ours or of the backend passed.
func (l *life) moved(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.active = now
}

// answers reports whether a pong of a side answers our own ping.
func (l *life) answers(from side, payload []byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.beat[from].Answers(payload)
}

// closeWithin starts the clock of a closing handshake that a side began; when it runs out the socket ends with cause.
func (l *life) closeWithin(d time.Duration, cause ws.Cause) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closeBy.IsZero() && !l.stopped {
		l.closeBy, l.closing = time.Now().Add(d), cause
		l.timer.Reset(0)
	}
}

// wake looks at the clocks anew, after the options have changed.
func (l *life) wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.stopped && l.timer != nil {
		l.timer.Reset(0)
	}
}

// stop ends the clocks. A tick that runs at this moment may still finish. It gives the time at which a closing handshake that is
// under way is over; zero if there is none.
func (l *life) stop() (closeBy time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopped = true
	l.timer.Stop()
	return l.closeBy
}

// tick does what is due and sets the timer for what is due next.
func (l *life) tick() {
	defer l.socket.recover()
	now, o := time.Now(), l.socket.Options()

	l.mu.Lock()
	if l.stopped {
		l.mu.Unlock()
		return
	}
	cause, next := l.deadlinesLocked(now, o)
	for side := range sides {
		dead, at := l.beatLocked(side, now, o)
		cause, next = cmpOr(cause, dead), sooner(next, at)
	}
	if cause.Kind == 0 && !next.IsZero() {
		l.timer.Reset(next.Sub(now))
	}
	l.mu.Unlock()

	if cause.Kind != 0 {
		l.socket.End(cause)
	}
}

// beatLocked pings a side if that is due, and gives the cause to end with if it is dead, or when to look again.
func (l *life) beatLocked(side side, now time.Time, o *Options) (dead ws.Cause, next time.Time) {
	if l.ping[side] == nil {
		return ws.Cause{}, time.Time{}
	}
	k := &l.beat[side]
	k.Interval, k.Timeout = o.Ping, o.Pong
	if l.busy[side].Load() {
		k.Seen(now)
	}
	beat, next := k.Advance(now)
	switch beat {
	case ws.SendPing:
		l.sendPing(side, k.Payload())
	case ws.Dead:
		dead.Kind = [...]ws.Kind{ws.ClientDead, ws.BackendDead}[side]
	}
	return dead, next
}

// sendPing does not wait for the side, which must hold up neither the clocks nor the other side's ping. A ping that could not go
// out at once is void: nobody can have answered it in time.
func (l *life) sendPing(side side, payload [8]byte) {
	if !l.pinging[side].CompareAndSwap(false, true) {
		return
	}
	l.socket.Go(func() {
		defer l.pinging[side].Store(false)
		if !l.ping[side](payload) {
			l.came(side, false, time.Now())
		}
	})
}

// deadlinesLocked gives the cause to end with now, if any, and the soonest deadline that lies ahead.
func (l *life) deadlinesLocked(now time.Time, o *Options) (cause ws.Cause, next time.Time) {
	deadline := func(at time.Time, then ws.Cause) {
		if now.Before(at) {
			next = sooner(next, at)
			return
		}
		cause = cmpOr(cause, then)
	}
	if !l.closeBy.IsZero() { // the socket is ending, and by this cause
		deadline(l.closeBy, l.closing)
		return cause, next
	}
	if o.Idle > 0 {
		deadline(l.active.Add(o.Idle), ws.Cause{Kind: ws.IdleTimeout})
	}
	if o.Lifetime > 0 {
		deadline(l.start.Add(time.Duration(l.share*float64(o.Lifetime))), ws.Cause{Kind: ws.LifetimeReached})
	}
	return cause, next
}

// cmpOr is the first cause that is one.
func cmpOr(a, b ws.Cause) ws.Cause {
	if a.Kind != 0 {
		return a
	}
	return b
}

// sooner is the earlier of two moments, of which a zero one is never.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}

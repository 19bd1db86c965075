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
	ping   [sides]func(payload [8]byte) // nil: a side that is never pinged. Must not block on a peer for long

	// busy is set while we choose not to read from a side: its pongs cannot be seen then, so it is not pinged. (A ping that is
	// under way when a pause begins is void: the bytes that led to the pause were life.)
	busy [sides]atomic.Bool

	mu      sync.Mutex // guards the following
	timer   *time.Timer
	stopped bool
	beat    [sides]ws.Keepalive
	start   time.Time
	share   float64 // how much of the lifetime this socket lives, so that sockets do not end together
	active  time.Time
	closeBy time.Time // zero: no closing handshake is under way
	closing ws.Cause
}

// newLife starts the clocks.
func newLife(s *Socket, pingClient, pingBackend func([8]byte)) *life {
	now := time.Now()
	l := &life{socket: s, start: now, active: now, share: 1 - rand.Float64()/10}
	l.ping[client], l.ping[backend] = pingClient, pingBackend
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.beat {
		l.beat[i].Seen(now)
	}
	l.timer = time.AfterFunc(0, l.tick) // the first tick finds out when the next is due
	return l
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
	if !l.stopped {
		l.timer.Reset(0)
	}
}

// stop ends the clocks. A tick that runs at this moment may still finish.
func (l *life) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopped = true
	l.timer.Stop()
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
	var due [sides]*[8]byte
	for i := range l.beat {
		if l.ping[i] == nil {
			continue
		}
		l.beat[i].Interval, l.beat[i].Timeout = o.Ping, o.Pong
		if l.busy[i].Load() {
			l.beat[i].Seen(now)
		}
		beat, at := l.beat[i].Advance(now)
		next = sooner(next, at)
		switch beat {
		case ws.SendPing:
			payload := l.beat[i].Payload()
			due[i] = &payload
		case ws.Dead:
			cause = cmpOr(cause, ws.Cause{Kind: [...]ws.Kind{ws.ClientDead, ws.BackendDead}[i]})
		}
	}
	if cause.Kind == 0 && !next.IsZero() {
		l.timer.Reset(next.Sub(now))
	}
	l.mu.Unlock()

	for i, payload := range due {
		if payload != nil {
			l.ping[i](*payload)
		}
	}
	if cause.Kind != 0 {
		l.socket.End(cause)
	}
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
	if !l.closeBy.IsZero() {
		deadline(l.closeBy, l.closing)
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

package pump

import (
	"sync"
	"sync/atomic"
	"time"

	"bridgehead/ws"
)

// A life runs the clocks of one socket of the goroutine driver. One timer serves them all; nothing runs between its ticks.
type life struct {
	socket *Socket

	// ping sends a ping to a side, and reports whether it went out at once: inside a frame, or behind a Close, it cannot. nil: the
	// side is never pinged. Set before begin.
	ping [sides]func(payload [8]byte) (sent bool)

	// busy is set while we choose not to read from a side. (A ping that is under way when a pause begins is void: the bytes that led
	// to the pause were life.)
	busy [sides]atomic.Bool

	pinging [sides]atomic.Bool // a ping is on its way out, which may take long when the side does not read

	mu      sync.Mutex  // guards the following
	timer   *time.Timer // nil before begin
	stopped bool
	clocks  clocks
}

// newLife prepares the clocks. None runs before begin.
func newLife(s *Socket) *life { return &life{socket: s} }

// begin starts the clocks.
func (l *life) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clocks.begin(time.Now())
	l.timer = time.AfterFunc(0, l.tick) // the first tick finds out when the next is due
}

// came notes that bytes came from a side, and whether they completed a message.
func (l *life) came(from side, message bool, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clocks.came(from, message, now)
}

// moved notes that a message of ours or of the backend passed.
func (l *life) moved(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clocks.active = now
}

// answers reports whether a pong of a side answers our own ping.
func (l *life) answers(from side, payload []byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.clocks.beat[from].Answers(payload)
}

// closeWithin starts the clock of a closing handshake that a side began; when it runs out the socket ends with cause.
func (l *life) closeWithin(d time.Duration, cause ws.Cause) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.stopped && l.clocks.closeAt(time.Now().Add(d), cause) {
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
	return l.clocks.closeBy()
}

// tick does what is due and sets the timer for what is due next.
func (l *life) tick() {
	defer l.socket.recover()
	if cause := l.advance(time.Now()); cause.Kind != 0 {
		l.socket.End(cause)
	}
}

func (l *life) advance(now time.Time) ws.Cause {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return ws.Cause{}
	}
	var of [sides]aspect
	for i := range of {
		of[i] = aspect{pinged: l.ping[i] != nil, busy: l.busy[i].Load()}
	}
	due := l.clocks.advance(now, l.socket.Options(), of)
	for side := range sides {
		if due.ping[side] {
			l.sendPing(side, l.clocks.beat[side].Payload())
		}
	}
	if due.cause.Kind == 0 && !due.next.IsZero() {
		l.timer.Reset(due.next.Sub(now))
	}
	return due.cause
}

// sendPing does not wait for the side, which must hold up neither the clocks nor the other side's ping. A ping that could not go
// out at once is void: nobody can have answered it in time.
func (l *life) sendPing(to side, payload [8]byte) {
	if !l.pinging[to].CompareAndSwap(false, true) {
		return
	}
	l.socket.Go(func() {
		defer l.pinging[to].Store(false)
		if !l.ping[to](payload) {
			l.came(to, false, time.Now())
		}
	})
}

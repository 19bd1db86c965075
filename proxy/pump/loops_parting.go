//go:build linux && (amd64 || arm64)

package pump

import (
	"time"

	"bridgehead/internal/reactor"
	"bridgehead/ws"
)

// A parting is the end of a loopLink under way.
type parting struct {
	goodbye [sides][]byte    // our Close frames; empty: that side is told nothing
	readBy  time.Time        // nobody is listened to any longer
	by      time.Time        // nor written to
	reset   [sides]time.Time // when a side is reset that does not end after it was hung up
	done    chan struct{}    // closed when both connections are
}

// part begins the end.
func (l *loopLink) part(cause ws.Cause, done chan struct{}) {
	now := l.loop.Now()
	p := &parting{by: now.Add(l.socket.Options().CloseTimeout), done: done}
	p.readBy = sooner(p.by, l.clocks.closeBy()) // who was told by the other side has had its time since then
	l.leave = p
	for side := range sides {
		code, reason := cause.Client()
		if side == backend {
			code, reason = cause.Backend()
		}
		if code != 0 && !l.ends[side].stream {
			p.goodbye[side] = ws.AppendCloseFrame(nil, code, reason, side == backend)
		}
	}
	l.paused = time.Time{}
	for i := range l.ends {
		l.flush(&l.ends[i])
		l.resume(&l.ends[i])
	}
	l.advanceParting()
}

// advanceParting does what can be done now for the end of both sides, and sets the timer.
func (l *loopLink) advanceParting() {
	p, now := l.leave, l.loop.Now()
	if p.done == nil {
		return
	}
	for i := range l.ends {
		e := &l.ends[i]
		e.ended = e.ended || !now.Before(p.readBy)
		if e.waits() && !now.Before(p.by) {
			e.failed = true
			l.dropUnsent(e, errFailed)
		}
	}
	var next time.Time
	for i := range l.ends {
		next = sooner(next, l.finish(&l.ends[i], now))
	}
	if next.IsZero() {
		l.loop.Disarm(&l.timer)
		close(p.done)
		p.done = nil
		return
	}
	l.loop.Arm(&l.timer, next, l)
}

// finish hangs a side up after it has closed, or when it cannot be told any more. It gives the time to look again; zero: it is closed.
func (l *loopLink) finish(e *loopEnd, now time.Time) (next time.Time) {
	p := l.leave
	switch {
	case e.hung:
	case e.failed || e.stream && !e.waits():
		l.hangUp(e, now)
	case e.waits():
		return p.by
	case !e.closed && !l.other(e).ended: // only what the other side sends can end the frame that is under way
		return p.readBy
	case e.told && !e.ended: // it may answer
		return p.readBy
	default:
		l.hangUp(e, now)
	}
	if !e.Open() {
		return time.Time{}
	}
	if !e.hung {
		return p.by
	}
	if !now.Before(p.reset[e.side]) {
		e.Reset()
		return time.Time{}
	}
	return p.reset[e.side]
}

// hangUp is HangUp on a loop: FIN, then wait for the peer's while discarding what is still on its way, then RST after a second.
func (l *loopLink) hangUp(e *loopEnd, now time.Time) {
	if !e.Open() {
		e.hung = true
		return
	}
	if !e.failed && !l.notify(e) {
		return
	}
	e.hung, e.ended = true, true
	l.leave.reset[e.side] = now.Add(goodbye)
	if e.over && e.secure == nil { // what follows close_notify is still to be read
		e.Close()
		return
	}
	if err := e.CloseWrite(); err != nil {
		e.Reset()
		return
	}
	e.Again()
}

// discard reads what nobody wants to know, and closes the connection at its end.
func (e *loopEnd) discard() {
	if !e.Open() || !e.Readable() {
		return
	}
	switch n, err := e.Read(e.Loop().Buffer()); {
	case n > 0:
		e.Again()
	case err != reactor.ErrAgain:
		e.Close()
	}
}

// abandon closes both connections at once.
func (l *loopLink) abandon() {
	l.loop.Disarm(&l.timer)
	for i := range l.ends {
		e := &l.ends[i]
		e.hung, e.ended, e.closed, e.failed = true, true, true, true
		l.dropUnsent(e, errFailed)
		e.Reset()
	}
	if l.leave == nil {
		l.leave = new(parting)
	}
	if l.leave.done != nil {
		close(l.leave.done)
		l.leave.done = nil
	}
}

package pump

import (
	"net"
	"sync"
	"sync/atomic"
	"time"

	"bridgehead/ws"
)

// maxControl bounds the control frames that wait for a boundary. More are dropped: a peer that does not read cannot make us
// hoard answers to its pings (RFC 6455, section 5.5.3, lets us answer the latest alone).
const maxControl = 4 << 10

// A sink is the writing half of one side. It merges what the other side sent with what is ours to say: control frames at frame
// boundaries, messages from the outbox at message boundaries, and at last a Close, after which nothing is sent.
//
// Whoever has something to say leaves it under newsMu and writes it if nobody is writing; else the one who writes does, before
// it lets go. So nobody but the copying goroutine ever waits for a slow peer.
type sink struct {
	conn    net.Conn
	masked  bool             // frames toward this side are masked (RFC 6455, section 5.1)
	options func() *Options  // for the write timeout
	outbox  *Outbox          // nil: nobody else sends to this side
	sent    func(ws.Message) // counts a message of the outbox
	failed  func(error)      // told of each write error

	mu        sync.Mutex // held while writing; guards the following
	atFrame   bool       // what was written so far ends at a frame boundary
	atMessage bool       // and at a message boundary
	closed    bool       // a Close went out, ours or the other side's
	err       error      // the first write error; nothing is written after it
	settled   uint64     // the news that was written or found void

	news    atomic.Uint64 // grows with everything that is left under newsMu or in the outbox
	newsMu  sync.Mutex    // never held while writing; guards the following
	control []byte        // whole control frames that wait for a boundary
	closing bool          // farewell goes out next
	goodbye []byte        // our Close frame; empty: this side is told nothing
	closeBy time.Time     // when closing: no write may last longer
}

// write passes on what the other side sent. What a closed side is sent is discarded.
func (s *sink) write(p ws.Passed) error {
	s.mu.Lock()
	defer s.release()
	s.flushLocked()
	rest := p.Out
	if cut := cutAt(p); cut > 0 && s.news.Load() != s.settled {
		s.putLocked(rest[:cut], true, cut == p.Message)
		s.flushLocked()
		rest = rest[cut:]
	}
	if len(rest) > 0 {
		s.putLocked(rest, p.Frame == len(p.Out), p.Message == len(p.Out))
	}
	if p.Close != nil {
		s.closed = true
	}
	return s.err
}

// cutAt is a place inside what passes where something of ours may stand, or 0.
func cutAt(p ws.Passed) int {
	cut := p.Message
	if cut < 0 {
		cut = p.Frame
	}
	if cut == len(p.Out) {
		return 0 // the end is a boundary anyway
	}
	return max(cut, 0)
}

// insert sends a whole control frame as soon as it may stand.
func (s *sink) insert(frame []byte) {
	s.newsMu.Lock()
	if !s.closing && len(s.control) < maxControl {
		s.control = append(s.control, frame...)
	}
	s.newsMu.Unlock()
	s.nudge()
}

// close sends our Close as the last frame, at the next boundary. Code 0 sends none. Until then, and no longer than by, frames
// that are under way may end.
func (s *sink) close(code ws.Code, reason string, by time.Time) {
	s.newsMu.Lock()
	if !s.closing {
		s.closing, s.closeBy = true, by
		if code != 0 {
			s.goodbye = ws.AppendCloseFrame(nil, code, reason, s.masked)
		}
		s.conn.SetWriteDeadline(by) // for a write that waits at this moment
	}
	s.newsMu.Unlock()
	s.nudge()
}

// nudge says that there is news, and writes it unless somebody else is about to.
func (s *sink) nudge() {
	s.news.Add(1)
	if s.mu.TryLock() {
		s.release()
	}
}

// release lets go of mu after it has written what came in the meantime.
func (s *sink) release() {
	for {
		seen := s.news.Load()
		s.flushLocked()
		s.mu.Unlock()
		if s.news.Load() == seen || !s.mu.TryLock() {
			return
		}
	}
}

// flushLocked writes all news that may stand where the output is now.
func (s *sink) flushLocked() {
	news := s.news.Load()
	if news == s.settled || !s.atFrame || s.closed || s.err != nil {
		return
	}
	s.newsMu.Lock()
	control := s.control
	s.control = nil
	s.newsMu.Unlock()
	if len(control) > 0 {
		s.putLocked(control, true, s.atMessage)
	}
	if s.atMessage {
		s.flushOutboxLocked()
	}
	s.newsMu.Lock()
	closing, goodbye := s.closing, s.goodbye
	s.newsMu.Unlock()
	if closing {
		if len(goodbye) > 0 {
			s.putLocked(goodbye, true, s.atMessage)
		}
		s.closed = true
	}
	if s.atMessage {
		s.settled = news
	}
}

func (s *sink) flushOutboxLocked() {
	for s.outbox != nil && s.err == nil {
		m, ok := s.outbox.take()
		if !ok {
			return
		}
		s.putLocked(ws.AppendFrame(nil, m.Op, m.Data, s.masked), true, true)
		m.Finish(s.err)
		if s.err == nil {
			s.sent(m)
		}
	}
}

// putLocked writes b and notes whether the output then stands at a boundary.
func (s *sink) putLocked(b []byte, frame, message bool) {
	if s.closed || s.err != nil {
		return
	}
	s.newsMu.Lock()
	s.conn.SetWriteDeadline(s.deadlineLocked())
	s.newsMu.Unlock()
	if _, err := s.conn.Write(b); err != nil {
		s.err = err
		s.atFrame, s.atMessage = false, false
		s.failed(err)
		return
	}
	s.atFrame, s.atMessage = frame, message
}

// deadlineLocked needs newsMu: a close must not be overtaken by the deadline of a write that begins beside it.
func (s *sink) deadlineLocked() time.Time {
	by := deadline(time.Now(), s.options().WriteTimeout)
	if s.closing && (by.IsZero() || s.closeBy.Before(by)) {
		return s.closeBy
	}
	return by
}

// said reports whether a Close has gone out to this side.
func (s *sink) said() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed && s.err == nil
}

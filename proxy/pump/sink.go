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
// One goroutine at a time has the turn to write. Whoever has something to say leaves it under mu and takes the turn if nobody
// has it; else the one who has it writes the news before it lets go. So the peer's slowness is waited for by the goroutine that
// copies to it, and by at most one that had news while nobody was writing.
type sink struct {
	conn   paced
	stream bool                    // no frames go out: every place is a boundary
	masked bool                    // frames toward this side are masked (RFC 6455, section 5.1)
	outbox *Outbox                 // nil: nobody else sends to this side
	finish func(ws.Message, error) // told what became of a message of the outbox
	failed func(error)             // told of the first write error

	// These belong to whoever has the turn.
	atFrame   bool   // what was written so far ends at a frame boundary
	atMessage bool   // and at a message boundary
	told      bool   // a Close went out, ours or the other side's
	closed    bool   // nothing more goes out: it was told, or is to be told nothing
	err       error  // the first write error; nothing is written after it
	settled   uint64 // the news that was written or found void

	news atomic.Uint64 // grows, under mu, with everything that is left there or in the outbox

	mu      sync.Mutex // guards the following; never held while writing
	free    *sync.Cond // the turn may be taken
	writing bool       // somebody has the turn
	waiting int        // how many wait for it
	control []byte     // whole control frames that wait for a boundary
	closing bool       // goodbye goes out next
	goodbye []byte     // our Close frame; empty: this side is told nothing
}

func newSink(conn net.Conn, options func() *Options) *sink {
	s := &sink{conn: paced{Conn: conn, options: options}, atFrame: true, atMessage: true}
	s.free = sync.NewCond(&s.mu)
	return s
}

// write passes on what the other side sent. What a closed side is sent is discarded: it is not taken.
func (s *sink) write(p ws.Passed) (took bool, err error) {
	s.begin()
	defer s.release()
	s.flush()
	took = !s.closed
	rest := p.Out
	if cut := cutAt(p); cut > 0 && s.news.Load() != s.settled {
		s.put(rest[:cut], true, cut == p.Message)
		s.flush()
		rest = rest[cut:]
	}
	if len(rest) > 0 {
		s.put(rest, p.Frame == len(p.Out), p.Message == len(p.Out))
	}
	if p.Close != nil && !s.closed {
		s.told, s.closed = true, true
	}
	return took && s.err == nil, s.err
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

// insert sends a whole control frame as soon as it may stand, and reports whether that was at once.
func (s *sink) insert(frame []byte) (sent bool) {
	s.mu.Lock()
	if !s.closing && len(s.control) < maxControl {
		s.control = append(s.control, frame...)
	}
	s.mu.Unlock()
	s.nudge()
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.control) == 0
}

// close makes our Close the last frame, at the next boundary, before whatever the other side may send from now on. Code 0 sends
// none. Until then, and no longer than by, frames that are under way may end. It is written by the next who writes, or a nudge.
func (s *sink) close(code ws.Code, reason string, by time.Time) {
	s.mu.Lock()
	s.news.Add(1)
	s.closing = true
	if code != 0 {
		s.goodbye = ws.AppendCloseFrame(nil, code, reason, s.masked)
	}
	s.mu.Unlock()
	s.conn.endBy(by)
}

// nudge says that there is news, and writes it unless somebody has the turn or is about to.
func (s *sink) nudge() {
	s.mu.Lock()
	s.news.Add(1)
	mine := !s.writing && s.waiting == 0
	if mine {
		s.writing = true
	}
	s.mu.Unlock()
	if mine {
		s.release()
	}
}

// begin waits for the turn.
func (s *sink) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting++
	for s.writing {
		s.free.Wait()
	}
	s.waiting--
	s.writing = true
}

// release writes what came in the meantime and ends the turn.
func (s *sink) release() {
	for left := false; !left; {
		left = s.flushAndLeave()
	}
}

// flushAndLeave ends the turn, unless news came while it wrote and nobody waits to do the same. A panic in it ends the turn too:
// it is to end the socket, and not to be waited for.
func (s *sink) flushAndLeave() (left bool) {
	seen, panicked := s.news.Load(), true
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if left = panicked || s.waiting > 0 || s.news.Load() == seen; left {
			s.writing = false
			s.free.Signal()
		}
	}()
	s.flush()
	panicked = false
	return
}

// flush writes all news that may stand where the output is now. Needs the turn.
func (s *sink) flush() {
	news := s.news.Load()
	if news == s.settled || !s.atFrame || s.closed || s.err != nil {
		return
	}
	s.mu.Lock()
	control, closing, goodbye := s.control, s.closing, s.goodbye
	s.control = nil
	s.mu.Unlock()
	s.put(control, true, s.atMessage)
	if s.atMessage {
		s.flushOutbox()
	}
	if closing {
		s.put(goodbye, true, s.atMessage)
		s.told, s.closed = len(goodbye) > 0, true
	}
	if s.atMessage {
		s.settled = news
	}
}

// flushOutbox writes what the outbox can have held when it was last said that there is news, and no more: the goroutine that
// copies, and our Close, must have their turn however fast others send. Needs the turn.
func (s *sink) flushOutbox() {
	for range outboxMessages {
		if s.outbox == nil || s.err != nil {
			return
		}
		m, ok := s.outbox.take()
		if !ok {
			return
		}
		s.put(ws.AppendFrame(nil, m.Op, m.Data, s.masked), true, true)
		s.finish(m, s.err)
	}
}

// put writes b and notes whether the output then stands at a boundary. Needs the turn.
func (s *sink) put(b []byte, frame, message bool) {
	if len(b) == 0 || s.closed || s.err != nil {
		return
	}
	if _, err := s.conn.Write(b); err != nil {
		s.err = err
		s.atFrame, s.atMessage = false, false
		s.failed(err)
		return
	}
	s.atFrame, s.atMessage = frame || s.stream, message || s.stream
}

// said waits for the write that is under way and reports whether a Close has gone out to this side, and if not, whether it may
// still follow at the end of a frame.
func (s *sink) said() (said, may bool) {
	s.begin()
	defer s.release()
	return s.told && s.err == nil, !s.closed && s.err == nil
}

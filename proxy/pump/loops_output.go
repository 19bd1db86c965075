//go:build linux && (amd64 || arm64)

package pump

import (
	"bytes"
	"fmt"
	"os"
	"sync"
	"time"

	"bridgehead/ws"
)

// An output is what waits to be sent to a side that does not take it at once, or for a boundary. Most sides have none.
type output struct {
	unsent  []byte    // in a spare, or in memory of its own
	spare   *spare    // to be given back
	since   time.Time // when the side last took a piece of it
	moved   int       // bytes since then
	flying  *outgoing // the message of the outbox that unsent ends with
	control []byte    // whole control frames that wait for a boundary
}

type outgoing struct{ message ws.Message }

// A spare holds what one read brought and its reader could not send.
type spare struct {
	buf   []byte
	shelf *shelf
}

// A shelf lends spares of one size.
type shelf struct {
	size int
	pool sync.Pool
}

// shelves are a few, so that a side that takes nothing holds little more than it was sent.
var shelves = []*shelf{{size: 16 << 10}, {size: 48 << 10}, {size: sealedPart}}

// borrow gives a spare with room for n bytes; nil if that is more than any read brings.
func borrow(n int) *spare {
	for _, s := range shelves {
		if n > s.size {
			continue
		}
		if old, ok := s.pool.Get().(*spare); ok {
			return old
		}
		return &spare{make([]byte, s.size), s}
	}
	return nil
}

func (s *spare) giveBack() { s.shelf.pool.Put(s) }

// small is how much gets memory in its size, and not a spare.
const small = 2 << 10

// waits tells whether a side has not taken what it was sent.
func (e *loopEnd) waits() bool { return e.out != nil && len(e.out.unsent) > 0 }

// output gives the side's, which may be a new one.
func (e *loopEnd) output() *output {
	if e.out == nil {
		e.out = new(output)
	}
	return e.out
}

// keep keeps what could not be sent. Own memory is kept itself, and else copied.
func (o *output) keep(b []byte, own bool) {
	switch {
	case len(o.unsent) > 0 || len(b) <= small && !own:
		o.unsent = append(o.unsent, b...)
	case own:
		o.unsent = b
	default:
		if o.spare = borrow(len(b)); o.spare == nil {
			o.unsent = bytes.Clone(b)
			return
		}
		o.unsent = append(o.spare.buf[:0], b...)
	}
}

// write passes on what the other side sent. What a closed side is sent is discarded: it is not taken.
func (l *loopLink) write(to *loopEnd, p ws.Passed) (took bool) {
	l.flush(to)
	took = !to.closed
	rest := p.Out
	if cut := cutAt(p); cut > 0 && l.news(to) {
		l.put(to, rest[:cut], true, cut == p.Message, false)
		l.flush(to)
		rest = rest[cut:]
	}
	l.put(to, rest, p.Frame == len(p.Out), p.Message == len(p.Out), false)
	if p.Close != nil && !to.closed {
		to.told, to.closed = true, true
	}
	took = took && !to.failed
	l.flush(to)
	return took
}

// news tells whether something of ours waits for a boundary.
func (l *loopLink) news(to *loopEnd) bool {
	return to.out != nil && len(to.out.control) > 0 || to.side == client && l.pushed || l.leave != nil
}

// insert sends a whole control frame as soon as it may stand, and reports whether that was at once.
func (l *loopLink) insert(to *loopEnd, frame []byte) (sent bool) {
	if l.leave != nil || to.closed || to.failed {
		return false
	}
	if o := to.output(); len(o.control) < maxControl {
		o.control = append(o.control, frame...)
	}
	l.flush(to)
	return to.out == nil || len(to.out.control) == 0
}

// flush sends all news that may stand where the output is now: nothing of it while something waits, so that it is not hoarded.
func (l *loopLink) flush(to *loopEnd) {
	if !to.atFrame || to.closed || to.failed || to.waits() || !l.news(to) {
		return
	}
	if o := to.out; o != nil {
		control := o.control
		o.control = nil
		l.put(to, control, true, to.atMessage, false)
		to.tidy()
	}
	if to.side == client && to.atMessage && l.pushed {
		l.flushOutbox(to)
	}
	if l.leave != nil && !to.waits() {
		goodbye := l.leave.goodbye[to.side]
		l.put(to, goodbye, true, to.atMessage, false)
		to.told, to.closed = len(goodbye) > 0, true
	}
}

// flushOutbox sends what is in the outbox until something waits, and no more than it can hold: the bridge, and our Close, must have
// their turn however fast others send.
func (l *loopLink) flushOutbox(to *loopEnd) {
	var sent []ws.Message
	for range outboxMessages {
		m, ok := l.socket.Outbox.take()
		if !ok {
			l.pushed = false
			break
		}
		l.put(to, ws.AppendFrame(nil, m.Op, m.Data, false), true, true, true)
		if to.waits() {
			to.out.flying = &outgoing{m}
			break
		}
		sent = append(sent, m)
		if to.failed {
			break
		}
	}
	l.finishMessages(sent, to.err())
	if l.pushed && !to.waits() && !to.failed {
		l.Flush() // in another turn
	}
}

func (e *loopEnd) err() error {
	if e.failed {
		return errFailed
	}
	return nil
}

// errFailed is told to the senders of messages that a broken connection did not take.
var errFailed = fmt.Errorf("write: %w", os.ErrClosed)

// finishMessages counts messages of the outbox and tells their senders, who might keep the loop waiting.
func (l *loopLink) finishMessages(sent []ws.Message, err error) {
	if len(sent) == 0 {
		return
	}
	if err == nil {
		l.clocks.active = l.loop.Now()
		for _, m := range sent {
			l.socket.Counters.Out(1, len(m.Data))
		}
	}
	l.socket.Go(func() {
		for _, m := range sent {
			l.finishMessage(m, err)
		}
	})
}

// finishMessage tells one sender, whose panic is not to keep the others from being told.
func (l *loopLink) finishMessage(m ws.Message, err error) {
	defer l.socket.recover()
	m.Finish(err)
}

// put sends b, or keeps what the side does not take now, and notes whether the output then stands at a boundary. Own memory may be
// kept as it is.
func (l *loopLink) put(to *loopEnd, b []byte, frame, message, own bool) {
	if len(b) == 0 || to.closed || to.failed {
		return
	}
	to.atFrame, to.atMessage = frame || to.stream, message || to.stream
	if to.secure != nil {
		l.seal(to, b)
		return
	}
	l.putBytes(to, b, own)
}

// putBytes sends b as it is, or keeps it.
func (l *loopLink) putBytes(to *loopEnd, b []byte, own bool) {
	if !to.waits() {
		n, err := to.Write(b)
		if err != nil {
			l.fail(to, err)
			return
		}
		if b = b[n:]; len(b) == 0 {
			return
		}
		l.blocked(to)
	}
	to.output().keep(b, own)
}

// blocked starts the clock of a side that does not take what it is sent.
func (l *loopLink) blocked(to *loopEnd) {
	o, now := to.output(), l.loop.Now()
	o.since, o.moved = now, 0
	if timeout := l.socket.Options().WriteTimeout; timeout > 0 && l.leave == nil {
		l.lookBy(now.Add(timeout))
	}
}

// patience fails a side that has not taken a piece of what it is sent for too long, and else says when to ask again.
func (l *loopLink) patience(to *loopEnd, now time.Time, o *Options) (next time.Time) {
	if !to.waits() || o.WriteTimeout <= 0 {
		return time.Time{}
	}
	if next = to.out.since.Add(o.WriteTimeout); now.Before(next) {
		return next
	}
	l.send(to) // the kernel tells of room when there is much of it
	switch {
	case !to.waits():
		return time.Time{}
	case to.out.since.Equal(now):
		return now.Add(o.WriteTimeout)
	}
	l.fail(to, fmt.Errorf("write: %w", os.ErrDeadlineExceeded))
	return time.Time{}
}

// send sends what waits.
func (l *loopLink) send(to *loopEnd) {
	o := to.out
	n, err := to.Write(o.unsent)
	if err != nil {
		l.fail(to, err)
		return
	}
	o.unsent = o.unsent[n:]
	if o.moved += n; o.moved >= pieceSize { // who takes a large message slowly is not one that takes nothing
		o.since, o.moved = l.loop.Now(), 0
	}
	if len(o.unsent) == 0 {
		l.drained(to)
	}
}

// drained follows when a side has taken all that waited: what could not stand before may, and the other side is read again.
func (l *loopLink) drained(to *loopEnd) {
	l.dropUnsent(to, nil)
	l.flush(to)
	l.halfClose(to)
	from := l.other(to)
	l.clocks.beat[from.side].Seen(l.loop.Now()) // it was not read for a while
	l.resume(from)
}

// fail ends the socket because a side could not be written to. Nothing is sent to it any more.
func (l *loopLink) fail(to *loopEnd, err error) {
	to.failed = true
	to.atFrame, to.atMessage = false, false
	l.dropUnsent(to, err)
	l.lost(to, err, true)
	l.resume(l.other(to)) // it may close
}

// dropUnsent gives back the memory of what was sent, or cannot be sent any more.
func (l *loopLink) dropUnsent(to *loopEnd, err error) {
	o := to.out
	if o == nil {
		return
	}
	if o.flying != nil {
		l.finishMessages([]ws.Message{o.flying.message}, err)
	}
	if o.spare != nil {
		o.spare.giveBack()
	}
	*o = output{control: o.control}
	to.tidy()
}

// tidy gives the output back if it holds nothing.
func (e *loopEnd) tidy() {
	if e.out != nil && len(e.out.unsent)+len(e.out.control) == 0 {
		e.out = nil
	}
}

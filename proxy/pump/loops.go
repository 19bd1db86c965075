//go:build linux && (amd64 || arm64)

package pump

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"sync/atomic"
	"time"

	"bridgehead/internal/reactor"
	"bridgehead/policy"
	"bridgehead/ws"
)

// readSize is the largest piece that one read on a loop takes: a flood gets no more per turn, and the buffer stays in the
// processor's cache.
const readSize = 128 << 10

// Loops are the event loops that carry sockets. Nil Loops carry none. The methods may be called from any goroutine.
type Loops struct{ reactor *reactor.Reactor }

// NewLoops starts so many loops, or as many as there are processors if workers is 0. On systems that have none the error is
// errors.ErrUnsupported.
func NewLoops(workers int) (*Loops, error) {
	r, err := reactor.New(workers, plainPart+feedPart+sealedPart)
	if err != nil {
		return nil, err
	}
	return &Loops{r}, nil
}

// Close ends the loops and, at once, every socket that is still on them.
func (l *Loops) Close() {
	if l != nil {
		l.reactor.Close()
	}
}

// link takes the two connections over if they are of the operating system, and TLS on top of them, if any, on a Wire.
func (l *Loops) link(s *Socket, to Backend) (Link, bool) {
	if l == nil {
		return nil, false
	}
	var below [sides]net.Conn
	var secure [sides]*secure
	var fds [sides]int
	for i, conn := range [sides]net.Conn{s.Conn, to.Conn} {
		var err error
		below[i], secure[i] = unwrap(conn)
		if fds[i], err = reactor.Detach(below[i]); err != nil {
			if i > 0 {
				reactor.Discard(fds[0])
			}
			return nil, false
		}
	}
	link := newLoopLink(l.reactor.Pick(), s, to)
	for i := range link.ends {
		below[i].Close() // the loop has a duplicate
		link.ends[i].fd, link.ends[i].secure = int32(fds[i]), secure[i]
		if secure[i] != nil {
			secure[i].wire.enter()
			secure[i].more = true // what crypto/tls has read already is no event
		}
	}
	return link, true
}

// A loopLink is the Link of the event loops. All but its exported methods runs on its loop, so that nothing needs a lock.
type loopLink struct {
	socket *Socket
	loop   *reactor.Loop
	ends   [sides]loopEnd

	linger time.Duration

	clocks clocks
	timer  reactor.Timer
	paused time.Time   // the client is throttled until then; zero: it is not
	first  *ws.Cause   // why the side that closed first did so
	facing *loopEnd    // whose bytes are being looked at
	leave  *parting    // nil before Close
	nudged atomic.Bool // a look at the outbox is on its way to the loop
	pushed bool        // there may be something in the outbox

	stream  bool
	message ws.Opcode
}

// A loopEnd is one side: what it sends goes through its filter. What waits to be sent to it stands in its output.
type loopEnd struct {
	reactor.Socket
	side   side
	filter ws.Filter
	early  *bytes.Reader // to be read first; nil: nothing is left
	cut    *text         // of a stream whose messages are text
	out    *output       // nil: nothing waits
	secure *secure       // nil: no TLS
	fd     int32         // before it is on the loop

	stream    bool // no frames go out: every place is a boundary
	atFrame   bool // what was taken for it so far ends at a frame boundary
	atMessage bool // and at a message boundary
	told      bool // a Close was taken for it, ours or the other side's
	closed    bool // nothing more is taken for it: it was told, or is to be told nothing
	failed    bool // a write failed
	fin       bool // its sending half is to be closed when nothing waits any more
	ended     bool // it is not read any more
	over      bool // because it has ended
	hung      bool // it is hung up: the rest of what it sends is discarded
}

func newLoopLink(loop *reactor.Loop, s *Socket, to Backend) *loopLink {
	l := &loopLink{socket: s, loop: loop, stream: to.Stream, message: to.Message, linger: to.Linger}
	control := l.control // one for both sides
	for i, early := range [sides][]byte{s.Early, to.Early} {
		e := &l.ends[i]
		e.side, e.atFrame, e.atMessage = side(i), true, true
		e.filter = newFilter(s, e.side, to.Stream)
		e.filter.Control = control
		if len(early) > 0 {
			e.early = bytes.NewReader(early)
		}
	}
	l.ends[backend].stream = to.Stream
	if to.Stream && to.Message == ws.Text {
		l.ends[backend].cut = new(text)
	}
	s.Early, s.Conn = nil, nil
	return l
}

// Start is Link's.
func (l *loopLink) Start() {
	if !l.loop.Post(l, l.begin) {
		reactor.Discard(int(l.ends[client].fd))
		reactor.Discard(int(l.ends[backend].fd))
		l.socket.End(stopped)
	}
}

// stopped is what sockets end with that are left when the loops are closed.
var stopped = ws.Cause{Kind: ws.ShuttingDown}

func (l *loopLink) begin() {
	for i := range l.ends {
		e := &l.ends[i]
		if err := l.loop.Add(&e.Socket, int(e.fd), l); err != nil {
			reactor.Discard(int(e.fd))
			e.ended, e.over, e.closed, e.failed = true, true, true, true
			l.lost(e, err, false)
		}
	}
	l.clocks.begin(l.loop.Now())
	l.pushed = true
	l.flush(&l.ends[client])
	l.look()
}

// Flush is Link's.
func (l *loopLink) Flush() {
	if l.socket.Outbox.waiting() && !l.nudged.Swap(true) {
		l.loop.Post(l, func() {
			l.nudged.Store(false)
			l.pushed = true
			l.flush(&l.ends[client])
		})
	}
}

// Wake is Link's.
func (l *loopLink) Wake() { l.loop.Post(l, l.look) }

// Close is Link's.
func (l *loopLink) Close(cause ws.Cause) {
	done := make(chan struct{})
	if l.loop.Post(l, func() { l.part(cause, done) }) {
		<-done
	}
}

func (l *loopLink) other(e *loopEnd) *loopEnd { return &l.ends[1-e.side] }

// Ready is reactor.Handler's: it sends what waits for a side, and takes one buffer of what the side sends.
func (l *loopLink) Ready(s *reactor.Socket) {
	e := &l.ends[client]
	if s != &e.Socket {
		e = &l.ends[backend]
	}
	if e.waits() && e.Writable() {
		l.send(e)
	}
	if e.hung {
		e.discard()
	} else if l.mayRead(e) {
		l.facing = e
		l.read(e)
		l.facing = nil
	}
	if l.leave != nil {
		l.advanceParting()
	}
}

// mayRead tells whether there is something to read that may go somewhere: while the other side has not taken what it was sent, and
// while the client is throttled, TCP pushes back.
func (l *loopLink) mayRead(e *loopEnd) bool {
	return !e.ended && (e.Readable() || e.early != nil || e.secure != nil && e.secure.more) && !l.busy(e)
}

// busy tells whether we choose not to read from a side.
func (l *loopLink) busy(e *loopEnd) bool {
	return e.ended || l.other(e).waits() || e.side == client && !l.paused.IsZero()
}

// resume lets a side be read again.
func (l *loopLink) resume(e *loopEnd) {
	if l.mayRead(e) {
		e.Again()
	}
}

// read takes one buffer. What may be left is for another turn.
func (l *loopLink) read(e *loopEnd) {
	buf := l.loop.Buffer()[:plainPart:plainPart]
	n, err := l.readInto(e, buf[headroom:])
	switch {
	case n > 0:
		l.take(e, buf, n)
	case err != reactor.ErrAgain:
		l.finished(e, err)
	}
	l.resume(e)
}

// readInto reads the early bytes first, whose memory goes with the last of them.
func (l *loopLink) readInto(e *loopEnd, p []byte) (int, error) {
	switch {
	case e.early != nil:
	case e.secure != nil:
		return l.readSecure(e, p)
	default:
		return e.Read(p)
	}
	n, err := e.early.Read(p)
	if e.early.Len() == 0 {
		e.early = nil
	}
	return n, err
}

// take passes on the n bytes behind the headroom of buf.
func (l *loopLink) take(e *loopEnd, buf []byte, n int) {
	if e.stream {
		payload := buf[headroom : headroom+n]
		if e.cut != nil {
			payload = e.cut.message(buf, n)
		}
		l.passMessage(e, buf, payload)
		return
	}
	held := e.filter.Held(buf[:headroom])
	chunk := buf[headroom-held : headroom+n]
	copy(chunk, buf[:held])
	l.pass(e, chunk)
}

// finished follows the end of what a side sends.
func (l *loopLink) finished(e *loopEnd, err error) {
	e.ended, e.over = true, true
	if err == io.EOF && e.cut != nil {
		l.passMessage(e, nil, e.cut.rest())
	}
	l.lost(e, err, false)
}

// pass moves one chunk from one side to the other.
func (l *loopLink) pass(from *loopEnd, chunk []byte) {
	now := l.loop.Now()
	l.socket.bound(&from.filter, from.side)
	passed, offence := from.filter.Pass(chunk)
	l.clocks.came(from.side, passed.Messages > 0, now)
	first := passed.Close != nil && l.first == nil
	if first { // noted before the other side can vanish
		cause := closeCause(from.side, *passed.Close)
		l.first = &cause
	}
	l.deliver(from, passed)
	switch {
	case offence != nil:
		from.ended = true
		l.socket.End(offenceCause(from.side, offence))
	case passed.Close != nil:
		from.ended = true
		l.closing(l.other(from), first)
	case from.side == client && l.leave == nil:
		l.charge(trafficOf(passed), now)
	}
}

// passMessage passes on a message of the stream's, which may lie in buf. An empty one is none.
func (l *loopLink) passMessage(from *loopEnd, buf, payload []byte) {
	if len(payload) > 0 {
		l.clocks.came(from.side, true, l.loop.Now())
		l.deliver(from, wholeMessage(buf, payload, l.message))
	}
}

func (l *loopLink) deliver(from *loopEnd, passed ws.Passed) {
	if len(passed.Out) == 0 && passed.Messages == 0 && passed.Close == nil {
		return
	}
	if took := l.write(l.other(from), passed); took {
		l.socket.count(from.side, passed.Messages, passed.Bytes)
	}
}

// charge counts what one read brought against the limits of the client, which is not read until it is out of debt.
func (l *loopLink) charge(t policy.Traffic, now time.Time) {
	pause, err := l.socket.Grant.Charge(t, now)
	if err != nil {
		l.ends[client].ended = true
		l.socket.End(ws.Cause{Kind: ws.ClientRate, Err: err})
		return
	}
	if pause > 0 {
		l.socket.Counters.route.Throttled()
		l.paused = now.Add(pause)
		l.lookBy(now.Add(min(pause, lookAgain)))
	}
}

// unpause ends the pause if it is over, or if the client is out of debt sooner because limits have changed. It gives the time to ask
// again.
func (l *loopLink) unpause(now time.Time) (next time.Time) {
	if l.paused.IsZero() {
		return time.Time{}
	}
	if left := min(l.paused.Sub(now), l.socket.Grant.Debt(now)); left > 0 && l.leave == nil {
		return now.Add(min(left, lookAgain))
	}
	l.paused = time.Time{}
	l.clocks.beat[client].Seen(now)
	l.resume(&l.ends[client])
	return time.Time{}
}

// closing follows a side's Close, which has been passed on to the other. The socket ends, for the first one's cause, when both
// have closed or the time for it is over.
func (l *loopLink) closing(to *loopEnd, first bool) {
	switch {
	case l.leave != nil: // nothing of it is news
	case !first:
		l.socket.End(*l.first)
	case to.stream:
		to.fin = true
		l.halfClose(to)
	default:
		l.closeWithin(l.socket.Options().CloseTimeout)
	}
}

// halfClose tells a stream of the client's Close by FIN, once it has taken all that the client sent. It may go on delivering for a
// while.
func (l *loopLink) halfClose(to *loopEnd) {
	if !to.fin || to.waits() {
		return
	}
	if !l.notify(to) {
		return
	}
	to.fin = false
	if err := to.CloseWrite(); err != nil || l.linger == 0 {
		l.socket.End(*l.first)
		return
	}
	l.closeWithin(l.linger)
}

func (l *loopLink) closeWithin(d time.Duration) {
	by := l.loop.Now().Add(d)
	if l.clocks.closeAt(by, *l.first) {
		l.lookBy(by)
	}
}

// lost ends the socket because a side's connection failed or ended without a Close.
func (l *loopLink) lost(e *loopEnd, err error, writing bool) {
	if l.first != nil { // it had been said already
		l.socket.End(*l.first)
		return
	}
	l.socket.End(ws.Cause{Kind: lostKind(e.side, e.stream, err, writing), Err: err})
}

// control looks at a ping or pong of the side that is faced, as the other driver does.
func (l *loopLink) control(op ws.Opcode, payload []byte) bool {
	from := l.facing
	switch {
	case op == ws.Pong && l.clocks.beat[from.side].Answers(payload):
		return false
	case !l.stream:
		return true
	case op == ws.Ping:
		l.insert(from, ws.AppendFrame(nil, ws.Pong, payload, false))
	}
	return false
}

// Expired is reactor.Handler's.
func (l *loopLink) Expired(*reactor.Timer) { l.look() }

// look does what the clocks say, and sets the timer for what is due next.
func (l *loopLink) look() {
	if l.leave != nil {
		l.advanceParting()
		return
	}
	now, o := l.loop.Now(), l.socket.Options()
	next := l.unpause(now)
	var of [sides]aspect
	for i := range l.ends {
		e := &l.ends[i]
		of[i] = aspect{pinged: !e.stream, busy: l.busy(e)}
		next = sooner(next, l.patience(e, now, o))
	}
	due := l.clocks.advance(now, o, of)
	for side := range sides {
		if due.ping[side] {
			l.ping(&l.ends[side], now)
		}
	}
	if due.cause.Kind != 0 {
		l.socket.End(due.cause)
		return
	}
	if next = sooner(next, due.next); !next.IsZero() {
		l.loop.Arm(&l.timer, next, l)
	}
}

// lookBy lets look be called at that time, or sooner.
func (l *loopLink) lookBy(at time.Time) {
	if when := l.timer.When(); when.IsZero() || at.Before(when) {
		l.loop.Arm(&l.timer, at, l)
	}
}

// ping pings a side. A ping that could not go out at once is void: nobody can have answered it in time.
func (l *loopLink) ping(to *loopEnd, now time.Time) {
	payload := l.clocks.beat[to.side].Payload()
	if !l.insert(to, ws.AppendFrame(nil, ws.Ping, payload[:], to.side == backend)) {
		l.clocks.came(to.side, false, now)
	}
}

// Panicked is reactor.Handler's: it ends this socket alone. Whose bytes were being looked at is not read any more.
func (l *loopLink) Panicked(v any) {
	if l.facing != nil {
		l.facing.ended = true
		l.facing = nil
	}
	stack := string(debug.Stack())
	l.socket.Go(func() { l.socket.Log.Error("panic on an event loop", "panic", v, "stack", stack) })
	l.socket.End(ws.Cause{Kind: ws.InternalFailure, Err: fmt.Errorf("panic: %v", v)})
	if l.leave != nil { // it might never get to its end
		l.abandon()
	}
}

// Stopped is reactor.Handler's.
func (l *loopLink) Stopped() {
	l.socket.End(stopped)
	l.abandon()
}

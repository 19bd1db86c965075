package pump

import (
	"io"
	"net"
	"sync/atomic"
	"time"

	"bridgehead/ws"
)

// A copyLink is the Link of the goroutine driver: one goroutine per direction, over any net.Conn.
type copyLink struct {
	socket *Socket
	to     Backend
	ends   [sides]*end
	life   *life
	first  atomic.Pointer[ws.Cause] // why the side that closed first did so
}

// An end is one side of a link: what it sends goes through its filter; what it is sent goes through its sink.
type end struct {
	side   side
	conn   net.Conn
	early  []byte
	stream bool
	filter ws.Filter
	sink   *sink
	ended  chan struct{} // closed when its reader has ended
}

func newCopyLink(s *Socket, to Backend) *copyLink {
	l := &copyLink{socket: s, to: to}
	l.ends[client] = l.newEnd(client, s.Conn, s.Early)
	l.ends[backend] = l.newEnd(backend, to.Conn, to.Early)
	l.ends[client].sink.outbox = s.Outbox
	l.ends[backend].stream, l.ends[backend].sink.stream = to.Stream, to.Stream
	l.life = newLife(s)
	l.life.ping[client] = l.ping(client)
	if !to.Stream {
		l.life.ping[backend] = l.ping(backend)
	}
	s.Early = nil
	l.to.Early = nil
	return l
}

func (l *copyLink) newEnd(side side, conn net.Conn, early []byte) *end {
	e := &end{side: side, conn: conn, early: early, filter: newFilter(l.socket, side, l.to.Stream), ended: make(chan struct{})}
	e.filter.Control = func(op ws.Opcode, payload []byte) bool { return l.control(e, op, payload) }
	e.sink = newSink(conn, l.socket.Options)
	e.sink.masked = side == backend
	e.sink.finish = l.finishMessage
	e.sink.failed = func(err error) { l.lost(e, err, true) }
	return e
}

// Start begins the traffic and returns.
func (l *copyLink) Start() {
	l.life.begin()
	l.socket.Go(l.clientToBackend)
	l.socket.Go(l.backendToClient)
	l.Flush()
}

// Flush sends what was put into the socket's outbox, at the next message boundary. It never waits for the client.
func (l *copyLink) Flush() {
	if l.socket.Outbox.waiting() {
		l.socket.Go(l.ends[client].sink.nudge)
	}
}

// Wake obeys changed options.
func (l *copyLink) Wake() { l.life.wake() }

// finishMessage counts a message of the outbox and tells its sender. A panic of the sender's must not end the goroutine that
// happened to write the message, which may be the one that closes.
func (l *copyLink) finishMessage(m ws.Message, err error) {
	defer l.socket.recover()
	if err == nil {
		l.life.moved(time.Now())
		l.socket.Counters.Out(1, len(m.Data))
	}
	m.Finish(err)
}

func (l *copyLink) ping(to side) func([8]byte) bool {
	return func(payload [8]byte) (sent bool) {
		return l.ends[to].sink.insert(ws.AppendFrame(nil, ws.Ping, payload[:], to == backend))
	}
}

// control looks at a ping or pong of a side; true lets it pass on. The answers to our own pings are ours. Toward a stream we
// are the peer, and answer pings ourselves.
func (l *copyLink) control(from *end, op ws.Opcode, payload []byte) bool {
	switch {
	case op == ws.Pong && l.life.answers(from.side, payload):
		return false
	case !l.to.Stream:
		return true
	case op == ws.Ping:
		from.sink.insert(ws.AppendFrame(nil, ws.Pong, payload, false))
	}
	return false
}

func (l *copyLink) clientToBackend() { l.copyFrames(l.ends[client], l.ends[backend]) }

func (l *copyLink) backendToClient() {
	if l.to.Stream {
		l.copyStream(l.ends[backend], l.ends[client])
		return
	}
	l.copyFrames(l.ends[backend], l.ends[client])
}

// copyFrames passes the frames of one side to the other until its Close, its end, or its first offence.
func (l *copyLink) copyFrames(from, to *end) {
	defer close(from.ended)
	err := each(from.conn, from.takeEarly(), func(buf []byte, n int) bool {
		held := from.filter.Held(buf[:headroom])
		chunk := buf[headroom-held : headroom+n]
		copy(chunk, buf[:held])
		return l.pass(from, to, chunk)
	})
	if err != nil {
		l.lost(from, err, false)
	}
}

// takeEarly gives the early bytes, and with them the memory that they lie in.
func (e *end) takeEarly() []byte {
	early := e.early
	e.early = nil
	return early
}

// pass moves one chunk from one side to the other. It reports false when nothing more is to be read from that side.
func (l *copyLink) pass(from, to *end, chunk []byte) (more bool) {
	now := time.Now()
	l.socket.bound(&from.filter, from.side)
	passed, offence := from.filter.Pass(chunk)
	l.life.came(from.side, passed.Messages > 0, now)
	var first bool
	if passed.Close != nil { // noted before the other side can answer it, or vanish
		cause := closeCause(from.side, *passed.Close)
		first = l.first.CompareAndSwap(nil, &cause)
	}
	if err := l.deliver(from, to, passed); err != nil {
		return false
	}
	switch {
	case offence != nil:
		l.socket.End(offenceCause(from.side, offence))
		return false
	case passed.Close != nil:
		l.life.busy[from.side].Store(true) // for good: it is not read any more
		l.closing(to, *l.first.Load(), first)
		return false
	case from.side == backend:
		return true
	}
	if err := l.socket.charge(trafficOf(passed), now, l.life); err != nil {
		l.socket.EndBy(err)
		return false
	}
	return true
}

// deliver writes to a side and counts. While that blocks, the source is not read: TCP pushes back.
func (l *copyLink) deliver(from, to *end, passed ws.Passed) error {
	if len(passed.Out) == 0 && passed.Messages == 0 && passed.Close == nil {
		return nil
	}
	l.life.busy[from.side].Store(true)
	defer l.life.busy[from.side].Store(false)
	took, err := to.sink.write(passed)
	if took {
		l.socket.count(from.side, passed.Messages, passed.Bytes)
	}
	return err
}

// closing follows a side's Close, which has been passed on to the other. The socket ends, for the first one's cause, when both
// have closed or the time for it is over.
func (l *copyLink) closing(to *end, cause ws.Cause, first bool) {
	if !first {
		l.socket.End(cause)
		return
	}
	if !to.stream {
		l.life.closeWithin(l.socket.Options().CloseTimeout, cause)
		return
	}
	// A stream learns of the client's Close by FIN and may go on delivering for a while.
	if err := CloseWrite(to.conn); err != nil || l.to.Linger == 0 {
		l.socket.End(cause)
		return
	}
	l.life.closeWithin(l.to.Linger, cause)
}

// copyStream makes a message of each read of the stream.
func (l *copyLink) copyStream(from, to *end) {
	defer close(from.ended)
	var cut text
	err := each(from.conn, from.takeEarly(), func(buf []byte, n int) bool {
		payload := buf[headroom : headroom+n]
		if l.to.Message == ws.Text {
			payload = cut.message(buf, n)
		}
		return l.passMessage(from, to, buf, payload) == nil
	})
	if err == io.EOF {
		if failed := l.passMessage(from, to, nil, cut.rest()); failed != nil {
			return // the sink has told
		}
	}
	if err != nil {
		l.lost(from, err, false)
	}
}

// passMessage passes on a message of the stream's, which may lie in buf. An empty one is none.
func (l *copyLink) passMessage(from, to *end, buf, payload []byte) error {
	if len(payload) == 0 {
		return nil
	}
	l.life.came(from.side, true, time.Now())
	return l.deliver(from, to, wholeMessage(buf, payload, l.to.Message))
}

// lost ends the socket because a side's connection failed or ended without a Close.
func (l *copyLink) lost(e *end, err error, writing bool) {
	if first := l.first.Load(); first != nil { // it had been said already
		l.socket.End(*first)
		return
	}
	l.socket.End(ws.Cause{Kind: lostKind(e.side, e.stream, err, writing), Err: err})
}

// Close ends both sides: our Close at the next frame boundary of each that has not been sent one, what they still say is read
// and discarded until they close too, then TCP's end. A side whose frame is cut short gets TCP's end alone. Close returns when
// both connections are closed, after the close timeout and a second at most.
func (l *copyLink) Close(cause ws.Cause) {
	by := time.Now().Add(l.socket.Options().CloseTimeout)
	handshake := l.life.stop()
	// Both are to close before either is told: the answer of one must not pass for a Close to the other.
	code, reason := cause.Client()
	l.ends[client].sink.close(code, reason, by)
	if code, reason = cause.Backend(); l.to.Stream {
		code = 0
	}
	l.ends[backend].sink.close(code, reason, by)
	for _, e := range l.ends {
		e.conn.SetReadDeadline(sooner(by, handshake)) // who was told by the other side has had its time since then
	}
	done := make(chan struct{})
	l.socket.Go(func() {
		defer close(done)
		l.finish(l.ends[backend], l.ends[client])
	})
	l.finish(l.ends[client], l.ends[backend])
	<-done
}

// finish ends one side after it has closed, or when it cannot be told any more.
func (l *copyLink) finish(e, other *end) {
	if !e.stream {
		e.sink.nudge()
		said, may := e.sink.said()
		if may {
			<-other.ended // only what the other side sends can end the frame that is under way
			said, _ = e.sink.said()
		}
		if said {
			<-e.ended // it may answer
		}
	}
	HangUp(e.conn)
	<-e.ended
}

package pump

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unicode/utf8"

	"bridgehead/ws"
)

// A Backend is the other end of a Link: an upstream WebSocket, or a byte stream.
type Backend struct {
	Conn  net.Conn
	Early []byte // what it sent right behind its handshake; read before Conn

	// Stream says that the other end is a plain byte stream: toward it payload goes without frames, and what it sends becomes
	// messages of type Message, one per read.
	Stream  bool
	Message ws.Opcode
	Linger  time.Duration // how long a stream may go on delivering after the client's Close
}

// A Link joins a client to a backend and passes frames. It is made by NewLink, begun by Start and ended by Close, each once.
type Link struct {
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

// NewLink prepares to carry a socket to a backend. Nothing flows before Start.
func NewLink(s *Socket, to Backend) *Link {
	l := &Link{socket: s, to: to}
	l.ends[client] = l.newEnd(client, s.Conn, s.Early, ws.Filter{
		FromClient: true, Deflate: s.Deflate, Strip: to.Stream, CheckText: to.Stream,
	})
	l.ends[backend] = l.newEnd(backend, to.Conn, to.Early, ws.Filter{Deflate: s.Deflate})
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

func (l *Link) newEnd(side side, conn net.Conn, early []byte, filter ws.Filter) *end {
	e := &end{side: side, conn: conn, early: early, filter: filter, ended: make(chan struct{})}
	e.filter.Control = func(op ws.Opcode, payload []byte) bool { return l.control(e, op, payload) }
	e.sink = newSink(conn, l.socket.Options)
	e.sink.masked = side == backend
	e.sink.finish = l.finishMessage
	e.sink.failed = func(err error) { l.lost(e, err, true) }
	return e
}

// Start begins the traffic and returns.
func (l *Link) Start() {
	l.life.begin()
	l.socket.Go(l.clientToBackend)
	l.socket.Go(l.backendToClient)
	l.Flush()
}

// Flush sends what was put into the socket's outbox, at the next message boundary. It never waits for the client.
func (l *Link) Flush() {
	if l.socket.Outbox.waiting() {
		l.socket.Go(l.ends[client].sink.nudge)
	}
}

// Wake obeys changed options.
func (l *Link) Wake() { l.life.wake() }

// finishMessage counts a message of the outbox and tells its sender. A panic of the sender's must not end the goroutine that
// happened to write the message, which may be the one that closes.
func (l *Link) finishMessage(m ws.Message, err error) {
	defer l.socket.recover()
	if err == nil {
		l.life.moved(time.Now())
		l.socket.Counters.Out(1, len(m.Data))
	}
	m.Finish(err)
}

func (l *Link) ping(to side) func([8]byte) bool {
	return func(payload [8]byte) (sent bool) {
		return l.ends[to].sink.insert(ws.AppendFrame(nil, ws.Ping, payload[:], to == backend))
	}
}

// control looks at a ping or pong of a side; true lets it pass on. The answers to our own pings are ours. Toward a stream we
// are the peer, and answer pings ourselves.
func (l *Link) control(from *end, op ws.Opcode, payload []byte) bool {
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

func (l *Link) clientToBackend() { l.copyFrames(l.ends[client], l.ends[backend]) }

func (l *Link) backendToClient() {
	if l.to.Stream {
		l.copyStream(l.ends[backend], l.ends[client])
		return
	}
	l.copyFrames(l.ends[backend], l.ends[client])
}

// copyFrames passes the frames of one side to the other until its Close, its end, or its first offence.
func (l *Link) copyFrames(from, to *end) {
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
func (l *Link) pass(from, to *end, chunk []byte) (more bool) {
	now := time.Now()
	from.filter.MaxMessage = l.maxMessage(from.side)
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
	case from.side == backend || passed.Bytes+passed.Messages == 0:
		return true
	}
	if err := l.socket.charge(passed.Messages, passed.Bytes, now, l.life); err != nil {
		l.socket.EndBy(err)
		return false
	}
	return true
}

func (l *Link) maxMessage(from side) int64 {
	o := l.socket.Options()
	if from == client {
		return int64(o.MessageSize)
	}
	return int64(o.BackendMessageSize)
}

// deliver writes to a side and counts. While that blocks, the source is not read: TCP pushes back.
func (l *Link) deliver(from, to *end, passed ws.Passed) error {
	if len(passed.Out) == 0 && passed.Messages == 0 && passed.Close == nil {
		return nil
	}
	l.life.busy[from.side].Store(true)
	defer l.life.busy[from.side].Store(false)
	took, err := to.sink.write(passed)
	if took {
		l.count(from.side, passed.Messages, passed.Bytes)
	}
	return err
}

func (l *Link) count(from side, messages, bytes int) {
	switch {
	case messages == 0 && bytes == 0:
	case from == client:
		l.socket.Counters.In(messages, bytes)
	default:
		l.socket.Counters.Out(messages, bytes)
	}
}

func closeCause(from side, c ws.CloseFrame) ws.Cause {
	return ws.Cause{Kind: [...]ws.Kind{ws.ClientClosed, ws.BackendClosed}[from], Code: c.Code, Reason: c.Reason}
}

// closing follows a side's Close, which has been passed on to the other. The socket ends, for the first one's cause, when both
// have closed or the time for it is over.
func (l *Link) closing(to *end, cause ws.Cause, first bool) {
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
func (l *Link) copyStream(from, to *end) {
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
func (l *Link) passMessage(from, to *end, buf, payload []byte) error {
	if len(payload) == 0 {
		return nil
	}
	l.life.came(from.side, true, time.Now())
	frame := frameAround(buf, payload, l.to.Message)
	return l.deliver(from, to, ws.Passed{Out: frame, Frame: len(frame), Message: len(frame), Messages: 1, Bytes: len(payload)})
}

// frameAround puts a header in front of payload, in place when payload lies in buf behind the headroom.
func frameAround(buf, payload []byte, op ws.Opcode) []byte {
	at := cap(buf) - cap(payload) // where payload begins, if it lies in buf
	if at < ws.MaxHeaderSize || &buf[:at+1][at] != &payload[0] {
		return ws.AppendFrame(nil, op, payload, false)
	}
	var space [ws.MaxHeaderSize]byte
	header := ws.AppendHeader(space[:0], ws.Header{Fin: true, Opcode: op, Length: int64(len(payload))})
	copy(buf[at-len(header):at], header)
	return buf[at-len(header) : at+len(payload)]
}

// replacement stands for bytes that are no text.
var replacement = []byte(string(utf8.RuneError))

// text cuts a byte stream into valid UTF-8 messages (RFC 6455, section 8.1): a rune that a read cut goes to the next message,
// and what cannot be text becomes U+FFFD.
type text struct {
	carry [utf8.UTFMax]byte
	n     int
}

// message gives the message for the n bytes behind the headroom of buf.
func (t *text) message(buf []byte, n int) []byte {
	payload := buf[headroom-t.n : headroom+n]
	copy(payload, t.carry[:t.n])
	t.n = copy(t.carry[:], payload[len(payload)-cutRune(payload):])
	payload = payload[:len(payload)-t.n]
	if !utf8.Valid(payload) {
		payload = bytes.ToValidUTF8(payload, replacement)
	}
	return payload
}

// rest gives the last message, when the stream has ended: a rune that it cut short cannot be text any more.
func (t *text) rest() []byte {
	if t.n == 0 {
		return nil
	}
	return replacement
}

// cutRune is the number of bytes at the end of p that begin a rune and do not end it.
func cutRune(p []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(p); n++ {
		if tail := p[len(p)-n:]; utf8.RuneStart(tail[0]) {
			if utf8.FullRune(tail) {
				return 0
			}
			return n
		}
	}
	return 0
}

// lost ends the socket because a side's connection failed or ended without a Close.
func (l *Link) lost(e *end, err error, writing bool) {
	if first := l.first.Load(); first != nil { // it had been said already
		l.socket.End(*first)
		return
	}
	l.socket.End(ws.Cause{Kind: lostKind(e, err, writing), Err: err})
}

func lostKind(e *end, err error, writing bool) ws.Kind {
	switch {
	case writing && errors.Is(err, os.ErrDeadlineExceeded):
		return [...]ws.Kind{ws.ClientSlow, ws.BackendSlow}[e.side]
	case e.side == client:
		return ws.ClientGone
	case e.stream:
		return StreamEnd(err).Kind
	}
	return ws.BackendGone
}

// StreamEnd says what it means that reading from or writing to a byte stream failed.
func StreamEnd(err error) ws.Cause {
	kind := ws.BackendGone
	switch {
	case errors.Is(err, io.EOF):
		return ws.Cause{Kind: ws.BackendClosed}
	case errors.Is(err, os.ErrDeadlineExceeded):
		kind = ws.BackendSlow
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		kind = ws.BackendReset
	}
	return ws.Cause{Kind: kind, Err: err}
}

// offenceCause says what a broken rule means for the side that broke it.
func offenceCause(from side, err error) ws.Cause {
	code := ws.CodeProtocolError
	if offence, ok := errors.AsType[*ws.ProtocolError](err); ok {
		code = offence.Code
	}
	kind := ws.ClientProtocol
	switch {
	case from == backend && code == ws.CodeTooBig:
		kind = ws.BackendTooBig
	case from == backend:
		kind = ws.BackendProtocol
	case code == ws.CodeTooBig:
		kind = ws.ClientTooBig
	case code == ws.CodeInvalidPayload:
		kind = ws.ClientEncoding
	case code == ws.CodeUnsupportedData:
		kind = ws.ClientOpcode
	}
	return ws.Cause{Kind: kind, Err: err}
}

// Close ends both sides: our Close at the next frame boundary of each that has not been sent one, what they still say is read
// and discarded until they close too, then TCP's end. A side whose frame is cut short gets TCP's end alone. Close returns when
// both connections are closed, after the close timeout and a second at most.
func (l *Link) Close(cause ws.Cause) {
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
func (l *Link) finish(e, other *end) {
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

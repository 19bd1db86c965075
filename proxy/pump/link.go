package pump

import (
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
	ended  chan struct{} // closed when nothing more will be read from it in order
}

// NewLink prepares to carry a socket to a backend. Nothing flows before Start.
func NewLink(s *Socket, to Backend) *Link {
	o := s.Options()
	l := &Link{socket: s, to: to}
	l.ends[client] = l.newEnd(client, s.Conn, s.Early, ws.Filter{
		FromClient: true, Deflate: s.Deflate, MaxMessage: int64(o.MessageSize),
		Strip: to.Stream, CheckText: to.Stream,
	})
	l.ends[backend] = l.newEnd(backend, to.Conn, to.Early, ws.Filter{
		Deflate: s.Deflate, MaxMessage: int64(o.BackendMessageSize),
	})
	l.ends[client].sink.outbox = s.Outbox
	l.ends[backend].stream = to.Stream
	s.Early = nil
	l.to.Early = nil
	return l
}

func (l *Link) newEnd(side side, conn net.Conn, early []byte, filter ws.Filter) *end {
	e := &end{side: side, conn: conn, early: early, filter: filter, ended: make(chan struct{})}
	e.filter.Control = func(op ws.Opcode, payload []byte) bool { return l.control(e, op, payload) }
	e.sink = &sink{
		conn: conn, masked: side == backend, options: l.socket.Options, atFrame: true, atMessage: true,
		sent:   func(m ws.Message) { l.socket.Counters.Out(1, len(m.Data)) },
		failed: func(err error) { l.lost(e, err, true) },
	}
	return e
}

// Start begins the traffic and returns.
func (l *Link) Start() {
	pings := [sides]func([8]byte){client: l.ping(client)}
	if !l.to.Stream {
		pings[backend] = l.ping(backend)
	}
	l.life = newLife(l.socket, pings[client], pings[backend])
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

func (l *Link) ping(to side) func([8]byte) {
	return func(payload [8]byte) {
		l.ends[to].sink.insert(ws.AppendFrame(nil, ws.Ping, payload[:], to == backend))
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
	err := each(from.conn, from.early, func(buf []byte, n int) bool {
		held := from.filter.Held(buf[:headroom])
		chunk := buf[headroom-held : headroom+n]
		copy(chunk, buf[:held])
		return l.pass(from, to, chunk)
	})
	if err != nil {
		l.lost(from, err, false)
	}
}

// pass moves one chunk from one side to the other. It reports false when nothing more is to be read from that side.
func (l *Link) pass(from, to *end, chunk []byte) (more bool) {
	now := time.Now()
	passed, offence := from.filter.Pass(chunk)
	l.life.came(from.side, passed.Messages > 0, now)
	l.count(from.side, passed.Messages, passed.Bytes)
	if err := l.deliver(from, to, passed); err != nil {
		return false
	}
	switch {
	case offence != nil:
		l.socket.End(offenceCause(from.side, offence))
		return false
	case passed.Close != nil:
		l.closedBy(from, to, *passed.Close)
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

// deliver writes to a side. While that blocks, the source is not read: TCP pushes back.
func (l *Link) deliver(from, to *end, passed ws.Passed) error {
	if len(passed.Out) == 0 && passed.Close == nil {
		return nil
	}
	l.life.busy[from.side].Store(true)
	defer l.life.busy[from.side].Store(false)
	return to.sink.write(passed)
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

// closedBy notes a side's Close, which has been passed on. The socket ends when both have closed or the time for it is over.
func (l *Link) closedBy(from, to *end, c ws.CloseFrame) {
	cause := ws.Cause{Kind: [...]ws.Kind{ws.ClientClosed, ws.BackendClosed}[from.side], Code: c.Code, Reason: c.Reason}
	if !l.first.CompareAndSwap(nil, &cause) {
		l.socket.End(*l.first.Load())
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
	err := each(from.conn, from.early, func(buf []byte, n int) bool {
		now := time.Now()
		payload := buf[headroom : headroom+n]
		if l.to.Message == ws.Text {
			payload = cut.message(buf, n)
		}
		if len(payload) == 0 {
			return true
		}
		l.life.came(backend, true, now)
		l.count(backend, 1, len(payload))
		frame := frameAround(buf, payload, l.to.Message)
		return to.sink.write(ws.Passed{Out: frame, Frame: len(frame), Message: len(frame)}) == nil
	})
	if err != nil {
		l.lost(from, err, false)
	}
}

// frameAround puts a header in front of payload, in place when payload lies in buf behind the headroom.
func frameAround(buf, payload []byte, op ws.Opcode) []byte {
	var space [ws.MaxHeaderSize]byte
	header := ws.AppendHeader(space[:0], ws.Header{Fin: true, Opcode: op, Length: int64(len(payload))})
	at := cap(buf) - cap(payload)
	if at < len(header) || &buf[:at+1][at] != &payload[0] {
		return append(header, payload...)
	}
	copy(buf[at-len(header):at], header)
	return buf[at-len(header) : at+len(payload)]
}

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
		payload = []byte(string([]rune(string(payload))))
	}
	return payload
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
	l.life.stop()
	code, reason := cause.Client()
	l.ends[client].sink.close(code, reason, by)
	if !l.to.Stream {
		code, reason = cause.Backend()
		l.ends[backend].sink.close(code, reason, by)
	}
	for _, e := range l.ends {
		e.conn.SetReadDeadline(by)
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
	switch {
	case e.stream:
		HangUp(e.conn) // unblocks its reader
		<-e.ended
		return
	case !e.sink.said():
		// Its frame is still open, or a write to it failed. Only what the other side sends can end that frame.
		<-other.ended
		if !e.sink.said() {
			HangUp(e.conn)
			<-e.ended
			return
		}
	}
	<-e.ended
	HangUp(e.conn)
}

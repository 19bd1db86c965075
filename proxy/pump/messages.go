package pump

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/gorilla/websocket"

	"bridgehead/policy"
	"bridgehead/ws"
)

// Messages carries a socket as whole messages: it pings, checks sizes and UTF-8, obeys the limits, and closes. Serve runs once;
// Write and Flush may be called at once from any goroutine; Close ends it, once.
type Messages struct {
	socket *Socket
	out    *paced
	conn   *websocket.Conn
	life   *life
	served chan struct{} // closed when Serve has returned
	frames int           // that came and are not charged yet; Serve's goroutine has it

	mu       sync.Mutex  // held while a message or a ping is written
	emptying atomic.Bool // somebody empties the outbox
}

// NewMessages takes over an upgraded socket and starts its clocks. Its owner has to call Serve.
func NewMessages(s *Socket) *Messages {
	m := &Messages{socket: s, served: make(chan struct{}), life: newLife(s)}
	m.out = &paced{Conn: s.Conn, options: s.Options}
	m.conn = serverConn(&screened{
		Conn: m.out, early: s.Early, filter: newFilter(s, client, false), before: m.settle, bound: m.bound, passed: m.passed,
	})
	m.conn.SetPongHandler(func(string) error { return nil }) // any bytes are life, a pong's too
	m.conn.SetCloseHandler(func(int, string) error { return nil })
	m.life.ping[client] = m.ping
	m.life.begin()
	s.Early = nil
	m.Flush()
	return m
}

// bound is called between a read and what is made of it: what bounds messages may have changed while the read waited.
func (m *Messages) bound(f *ws.Filter) { m.socket.bound(f, client) }

// passed notes what a read has brought. Messages and bytes count when they are handled.
func (m *Messages) passed(p ws.Passed) {
	m.life.came(client, false, time.Now())
	m.frames += p.Frames
}

// settle charges, before more is read, the frames that no message was charged with: pings, and fragments of one that is not whole.
func (m *Messages) settle() error {
	if m.frames == 0 || m.socket.Ending.Given() {
		return nil
	}
	return m.charge(0, 0, time.Now())
}

// charge counts messages and bytes against the limits of the client, and the frames that came meanwhile.
func (m *Messages) charge(messages, bytes int, now time.Time) error {
	t := policy.Traffic{Frames: m.frames, Messages: messages, Bytes: bytes}
	m.frames = 0
	return m.socket.charge(t, now, m.life)
}

// ping does not wait for a message that is being written.
func (m *Messages) ping(payload [8]byte) (sent bool) {
	if !m.mu.TryLock() {
		return false
	}
	defer m.mu.Unlock()
	if err := m.conn.WriteControl(websocket.PingMessage, payload[:], time.Time{}); err != nil {
		m.socket.EndBy(writeCause(err))
	}
	return true
}

// Serve reads messages and gives each to handle until the client closes, vanishes, breaks a rule, or handle returns an error;
// it returns what came first, for End. While handle runs the socket is not read: TCP pushes back. After End it goes on reading
// for the client's Close but calls handle no more; a handle that waits must give up when the socket ends.
func (m *Messages) Serve(handle func(ws.Message) error) ws.Cause {
	defer close(m.served)
	for {
		msg, err := m.read()
		if err != nil {
			return readCause(err)
		}
		if m.socket.Ending.Given() {
			continue
		}
		if err := m.take(msg, handle); err != nil {
			return causeOf(err)
		}
	}
}

func (m *Messages) read() (ws.Message, error) {
	op, r, err := m.conn.NextReader()
	if err != nil {
		return ws.Message{}, err
	}
	data, err := readAll(r)
	if err != nil {
		return ws.Message{}, err
	}
	if op == websocket.TextMessage && !utf8.Valid(data) {
		return ws.Message{}, ws.Cause{Kind: ws.ClientEncoding}
	}
	return ws.Message{Op: ws.Opcode(op), Data: data}, nil
}

// assembling lends buffers in which messages grow: each is then copied once, in its size, and leaves no smaller ones behind.
var assembling = sync.Pool{New: func() any { return new(bytes.Buffer) }}

func readAll(r io.Reader) ([]byte, error) {
	buf := assembling.Get().(*bytes.Buffer)
	defer assembling.Put(buf)
	buf.Reset()
	_, err := buf.ReadFrom(r)
	return bytes.Clone(buf.Bytes()), err
}

func (m *Messages) take(msg ws.Message, handle func(ws.Message) error) error {
	now := time.Now()
	m.life.came(client, true, now)
	m.socket.Counters.In(1, len(msg.Data))
	m.life.busy[client].Store(true)
	err := handle(msg)
	m.life.busy[client].Store(false)
	if err != nil {
		return err
	}
	return m.charge(1, len(msg.Data), now)
}

// Write sends one message and waits until the socket has taken it. Its error is a ws.Cause, for End.
func (m *Messages) Write(msg ws.Message) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.conn.WriteMessage(int(msg.Op), msg.Data); err != nil {
		return writeCause(err)
	}
	m.life.moved(time.Now())
	m.socket.Counters.Out(1, len(msg.Data))
	return nil
}

// Flush sends what was put into the socket's outbox. It never waits for the client.
func (m *Messages) Flush() {
	if m.socket.Outbox.waiting() && m.emptying.CompareAndSwap(false, true) {
		m.socket.Go(m.emptyOutbox)
	}
}

func (m *Messages) emptyOutbox() {
	for {
		for {
			msg, ok := m.socket.Outbox.take()
			if !ok {
				break
			}
			err := m.Write(msg)
			msg.Finish(err)
			if err != nil {
				m.socket.EndBy(err)
			}
		}
		m.emptying.Store(false)
		if !m.socket.Outbox.waiting() || !m.emptying.CompareAndSwap(false, true) {
			return
		}
	}
}

// Wake obeys changed options.
func (m *Messages) Wake() { m.life.wake() }

// Close ends the socket: our Close, then the client's, then TCP's end. It returns when the connection is closed, after the
// close timeout and a second at most.
func (m *Messages) Close(cause ws.Cause) {
	m.life.stop()
	by := time.Now().Add(m.socket.Options().CloseTimeout)
	m.out.endBy(by)
	if code, reason := cause.Client(); code != 0 {
		m.conn.WriteControl(websocket.CloseMessage, ws.AppendClose(nil, code, reason), by)
	}
	m.socket.Conn.SetReadDeadline(by)
	<-m.served
	HangUp(m.socket.Conn)
}

// readCause says why reading ended.
func readCause(err error) ws.Cause {
	if cause, ok := errors.AsType[ws.Cause](err); ok {
		return cause
	}
	if closed, ok := errors.AsType[*websocket.CloseError](err); ok && closed.Code != websocket.CloseAbnormalClosure {
		return ws.Cause{Kind: ws.ClientClosed, Code: ws.Code(closed.Code), Reason: closed.Text}
	}
	if ofNetwork(err) {
		return ws.Cause{Kind: ws.ClientGone, Err: err}
	}
	return offenceCause(client, err)
}

// writeCause says why a write failed.
func writeCause(err error) ws.Cause {
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() { // gorilla hides os.ErrDeadlineExceeded
		return ws.Cause{Kind: ws.ClientSlow, Err: err}
	}
	return ws.Cause{Kind: ws.ClientGone, Err: err}
}

// ofNetwork reports whether an error came from the connection and not from the protocol on it.
func ofNetwork(err error) bool {
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	_, abnormal := errors.AsType[*websocket.CloseError](err)
	return abnormal || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)
}

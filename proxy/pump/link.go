package pump

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"

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
type Link interface {
	// Start begins the traffic and returns.
	Start()
	// Flush sends what was put into the socket's outbox, at the next message boundary. It never waits for the client.
	Flush()
	// Wake obeys changed options and limits.
	Wake()
	// Close ends both sides: our Close at the next frame boundary of each that has not been sent one, what they still say is read
	// and discarded until they close too, then TCP's end. A side whose frame is cut short gets TCP's end alone. Close returns when
	// both connections are closed, after the close timeout and a second at most.
	Close(cause ws.Cause)
}

// NewLink prepares to carry a socket to a backend: on the socket's loops if it has some and both connections can be, which
// are of the operating system, TLS on a Wire; else by goroutines. Nothing flows before Start. The connections belong to the Link.
func NewLink(s *Socket, to Backend) Link {
	if l, ok := s.Loops.link(s, to); ok {
		return l
	}
	return newCopyLink(s, to)
}

// newFilter is what the frames of a side pass through.
func newFilter(s *Socket, from side, stream bool) ws.Filter {
	if from == backend {
		return ws.Filter{Deflate: s.Deflate}
	}
	return ws.Filter{FromClient: true, Deflate: s.Deflate, Strip: stream, CheckText: stream}
}

func closeCause(from side, c ws.CloseFrame) ws.Cause {
	return ws.Cause{Kind: [...]ws.Kind{ws.ClientClosed, ws.BackendClosed}[from], Code: c.Code, Reason: c.Reason}
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

// lostKind says what it means that a side's connection failed or ended without a Close.
func lostKind(of side, stream bool, err error, writing bool) ws.Kind {
	switch {
	case writing && errors.Is(err, os.ErrDeadlineExceeded):
		return [...]ws.Kind{ws.ClientSlow, ws.BackendSlow}[of]
	case of == client:
		return ws.ClientGone
	case stream:
		return StreamEnd(err).Kind
	}
	return ws.BackendGone
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
	case code == ws.CodePolicyViolation:
		kind = ws.ClientFragments
	case code == ws.CodeInvalidPayload:
		kind = ws.ClientEncoding
	case code == ws.CodeUnsupportedData:
		kind = ws.ClientOpcode
	}
	return ws.Cause{Kind: kind, Err: err}
}

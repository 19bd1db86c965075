package pump

import (
	"net"
	"time"
)

// A Wire is a connection of the operating system with TLS on top: what crypto/tls takes for its connection. It passes everything on
// until an event loop takes it over, from when on crypto/tls never waits: a read is given what the loop has read, or told to come
// again, and what is written is kept for the loop to send.
type Wire struct {
	net.Conn // gone on a loop

	looped bool
	feed   []byte // what the loop has read, and crypto/tls not yet
	end    error  // what follows it; nil: more may come
	sealed []byte // what crypto/tls has written, and the loop not yet sent
}

// NewWire gives the connection for crypto/tls to use in the place of conn, which may be read and written before as well.
func NewWire(conn net.Conn) *Wire { return &Wire{Conn: conn} }

// WireListener gives the connections of a listener as Wires, for tls.NewListener.
type WireListener struct{ net.Listener }

// Accept is net.Listener's.
func (l WireListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return NewWire(conn), nil
}

// NetConn is the connection below.
func (w *Wire) NetConn() net.Conn { return w.Conn }

// CloseWrite ends the sending half of the connection below.
func (w *Wire) CloseWrite() error { return CloseWrite(w.Conn) }

// Read is net.Conn's.
func (w *Wire) Read(p []byte) (int, error) {
	switch {
	case !w.looped:
		return w.Conn.Read(p)
	case len(w.feed) > 0:
		n := copy(p, w.feed)
		w.feed = w.feed[n:]
		return n, nil
	case w.end != nil:
		return 0, w.end
	}
	return 0, errLater
}

// Write is net.Conn's. On a loop it never fails.
func (w *Wire) Write(p []byte) (int, error) {
	if !w.looped {
		return w.Conn.Write(p)
	}
	w.sealed = append(w.sealed, p...)
	return len(p), nil
}

// errLater is what crypto/tls is told while there is nothing to read: it makes every error permanent but for those of the network
// that are temporary.
var errLater net.Error = later{}

type later struct{}

func (later) Error() string   { return "nothing to read yet" }
func (later) Timeout() bool   { return false }
func (later) Temporary() bool { return true }

// gone is what a Wire has below when a loop has taken its connection over: whoever still holds it finds it closed.
type gone struct{}

func (gone) Read([]byte) (int, error)         { return 0, net.ErrClosed }
func (gone) Write([]byte) (int, error)        { return 0, net.ErrClosed }
func (gone) Close() error                     { return net.ErrClosed }
func (gone) LocalAddr() net.Addr              { return nil }
func (gone) RemoteAddr() net.Addr             { return nil }
func (gone) SetDeadline(time.Time) error      { return net.ErrClosed }
func (gone) SetReadDeadline(time.Time) error  { return net.ErrClosed }
func (gone) SetWriteDeadline(time.Time) error { return net.ErrClosed }

// enter makes the wire a loop's.
func (w *Wire) enter() { w.Conn, w.looped = gone{}, true }

package pump

import (
	"crypto/tls"
	"io"
	"net"
	"time"
)

// goodbye is how long a peer may take to end its side of TCP after we have ended ours.
const goodbye = time.Second

// HangUp ends a connection that has nothing more to say: FIN, then wait for the peer's while discarding what is still on its
// way (unread data would turn our FIN into a reset that destroys the Close frame in flight), then RST after a second. Whoever
// reads or writes the connection at the time is woken by then.
func HangUp(conn net.Conn) {
	defer time.AfterFunc(goodbye, func() { abort(conn) }).Stop()
	defer conn.Close()
	if err := CloseWrite(conn); err != nil {
		abort(conn)
		return
	}
	conn.SetReadDeadline(time.Time{})
	_, _ = io.Copy(io.Discard, conn) // however it ends, the connection is closed now
}

// CloseWrite ends the sending half: close_notify where there is TLS, then FIN. A connection that has no halves is closed.
func CloseWrite(conn net.Conn) error {
	half, ok := conn.(interface{ CloseWrite() error })
	if !ok {
		return conn.Close()
	}
	if err := half.CloseWrite(); err != nil {
		return err
	}
	if secure, ok := conn.(*tls.Conn); ok { // which has sent close_notify alone
		return CloseWrite(secure.NetConn())
	}
	return nil
}

// A layer is a connection on top of another: *tls.Conn, or the *Wire below it.
type layer interface{ NetConn() net.Conn }

// abort closes a connection at once, by RST, so that the kernel keeps nothing for a peer that does not answer. It goes past TLS,
// which would wait for the writes that are under way.
func abort(conn net.Conn) {
	for outer, ok := conn.(layer); ok; outer, ok = conn.(layer) {
		conn = outer.NetConn()
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	conn.Close()
}

//go:build linux && (amd64 || arm64)

package pump

import (
	"bytes"
	"crypto/tls"
	"net"

	"bridgehead/internal/door"
	"bridgehead/internal/reactor"
)

// The parts of a loop's buffer: what a read gives, what crypto/tls is fed, and what it has sealed, which may outgrow its part.
const (
	plainPart  = headroom + readSize
	feedPart   = readSize - maxRecord // with what crypto/tls holds of a record it is hardly ever more than a read gives
	sealedPart = readSize + readSize/8
)

// Secure is TLS on a loop: crypto/tls, which never waits there.
type secure struct {
	conn *tls.Conn
	wire *Wire
	more bool          // there may be something to read that no event announces
	lent *bytes.Buffer // whose memory the connection has; nil: none or its own
}

// unwrap gives the connection of the operating system, and the TLS on top of it, if any.
func unwrap(conn net.Conn) (net.Conn, *secure) {
	if conn, ok := conn.(*tls.Conn); ok {
		if wire, ok := conn.NetConn().(*Wire); ok {
			return door.Bare(wire.Conn), &secure{conn: conn, wire: wire}
		}
	}
	return conn, nil
}

// readSecure reads once, from the socket and from crypto/tls all that is complete.
func (l *loopLink) readSecure(e *loopEnd, p []byte) (int, error) {
	s, w := e.secure, e.secure.wire
	if len(w.feed) == 0 && w.end == nil && e.Readable() {
		part := l.loop.Buffer()[plainPart:][:feedPart]
		n, err := e.Read(part)
		w.feed = part[:n]
		if err != nil && err != reactor.ErrAgain {
			w.end = err
		}
	}
	w.sealed = l.roomToSeal()
	s.borrow()
	n, err := plaintext(s.conn, p)
	s.giveBack()
	l.sendSealed(e) // an answer to new keys, or an alert
	s.more = err != errLater
	w.feed = bytes.Clone(w.feed) // nothing, unless p is full
	switch {
	case n > 0: // if there is an error as well, it comes again
		return n, nil
	case err == errLater:
		return 0, reactor.ErrAgain
	}
	return 0, eof(err)
}

// plaintext gives what crypto/tls can make of what it was fed, as far as it fits.
func plaintext(conn *tls.Conn, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var k int
		k, err = conn.Read(p[n:])
		n += k
	}
	return n, err
}

// roomToSeal is where crypto/tls may write.
func (l *loopLink) roomToSeal() []byte { return l.loop.Buffer()[plainPart+feedPart:][:0:sealedPart] }

// sendSealed sends what crypto/tls has written.
func (l *loopLink) sendSealed(to *loopEnd) {
	sealed := to.secure.wire.sealed
	to.secure.wire.sealed = nil
	if len(sealed) > 0 && !to.failed {
		l.putBytes(to, sealed, cap(sealed) > sealedPart)
	}
}

// seal encrypts b and sends it.
func (l *loopLink) seal(to *loopEnd, b []byte) {
	to.secure.wire.sealed = l.roomToSeal()
	_, err := to.secure.conn.Write(b)
	l.sendSealed(to)
	if err != nil && !to.failed {
		l.fail(to, err)
	}
}

// notify says close_notify, once, and tells whether the side has taken all that it was sent.
func (l *loopLink) notify(to *loopEnd) bool {
	if to.secure != nil {
		to.secure.wire.sealed = l.roomToSeal()
		_ = to.secure.conn.CloseWrite() // it fails after an alert, which says more
		l.sendSealed(to)
	}
	return !to.waits()
}

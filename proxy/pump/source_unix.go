//go:build unix

package pump

import (
	"errors"
	"io"
	"net"
	"syscall"
)

// eachReady is each for connections of the operating system: they wait without a buffer. The reads happen inside RawConn.Read,
// whose callback returns false to wait for the next readiness.
func eachReady(conn net.Conn, take taker) (handled bool, err error) {
	var raw syscall.RawConn
	switch conn := conn.(type) {
	case *net.TCPConn:
		raw, err = conn.SyscallConn()
	case *net.UnixConn:
		raw, err = conn.SyscallConn()
	default:
		return false, nil
	}
	if err != nil {
		return true, err
	}
	var ended error
	ready := func(fd uintptr) (done bool) {
		ended = readReady(int(fd), take)
		return ended != syscall.EAGAIN
	}
	for {
		if err := raw.Read(ready); err != nil { // the deadline is over, or the connection was closed
			return true, err
		}
		if ended != errBurst {
			return true, ended
		}
	}
}

// A burst of reads is cut off after so many, to look at the deadline: a peer that never stops sending must not outlive it.
const burst = 64

var errBurst = errors.New("more may be ready")

// readReady reads until the socket is drained (EAGAIN), ends, take wants no more (nil), or too much comes (errBurst).
func readReady(fd int, take taker) error {
	buf := chunks.Get().(*[headroom + chunkSize]byte)
	defer chunks.Put(buf)
	for range burst {
		n, err := syscall.Read(fd, buf[headroom:])
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return err
		case n == 0:
			return io.EOF
		case !take(buf[:], n):
			return nil
		}
	}
	return errBurst
}

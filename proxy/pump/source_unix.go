//go:build unix

package pump

import (
	"io"
	"net"
	"syscall"
)

// eachReady is each for connections of the operating system: they wait without a buffer. All reads happen inside one call of
// RawConn.Read, whose callback returns false to wait for the next readiness; so a read that found the socket drained needs no
// second one to learn that (the poller is edge-triggered and is not re-armed in between).
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
	err = raw.Read(func(fd uintptr) (done bool) {
		done, ended = readReady(int(fd), take)
		return done
	})
	if ended != nil {
		err = ended
	}
	return true, err
}

// readReady reads until the socket is drained, ends, or take wants no more.
func readReady(fd int, take taker) (done bool, err error) {
	buf := chunks.Get().(*[headroom + chunkSize]byte)
	defer chunks.Put(buf)
	for {
		n, err := syscall.Read(fd, buf[headroom:])
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			return false, nil
		case err != nil:
			return true, err
		case n == 0:
			return true, io.EOF
		case !take(buf[:], n):
			return true, nil
		}
	}
}

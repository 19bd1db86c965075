//go:build linux && (amd64 || arm64)

package reactor

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"
)

// ErrAgain says that a socket has nothing to read at this time.
var ErrAgain error = syscall.EAGAIN

// edge is EPOLLET, which package syscall gives as a negative number.
const edge = 1 << 31

const interest = syscall.EPOLLIN | syscall.EPOLLOUT | syscall.EPOLLRDHUP | edge

// Detach takes the descriptor of a TCP or Unix connection out of the runtime's hands, which is what closing conn then means: what
// is returned is a duplicate. Nobody may be using conn. It fails, and leaves conn as it was, for every other kind of connection.
func Detach(conn net.Conn) (fd int, err error) {
	var raw syscall.RawConn
	switch conn := conn.(type) {
	case *net.TCPConn:
		raw, err = conn.SyscallConn()
	case *net.UnixConn:
		raw, err = conn.SyscallConn()
	default:
		err = fmt.Errorf("%T has no descriptor: %w", conn, errors.ErrUnsupported)
	}
	if err != nil {
		return -1, err
	}
	var dup uintptr
	var errno syscall.Errno
	err = raw.Control(func(old uintptr) {
		dup, _, errno = syscall.Syscall(syscall.SYS_FCNTL, old, syscall.F_DUPFD_CLOEXEC, 0)
	})
	if err == nil && errno != 0 {
		err = os.NewSyscallError("dup", errno)
	}
	if err != nil {
		return -1, err
	}
	return int(dup), nil
}

// Discard closes a descriptor that Detach gave and no loop has.
func Discard(fd int) { syscall.Close(fd) }

// A Socket is one descriptor on a loop. It is made part of a larger struct and put to use by [Loop.Add].
type Socket struct {
	loop     *Loop
	handler  Handler
	fd       int32
	readable bool // a read may find something
	writable bool // a write may find room
	hup      bool // the peer has ended its side, or the connection is broken: a read that comes short is not the last
	queued   bool
}

// Add takes over a descriptor, which must not block, and gives the socket its first turn: what lay ready before is no event.
func (l *Loop) Add(s *Socket, fd int, h Handler) error {
	if err := syscall.EpollCtl(l.epoll, syscall.EPOLL_CTL_ADD, fd, &syscall.EpollEvent{Events: interest, Fd: int32(fd)}); err != nil {
		return os.NewSyscallError("epoll_ctl", err)
	}
	*s = Socket{loop: l, handler: h, fd: int32(fd), readable: true, writable: true}
	for len(l.sockets) <= fd {
		l.sockets = append(l.sockets, nil)
	}
	l.sockets[fd] = s
	l.load.Add(1)
	s.Again()
	return nil
}

// Open tells whether the socket is on a loop and was not closed.
func (s *Socket) Open() bool { return s.loop != nil }

// Loop is the loop of an open socket.
func (s *Socket) Loop() *Loop { return s.loop }

// note keeps what an event says; only a read or a write that finds the opposite takes it back.
func (s *Socket) note(events uint32) {
	const broken = syscall.EPOLLHUP | syscall.EPOLLERR
	s.hup = s.hup || events&(syscall.EPOLLRDHUP|broken) != 0
	s.readable = s.readable || events&(syscall.EPOLLIN|syscall.EPOLLRDHUP|broken) != 0
	s.writable = s.writable || events&(syscall.EPOLLOUT|broken) != 0
	s.Again()
}

// Again asks for another turn, behind those of all who wait for theirs.
func (s *Socket) Again() {
	if !s.queued && s.Open() {
		s.queued = true
		s.loop.queue.put(s)
	}
}

// Readable tells whether a read may find something.
func (s *Socket) Readable() bool { return s.readable }

// Writable tells whether a write may find room.
func (s *Socket) Writable() bool { return s.writable }

// Read reads once. Without anything to read the error is ErrAgain, at the end io.EOF.
func (s *Socket) Read(p []byte) (int, error) {
	for {
		n, errno := recv(s.fd, p)
		switch {
		case errno == syscall.EINTR:
			continue
		case errno == syscall.EAGAIN:
			s.readable = false
			return 0, ErrAgain
		case errno != 0:
			return 0, os.NewSyscallError("read", errno)
		case n == 0:
			return 0, io.EOF
		case n < len(p) && !s.hup:
			s.readable = false // the next byte is an event
		}
		return n, nil
	}
}

// Write writes what there is room for, which may be nothing, and then that is no error.
func (s *Socket) Write(p []byte) (int, error) {
	for n := 0; ; {
		k, errno := send(s.fd, p[n:])
		switch {
		case errno == syscall.EINTR:
			continue
		case errno == syscall.EAGAIN:
			s.writable = false
			return n, nil
		case errno != 0:
			return n, os.NewSyscallError("write", errno)
		}
		if n += k; n == len(p) {
			return n, nil
		}
	}
}

// CloseWrite ends the sending half: the peer reads the end once it has read all that was sent.
func (s *Socket) CloseWrite() error {
	return os.NewSyscallError("shutdown", syscall.Shutdown(int(s.fd), syscall.SHUT_WR))
}

// Close closes the socket. Its handler hears no more of it. It may be called more than once.
func (s *Socket) Close() {
	if !s.Open() {
		return
	}
	l := s.loop
	l.sockets[s.fd] = nil
	l.load.Add(-1)
	fd := s.fd
	s.loop, s.fd = nil, -1 // which may be another's soon
	syscall.Close(int(fd)) // which takes it out of epoll
}

// Reset closes the socket by RST: what was not sent is dropped, and the kernel keeps nothing for a peer that does not answer.
func (s *Socket) Reset() {
	if s.Open() {
		// It fails for Unix sockets, which keep nothing.
		_ = syscall.SetsockoptLinger(int(s.fd), syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1})
		s.Close()
	}
}

// recv and send are the calls that cost least; as neither blocks, the scheduler need not know.
func recv(fd int32, p []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), 0, 0, 0)
	return int(n), errno
}

func send(fd int32, p []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)),
		syscall.MSG_NOSIGNAL, 0, 0)
	return int(n), errno
}

// poll asks for events without waiting.
func (l *Loop) poll() int {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(l.epoll), uintptr(unsafe.Pointer(&l.events[0])),
		uintptr(len(l.events)), 0, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

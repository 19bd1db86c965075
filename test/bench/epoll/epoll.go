//go:build linux

// Package epoll is the event loop under both ends of a benchmark, the load and the echo, so that neither costs more than the
// system calls it makes: edge-triggered, no goroutine per socket, recvfrom and sendto without the runtime's poller.
package epoll

import (
	"errors"
	"fmt"
	"syscall"
	"time"
	"unsafe"
)

// ErrAgain says that a socket has nothing to read, or takes nothing more, for now.
var ErrAgain = errors.New("the socket would block")

// edge is EPOLLET, which package syscall has as a negative number.
const edge = 1 << 31

// batch is how many events one wait can bring.
const batch = 256

// A Poller waits for many sockets. It is for one goroutine.
type Poller struct {
	fd     int
	events []syscall.EpollEvent
}

// New returns a Poller of no sockets.
func New() (*Poller, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	return &Poller{fd, make([]syscall.EpollEvent, batch)}, nil
}

// Close ends the Poller and leaves the sockets alone.
func (p *Poller) Close() { syscall.Close(p.fd) }

// Add watches a socket under a number of the caller's choice until it is closed.
func (p *Poller) Add(fd int, id int32) error {
	event := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLOUT | syscall.EPOLLRDHUP | edge, Fd: id}
	if err := syscall.EpollCtl(p.fd, syscall.EPOLL_CTL_ADD, fd, &event); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	return nil
}

// Events are what Wait brings: which sockets changed, and how.
type Events []syscall.EpollEvent

// ID is the number under which the i-th socket was added.
func (e Events) ID(i int) int32 { return e[i].Fd }

// Readable reports whether the i-th socket has bytes, an end or an error to read.
func (e Events) Readable(i int) bool { return e[i].Events&^syscall.EPOLLOUT != 0 }

// Wait waits for events, at most for a time, to the millisecond. The result is valid until the next call.
func (p *Poller) Wait(timeout time.Duration) (Events, error) {
	n, err := p.wait(syscall.RawSyscall6, 0) // mostly there is something: a call that the runtime need not know of
	if n == 0 && err == 0 {
		n, err = p.wait(syscall.Syscall6, max(0, int(timeout.Milliseconds())))
	}
	if err != 0 && err != syscall.EINTR {
		return nil, fmt.Errorf("epoll_wait: %w", err)
	}
	return p.events[:n], nil
}

type call func(number, a, b, c, d, e, f uintptr) (r1, r2 uintptr, err syscall.Errno)

func (p *Poller) wait(via call, milliseconds int) (int, syscall.Errno) {
	n, _, err := via(syscall.SYS_EPOLL_PWAIT, uintptr(p.fd), uintptr(unsafe.Pointer(&p.events[0])), uintptr(len(p.events)),
		uintptr(milliseconds), 0, 0)
	if err != 0 {
		return 0, err
	}
	return int(n), 0
}

// Recv reads from a socket. 0 bytes without an error are its end.
func Recv(fd int, p []byte) (int, error) { return transfer(syscall.SYS_RECVFROM, fd, p, 0) }

// Send writes to a socket, perhaps less than all.
func Send(fd int, p []byte) (int, error) {
	return transfer(syscall.SYS_SENDTO, fd, p, syscall.MSG_NOSIGNAL)
}

func transfer(number uintptr, fd int, p []byte, flags uintptr) (int, error) {
	for {
		n, _, err := syscall.RawSyscall6(number, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), flags, 0, 0)
		switch err {
		case 0:
			return int(n), nil
		case syscall.EINTR:
		case syscall.EAGAIN:
			return 0, ErrAgain
		default:
			return 0, err
		}
	}
}

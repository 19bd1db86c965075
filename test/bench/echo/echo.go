//go:build linux

// Package echo is what stands behind the measured proxies: a WebSocket server, a TCP server and an HTTP application that send back what
// they get, on one event loop, with one read and one write for all that a read brought.
package echo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"bridgehead/test/bench/epoll"
	"bridgehead/test/bench/frame"
	"bridgehead/ws"
)

const (
	bufferSize  = 256 << 10
	maxHead     = 64 << 10
	maxListen   = 4096
	checkPeriod = 50 * time.Millisecond // how often an idle loop looks whether it is to end
)

// A Server serves three addresses of loopback.
type Server struct {
	WebSocket, TCP, HTTP string // host:port

	poller    *epoll.Poller
	listeners [3]int // descriptors, in the order of the addresses; their numbers are their indices
	conns     map[int32]*conn
	buffer    []byte
}

// Listen opens all ports.
func Listen() (*Server, error) {
	poller, err := epoll.New()
	if err != nil {
		return nil, err
	}
	s := &Server{poller: poller, conns: make(map[int32]*conn), buffer: make([]byte, bufferSize)}
	for i, address := range []*string{&s.WebSocket, &s.TCP, &s.HTTP} {
		fd, port, err := listen()
		if err != nil {
			return nil, err
		}
		s.listeners[i] = fd
		*address = fmt.Sprintf("127.0.0.1:%d", port)
		if err := poller.Add(fd, int32(fd)); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func listen() (fd, port int, err error) {
	fd, err = syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, 0, fmt.Errorf("socket: %w", err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return 0, 0, fmt.Errorf("bind: %w", err)
	}
	if err := syscall.Listen(fd, maxListen); err != nil {
		return 0, 0, fmt.Errorf("listen: %w", err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		return 0, 0, fmt.Errorf("getsockname: %w", err)
	}
	return fd, name.(*syscall.SockaddrInet4).Port, nil
}

// Serve echoes until ctx ends, and closes everything then. A client that breaks the protocol loses its connection, no more.
func (s *Server) Serve(ctx context.Context) error {
	defer s.close()
	for ctx.Err() == nil {
		events, err := s.poller.Wait(checkPeriod)
		if err != nil {
			return err
		}
		for i := range events {
			id := events.ID(i)
			if at := slices.Index(s.listeners[:], int(id)); at >= 0 {
				if err := s.accept(s.listeners[at], speech(at)); err != nil {
					return err
				}
			} else if c, ok := s.conns[id]; ok && c.drive(s.buffer, events.Readable(i)) != nil {
				delete(s.conns, id)
				syscall.Close(c.fd)
			}
		}
	}
	return nil
}

func (s *Server) close() {
	for fd := range s.conns {
		syscall.Close(int(fd))
	}
	for _, fd := range s.listeners {
		syscall.Close(fd)
	}
	s.poller.Close()
}

// accept takes all that wait.
func (s *Server) accept(listener int, speaks speech) error {
	for {
		fd, _, err := syscall.Accept4(listener, syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC)
		switch {
		case err == syscall.EAGAIN:
			return nil
		case err == syscall.ECONNABORTED || err == syscall.EINTR:
			continue
		case err != nil:
			return fmt.Errorf("accept: %w", err)
		}
		if err := syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1); err != nil {
			return fmt.Errorf("setsockopt: %w", err)
		}
		s.conns[int32(fd)] = &conn{fd: fd, speaks: speaks}
		if err := s.poller.Add(fd, int32(fd)); err != nil {
			return err
		}
	}
}

// errDone ends a connection, in good order or not.
var errDone = errors.New("the connection is over")

// A speech is what the clients of a listener speak; the listeners stand in this order.
type speech int

const (
	webSocket speech = iota
	bytesOnly
	requests
)

// A conn is one client.
type conn struct {
	fd       int
	speaks   speech
	upgraded bool // of a WebSocket
	mirror   frame.Mirror
	rest     []byte // of the last read: an incomplete head or header
	unsent   []byte // while there is some nothing is read: TCP pushes back
}

// drive does what the connection can do now. With an error it is to be closed.
func (c *conn) drive(buffer []byte, readable bool) error {
	if len(c.unsent) > 0 {
		unsent := c.unsent
		c.unsent = nil
		if err := c.send(unsent); err != nil || len(c.unsent) > 0 {
			return err
		}
		readable = true // what came meanwhile was left alone
	}
	for readable && len(c.unsent) == 0 {
		held := copy(buffer, c.rest)
		n, err := epoll.Recv(c.fd, buffer[held:])
		if err == epoll.ErrAgain {
			return nil
		}
		if err != nil || n == 0 {
			return errDone
		}
		answer, err := c.answer(buffer[:held+n])
		if err != nil {
			return err
		}
		if err := c.send(answer); err != nil {
			return err
		}
		if c.mirror.Closed && len(c.unsent) == 0 {
			return errDone
		}
		readable = held+n == len(buffer) // a short read has drained the socket
	}
	return nil
}

// answer is what is sent for what was read; what cannot be answered yet is kept.
func (c *conn) answer(p []byte) ([]byte, error) {
	c.rest = nil
	switch c.speaks {
	case bytesOnly:
		return p, nil
	case requests:
		answer, rest, err := reply(p)
		c.rest = bytes.Clone(rest)
		return answer, err
	}
	var head []byte
	if !c.upgraded {
		end := bytes.Index(p, []byte("\r\n\r\n"))
		switch {
		case end < 0 && len(p) > maxHead:
			return nil, errDone
		case end < 0:
			c.rest = bytes.Clone(p)
			return nil, nil
		}
		head, p = p[:end], p[end+4:]
		c.upgraded = true
	}
	answer, rest := c.mirror.Reflect(p)
	c.rest = bytes.Clone(rest)
	if head == nil {
		return answer, nil
	}
	return append(ws.AppendAnswer(nil, key(head), ws.Answer{}), answer...), nil
}

// key is the Sec-WebSocket-Key of a request.
func key(head []byte) string {
	for line := range strings.Lines(string(head)) {
		if name, value, _ := strings.Cut(line, ":"); strings.EqualFold(name, "Sec-WebSocket-Key") {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// send writes p; what the socket does not take waits for the event that tells of room.
func (c *conn) send(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	n, err := epoll.Send(c.fd, p)
	if err != nil && err != epoll.ErrAgain {
		return errDone
	}
	if n < len(p) {
		c.unsent = bytes.Clone(p[n:])
	}
	return nil
}

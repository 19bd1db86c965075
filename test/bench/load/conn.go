//go:build linux

package load

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"bridgehead/test/bench/epoll"
	"bridgehead/test/bench/frame"
	"bridgehead/ws"
)

// A conn is one socket in the loop. It sends its frames, compares what comes back byte by byte, and begins anew.
type conn struct {
	fd     int
	secure *tls.Conn // nil: plain
	below  *adapter  // under secure

	frames []byte // what is sent: a burst of masked messages
	want   []byte // what comes back: their payloads, however the proxy cuts them into frames
	sent   int    // of frames
	unsent []byte // encrypted bytes that the socket did not take
	began  time.Time

	held    []byte // an incomplete header
	control []byte // the payload of a control frame, as far as it is there
	header  ws.Header
	left    int64 // of the frame's payload
	got     int   // of want
}

// newConn takes an open socket out of the runtime's poller.
func newConn(open net.Conn, below *adapter, p payload) (*conn, error) {
	c := &conn{below: below, frames: p.frames, want: p.want, sent: len(p.frames)} // at rest
	socket := open
	if below != nil {
		c.secure, socket = open.(*tls.Conn), below.Conn
	}
	raw, err := socket.(*net.TCPConn).SyscallConn()
	if err != nil {
		return nil, err
	}
	var dupErr error
	if err := raw.Control(func(fd uintptr) { c.fd, dupErr = syscall.Dup(int(fd)) }); err != nil {
		return nil, err
	}
	if dupErr != nil {
		return nil, fmt.Errorf("dup: %w", dupErr)
	}
	socket.Close()
	if below != nil {
		below.Conn = nil
	}
	syscall.CloseOnExec(c.fd)
	return c, nil
}

// A payload is what one socket sends and expects.
type payload struct{ frames, want []byte }

// newPayload makes a burst of messages whose bytes differ from those of other seeds, so that what reaches a wrong socket is seen.
func newPayload(seed, size, burst int) payload {
	var p payload
	state := uint64(seed)*0x9e3779b97f4a7c15 + 1
	for range burst {
		message := make([]byte, size)
		for i := range message {
			state = state*6364136223846793005 + 1442695040888963407
			message[i] = byte(state >> 56)
		}
		p.frames = ws.AppendFrame(p.frames, ws.Binary, message, true)
		p.want = append(p.want, message...)
	}
	return p
}

// again begins a burst.
func (c *conn) again(l *loop) error {
	c.sent, c.got, c.began = 0, 0, l.now
	return c.write(l)
}

// secureChunk is how much is encrypted at once: enough for one large write.
const secureChunk = 64 << 10

// write sends as much as the socket takes.
func (c *conn) write(l *loop) error {
	for {
		n, err := send(c.fd, c.unsent)
		c.unsent = c.unsent[n:]
		if err != nil || len(c.unsent) > 0 || c.sent == len(c.frames) {
			return err
		}
		chunk := c.frames[c.sent:]
		if c.secure != nil {
			chunk = chunk[:min(len(chunk), secureChunk)]
		}
		n, err = c.push(l, chunk)
		c.sent += n
		if err != nil || n < len(chunk) {
			return err
		}
	}
}

// push sends what it can of p, or all of it encrypted, of which some may remain unsent.
func (c *conn) push(l *loop, p []byte) (int, error) {
	if c.secure == nil {
		return send(c.fd, p)
	}
	c.below.out = append(l.out[:0], c.below.out...)
	taken, err := c.secure.Write(p)
	if err != nil {
		return taken, err
	}
	sent, err := send(c.fd, c.below.out)
	c.unsent = bytes.Clone(c.below.out[sent:])
	l.out, c.below.out = c.below.out, nil
	return taken, err
}

// send writes what the socket takes.
func send(fd int, p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, err := epoll.Send(fd, p)
	if err == epoll.ErrAgain {
		return 0, nil
	}
	return n, err
}

// read takes all that is there.
func (c *conn) read(l *loop) error {
	for {
		n, err := epoll.Recv(c.fd, l.in)
		switch {
		case err == epoll.ErrAgain:
			return nil
		case err != nil:
			return err
		case n == 0:
			return errors.New("the connection was ended")
		}
		if err := c.take(l, l.in[:n]); err != nil {
			return err
		}
		if n < len(l.in) {
			return nil // a short read has drained the socket
		}
	}
}

// take decrypts what was read, and checks it.
func (c *conn) take(l *loop, p []byte) error {
	if c.secure == nil {
		return c.check(l, p)
	}
	c.below.in = p
	for {
		n, err := c.secure.Read(l.plain)
		if err := c.check(l, l.plain[:n]); err != nil {
			return err
		}
		if err == (wouldBlock{}) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// check compares what came back with what was sent, and begins anew when all is there.
func (c *conn) check(l *loop, p []byte) error {
	for len(p) > 0 {
		if c.left == 0 {
			if len(c.held) > 0 {
				p, c.held = append(c.held, p...), nil
			}
			h, length := frame.Parse(p)
			if length == 0 {
				c.held = bytes.Clone(p)
				return nil
			}
			c.header, c.left, p = h, h.Length, p[length:]
		}
		part := p[:min(c.left, int64(len(p)))]
		c.left -= int64(len(part))
		p = p[len(part):]
		if err := c.accept(l, part); err != nil {
			return err
		}
	}
	return nil
}

// accept takes a part of a frame's payload.
func (c *conn) accept(l *loop, part []byte) error {
	if c.header.Opcode.IsControl() {
		return c.acceptControl(l, part)
	}
	if rest := c.want[c.got:]; len(part) > len(rest) || !bytes.Equal(part, rest[:len(part)]) {
		return fmt.Errorf("the echo differs from what was sent, in its bytes %d to %d of %d", c.got, c.got+len(part), len(c.want))
	}
	c.got += len(part)
	if c.left > 0 || c.got < len(c.want) {
		return nil
	}
	return l.finished(c)
}

// acceptControl answers pings, which come to sockets that rest.
func (c *conn) acceptControl(l *loop, part []byte) error {
	c.control = append(c.control, part...)
	if c.left > 0 {
		return nil
	}
	payload := c.control
	c.control = nil
	switch c.header.Opcode {
	case ws.Close:
		code, reason, _ := ws.ParseClose(payload)
		return fmt.Errorf("the socket was closed with %d %s", code, reason)
	case ws.Ping:
		_, err := c.push(l, ws.AppendFrame(nil, ws.Pong, payload, true))
		return err
	default:
		return nil
	}
}

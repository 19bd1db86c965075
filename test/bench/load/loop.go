//go:build linux

package load

import (
	"context"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"bridgehead/test/bench/epoll"
)

const (
	bufferSize  = 256 << 10
	dialers     = 8  // how many handshakes are under way at once
	seeds       = 64 // how many different payloads there are
	checkPeriod = 50 * time.Millisecond
)

// A loop drives all sockets of a load in one goroutine.
type loop struct {
	poller *epoll.Poller
	conns  []*conn
	now    time.Time // when the events at hand came, or a burst just ended

	once    bool // a socket rests after its burst
	bursts  int  // that came back
	latency Histogram

	in, plain, out []byte // shared by all sockets: what was read, the same decrypted, what is sent encrypted
}

// open opens sockets and hands them to a loop.
func open(ctx context.Context, d *dialer, s Spec, connections int) (*loop, error) {
	poller, err := epoll.New()
	if err != nil {
		return nil, err
	}
	l := &loop{poller: poller, in: make([]byte, bufferSize), plain: make([]byte, bufferSize)}
	if err := l.fill(ctx, d, s, connections); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// fill opens sockets, a few at a time.
func (l *loop) fill(ctx context.Context, d *dialer, s Spec, connections int) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	payloads := make([]payload, min(seeds, connections))
	for i := range payloads {
		payloads[i] = newPayload(i, s.Size, s.Burst)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex // guards l.conns
	for first := range min(dialers, connections) {
		wg.Go(func() {
			for i := first; i < connections && ctx.Err() == nil; i += dialers {
				conn, below, err := d.dial(ctx)
				if err != nil {
					cancel(fmt.Errorf("open socket %d: %w", i, err))
					return
				}
				mu.Lock()
				err = l.add(conn, below, payloads[i%len(payloads)])
				mu.Unlock()
				if err != nil {
					cancel(err)
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

func (l *loop) add(open net.Conn, below *adapter, p payload) error {
	c, err := newConn(open, below, p)
	if err != nil {
		return err
	}
	l.conns = append(l.conns, c)
	return l.poller.Add(c.fd, int32(len(l.conns)-1))
}

func (l *loop) close() {
	for _, c := range l.conns {
		syscall.Close(c.fd)
	}
	l.poller.Close()
}

// begin sends the first burst of every socket.
func (l *loop) begin() error {
	for _, c := range l.conns {
		l.now = time.Now()
		if err := c.again(l); err != nil {
			return err
		}
	}
	return nil
}

// run drives the sockets up to a time.
func (l *loop) run(ctx context.Context, until time.Time) error {
	return l.runWhile(ctx, func() bool { return l.now.Before(until) })
}

func (l *loop) runWhile(ctx context.Context, more func() bool) error {
	for l.now = time.Now(); more(); l.now = time.Now() {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		events, err := l.poller.Wait(checkPeriod)
		if err != nil {
			return err
		}
		for i := range events {
			if err := l.drive(l.conns[events.ID(i)], events.Readable(i)); err != nil {
				return fmt.Errorf("socket %d: %w", events.ID(i), err)
			}
		}
	}
	return nil
}

func (l *loop) drive(c *conn, readable bool) error {
	if c.sent < len(c.frames) || len(c.unsent) > 0 {
		if err := c.write(l); err != nil {
			return err
		}
	}
	if !readable {
		return nil
	}
	return c.read(l)
}

// finished counts a burst that came back, and sends the next.
func (l *loop) finished(c *conn) error {
	l.now = time.Now()
	l.latency.Add(l.now.Sub(c.began))
	l.bursts++
	if l.once {
		return nil
	}
	return c.again(l)
}

// runAll drives the sockets for the duration, and for longer until each had an echo: a proxy that serves some and forgets others is
// not measured.
func (l *loop) runAll(ctx context.Context, began time.Time, s Spec) error {
	end := began.Add(s.Duration)
	last := end.Add(s.Stall)
	err := l.runWhile(ctx, func() bool { return l.now.Before(end) || l.now.Before(last) && l.stalled(began) > 0 })
	if err != nil {
		return err
	}
	if n := l.stalled(began); n > 0 {
		return fmt.Errorf("%d of %d sockets had no echo in %s", n, len(l.conns), time.Since(began).Round(time.Millisecond))
	}
	return nil
}

// stalled counts the sockets whose burst is older than a time.
func (l *loop) stalled(since time.Time) (n int) {
	for _, c := range l.conns {
		if c.began.Before(since) {
			n++
		}
	}
	return n
}

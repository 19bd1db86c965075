//go:build linux

package load

import (
	"context"
	"time"

	"bridgehead/test/bench/process"
)

// wave is how many sockets have their message at once; also how many lives the proxy has seen before memory is read first.
const wave = 64

// idle reads the proxy's memory without sockets, with sockets that rest, and with sockets that rest again after a message each.
func idle(ctx context.Context, d *dialer, s Spec) (Result, error) {
	before, err := warm(ctx, d, s)
	if err != nil {
		return Result{}, err
	}
	l, err := open(ctx, d, s, s.Connections)
	if err != nil {
		return Result{}, err
	}
	defer l.close()
	l.once = true
	opened, err := l.rest(ctx, s)
	if err != nil {
		return Result{}, err
	}
	if err := l.talk(ctx); err != nil {
		return Result{}, err
	}
	used, err := l.rest(ctx, s)
	return Result{Trips: s.Connections, Before: before, Opened: opened, Used: used}, err
}

// warm lets the proxy do everything once, and reads its memory after that.
func warm(ctx context.Context, d *dialer, s Spec) (int64, error) {
	l, err := open(ctx, d, s, min(wave, s.Connections))
	if err != nil {
		return 0, err
	}
	l.once = true
	err = l.talk(ctx)
	l.close()
	if err != nil {
		return 0, err
	}
	select {
	case <-time.After(s.Settle):
		return memory(s.Proxy)
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

// talk sends a message on each socket, on few at once, and waits for all that comes back.
func (l *loop) talk(ctx context.Context) error {
	for first := 0; first < len(l.conns); first += wave {
		some := l.conns[first:min(first+wave, len(l.conns))]
		for _, c := range some {
			l.now = time.Now()
			if err := c.again(l); err != nil {
				return err
			}
		}
		back := l.bursts + len(some)
		if err := l.runWhile(ctx, func() bool { return l.bursts < back }); err != nil {
			return err
		}
	}
	return nil
}

// rest lets the sockets be for a while, but for pings, and reads the proxy's memory.
func (l *loop) rest(ctx context.Context, s Spec) (int64, error) {
	if err := l.run(ctx, time.Now().Add(s.Settle)); err != nil {
		return 0, err
	}
	return memory(s.Proxy)
}

func memory(proxy int) (int64, error) {
	pids, err := process.Tree(proxy)
	if err != nil {
		return 0, err
	}
	return process.Memory(pids...)
}

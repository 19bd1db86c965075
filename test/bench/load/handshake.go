//go:build linux

package load

import (
	"context"
	"sync"
	"time"
)

// handshakes opens and closes sockets one after the other, on as many goroutines as the Spec has connections.
func handshakes(ctx context.Context, d *dialer, s Spec) (Result, error) {
	m, err := newMeter(s)
	if err != nil {
		return Result{}, err
	}
	if _, _, err := lives(ctx, d, s.Connections, s.Warmup); err != nil {
		return Result{}, err
	}
	if err := m.start(); err != nil {
		return Result{}, err
	}
	n, latency, err := lives(ctx, d, s.Connections, s.Duration)
	if err != nil {
		return Result{}, err
	}
	return m.stop(n, latency)
}

// lives opens and closes sockets for a time, and returns when the last is closed. The latency is that of the opening.
func lives(ctx context.Context, d *dialer, workers int, duration time.Duration) (int, *Histogram, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	until := time.Now().Add(duration)
	var wg sync.WaitGroup
	var mu sync.Mutex // guards latency
	var latency Histogram
	for range workers {
		wg.Go(func() {
			for time.Now().Before(until) && ctx.Err() == nil {
				took, err := life(ctx, d)
				if err != nil {
					cancel(err)
					return
				}
				mu.Lock()
				latency.Add(took)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return latency.total, &latency, context.Cause(ctx)
}

// life is one socket's, from TCP's beginning to its end. It returns how long the opening took.
func life(ctx context.Context, d *dialer) (time.Duration, error) {
	began := time.Now()
	conn, _, err := d.dial(ctx)
	if err != nil {
		return 0, err
	}
	took := time.Since(began)
	defer conn.Close()
	return took, goodbye(conn)
}

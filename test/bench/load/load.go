//go:build linux

// Package load makes the traffic of a benchmark, checks that all of it comes back, and measures: round trips, their latency, and
// the processor time that the proxy, the echo behind it and the load itself used in the same span.
package load

import (
	"context"
	"errors"
	"fmt"
	"time"

	"bridgehead/test/bench/process"
)

// The kinds of traffic.
const (
	Echo      = "echo"      // sockets that send and wait for what they sent, as fast as they can
	Handshake = "handshake" // sockets that are opened and closed
	Idle      = "idle"      // sockets that say nothing; one message each; and nothing again
)

// A Spec says what to do. It travels as JSON.
type Spec struct {
	Kind    string
	Address string // host:port
	Path    string
	Token   string // sent in the Authorization header; "": none is
	CA      string // a PEM file with the server's authority: speak TLS; "": do not

	Connections int
	Size        int // of a message, in bytes
	Burst       int // how many messages are sent at once, before the echo of all is awaited

	Warmup, Duration time.Duration
	Stall            time.Duration // how long beyond the Duration the slowest socket may take for its first echo
	Settle           time.Duration // Idle: how long to wait before memory is read

	Proxy int // the process to measure, with its children; 0: there is none
	Echo  int // the process behind it
	Core  int // that the proxy has for itself; -1: there is none
}

// A Result is what was measured.
type Result struct {
	Trips   int           // round trips of single messages, or sockets
	Elapsed time.Duration // in which they were done
	P50     time.Duration // of a burst's latency
	P99     time.Duration

	Proxy, Load, Echo time.Duration // processor time
	Others            time.Duration // what processes that are none of these used of the proxy's core

	Before, Opened, Used int64 // Idle: the proxy's memory in bytes: without sockets, with them, and after each had its message
}

// connectTimeout bounds a handshake.
const connectTimeout = 10 * time.Second

// Run does what the Spec says. An echo that differs, or a socket that ends, is an error.
func Run(ctx context.Context, s Spec) (Result, error) {
	d, err := newDialer(s)
	if err != nil {
		return Result{}, err
	}
	switch s.Kind {
	case Echo:
		return echoes(ctx, d, s)
	case Handshake:
		return handshakes(ctx, d, s)
	case Idle:
		return idle(ctx, d, s)
	default:
		return Result{}, fmt.Errorf("%q is no kind of load", s.Kind)
	}
}

// echoes keeps all sockets busy for the duration.
func echoes(ctx context.Context, d *dialer, s Spec) (Result, error) {
	l, err := open(ctx, d, s, s.Connections)
	if err != nil {
		return Result{}, err
	}
	defer l.close()
	m, err := newMeter(s)
	if err != nil {
		return Result{}, err
	}
	if err := l.begin(); err != nil {
		return Result{}, err
	}
	if err := l.run(ctx, time.Now().Add(s.Warmup)); err != nil {
		return Result{}, err
	}
	l.bursts, l.latency = 0, Histogram{}
	if err := m.start(); err != nil {
		return Result{}, err
	}
	if err := l.runAll(ctx, m.began, s); err != nil {
		return Result{}, err
	}
	return m.stop(l.bursts*s.Burst, &l.latency)
}

// A meter reads clocks of processes around a span.
type meter struct {
	proxy      []int
	echo, core int
	began      time.Time
	usage      usage
}

type usage struct{ proxy, echo, load, core time.Duration }

func newMeter(s Spec) (*meter, error) {
	m := &meter{echo: s.Echo, core: s.Core}
	if s.Proxy == 0 {
		return m, nil
	}
	var err error
	m.proxy, err = process.Tree(s.Proxy)
	return m, err
}

func (m *meter) read() (u usage, err error) {
	var errs [4]error
	u.proxy, errs[0] = process.CPU(m.proxy...)
	if m.echo != 0 {
		u.echo, errs[1] = process.CPU(m.echo)
	}
	u.load, errs[2] = process.Own()
	if m.core >= 0 {
		u.core, errs[3] = process.Busy(m.core)
	}
	return u, errors.Join(errs[:]...)
}

func (m *meter) start() (err error) {
	m.began = time.Now()
	m.usage, err = m.read()
	return err
}

func (m *meter) stop(trips int, latency *Histogram) (Result, error) {
	now, err := m.read()
	elapsed := time.Since(m.began)
	switch {
	case err != nil:
		return Result{}, err
	case trips == 0:
		return Result{}, fmt.Errorf("not one round trip in %s", elapsed)
	}
	r := Result{
		Trips: trips, Elapsed: elapsed, P50: latency.Quantile(0.5), P99: latency.Quantile(0.99),
		Proxy: now.proxy - m.usage.proxy, Echo: now.echo - m.usage.echo, Load: now.load - m.usage.load,
	}
	r.Others = max(0, now.core-m.usage.core-r.Proxy) // the core's clock is the coarser one
	return r, nil
}

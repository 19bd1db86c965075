package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"bridgehead/proxy/pump"
)

// Dial connects, with TLS where the scheme asks for it.
func (t *Target) Dial(ctx context.Context) (net.Conn, error) { return t.DialAfter(ctx, nil) }

// DialAfter connects and gives the bare connection to preamble before the first byte of TLS. ctx bounds all of it. The error is a
// [*Fault].
func (t *Target) DialAfter(ctx context.Context, preamble func(net.Conn) error) (net.Conn, error) {
	return t.dial(ctx, t.tls, preamble)
}

func (t *Target) dial(ctx context.Context, config *tls.Config, preamble func(net.Conn) error) (net.Conn, error) {
	bare, err := t.connect(ctx)
	if err != nil {
		return nil, t.Fault(err) // it says what was dialled
	}
	if preamble == nil && config == nil {
		return bare, nil
	}
	stop := context.AfterFunc(ctx, func() { bare.Close() })
	conn, err := greet(ctx, bare, config, preamble)
	if !stop() { // the end of ctx has closed it; whatever failed, failed of that
		err = ctx.Err()
	}
	if err != nil {
		bare.Close()
		return nil, t.Fault(fmt.Errorf("%s: %w", t.Address(), err))
	}
	return conn, nil
}

var dialer net.Dialer

// connect dials what the name is known to stand for, or else the name.
func (t *Target) connect(ctx context.Context) (conn net.Conn, err error) {
	switch len(t.ways) {
	case 0:
		return dialer.DialContext(ctx, t.network, t.address)
	case 1:
		conn, err = dialer.DialContext(ctx, t.network, t.ways[0])
	default:
		conn, err = dialEither(ctx, t.ways[0], t.ways[1])
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t.address, err)
	}
	return conn, nil
}

// headStart is that of the better way to a server (RFC 8305, section 5); it is net.Dialer's.
const headStart = 300 * time.Millisecond

// dialEither dials two addresses of one server, the second a little later, or when the first has failed. The first connection
// counts; the error is that of the first address.
func dialEither(ctx context.Context, first, second string) (net.Conn, error) {
	type result struct {
		conn   net.Conn
		err    error
		better bool
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make(chan struct{})
	results := make(chan result)
	go func() {
		conn, err := dialer.DialContext(ctx, "tcp", first)
		if err != nil {
			close(failed)
		}
		results <- result{conn, err, true}
	}()
	go func() {
		select {
		case <-failed:
		case <-time.After(headStart):
		case <-ctx.Done():
		}
		conn, err := dialer.DialContext(ctx, "tcp", second)
		results <- result{conn, err, false}
	}()
	one := <-results
	if one.err == nil {
		cancel()
	}
	other := <-results
	switch {
	case one.err == nil:
		if other.conn != nil {
			other.conn.Close()
		}
		return one.conn, nil
	case other.err == nil:
		return other.conn, nil
	case one.better:
		return nil, one.err
	}
	return nil, other.err
}

// greet says what comes before the traffic, and gives the connection that carries it. config is nil for one without TLS.
func greet(ctx context.Context, conn net.Conn, config *tls.Config, preamble func(net.Conn) error) (net.Conn, error) {
	if preamble != nil {
		if err := preamble(conn); err != nil {
			return nil, fmt.Errorf("preamble: %w", err)
		}
	}
	if config == nil {
		return conn, nil
	}
	secure := tls.Client(pump.NewWire(conn), config)
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("TLS: %w", err)
	}
	return secure, nil
}

// Through has a pool of HTTP connections lead the requests of [Target.Carry] where they belong. protocols are offered to servers that
// speak TLS; none are HTTP/1.1 alone.
func Through(pool *http.Transport, protocols ...string) *http.Transport {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		to, ok := ctx.Value(bearingKey{}).(bearing)
		if !ok {
			return nil, errors.New("the request leads to no server")
		}
		ctx, cancel := context.WithDeadline(ctx, to.by)
		defer cancel()
		config := to.target.tls
		if config != nil && protocols != nil {
			config = config.Clone()
			config.NextProtos = protocols
		}
		return to.target.dial(ctx, config, nil)
	}
	pool.DialContext, pool.DialTLSContext = dial, dial
	return pool
}

// A bearing tells a dial where a request leads, and until when a connection has to be there.
type bearing struct {
	target *Target
	by     time.Time
}

// bearingKey finds the bearing in the context of a request, and so in that of the dial for it.
type bearingKey struct{}

// Carry is a request as a pool of [Through] sends it to the target, over a connection that is there already or is opened until by. The
// server sees the host that the request has.
func (t *Target) Carry(r *http.Request, by time.Time) *http.Request {
	out := r.WithContext(context.WithValue(r.Context(), bearingKey{}, bearing{t, by}))
	to := *r.URL
	if out.Host == "" {
		out.Host = to.Host
	}
	to.Host = t.pool()
	out.URL = &to
	return out
}

// pool names the connections that may be used for the target, in the place of a host: servers of one name have their own, and so have
// names that share a server.
func (t *Target) pool() string {
	if !t.found.addr.IsValid() {
		return t.host
	}
	return net.JoinHostPort(strings.NewReplacer(":", "-", "%", "-").Replace(t.found.addr.String())+"."+t.name, t.port)
}

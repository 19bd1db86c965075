package door

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"time"

	"bridgehead/internal/proxyproto"
)

// A Conn is a connection that has passed a door. If it has to begin with a PROXY header, this is read when somebody first asks for
// its addresses or for what it brings. Not one byte behind the header is read with it, so that the connection below can be used
// alone as soon as the header is known.
type Conn struct {
	net.Conn // of the operating system
	options  *Options
	pass     *Pass

	once    sync.Once // for the following
	header  *proxyproto.Header
	refused bool
	started bool // something behind the header was read; used by the one that reads
}

// A refusal is why a connection is not let in.
type refusal struct {
	reason string // for metrics and the log
	status int    // of the answer where one can be given
	text   string // of the answer
	mend   string // for the log
	crowd  bool   // it is many that are refused so, and not one
}

var (
	full = refusal{"full", http.StatusServiceUnavailable, "too many connections",
		"the listener has as many connections as its max_connections says", true}
	greedy = refusal{"share", http.StatusServiceUnavailable, "too many connections from this address",
		"the listener is nearly full, and this address has as many of its max_connections as are left for all others; a proxy that stands " +
			"for many clients belongs to trusted_proxies", false}
	busy = refusal{"handshakes", http.StatusServiceUnavailable, "too many handshakes",
		"as many connections as max_handshakes says have not sent a request yet", true}
	busyFor = refusal{"handshakes_share", http.StatusServiceUnavailable, "too many handshakes from this address",
		"this address has as many connections without a request as max_handshakes leaves for all others", false}
	untrusted = refusal{"untrusted", http.StatusForbidden, "this port is for the proxies in front alone",
		"a listener with proxy_protocol takes connections from trusted_proxies alone: if this is your proxy, add its address", false}
	headless = refusal{"no_header", http.StatusBadRequest, "a PROXY header has to come first",
		"a listener with proxy_protocol wants a PROXY header first: switch it on in the proxy (send-proxy-v2, proxy_protocol on), or off here", false}
	malformed = refusal{"bad_header", http.StatusBadRequest, "the PROXY header is malformed", "the proxy must speak version 1 or 2", false}
	late      = refusal{"late_header", http.StatusRequestTimeout, "the PROXY header is late",
		"it did not come within header_timeout: is it switched on in the proxy (send-proxy-v2, proxy_protocol on)?", false}
	unasked = refusal{"unasked_header", 0, "",
		"a PROXY header came, which this listener does not expect: set proxy_protocol: true, or switch it off in the proxy", false}
)

// meet reads the header, once.
func (c *Conn) meet() {
	if c.options.Proxy {
		c.once.Do(c.readHeader)
	}
}

func (c *Conn) readHeader() {
	from := peer(c.Conn)
	if c.options.Trusted == nil || !c.options.Trusted(from) {
		c.refuse(&untrusted, nil)
		return
	}
	_ = c.Conn.SetReadDeadline(time.Now().Add(c.options.Timeout)) // it fails on a connection that is closed, as the read does
	h, err := proxyproto.Read(c.Conn)
	_ = c.Conn.SetReadDeadline(time.Time{})
	switch {
	case err == nil:
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed): // as a load balancer does that asks whether the port is open
		c.refused = true
		return
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.refuse(&late, nil)
		return
	case errors.Is(err, proxyproto.ErrNone):
		c.refuse(&headless, nil)
		return
	default:
		c.refuse(&malformed, err)
		return
	}
	if h.Source.IsValid() {
		from = h.Source.Addr()
	}
	if why := c.pass.name(c.options.client(from)); why != nil {
		c.refuse(why, nil)
		return
	}
	c.header = h
}

// refuse answers as well as can be, and leaves nothing to read.
func (c *Conn) refuse(why *refusal, err error) {
	c.refused = true
	c.pass.door.refuse(why, c.Conn, err)
	if err := c.Conn.SetDeadline(time.Now().Add(parting)); err != nil {
		return
	}
	if _, err := c.Conn.Write(why.answer(c.options.TLS)); err != nil {
		return
	}
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		_, _ = io.CopyN(io.Discard, c.Conn, maxDiscarded) // closed with bytes unread, it would be reset, and the answer lost
	}
}

const (
	// parting is how long a peer that is refused may take to read why.
	parting = time.Second
	// maxDiscarded is what it may send meanwhile.
	maxDiscarded = 64 << 10
)

// accessDenied is what a client that begins with TLS understands: a fatal alert (RFC 8446, section 6).
var accessDenied = []byte{21, 3, 1, 0, 2, 2, 49}

func (r *refusal) answer(tls bool) []byte {
	if tls {
		return accessDenied
	}
	return fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n\r\n%s\n",
		r.status, http.StatusText(r.status), len(r.text)+1, r.text)
}

// Header is what the proxy in front has said, or nil.
func (c *Conn) Header() *proxyproto.Header {
	if c == nil {
		return nil
	}
	c.meet()
	return c.header
}

// Peer is the other end of the connection itself, whoever it speaks for, and 127.0.0.1 for a unix socket.
func (c *Conn) Peer() netip.Addr { return peer(c.Conn) }

// Pass is what the connection holds of the door's room. It is for whoever uses the connection below alone.
func (c *Conn) Pass() *Pass {
	if c == nil {
		return nil
	}
	return c.pass
}

// NetConn is the connection below.
func (c *Conn) NetConn() net.Conn { return c.Conn }

// RemoteAddr is the client's, as the header says.
func (c *Conn) RemoteAddr() net.Addr {
	if h := c.Header(); h != nil && h.Source.IsValid() {
		return net.TCPAddrFromAddrPort(h.Source)
	}
	return c.Conn.RemoteAddr()
}

// LocalAddr is the address that the client connected to, as the header says.
func (c *Conn) LocalAddr() net.Addr {
	if h := c.Header(); h != nil && h.Destination.IsValid() {
		return net.TCPAddrFromAddrPort(h.Destination)
	}
	return c.Conn.LocalAddr()
}

// Read is net.Conn's. Of a connection that was refused nothing is read.
func (c *Conn) Read(p []byte) (int, error) {
	c.meet()
	if c.refused {
		return 0, io.EOF
	}
	n, err := c.Conn.Read(p)
	if !c.started && n > 0 {
		c.started = true
		if !c.options.Proxy && proxyproto.Begins(p[:n]) {
			c.pass.door.tell(&unasked, c.Conn, nil)
		}
	}
	return n, err
}

// ReadFrom is io.ReaderFrom's: files are sent by the system.
func (c *Conn) ReadFrom(r io.Reader) (int64, error) { return io.Copy(c.Conn, r) }

// CloseWrite ends the sending half.
func (c *Conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Conn.Close()
}

// Close is net.Conn's. The connection's place is free then.
func (c *Conn) Close() error {
	c.pass.Leave()
	return c.Conn.Close()
}

// Bare is the connection below a *Conn whose header has been read, and any other as it is.
func Bare(conn net.Conn) net.Conn {
	if c, ok := conn.(*Conn); ok {
		return c.Conn
	}
	return conn
}

type key struct{}

// Context is for http.Server.ConnContext: requests find their connection there.
func Context(ctx context.Context, conn net.Conn) context.Context {
	for {
		switch c := conn.(type) {
		case *Conn:
			return context.WithValue(ctx, key{}, c)
		case interface{ NetConn() net.Conn }: // TLS
			conn = c.NetConn()
		default:
			return ctx
		}
	}
}

// From is the connection that a request came on, or nil. A nil Conn has neither header nor pass.
func From(ctx context.Context) *Conn {
	c, _ := ctx.Value(key{}).(*Conn)
	return c
}

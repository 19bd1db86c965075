// Package door is what a connection passes between the socket of a listener and its server: its PROXY header is read, and there is
// room for it or not.
package door

import (
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"bridgehead/internal/metrics"
	"bridgehead/internal/seldom"
)

// Options say whom a door lets in.
type Options struct {
	// Proxy wants a PROXY header before anything else, and takes it from trusted peers alone.
	Proxy bool
	// Trusted are the peers that stand for others: proxies in front. Nil: none do.
	Trusted func(netip.Addr) bool
	// Timeout is how long the PROXY header may take.
	Timeout time.Duration
	// TLS is what clients speak behind the header.
	TLS bool
	// Connections is how many may be open, those of WebSockets included; 0: any number.
	Connections int
	// Handshakes is how many connections may be open whose first request has not come; 0: any number.
	Handshakes int
}

// A Door counts the connections of one listener, and takes no more than there is room for. It lives as long as the listener's name.
// Its methods may be called from any goroutine.
type Door struct {
	name    string
	log     *slog.Logger
	told    *seldom.Log
	metrics *metrics.Listener
	options atomic.Pointer[Options]

	mu          sync.Mutex // guards the following
	connections shares
	handshakes  shares
}

// New returns the door of the listener of that name. Nothing is refused until Set.
func New(name string, log *slog.Logger, told *seldom.Log, m *metrics.Listener) *Door {
	d := &Door{name: name, log: log, told: told, metrics: m, connections: newShares(), handshakes: newShares()}
	d.Set(Options{})
	return d
}

// Set puts other options in force, for those who come next.
func (d *Door) Set(o Options) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.connections.max, d.handshakes.max = o.Connections, o.Handshakes
	d.options.Store(&o)
}

// Listener gives the connections of l that there is room for, each as a *Conn. Accept does not wait for what they send.
func (d *Door) Listener(l net.Listener) net.Listener { return listener{l, d} }

type listener struct {
	net.Listener
	door *Door
}

// Accept is net.Listener's.
func (l listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if c := l.door.meet(conn); c != nil {
			return c, nil
		}
	}
}

// meet takes a connection in, or closes it: then it returns nil.
func (d *Door) meet(conn net.Conn) *Conn {
	c := &Conn{Conn: conn, options: d.options.Load(), pass: &Pass{door: d}}
	if !c.options.Proxy {
		c.pass.client = c.options.client(peer(conn))
	}
	if why := d.enter(c.pass); why != nil {
		d.refuse(why, conn, nil)
		conn.Close()
		return nil
	}
	return c
}

// client is whose share a connection from an address counts against: nobody's, if the address may stand for many clients.
func (o *Options) client(a netip.Addr) netip.Addr {
	if a.IsLoopback() || o.Trusted != nil && o.Trusted(a) {
		return netip.Addr{}
	}
	return household(a)
}

// household is an address as clients are counted: whoever has an IPv6 address has a whole /64 of them.
func household(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if !a.Is6() {
		return a
	}
	p, _ := a.Prefix(64)
	return p.Addr()
}

// peer is the other end of a connection, and 127.0.0.1 for a unix socket.
func peer(conn net.Conn) netip.Addr {
	if tcp, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap()
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
}

// refuse counts and tells of a connection that is not let in.
func (d *Door) refuse(why *refusal, conn net.Conn, err error) {
	d.metrics.Refused(why.reason)
	d.tell(why, conn, err)
}

func (d *Door) tell(why *refusal, conn net.Conn, err error) {
	from := peer(conn).String()
	args := []any{"listener", d.name, "reason", why.reason, "peer", from}
	text := why.mend
	if err != nil {
		text = err.Error() + "; " + text
	}
	detail := from
	if why.crowd {
		detail = "" // those that come when there is no room are too many to be told one by one
	}
	d.told.Log(d.log, slog.LevelWarn, seldom.Event{Kind: "door " + d.name + " " + why.reason, Detail: detail}, "connection refused",
		append(args, "error", text)...)
}

// A Pass is what a connection holds of a door's room. A nil Pass holds nothing. Its methods may be called from any goroutine, and
// more than once.
type Pass struct {
	door    *Door
	arrived atomic.Bool
	// client and left are guarded by the door.
	client netip.Addr // zero: nobody's share
	left   bool
}

// enter gives a connection its place.
func (d *Door) enter(p *Pass) *refusal {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, try := range []struct {
		room *shares
		why  [2]*refusal
	}{{&d.connections, [2]*refusal{&full, &greedy}}, {&d.handshakes, [2]*refusal{&busy, &busyFor}}} {
		switch {
		case try.room.isFull():
			return try.why[0]
		case !try.room.has(p.client):
			return try.why[1]
		}
	}
	d.connections.take(p.client)
	d.handshakes.take(p.client)
	d.gaugeLocked()
	return nil
}

// name says whose connection it is, when that is known only behind the PROXY header.
func (p *Pass) name(client netip.Addr) *refusal {
	d := p.door
	d.mu.Lock()
	defer d.mu.Unlock()
	if p.left || !client.IsValid() {
		return nil
	}
	switch {
	case !d.connections.has(client):
		return &greedy
	case !d.handshakes.has(client):
		return &busyFor
	}
	for _, room := range []*shares{&d.connections, &d.handshakes} {
		room.free(p.client)
		room.take(client)
	}
	p.client = client
	return nil
}

// Arrived says that the first request has come.
func (p *Pass) Arrived() {
	if p == nil || p.arrived.Load() {
		return
	}
	p.door.mu.Lock()
	defer p.door.mu.Unlock()
	p.arriveLocked()
}

func (p *Pass) arriveLocked() {
	if !p.arrived.Swap(true) {
		p.door.handshakes.free(p.client)
		p.door.gaugeLocked()
	}
}

// Leave says that the connection has ended.
func (p *Pass) Leave() {
	if p == nil {
		return
	}
	d := p.door
	d.mu.Lock()
	defer d.mu.Unlock()
	if p.left {
		return
	}
	p.left = true
	p.arriveLocked()
	d.connections.free(p.client)
	d.gaugeLocked()
}

func (d *Door) gaugeLocked() { d.metrics.Open(d.connections.total, d.handshakes.total) }

// Shares are a number of places, of which no client may have more than are free. One that asks for many gets half of them, two get
// a third each, and whoever has none finds one, as long as there is any.
type shares struct {
	max   int // 0: no limit
	total int
	held  map[netip.Addr]int
}

func newShares() shares { return shares{held: make(map[netip.Addr]int)} }

func (s *shares) isFull() bool { return s.max > 0 && s.total >= s.max }

// has tells whether a client may have one more. The zero client is not held to a share.
func (s *shares) has(client netip.Addr) bool {
	return s.max == 0 || !client.IsValid() || s.held[client] == 0 || s.held[client] < s.max-s.total
}

func (s *shares) take(client netip.Addr) {
	s.total++
	if client.IsValid() {
		s.held[client]++
	}
}

func (s *shares) free(client netip.Addr) {
	s.total--
	if !client.IsValid() {
		return
	}
	if s.held[client]--; s.held[client] == 0 {
		delete(s.held, client)
	}
}

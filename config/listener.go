package config

import (
	"net"
	"net/netip"
	"strconv"
	"time"

	"bridgehead/internal/unit"
	"bridgehead/internal/yamlpos"
)

// A Listener is one address to accept clients on.
type Listener struct {
	// A name for `listeners` in routes and for the log. Default: the address.
	Name string `yaml:"name"`
	// Where to listen: `host:port`, or `":8080"` in quotes for every address of this machine.
	Address string `yaml:"address"`
	// Whether clients speak TLS here; its certificates come from `certificates`.
	TLS bool `yaml:"tls"`
	// Whether clients may speak HTTP/2 here too, and open their WebSockets by it (RFC 8441). A listener without TLS takes those that
	// know it does (h2c with prior knowledge).
	HTTP2 bool `yaml:"http2"`
	// Answer every request with a redirect to https instead of serving routes.
	Redirect bool `yaml:"redirect"`
	// How long a client may take for its TLS handshake, and for the head of a request.
	HeaderTimeout time.Duration `yaml:"header_timeout"`
	// How long a client may take for a whole request with its body; on a route with `http: true`, for each part of the body.
	BodyTimeout time.Duration `yaml:"body_timeout"`
	// The largest head of a request.
	HeaderSize unit.Size `yaml:"header_size"`
	// The largest body of a request; handshakes have none.
	BodySize unit.Size `yaml:"body_size"`
	// How long an idle connection between requests is kept.
	KeepAlive time.Duration `yaml:"keep_alive"`
}

// DefaultListener has the values of keys that are not given.
func DefaultListener() Listener {
	return Listener{
		HeaderTimeout: 10 * time.Second, BodyTimeout: 30 * time.Second, KeepAlive: time.Minute,
		HeaderSize: 64 * unit.KiB, BodySize: unit.MiB,
	}
}

// defaultListeners serve a file that names none: host and backend make a complete one.
func defaultListeners() []Listener {
	public, redirect := DefaultListener(), DefaultListener()
	public.Name, public.Address, public.TLS = "https", ":443", true
	redirect.Name, redirect.Address, redirect.Redirect = "http", ":80", true
	return []Listener{public, redirect}
}

// Validate reports what cannot work. It looks and never acts.
func (l *Listener) Validate(at yamlpos.Path, p *yamlpos.Problems) {
	if err := checkAddress(l.Address); err != "" {
		p.Add(at.Key("address"), "%s", err)
	}
	if l.TLS && l.Redirect {
		p.Add(at.Key("redirect"), "must not stand beside tls: clients are redirected to https, which they speak here already")
	}
	if l.HeaderTimeout <= 0 {
		p.Add(at.Key("header_timeout"), "must not be off: clients that send nothing would hold connections for ever")
	}
	if l.HeaderSize <= 0 {
		p.Add(at.Key("header_size"), "must not be off: it bounds the memory that a client can take")
	}
}

// checkAddress tells what is wrong with an address to listen on, or "".
func checkAddress(address string) string {
	if address == "" {
		return `is missing: write host:port, or ":443" for all addresses of this machine`
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return strconv.Quote(address) + ` is no address: write host:port, or ":443" for all addresses of this machine`
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return strconv.Quote(address) + " has no port from 0 to 65535"
	}
	return ""
}

// isLoopback tells whether only this machine can reach an address to listen on.
func isLoopback(address string) bool {
	host, _, _ := net.SplitHostPort(address)
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback() || host == "localhost"
}

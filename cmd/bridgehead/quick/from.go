package quick

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"bridgehead/routes"
)

// from is where clients connect.
type from struct {
	secure     bool
	host, port string // host is "" for every address of this machine
	path       string // "" for every path
}

// secureSchemes are the schemes that --from may have: whether they mean TLS, and their port if none is given.
var secureSchemes = map[string]struct {
	secure bool
	port   string
}{"wss": {true, "443"}, "https": {true, "443"}, "ws": {false, "80"}, "http": {false, "80"}}

// parseFrom reads `:port`, `port`, `host:port`, or a URL with ws, wss, http or https.
func parseFrom(s string) (from, error) {
	scheme, rest, isURL := strings.Cut(s, "://")
	if !isURL {
		scheme, rest = "wss", s
	}
	kind, ok := secureSchemes[strings.ToLower(scheme)]
	if !ok {
		return from{}, fmt.Errorf("--from %q has the scheme %q: clients connect by wss:// or, without TLS, ws://", s, scheme)
	}
	authority, path, hasPath := strings.Cut(rest, "/")
	f := from{secure: kind.secure}
	if hasPath && path != "" {
		f.path = "/" + path
	}
	if _, err := routes.Parse("", f.path); err != nil {
		return from{}, fmt.Errorf("--from: %w", err)
	}
	switch _, _, err := net.SplitHostPort(authority); {
	case isURL && err != nil:
		authority += ":" + kind.port
	case strings.Trim(authority, "0123456789") == "":
		authority = ":" + authority
	}
	return f, f.setAuthority(s, authority)
}

// setAuthority reads `host:port`; the host may be empty.
func (f *from) setAuthority(s, authority string) (err error) {
	f.host, f.port, err = net.SplitHostPort(authority)
	if err != nil || !isHost(f.host) {
		return fmt.Errorf("--from %q is no address: write :8443, 127.0.0.1:8443 or wss://:8443/path, IPv6 in brackets", s)
	}
	if _, err := strconv.ParseUint(f.port, 10, 16); err != nil {
		return fmt.Errorf("--from %q has no port from 0 to 65535: write one behind the host, as in %s:8443", s, f.host)
	}
	return nil
}

// isHost tells whether a listener may be at s: everywhere, at an address, or at a name.
func isHost(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return true
	}
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-") == ""
}

// address is what to listen on.
func (f *from) address() string { return net.JoinHostPort(f.host, f.port) }

// local tells whether only this machine reaches it.
func (f *from) local() bool {
	ip, err := netip.ParseAddr(f.host)
	return f.host == "localhost" || err == nil && ip.IsLoopback()
}

// everywhere tells whether it is at every address of this machine.
func (f *from) everywhere() bool {
	ip, err := netip.ParseAddr(f.host)
	return f.host == "" || err == nil && ip.IsUnspecified()
}

package admin

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"bridgehead/internal/sockets"
)

// unixScheme begins an address that is a unix socket.
const unixScheme = "unix:"

// An address is where a listener is: `host:port`, or `unix:/path`.
type address struct {
	path       string // of the unix socket; else "" and
	host, port string
}

func parseAddress(s string) (address, error) {
	if path, ok := strings.CutPrefix(s, unixScheme); ok {
		if err := sockets.CheckPath(path); err != nil {
			return address{}, fmt.Errorf("%q %w", s, err)
		}
		return address{path: path}, nil
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return address{}, fmt.Errorf("%q is no address: write host:port or unix:/path", s)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return address{}, fmt.Errorf("%q: the port must be a number from 0 to 65535", s)
	}
	if strings.ContainsAny(host, "/ ") {
		return address{}, fmt.Errorf("%q: %q is no host: write host:port or unix:/path", s, host)
	}
	return address{host: host, port: port}, nil
}

// isLocal tells whether only clients on this machine reach the address.
func (a address) isLocal() bool {
	ip, err := netip.ParseAddr(a.host)
	return a.path != "" || a.host == "localhost" || err == nil && ip.IsLoopback()
}

// Listen listens on `host:port` or `unix:/path`. A unix socket is for this user alone; one that nobody answers on any more is
// replaced. Closing the listener removes it.
func Listen(addr string) (net.Listener, error) {
	a, err := parseAddress(addr)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	if a.path == "" {
		return net.Listen("tcp", addr)
	}
	return sockets.Listen(a.path, sockets.Private)
}

// Client gives a client for the listener at an address as Listen takes it, and the base of its URLs. An address of all
// interfaces is reached by loopback, and what is no address is an error of every request.
func Client(addr string) (client *http.Client, base string) {
	transport := &http.Transport{DisableKeepAlives: true}
	client = &http.Client{Transport: transport, Timeout: MaxWait + 5*time.Second}
	a, err := parseAddress(addr)
	if err == nil && a.path == "" {
		return client, "http://" + net.JoinHostPort(a.reachableHost(), a.port)
	}
	transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		if err != nil {
			return nil, err // the address is none
		}
		return new(net.Dialer).DialContext(ctx, "unix", a.path)
	}
	return client, "http://localhost"
}

func (a address) reachableHost() string {
	ip, err := netip.ParseAddr(a.host)
	switch {
	case a.host == "", err == nil && ip.Is4() && ip.IsUnspecified():
		return "127.0.0.1"
	case err == nil && ip.IsUnspecified():
		return "::1"
	}
	return a.host
}

package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// maxSocketPath is the longest path of a unix socket, in bytes, that all systems take.
const maxSocketPath = 104

// unixScheme begins an address that is a unix socket.
const unixScheme = "unix:"

// An address is where a listener is: `host:port`, or `unix:/path`.
type address struct {
	path       string // of the unix socket; else "" and
	host, port string
}

func parseAddress(s string) (address, error) {
	if path, ok := strings.CutPrefix(s, unixScheme); ok {
		switch {
		case path == "":
			return address{}, fmt.Errorf("%q has no path: write unix:/path", s)
		case len(path) > maxSocketPath:
			return address{}, fmt.Errorf("%q is too long: the path of a unix socket has at most %d bytes, not %d",
				s, maxSocketPath, len(path))
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
	if err := removeStale(a.path); err != nil {
		return nil, fmt.Errorf("listen %s: %w", addr, err)
	}
	l, err := net.Listen("unix", a.path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(a.path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("listen %s: %w", addr, err), l.Close())
	}
	return l, nil
}

// removeStale removes the socket that a program left when it was killed.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return errors.New("a file that is no socket is in the way: remove it, or choose another path")
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		return errors.Join(errors.New("another program answers there: stop it first, or choose another path"), conn.Close())
	case !errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("is the socket that is there in use? %w", err)
	}
	return os.Remove(path)
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

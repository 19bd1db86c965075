package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"

	"bridgehead/policy"
)

// A Target is one server as a bridge reaches it. It is immutable.
type Target struct {
	network string // tcp or unix
	address string // host:port, or the path of a socket
	host    string // as in the URL, for the Host header
	tls     *tls.Config

	scheme      string
	path, query policy.Template
	fixed       bool // the URL has a path or query, which replaces the client's
}

// schemes are the URL schemes that a server may have: whether they mean TLS, and their default port.
var schemes = map[string]struct {
	secure bool
	port   string
}{
	"ws": {false, "80"}, "wss": {true, "443"}, "http": {false, "80"}, "https": {true, "443"},
	"tcp": {false, ""}, "tls": {true, ""}, "unix": {false, ""},
}

// parse reads `scheme://host:port/path?query`, `host:port`, or `unix:/path`.
func parse(s string) (*Target, error) {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		path = strings.TrimPrefix(path, "//")
		if path == "" {
			return nil, fmt.Errorf("%q names no socket: write unix:/path/to/socket", s)
		}
		return &Target{scheme: "unix", network: "unix", address: path}, nil
	}
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		scheme, rest = "tcp", s
	}
	authority, tail := rest, ""
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		authority, tail = rest[:i], rest[i:]
	}
	t := &Target{scheme: scheme, network: "tcp", host: authority}
	if err := t.setAuthority(s); err != nil {
		return nil, err
	}
	return t, t.setTail(s, tail)
}

func (t *Target) setAuthority(s string) error {
	kind, ok := schemes[t.scheme]
	switch {
	case !ok:
		return fmt.Errorf("%q has the unknown scheme %q", s, t.scheme)
	case strings.ContainsAny(t.host, "{}"):
		return fmt.Errorf("%q has a capture in its host: a client must not choose the server", s)
	case strings.Contains(t.host, "@"):
		return fmt.Errorf("%q holds a user name: set an Authorization header instead", s)
	}
	host, port := t.host, kind.port
	if h, p, err := net.SplitHostPort(t.host); err == nil {
		host, port = h, p
	} else {
		host = strings.Trim(host, "[]")
	}
	if host == "" || port == "" {
		return fmt.Errorf("%q needs a host and a port", s)
	}
	if _, err := net.LookupPort("tcp", port); err != nil {
		return fmt.Errorf("%q has the bad port %q", s, port)
	}
	t.address = net.JoinHostPort(host, port)
	if kind.secure {
		t.tls = &tls.Config{ServerName: host}
	}
	return nil
}

func (t *Target) setTail(s, tail string) (err error) {
	path, query, _ := strings.Cut(tail, "?")
	switch {
	case strings.Contains(tail, "#"):
		return fmt.Errorf("%q has a fragment, which is never sent", s)
	case tail != "" && !slices.Contains([]string{"ws", "wss", "http", "https"}, t.scheme):
		return fmt.Errorf("%q has a path, which a stream does not know", s)
	}
	t.fixed = tail != ""
	if t.path, err = policy.ParseTemplate(path); err != nil {
		return fmt.Errorf("%q: %w", s, err)
	}
	if t.query, err = policy.ParseTemplate(query); err != nil {
		return fmt.Errorf("%q: %w", s, err)
	}
	return nil
}

// errDots refuses what a server would resolve to another path than the one the route matched.
var errDots = errors.New("the path holds a dot segment")

// URL is where this client's handshake goes: the target's own path and query with the client's values in them,
// percent-encoded, or without these the client's, unchanged. Its error is the client's fault.
func (t *Target) URL(f *policy.Facts) (*url.URL, error) {
	u := &url.URL{Scheme: t.scheme, Host: t.host}
	path, query := f.Request.URL.EscapedPath(), f.Request.URL.RawQuery
	if t.fixed {
		var err error
		if path, err = t.path.Expand(f, url.PathEscape); err != nil {
			return nil, err
		}
		if query, err = t.query.Expand(f, url.QueryEscape); err != nil {
			return nil, err
		}
	}
	decoded, err := url.PathUnescape(path)
	if err != nil {
		return nil, fmt.Errorf("path %q: %w", path, err)
	}
	if slices.ContainsFunc(strings.Split(decoded, "/"), func(s string) bool { return s == "." || s == ".." }) {
		return nil, errDots
	}
	if !strings.HasPrefix(path, "/") {
		path, decoded = "/"+path, "/"+decoded
	}
	u.Path, u.RawPath, u.RawQuery = decoded, path, query
	return u, nil
}

// Dial connects, with TLS where the scheme asks for it.
func (t *Target) Dial(ctx context.Context) (net.Conn, error) { return t.DialAfter(ctx, nil) }

// DialAfter connects and gives the bare connection to preamble before the first byte of TLS. ctx bounds all of it.
func (t *Target) DialAfter(ctx context.Context, preamble func(net.Conn) error) (_ net.Conn, err error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, t.network, t.address)
	if err != nil {
		return nil, err // it says what was dialled
	}
	defer func() {
		if err != nil {
			conn.Close()
		}
	}()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if preamble != nil {
		if err := preamble(conn); err != nil {
			return nil, fmt.Errorf("preamble to %s: %w", t.address, err)
		}
	}
	if t.tls == nil {
		return conn, nil
	}
	secure := tls.Client(conn, t.tls)
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("TLS with %s: %w", t.address, err)
	}
	return secure, nil
}

// Address is where the target is, for logs.
func (t *Target) Address() string { return t.address }

// Host is the target's authority as it is written in its URL, for the Host header.
func (t *Target) Host() string { return t.host }

// Captures are the names that the target's URL takes from a route's host and path.
func (t *Target) Captures() []string { return append(t.path.Captures(), t.query.Captures()...) }

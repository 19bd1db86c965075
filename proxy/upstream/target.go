package upstream

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"bridgehead/policy"
)

// A Target is one server as a bridge reaches it. It is immutable.
type Target struct {
	key     string // the URL as it is written
	group   string // the entry of upstreams that lists it; "" if a route does
	network string // tcp or unix
	address string // host:port, or the path of a socket
	name    string // the host, if it is a name and no address
	port    string
	found   host     // where the name leads, if that is known
	ways    []string // to it, each an address with the port
	host    string   // as in the URL, for the Host header
	tls     *tls.Config

	scheme      string
	path, query policy.Template
	rest        policy.Template // ends the path: the capture that stands for the rest of the client's, whose slashes are slashes
	fixed       bool            // the URL has a path or query, which replaces the client's
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
	t, err := parseURL(s)
	if err != nil {
		return nil, err
	}
	t.key = s
	return t, nil
}

func parseURL(s string) (*Target, error) {
	if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7F }) {
		return nil, fmt.Errorf("%q holds white space", s)
	}
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		return parseUnix(s, strings.TrimPrefix(path, "//"))
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
	if err := t.setTail(s, tail); err != nil {
		return nil, err
	}
	return t, nil
}

func parseUnix(s, path string) (*Target, error) {
	switch {
	case path == "":
		return nil, fmt.Errorf("%q names no socket: write unix:/path/to/socket", s)
	case strings.ContainsAny(path, "{}"):
		return nil, captureInHost(s)
	}
	return &Target{scheme: "unix", network: "unix", address: path}, nil
}

func captureInHost(s string) error {
	return fmt.Errorf("%q has a capture in its host: a client must not choose the server", s)
}

func (t *Target) setAuthority(s string) error {
	kind, ok := schemes[t.scheme]
	switch {
	case !ok:
		return fmt.Errorf("%q has the unknown scheme %q: write ws, wss, http, https, tcp, tls or unix", s, t.scheme)
	case strings.ContainsAny(t.host, "{}"):
		return captureInHost(s)
	case strings.Contains(t.host, "@"): // the error does not quote it: there may be a password in it
		return fmt.Errorf("a URL with the scheme %s holds a user name: set an Authorization header instead", t.scheme)
	}
	host, port, err := net.SplitHostPort(t.host)
	if err != nil {
		host, port, err = net.SplitHostPort(t.host + ":" + kind.port)
	}
	switch n, portErr := strconv.ParseUint(port, 10, 16); {
	case err == nil && (host == "" || port == ""):
		return fmt.Errorf("%q needs a host and a port: write host:port", s)
	case err != nil || !isHost(host, strings.HasPrefix(t.host, "[")):
		return fmt.Errorf("%q has the bad host %q: write a name or an address, IPv6 in brackets", s, t.host)
	case portErr != nil || n == 0:
		return fmt.Errorf("%q has the bad port %q: write a number from 1 to 65535", s, port)
	}
	t.address, t.port = net.JoinHostPort(host, port), port
	if _, err := netip.ParseAddr(host); err != nil {
		t.name = host
	}
	if kind.secure {
		t.tls = &tls.Config{ServerName: host}
	}
	return nil
}

// isHost tells whether s is an address or what may be a name; IPv6 stands in brackets, and nothing else does (RFC 3986, section
// 3.2.2).
func isHost(s string, bracketed bool) bool {
	addr, err := netip.ParseAddr(s)
	if err != nil {
		return !bracketed && strings.Trim(s, letters+"-_.") == ""
	}
	return addr.Is6() == bracketed
}

const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

// restCapture ends a path with the capture that ends the route's: `/files/{rest...}`.
var restCapture = regexp.MustCompile(`^(.*)\{(\w+)\.\.\.\}$`)

func (t *Target) setTail(s, tail string) (err error) {
	path, query, _ := strings.Cut(tail, "?")
	decoded, escapes := url.PathUnescape(path)
	switch {
	case strings.Contains(tail, "#"):
		return fmt.Errorf("%q has a fragment, which is never sent", s)
	case tail != "" && !slices.Contains([]string{"ws", "wss", "http", "https"}, t.scheme):
		return fmt.Errorf("%q has a path, which a stream does not know", s)
	case escapes != nil:
		return fmt.Errorf("%q: %w", s, escapes)
	case dotted(decoded):
		return fmt.Errorf("%q: %w", s, errDots)
	}
	t.fixed = tail != ""
	if m := restCapture.FindStringSubmatch(path); m != nil {
		path = m[1]
		if t.rest, err = policy.ParseTemplate("{" + m[2] + "}"); err != nil || len(t.rest.Captures()) == 0 {
			return fmt.Errorf("%q: {%s...} is no capture of a path", s, m[2])
		}
	}
	if t.path, err = policy.ParseTemplate(path); err != nil {
		return fmt.Errorf("%q: %w", s, err)
	}
	if t.query, err = policy.ParseTemplate(query); err != nil {
		return fmt.Errorf("%q: %w", s, err)
	}
	return nil
}

// URL is where this client's handshake goes: the target's own path and query with the client's values in them,
// percent-encoded, or without these the client's, unchanged. Its error is the client's fault.
func (t *Target) URL(f *policy.Facts) (*url.URL, error) {
	path, query, err := t.expand(f)
	if err != nil {
		return nil, err
	}
	decoded, err := url.PathUnescape(path)
	if err != nil {
		return nil, fmt.Errorf("path %q: %w", path, err)
	}
	if dotted(decoded) {
		return nil, errDots
	}
	if !strings.HasPrefix(path, "/") {
		path, decoded = "/"+path, "/"+decoded
	}
	u := &url.URL{Scheme: t.scheme, Host: t.host, Path: decoded, RawPath: path, RawQuery: query}
	u.ForceQuery = !t.fixed && f.Request.URL.ForceQuery // a `?` with nothing behind it
	return u, nil
}

// expand gives the path and the query, both encoded.
func (t *Target) expand(f *policy.Facts) (path, query string, err error) {
	if !t.fixed {
		return f.Request.URL.EscapedPath(), f.Request.URL.RawQuery, nil
	}
	if path, err = t.path.Expand(f, url.PathEscape); err != nil {
		return "", "", err
	}
	rest, err := t.rest.Expand(f, escapeSegments)
	if err != nil {
		return "", "", err
	}
	if query, err = t.query.Expand(f, url.QueryEscape); err != nil {
		return "", "", err
	}
	return encoded(path + rest), query, nil
}

// escapeSegments keeps the slashes of a capture that stands for the rest of a path: it holds none that came encoded.
func escapeSegments(s string) string { return strings.ReplaceAll(url.PathEscape(s), "%2F", "/") }

// encoded percent-encodes what a path cannot hold (RFC 3986, section 3.3) and leaves the rest as it is. A [url.URL] whose RawPath
// is not valid would be encoded anew from its Path, where a slash that a client sent encoded has become a real one.
func encoded(path string) string {
	const valid = letters + "-._~!$&'()*+,;=:@[]/%"
	var b strings.Builder
	for i := range len(path) {
		if c := path[i]; strings.IndexByte(valid, c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// errDots refuses what a server would resolve to another path than the one the route matched.
var errDots = errors.New("the path holds a dot segment")

// dotted tells whether a server may find a dot segment (RFC 3986, section 3.3) in a decoded path: also behind a backslash, or in
// front of parameters (`..;x`).
func dotted(path string) bool {
	for segment := range strings.SplitSeq(strings.ReplaceAll(path, `\`, "/"), "/") {
		if name, _, _ := strings.Cut(segment, ";"); name == "." || name == ".." {
			return true
		}
	}
	return false
}

// at is the target at one of the servers that its name stands for.
func (t *Target) at(h host) *Target {
	c := *t
	c.found, c.ways = h, nil
	for _, a := range h.ways {
		c.ways = append(c.ways, net.JoinHostPort(a.String(), t.port))
	}
	return &c
}

// Key names the target among those of its group.
func (t *Target) Key() string { return t.key }

// Address is where the target is, for logs.
func (t *Target) Address() string {
	if t.found.addr.IsValid() {
		return t.address + " (" + t.found.addr.String() + ")"
	}
	return t.address
}

// Host is the target's authority as it is written in its URL, for the Host header.
func (t *Target) Host() string { return t.host }

// Captures are the names that the target's URL takes from a route's host and path.
func (t *Target) Captures() []string {
	return slices.Concat(t.path.Captures(), t.rest.Captures(), t.query.Captures())
}

package policy

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
)

// Origins decides which pages may open a WebSocket, by the Origin header that browsers send (RFC 6455, sections 4.2.2 and 10.2).
// It is made once and may be used from any goroutine.
type Origins struct {
	any, null    bool
	entries      []originPattern // in the order of the list
	exact        map[origin]bool // those that stand for one origin alone
	require      bool
	self         bool // the page's host and port may be those of the Host header
	routeHasHost bool
}

// NewOrigins allows the listed origins: `https://chat.example.com`, `https://*.example.com` (any names in front, but not the bare
// domain), `http://localhost:*` (any port), `null`, `self`, and `*` for every page. `self`, which stands for an empty list too,
// allows pages of the same host and port as the Host header, whatever the scheme, since TLS may end in front of us; on a route
// without a host, only if that is localhost or an IP address: any other name could be made to lead here (DNS rebinding).
//
// A request without Origin comes from no browser and passes, unless require is set.
func NewOrigins(allow []string, require bool, routeHasHost bool) (*Origins, error) {
	o := &Origins{exact: map[origin]bool{}, require: require, self: len(allow) == 0, routeHasHost: routeHasHost}
	for _, s := range allow {
		switch s {
		case "*":
			o.any = true
			continue
		case "null":
			o.null = true
			continue
		case "self":
			o.self = true
			continue
		}
		p, err := parseOriginPattern(s)
		if err != nil {
			return nil, err
		}
		o.entries = append(o.entries, p)
		if !p.anyPort && !p.below {
			o.exact[p.origin] = true
		}
	}
	return o, nil
}

// CheckOrigin tells what is wrong with an entry of the list of origins.
func CheckOrigin(s string) error {
	_, err := NewOrigins([]string{s}, false, false)
	return err
}

// Check tells why the page behind r may not open a WebSocket. The error names the mend; it is a [*Forbidden] if that is to list the
// origin.
func (o *Origins) Check(r *http.Request) error {
	lines := r.Header["Origin"]
	if len(lines) == 0 {
		if o.require {
			return errors.New("the Origin header is missing; send one, or switch require_origin off")
		}
		return nil
	}
	if len(lines) > 1 {
		return fmt.Errorf("%d Origin headers came (%q): send one", len(lines), lines)
	}
	text := lines[0]
	if o.any || o.null && text == "null" {
		return nil
	}
	if text == "null" {
		return &Forbidden{Origin: text, Hint: hintOfFiles}
	}
	got, err := parseOrigin(text)
	switch {
	case err != nil:
		return fmt.Errorf("origin %.300q is not allowed: %w", text, err)
	case o.listed(got) || o.self && o.reaches(got, r.Host):
		return nil
	}
	return &Forbidden{Origin: text, Hint: o.hint(got, r)}
}

// Vouch tells why a cookie of r does not count as its visitor's own: no Origin came that is allowed by name. A browser adds cookies
// whichever page asks, so that `*` and `null`, behind which anybody may stand, allow a page without its visitor.
func (o *Origins) Vouch(r *http.Request) error {
	lines := r.Header["Origin"]
	if len(lines) == 0 {
		return errors.New("the request has no Origin header, which every browser sends")
	}
	if err := o.Check(r); err != nil {
		return err
	}
	if got, err := parseOrigin(lines[0]); err == nil && (o.listed(got) || o.self && o.reaches(got, r.Host)) {
		return nil
	}
	return fmt.Errorf("the origin %.300q is let in by * or null alone: list it under origins", lines[0])
}

// Any tells whether every page may.
func (o *Origins) Any() bool { return o.any }

func (o *Origins) listed(got origin) bool {
	if o.exact[got] {
		return true
	}
	for _, p := range o.entries {
		if p.match(got) {
			return true
		}
	}
	return false
}

// reaches tells whether the page comes from where its request went, and may.
func (o *Origins) reaches(got origin, hostHeader string) bool {
	return sameHost(got, hostHeader) && (o.routeHasHost || got.host == "localhost" || isIP(got.host))
}

// sameHost tells whether the page's host and port are those of the Host header, whose port is the scheme's own if it gives none.
func sameHost(got origin, hostHeader string) bool {
	host, port, err := parseAuthority(strings.ToLower(hostHeader))
	if port == 0 {
		port = defaultPorts[got.scheme]
	}
	return err == nil && host != "" && host == got.host && port == got.port
}

// An origin is the scheme, host and port of a page (RFC 6454), in lower case; the port is the scheme's own if none was given, and
// 0 if the scheme has none.
type origin struct {
	scheme, host string
	port         uint16
}

var defaultPorts = map[string]uint16{"http": 80, "ws": 80, "https": 443, "wss": 443}

// parseOrigin reads an Origin, and takes nothing but a scheme, a host in ASCII, and a port.
func parseOrigin(s string) (origin, error) {
	scheme, authority, ok := strings.Cut(strings.ToLower(s), "://")
	if !ok || scheme == "" || strings.Trim(scheme, "abcdefghijklmnopqrstuvwxyz0123456789+-.") != "" {
		return origin{}, errors.New("it must read scheme://host or scheme://host:port")
	}
	host, port, err := parseAuthority(authority)
	if err != nil {
		return origin{}, err
	}
	if port == 0 {
		port = defaultPorts[scheme]
	}
	if host == "" && (scheme != "file" || port != 0) { // pages from files say `file://`
		return origin{}, errors.New("it has no host")
	}
	return origin{scheme, host, port}, nil
}

// parseAuthority reads `host` or `host:port`. The host is a name, an IPv4 address or an IPv6 address in brackets, which comes back
// canonical and without them; the port is 0 if none was given. Userinfo, paths, spaces and whatever else do not belong there.
func parseAuthority(s string) (host string, port uint16, err error) {
	host = s
	if i := strings.LastIndexByte(s, ':'); i > strings.LastIndexByte(s, ']') {
		digits := s[i+1:]
		host = s[:i]
		n, err := strconv.ParseUint(digits, 10, 16)
		if err != nil || n == 0 || digits != strconv.FormatUint(n, 10) {
			return "", 0, fmt.Errorf("%q is no port", digits)
		}
		port = uint16(n)
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		addr, err := netip.ParseAddr(strings.TrimSuffix(inner, "]"))
		if err != nil || !addr.Is6() || addr.Zone() != "" || !strings.HasSuffix(inner, "]") {
			return "", 0, fmt.Errorf("%q is no IPv6 address in brackets", host)
		}
		return addr.String(), port, nil
	}
	if strings.Trim(host, "abcdefghijklmnopqrstuvwxyz0123456789.-_") != "" {
		return "", 0, errors.New("there must be nothing but a host and a port behind the scheme: no path, no user, " +
			"and names beyond ASCII in their xn-- form")
	}
	if strings.HasPrefix(host, ".") || strings.Contains(host, "..") {
		return "", 0, fmt.Errorf("%q is no host", host)
	}
	return host, port, nil
}

func isIP(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
}

// An originPattern is one entry of the list that stands for an origin or many.
type originPattern struct {
	origin
	text    string // as it was written
	below   bool   // any names below the host, not the host itself
	anyPort bool
}

func parseOriginPattern(s string) (originPattern, error) {
	p := originPattern{text: s}
	text := s
	if scheme, host, ok := strings.Cut(text, "://*."); ok {
		p.below, text = true, scheme+"://"+host
	}
	if host, ok := strings.CutSuffix(text, ":*"); ok {
		p.anyPort, text = true, host+":1" // stands for them all
	}
	var err error
	if p.origin, err = parseOrigin(text); err != nil {
		return originPattern{}, fmt.Errorf("origin %q: %w; write it like https://chat.example.com, https://*.example.com, "+
			"http://localhost:*, self, null or *", s, err)
	}
	if p.below && isIP(p.host) {
		return originPattern{}, fmt.Errorf("origin %q: nothing is below an IP address", s)
	}
	return p, nil
}

func (p originPattern) match(got origin) bool {
	return p.scheme == got.scheme && (p.anyPort || p.port == got.port) && p.matchHost(got)
}

func (p originPattern) matchHost(got origin) bool {
	if !p.below {
		return p.host == got.host
	}
	names, ok := strings.CutSuffix(got.host, p.host)
	return ok && strings.HasSuffix(names, ".") && !isIP(got.host)
}

package policy

import (
	"crypto/x509"
	"fmt"
	"net/http"
	"net/netip"
	"regexp"
	"strings"

	"bridgehead/internal/door"
	"bridgehead/internal/proxyproto"
	"bridgehead/routes"
)

// Facts are what is known of a client in its handshake: the material of values, limits and headers.
type Facts struct {
	Request      *http.Request // with the captures of host and path as its path values; nil once the socket is open
	ConnID       string        // the connection's id
	Client       netip.Addr    // the true client: the peer, or what a trusted proxy said
	TLS          bool          // the client's side is TLS, here or as a trusted proxy said
	User         string        // "" until somebody knows
	Claims       Claims        // what a token said of the user
	Told         Claims        // those of them that backends are told
	Subprotocols []string      // what the client offered, in its order

	// Listener is the name of the one that the client came to, and Host what its Host header named, as routes compare it.
	Listener, Host string
	// Chains are the verified ones of the certificate that the client has proven to be its own, from that to the root; nil: it has
	// shown none. They are the TLS connection's, and must not be changed.
	Chains [][]*x509.Certificate
}

// Certificate is the client's own; nil: it has shown none.
func (f *Facts) Certificate() *x509.Certificate {
	if len(f.Chains) == 0 {
		return nil
	}
	return f.Chains[0][0]
}

// A source is where a value is taken from: its name in the configuration, how its names are written ("" if it has none), and
// the look-up itself, which gives "" for what is not there.
type source struct {
	name  string
	names *regexp.Regexp // what may follow the dot; nil: nothing does
	asks  bool           // it looks into the request, which is gone once the socket is open
	late  bool           // it is known only when the client has authenticated
	get   func(f *Facts, name string) string
}

var (
	tokens     = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$") // RFC 9110, section 5.6.2
	words      = regexp.MustCompile(`^[^\s{}]+$`)
	identifier = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	headers    = regexp.MustCompile("^(?:" + strings.Join(proxyproto.Names, "|") + "|0x[0-9A-Fa-f]{2})$")
)

// sources are the values of a handshake; any other identifier is a capture.
var sources = []source{
	{"client.ip", nil, false, false, func(f *Facts, _ string) string { return addrText(f.Client) }},
	{"user", nil, false, true, func(f *Facts, _ string) string { return f.User }},
	{"host", nil, true, false, func(f *Facts, _ string) string { return routes.Hostname(f.Request.Host) }},
	{"conn.id", nil, false, false, func(f *Facts, _ string) string { return f.ConnID }},
	{"cert", words, false, false, ofCertificate},
	{"claim", words, false, true, func(f *Facts, name string) string { return strings.Join(f.Claims.Texts(name), ",") }},
	{"header", tokens, true, false, func(f *Facts, name string) string { return strings.Join(f.Request.Header.Values(name), ", ") }},
	{"cookie", tokens, true, false, cookie},
	{"query", words, true, false, func(f *Facts, name string) string { return f.Request.URL.Query().Get(name) }},
	{"subprotocol", tokens, false, false, afterMarker},
	{"proxy", headers, true, false, func(f *Facts, name string) string { return door.From(f.Request.Context()).Header().Value(name) }},
}

var capture = source{name: "capture", asks: true, get: func(f *Facts, name string) string { return f.Request.PathValue(name) }}

// A Value names one thing that a handshake says, such as `client.ip`, `header.x-tenant` or the capture `room`. The zero Value is
// none.
type Value struct {
	source *source
	name   string // of the claim, header, cookie, query parameter, subprotocol or capture
}

// ParseValue reads one of `client.ip`, `user`, `host`, `conn.id`, `cert.x` (what the client's certificate says), `claim.x`, `header.x`,
// `cookie.x`, `query.x`, `subprotocol.x` (the token that follows the marker x in the client's offer), `proxy.x` (what the PROXY header says
// under x); any other identifier names a capture of the route's host or path.
func ParseValue(s string) (Value, error) {
	kind, name, dotted := strings.Cut(s, ".")
	for i := range sources {
		src := &sources[i]
		switch {
		case src.names == nil && src.name == s:
			return Value{source: src}, nil
		case src.names == nil || src.name != kind || !dotted:
			continue
		case kind == "cert" && certificateFields[name] == nil:
			return Value{}, fmt.Errorf("value %q is unknown: of a client's certificate there are %s", s, certificateList)
		case !src.names.MatchString(name) && kind == "proxy":
			return Value{}, fmt.Errorf("value %q: of a PROXY header there are %s, and any type by its number, such as 0xea",
				s, strings.Join(proxyproto.Names, ", "))
		case !src.names.MatchString(name):
			return Value{}, fmt.Errorf("value %q: %q cannot be the name of a %s", s, name, kind)
		case kind == "header" && strings.EqualFold(name, "host"):
			return Value{}, fmt.Errorf("value %q: write host", s)
		}
		return Value{src, name}, nil
	}
	if identifier.MatchString(s) {
		return Value{&capture, s}, nil
	}
	return Value{}, fmt.Errorf("value %q is unknown: there are client.ip, user, host, conn.id, cert.NAME, claim.NAME, header.NAME, "+
		"cookie.NAME, query.NAME, subprotocol.NAME, proxy.NAME and the captures of the route's host and path", s)
}

// String is the value as the configuration writes it.
func (v Value) String() string {
	switch {
	case v.source == nil:
		return ""
	case v.source == &capture:
		return v.name
	case v.name == "":
		return v.source.name
	}
	return v.source.name + "." + v.name
}

// Of is what the handshake says; false if it says nothing, or nothing but the empty text, or if that is not known any more.
func (v Value) Of(f *Facts) (string, bool) {
	if v.source == nil || v.source.asks && f.Request == nil {
		return "", false
	}
	s := v.source.get(f, v.name)
	return s, s != ""
}

// OfIdentity tells whether the value is known only when the client has authenticated: its user or one of its claims.
func (v Value) OfIdentity() bool { return v.source != nil && v.source.late }

// Claim is the name of the claim that this value is, else "".
func (v Value) Claim() string {
	if v.source != nil && v.source.name == "claim" {
		return v.name
	}
	return ""
}

// Capture is the name of the capture that this value is, else "".
func (v Value) Capture() string {
	if v.source == &capture {
		return v.name
	}
	return ""
}

func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return plain(a).String()
}

// plain is an address without what makes equal addresses differ: IPv4 inside IPv6, and the zone.
func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

func cookie(f *Facts, name string) string {
	c, err := f.Request.Cookie(name)
	if err != nil {
		return ""
	}
	return c.Value
}

// afterMarker finds a token in the offer of subprotocols, the one place where a browser's script can put it:
// `Sec-WebSocket-Protocol: bearer, <token>`.
func afterMarker(f *Facts, marker string) string {
	for i, offered := range f.Subprotocols {
		if offered == marker && i+1 < len(f.Subprotocols) {
			return f.Subprotocols[i+1]
		}
	}
	return ""
}

package relay

import (
	"fmt"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"bridgehead/policy"
	"bridgehead/proxy"
)

// connectionHeader carries the id under which logs and the API know the socket.
const connectionHeader = "X-Connection-Id"

// vouched are the headers in which a proxy speaks for its client. Nobody but a trusted proxy is believed in them.
var vouched = []string{
	"Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded-Server",
	"X-Real-Ip", connectionHeader, policy.CertificateHeader, policy.CertificateChainHeader,
}

// owned are the headers that belong to the handshake itself, or to one connection (RFC 9110, section 7.6.1).
var owned = []string{
	"Host", "Connection", "Upgrade", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization", "Te",
	"Trailer", "Transfer-Encoding", "Content-Length",
}

// headers is the stated rule for the upstream handshake: the client's headers, without those of its connection and without
// what only a trusted proxy may say; then ours, which nothing of the client's can delete; then what the configuration says.
type headers struct {
	set    map[string]policy.Template // by canonical name
	remove []string                   // folded
	drop   map[string]bool            // folded: never taken from a client, in whatever spelling
}

func newHeaders(o Headers) (*headers, error) {
	hs := &headers{set: make(map[string]policy.Template, len(o.Set)), drop: make(map[string]bool)}
	for _, name := range slices.Concat(vouched, owned) {
		hs.drop[fold(name)] = true
	}
	for name, text := range o.Set {
		t, err := policy.ParseTemplate(text)
		if err != nil {
			return nil, fmt.Errorf("headers.set.%s: %w", name, err)
		}
		hs.set[http.CanonicalHeaderKey(name)] = t
		hs.drop[fold(name)] = true
	}
	for _, name := range o.Remove {
		hs.remove = append(hs.remove, fold(name))
	}
	return hs, nil
}

// fold makes equal what servers take for the same name: they read headers through CGI, where `-`, `_` and `.` become one.
func fold(name string) string {
	return strings.Map(func(r rune) rune {
		if r == '_' || r == '.' {
			return '-'
		}
		return unicode.ToLower(r)
	}, name)
}

// withholds tells whether a client's header with that name, folded, is kept from the server.
func (hs *headers) withholds(folded string) bool {
	return hs.drop[folded] || slices.Contains(hs.remove, folded)
}

var token = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$") // RFC 9110, section 5.6.2

// checkName refuses names that are none and those that the handshake itself needs.
func checkName(name string) error {
	switch f := fold(name); {
	case !token.MatchString(name):
		return fmt.Errorf("%q is no header name", name)
	case strings.HasPrefix(f, "sec-websocket-"), slices.ContainsFunc(owned, func(o string) bool { return fold(o) == f }):
		return fmt.Errorf("%s belongs to the handshake and cannot be changed", name)
	}
	return nil
}

// of gives the Host and the other headers for a client's upstream handshake.
func (hs *headers) of(h *proxy.Handshake) (host string, header http.Header) {
	r := h.Request
	header = make(http.Header, len(r.Header)+len(vouched))
	ofConnection := connectionTokens(r.Header)
	for name, values := range r.Header {
		f := fold(name)
		if !hs.withholds(f) && !ofConnection[f] && !strings.HasPrefix(f, "sec-websocket-") {
			header[name] = values
		}
	}
	forward(header, h)
	for _, name := range hs.remove {
		header.Del(name)
	}
	host = r.Host
	for name, text := range hs.set {
		value, err := text.Expand(&h.Facts, nil)
		switch {
		case err != nil: // this handshake has no such value: the header is left out, and the client's own was dropped
		case name == "Host":
			host = value
		default:
			header.Set(name, value)
		}
	}
	return host, header
}

// connectionTokens are the headers that the client's Connection header claims for its own connection.
func connectionTokens(h http.Header) map[string]bool {
	tokens := make(map[string]bool)
	for _, line := range h["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			tokens[fold(strings.TrimSpace(name))] = true
		}
	}
	return tokens
}

// forward says who the client is (RFC 7239, and the older X-Forwarded headers). What a trusted proxy said before us is kept.
func forward(header http.Header, h *proxy.Handshake) {
	peer, proto := policy.Peer(h.Request), "http"
	if h.TLS {
		proto = "https"
	}
	element := "for=" + forwardedNode(peer) + ";host=" + quoted(h.Request.Host) + ";proto=" + proto
	header.Set("X-Forwarded-Host", h.Request.Host)
	header.Set(connectionHeader, h.ConnID)
	var before, elements []string
	if h.Forwarded {
		before = h.Request.Header.Values("X-Forwarded-For")
		elements = h.Request.Header.Values("Forwarded")
		if host := h.Request.Header.Get("X-Forwarded-Host"); host != "" {
			header.Set("X-Forwarded-Host", host)
		}
	}
	header.Set("X-Forwarded-Proto", proto)
	header.Set("X-Forwarded-For", strings.Join(append(slices.Clone(before), peer.String()), ", "))
	header.Set("Forwarded", strings.Join(append(slices.Clone(elements), element), ", "))
	header.Set("X-Real-Ip", h.Client.String())
	if cert := h.Certificate(); cert != nil {
		header.Set(policy.CertificateHeader, policy.EncodeCertificate(cert))
	}
}

// forwardedNode writes an address as RFC 7239, section 6, wants it.
func forwardedNode(peer netip.Addr) string {
	if peer.Is6() {
		return `"[` + peer.String() + `]"`
	}
	return peer.String()
}

func quoted(s string) string {
	if token.MatchString(s) {
		return s
	}
	return `"` + escaped.Replace(s) + `"`
}

// escaped makes what stands in a quoted string (RFC 9110, section 5.6.4).
var escaped = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

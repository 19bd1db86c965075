package relay

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"bridgehead/policy"
	"bridgehead/proxy"
)

// connectionHeader carries the id under which logs and the API know the socket.
const connectionHeader = "X-Connection-Id"

// said are the headers in which we speak of the client. Its own are never taken for them; what a trusted proxy says, we add to.
var said = []string{
	policy.Forwarded, policy.XForwardedFor, "X-Forwarded-Proto", "X-Forwarded-Host", "X-Real-Ip", connectionHeader,
	policy.CertificateHeader, policy.CertificateChainHeader,
}

// owned are the headers that belong to the handshake itself, or to one connection (RFC 9110, section 7.6.1).
var owned = []string{
	"Host", "Connection", "Upgrade", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization", "Te",
	"Trailer", "Transfer-Encoding", "Content-Length",
}

// headers is the stated rule for the upstream handshake: the client's headers, without those of its connection (what only a trusted
// proxy may say is gone already, by [policy.Proxies.Meet]); then ours, which nothing of the client's can delete; then what the
// configuration says.
type headers struct {
	set    map[string]policy.Template // by canonical name
	remove []string                   // folded
	drop   map[string]bool            // folded: never passed on as it came, in whatever spelling
}

func newHeaders(o Headers) (*headers, error) {
	hs := &headers{set: make(map[string]policy.Template, len(o.Set)), drop: make(map[string]bool)}
	for _, name := range slices.Concat(said, owned) {
		hs.drop[policy.FoldHeader(name)] = true
	}
	for name, text := range o.Set {
		t, err := policy.ParseTemplate(text)
		if err != nil {
			return nil, fmt.Errorf("headers.set.%s: %w", name, err)
		}
		hs.set[http.CanonicalHeaderKey(name)] = t
		hs.drop[policy.FoldHeader(name)] = true
	}
	for _, name := range o.Remove {
		hs.remove = append(hs.remove, policy.FoldHeader(name))
	}
	return hs, nil
}

// withholds tells whether a client's header with that name, folded, is kept from the server.
func (hs *headers) withholds(folded string) bool {
	return hs.drop[folded] || slices.Contains(hs.remove, folded)
}

var token = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$") // RFC 9110, section 5.6.2

// checkName refuses names that are none and those that the handshake itself needs.
func checkName(name string) error {
	switch f := policy.FoldHeader(name); {
	case !token.MatchString(name):
		return fmt.Errorf("%q is no header name", name)
	case strings.HasPrefix(f, "sec-websocket-"), slices.ContainsFunc(owned, func(o string) bool { return policy.FoldHeader(o) == f }):
		return fmt.Errorf("%s belongs to the handshake and cannot be changed", name)
	}
	return nil
}

// of gives the Host and the other headers for a client's upstream handshake.
func (hs *headers) of(h *proxy.Handshake) (host string, header http.Header) {
	r := h.Request
	header = make(http.Header, len(r.Header)+len(said))
	ofConnection := connectionTokens(r.Header)
	for name, values := range r.Header {
		f := policy.FoldHeader(name)
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
			tokens[policy.FoldHeader(strings.TrimSpace(name))] = true
		}
	}
	return tokens
}

// forward says who the client is (RFC 7239, and the older X-Forwarded headers). What is believed of what proxies said before us is kept.
func forward(header http.Header, h *proxy.Handshake) {
	was, peer, proto := h.Request.Header, policy.Peer(h.Request), policy.Scheme(h.TLS)
	host := h.Request.Host
	if before := was.Get("X-Forwarded-Host"); before != "" {
		host = before
	}
	element := policy.Element(peer, h.Request.Host, proto)
	header.Set("X-Forwarded-Host", host)
	header.Set("X-Forwarded-Proto", proto)
	header.Set(policy.XForwardedFor, strings.Join(append(slices.Clone(was.Values(policy.XForwardedFor)), peer.String()), ", "))
	header.Set(policy.Forwarded, strings.Join(append(slices.Clone(was.Values(policy.Forwarded)), element), ", "))
	header.Set("X-Real-Ip", h.Client.String())
	header.Set(connectionHeader, h.ConnID)
	if cert := h.Certificate(); cert != nil {
		header.Set(policy.CertificateHeader, policy.EncodeCertificate(cert))
	}
}

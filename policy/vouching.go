package policy

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// vouching are the headers, folded, in which proxies speak of their clients, beside X-Forwarded-*. Those that name a client alone are
// believed only if the configuration names them; frameworks believe them unasked.
var vouching = map[string]bool{
	"forwarded": true, "x-forwarded": true, "x-real-ip": true, "x-client-ip": true, "x-cluster-client-ip": true, "true-client-ip": true,
	"cf-connecting-ip": true, "cf-connecting-ipv6": true, "fly-client-ip": true, "fastly-client-ip": true, "x-envoy-external-address": true,
	"client-cert": true, "client-cert-chain": true,
}

// longestName is that of a header that may be configured; what is longer need not be looked at in full.
const longestName = 64

// FoldHeader makes equal what servers take for the same header: they read headers through CGI, where `-`, `_` and `.` become one, and
// so does every case.
func FoldHeader(name string) string { return string(appendFolded(nil, name)) }

func appendFolded(b []byte, name string) []byte {
	for i := range len(name) {
		switch c := name[i]; {
		case c == '_', c == '.':
			b = append(b, '-')
		case 'A' <= c && c <= 'Z':
			b = append(b, c|0x20)
		default:
			b = append(b, c)
		}
	}
	return b
}

// speaks tells whether a header, in whatever spelling, is one in which proxies speak of their clients; believed is another such.
func speaks(name, believed string) bool {
	var room [longestName + 1]byte // nothing is allocated: this is asked of each header of each request
	folded := appendFolded(room[:0], name[:min(len(name), len(room))])
	return vouching[string(folded)] || bytes.HasPrefix(folded, []byte("x-forwarded-")) ||
		len(folded) == len(believed) && strings.EqualFold(string(folded), believed)
}

func ofCertificates(name string) bool {
	folded := FoldHeader(name)
	return strings.EqualFold(folded, CertificateHeader) || strings.EqualFold(folded, CertificateChainHeader)
}

// unsuitable are headers that say something else than who the client is.
var unsuitable = []string{
	"host", "connection", "upgrade", "keep-alive", "te", "trailer", "transfer-encoding", "content-length", "via", "origin", "cookie",
	"authorization", "client-cert", "client-cert-chain", "x-connection-id", "x-forwarded",
}

// CheckClientHeader tells why a header cannot be the one in which proxies name their client.
func CheckClientHeader(name string) error {
	folded := FoldHeader(name)
	switch {
	case name == "":
		return errors.New("must name a header: X-Forwarded-For, Forwarded, or one that has the client's address alone, such as CF-Connecting-IP")
	case !tokens.MatchString(name) || len(name) > longestName:
		return fmt.Errorf("%.100q cannot be the name of a header", name)
	case strings.ContainsAny(name, "_."):
		return fmt.Errorf("%q: write it as %s: servers take `_` and `.` for `-`, and what comes in such a spelling is dropped",
			name, http.CanonicalHeaderKey(folded))
	case slices.Contains(unsuitable, folded), strings.HasPrefix(folded, "sec-websocket-"), strings.HasPrefix(folded, "proxy-"),
		strings.HasPrefix(folded, "x-forwarded-") && folded != "x-forwarded-for":
		return fmt.Errorf("%s does not say who the client is: write X-Forwarded-For, Forwarded, or a header that has the client's address alone, "+
			"such as CF-Connecting-IP", name)
	}
	return nil
}

package ws

import (
	"iter"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// headSize is what the heads of most handshakes have room in, in bytes.
const headSize = 1 << 10

// elements gives the elements of a comma-separated header over all its lines, trimmed, without the empty ones (RFC 9110,
// section 5.6.1). A comma inside a quoted string does not separate.
func elements(lines []string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, line := range lines {
			for part := range splitQuoted(line, ',') {
				if part != "" && !yield(part) {
					return
				}
			}
		}
	}
}

// splitQuoted splits s at sep outside of quoted strings and trims the parts.
func splitQuoted(s string, sep byte) iter.Seq[string] {
	return func(yield func(string) bool) {
		start, quoted := 0, false
		for i := 0; i < len(s); i++ {
			switch {
			case s[i] == '"':
				quoted = !quoted
			case s[i] == '\\' && quoted:
				i++
			case s[i] == sep && !quoted:
				if !yield(trim(s[start:i])) {
					return
				}
				start = i + 1
			}
		}
		yield(trim(s[start:]))
	}
}

// trim removes optional white space (RFC 9110, section 5.6.3).
func trim(s string) string { return strings.Trim(s, " \t") }

// hasToken reports whether a comma-separated header lists the token, in any case.
func hasToken(lines []string, token string) bool {
	for element := range elements(lines) {
		if strings.EqualFold(element, token) {
			return true
		}
	}
	return false
}

// isToken reports whether s is a token (RFC 9110, section 5.6.2), as header names, subprotocols and parameters are.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)):
			return false
		}
	}
	return s != ""
}

// isReserved reports whether a header is not to be carried from one side of the proxy to the other: it belongs to one
// connection (RFC 9110, section 7.6.1), frames a body, which handshakes have not, or is written by the handshake itself.
func isReserved(name string) bool {
	const ours = "Sec-Websocket-"
	return len(name) >= len(ours) && strings.EqualFold(name[:len(ours)], ours) ||
		slices.ContainsFunc(reserved, func(r string) bool { return strings.EqualFold(name, r) })
}

var reserved = []string{
	"Connection", "Upgrade", "Host", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization",
	"Te", "Trailer", "Transfer-Encoding", "Content-Length",
}

// appendHeader appends the lines of h, ordered by name, without the reserved ones.
func appendHeader(dst []byte, h http.Header) []byte {
	names := slices.AppendSeq(make([]string, 0, len(h)), maps.Keys(h))
	slices.Sort(names)
	for _, name := range names {
		if isReserved(name) {
			continue
		}
		for _, value := range h[name] {
			dst = appendLine(dst, name, value)
		}
	}
	return dst
}

// appendLine appends one header line; nothing if it could not be read back as this one line.
func appendLine(dst []byte, name, value string) []byte {
	if !isToken(name) || !isLine(value) {
		return dst
	}
	dst = append(append(dst, name...), ": "...)
	return append(append(dst, value...), "\r\n"...)
}

// isLine reports whether a value stays in its line.
func isLine(value string) bool { return !strings.ContainsAny(value, "\r\n\x00") }

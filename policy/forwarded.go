package policy

import (
	"net/netip"
	"strings"
)

// An element is what one proxy says in a Forwarded header (RFC 7239, section 4). What it does not say is "".
type element struct{ node, proto, host, by string }

// cutElement takes the last element off a Forwarded header, and gives what stands in front of it, with the comma. ok is false if the
// element breaks the grammar; nothing can be said then of what stands in front.
//
// It reads from the right: there stands what the nearest proxy has written, and what stands on the left, such as a quote that is never
// closed, may be a stranger's.
func cutElement(s string) (rest string, e element, ok bool) {
	s = trimSpace(s)
	for {
		left := trimSpace(s)
		switch {
		case left == "" || left[len(left)-1] == ',':
			return left, e, true
		case left != s: // spaces stand around commas alone
			return "", e, false
		case s[len(s)-1] == ';': // behind a pair, or behind none
			s = s[:len(s)-1]
			continue
		}
		before, name, value, ok := cutPair(s)
		if !ok || !e.set(name, value) {
			return "", e, false
		}
		if s = before; s != "" && !strings.ContainsRune(";, \t", rune(s[len(s)-1])) {
			return "", e, false
		}
	}
}

func trimSpace(s string) string { return strings.TrimRight(s, " \t") }

// set takes one pair over; false if the element has it already. Further parameters are for others.
func (e *element) set(name, value string) bool {
	var to *string
	switch strings.ToLower(name) {
	case "for":
		to = &e.node
	case "proto":
		to = &e.proto
	case "host":
		to = &e.host
	case "by":
		to = &e.by
	default:
		return true
	}
	if *to != "" || value == "" {
		return false
	}
	*to = value
	return true
}

// cutPair takes the last `token=value` off.
func cutPair(s string) (before, name, value string, ok bool) {
	if s[len(s)-1] == '"' {
		s, value, ok = cutQuoted(s)
	} else {
		s, value = cutToken(s)
		ok = value != ""
	}
	if !ok || !strings.HasSuffix(s, "=") {
		return "", "", "", false
	}
	before, name = cutToken(s[:len(s)-1])
	return before, name, value, name != ""
}

func cutToken(s string) (before, token string) {
	i := len(s)
	for i > 0 && isTokenByte(s[i-1]) {
		i--
	}
	return s[:i], s[i:]
}

func isTokenByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

// cutQuoted takes a quoted string off (RFC 9110, section 5.6.4). A quote that no backslash stands before begins it: one within it has
// one, and in front of the first there is the `=`.
func cutQuoted(s string) (before, value string, ok bool) {
	end := len(s) - 1
	begin := end - 1
	for begin >= 0 && (s[begin] != '"' || begin > 0 && s[begin-1] == '\\') {
		begin--
	}
	if begin < 0 {
		return "", "", false
	}
	value, ok = unescape(s[begin+1 : end])
	return s[:begin], value, ok
}

// unescape reads what stands between quotes.
func unescape(s string) (string, bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '\\' {
			if i++; i == len(s) {
				return "", false
			}
			c = s[i]
		} else if c == '"' {
			return "", false
		}
		if c < ' ' && c != '\t' || c == 0x7F {
			return "", false
		}
		b.WriteByte(c)
	}
	return b.String(), true
}

// parseNode reads who is meant by `for` (RFC 7239, section 6). known is false for whom nobody names: `unknown`, an obfuscated
// identifier, and an element without `for`. valid is false for what breaks the grammar.
func parseNode(s string) (addr netip.Addr, known, valid bool) {
	if s == "" {
		return addr, false, true
	}
	name, port, hasPort := s, "", false
	if i := strings.LastIndexByte(s, ':'); i > strings.LastIndexByte(s, ']') {
		name, port, hasPort = s[:i], s[i+1:], true
	}
	switch {
	case hasPort && !isNodePort(port):
		return addr, false, false
	case strings.EqualFold(name, "unknown"), isObfuscated(name):
		return addr, false, true
	}
	inner, bracketed := strings.CutPrefix(name, "[")
	if bracketed {
		if inner, bracketed = strings.CutSuffix(inner, "]"); !bracketed {
			return addr, false, false
		}
	}
	addr, err := netip.ParseAddr(inner)
	if err != nil || addr.Zone() != "" || addr.Is4() == bracketed {
		return netip.Addr{}, false, false
	}
	return plain(addr), true, true
}

func isNodePort(s string) bool {
	return isObfuscated(s) || len(s) >= 1 && len(s) <= 5 && strings.Trim(s, "0123456789") == ""
}

func isObfuscated(s string) bool {
	rest, ok := strings.CutPrefix(s, "_")
	return ok && rest != "" && !strings.ContainsFunc(rest, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("._-", r))
	})
}

// Element is what a proxy says in a Forwarded header of whom it serves; "" is left out.
func Element(node netip.Addr, host, proto string) string {
	text := "for=" + node.String()
	if node.Is6() {
		text = `for="[` + node.String() + `]"`
	}
	if host != "" {
		text += ";host=" + quoted(host)
	}
	if proto != "" {
		text += ";proto=" + proto
	}
	return text
}

func quoted(s string) string {
	if tokens.MatchString(s) {
		return s
	}
	return `"` + escaped.Replace(s) + `"`
}

// escaped makes what stands in a quoted string (RFC 9110, section 5.6.4).
var escaped = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

package routes

import (
	"net/netip"
	"strings"
)

// Hostname is the host of a Host header (`host`, `host:port`, `[::1]:port`) as routes compare it: lower case, without the port,
// the brackets of an IPv6 literal and the trailing dot of a rooted name; IPv6 in its canonical text.
func Hostname(hostport string) string {
	host := hostport
	if i := strings.LastIndexByte(host, ':'); i >= 0 && (strings.IndexByte(host, ':') == i || host[i-1] == ']') {
		host = host[:i]
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		if addr, err := netip.ParseAddr(strings.TrimSuffix(inner, "]")); err == nil && addr.Is6() {
			return addr.String()
		}
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

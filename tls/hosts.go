package tls

import (
	"net"
	"net/netip"
	"slices"
	"strings"
)

// hosts are the names that the routes serve.
type hosts struct {
	names     map[string]bool // all of them as they are listed, in lower case
	any       bool            // some route takes every host
	exact     map[string]bool
	wildcards map[string]bool // by what follows their leading "*."
	others    [][]string      // patterns with a "*" elsewhere, as labels
	ips       []net.IP
}

func newHosts(names []string) *hosts {
	h := &hosts{names: make(map[string]bool), exact: make(map[string]bool), wildcards: make(map[string]bool)}
	for _, name := range names {
		name = strings.ToLower(strings.TrimSuffix(name, "."))
		if !h.names[name] {
			h.names[name] = true
			h.add(name)
		}
	}
	return h
}

func (h *hosts) add(name string) {
	parent, wildcard := strings.CutPrefix(name, "*.")
	addr, err := netip.ParseAddr(strings.Trim(name, "[]"))
	switch {
	case name == "":
		h.any = true
	case err == nil:
		h.ips = append(h.ips, addr.AsSlice())
	case wildcard && !strings.Contains(parent, "*"):
		h.wildcards[parent] = true
	case strings.Contains(name, "*"):
		h.others = append(h.others, strings.Split(name, "."))
	default:
		h.exact[name] = true
	}
}

// serve tells whether a route may serve the name that a client sent.
func (h *hosts) serve(name string) bool {
	_, parent, _ := strings.Cut(name, ".")
	switch {
	case !validName(name):
		return false
	case h.any, h.exact[name], h.wildcards[parent]:
		return true
	}
	labels := strings.Split(name, ".")
	for _, pattern := range h.others {
		if matchLabels(pattern, labels) {
			return true
		}
	}
	return false
}

// has tells whether a route is for a host, a name or an address.
func (h *hosts) has(host string) bool {
	if addr, err := netip.ParseAddr(host); err == nil {
		return slices.ContainsFunc(h.ips, func(ip net.IP) bool { return ip.Equal(addr.AsSlice()) })
	}
	return h.serve(host)
}

// subject is the name that a certificate for a served name is made for: the wildcard where a route has one, so that all its
// hosts share a certificate. A wildcard right below the top level is not accepted everywhere (OpenSSL wants two labels behind
// it), so names there get their own.
func (h *hosts) subject(name string) string {
	_, parent, _ := strings.Cut(name, ".")
	if !h.exact[name] && h.wildcards[parent] && strings.Contains(parent, ".") {
		return "*." + parent
	}
	return name
}

func matchLabels(pattern, labels []string) bool {
	if len(pattern) != len(labels) {
		return false
	}
	for i, label := range pattern {
		if label != "*" && label != labels[i] {
			return false
		}
	}
	return true
}

// validName tells whether name may be a host name: labels of letters, digits, hyphens and underscores, in lower case
// (RFC 1123, section 2.1, and RFC 1035, section 2.3.4 for the lengths).
func validName(name string) bool {
	if len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" ||
			label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
	}
	return true
}

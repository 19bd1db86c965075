package routes

import (
	"errors"
	"net/netip"
	"strings"
)

// hostPattern matches hosts: any, if it has no labels.
type hostPattern struct {
	labels []part // an IP address is one literal
	below  bool   // one or more labels stand in front of these
}

const (
	labelLetters = "abcdefghijklmnopqrstuvwxyz0123456789-_"
	longestHost  = 253 // of a domain name, as text (RFC 1035, section 2.3.4)
)

func parseHost(s string) (hostPattern, error) {
	if s == "" {
		return hostPattern{}, nil
	}
	if addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")); err == nil {
		return hostPattern{labels: []part{{literal: addr.String()}}}, nil
	}
	if strings.Contains(s, "...}") {
		return hostPattern{}, errors.New("a capture in a host stands for one label; *.example.com takes more")
	}
	var h hostPattern
	s, h.below = strings.CutPrefix(strings.TrimSuffix(s, "."), "*.")
	for label := range strings.SplitSeq(s, ".") {
		p, err := parseLabel(label)
		if err != nil {
			return hostPattern{}, err
		}
		h.labels = append(h.labels, p)
	}
	return h, nil
}

func parseLabel(s string) (part, error) {
	p, err := parsePart(s)
	if err != nil {
		return part{}, err
	}
	p.literal = strings.ToLower(p.literal)
	switch {
	case p.name != "":
		return p, nil
	case p.literal == "":
		return part{}, errors.New("a label between the dots is empty")
	case strings.ContainsAny(s, ":/"):
		return part{}, errors.New("write the host alone, without scheme, port and path")
	case strings.Contains(s, "*"):
		return part{}, errors.New("* stands alone in front, as in *.example.com; leave host out for any host")
	case strings.Trim(p.literal, labelLetters) != "":
		return part{}, errors.New("a host is made of letters, digits, - and _; names beyond ASCII are written in their xn-- form")
	}
	return p, nil
}

// splitHost cuts a host as Hostname gives it into labels, appended to buf. An IP address is one label; a text that is neither an
// address nor a domain name has none.
func splitHost(buf []string, host string) []string {
	if host == "" || len(host) > longestHost {
		return nil
	}
	if last := host[len(host)-1]; last >= '0' && last <= '9' || strings.Contains(host, ":") { // as no top-level domain does
		if _, err := netip.ParseAddr(host); err == nil {
			return append(buf, host)
		}
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || strings.Trim(label, labelLetters) != "" {
			return nil
		}
		buf = append(buf, label)
	}
	return buf
}

func (h hostPattern) match(labels []string) bool {
	if len(h.labels) == 0 {
		return true
	}
	front := len(labels) - len(h.labels)
	if front < 0 || h.below != (front > 0) {
		return false
	}
	for i, l := range h.labels {
		label := labels[front+i]
		if l.name == "" && l.literal != label || l.name != "" && strings.ContainsAny(label, ".:") { // an address is no name
			return false
		}
	}
	return true
}

func (h hostPattern) covers(q hostPattern) bool {
	if len(h.labels) == 0 {
		return true
	}
	front := len(q.labels) - len(h.labels)
	if front < 0 || h.below != (front > 0 || q.below) {
		return false
	}
	for i, l := range h.labels {
		other := q.labels[front+i]
		if !l.covers(other) || l.name != "" && strings.ContainsAny(other.literal, ".:") {
			return false
		}
	}
	return true
}

// suffix is the domain that all its hosts lie in: the literal labels at its end. exact is true if that is all of it.
func (h hostPattern) suffix() (domain string, exact bool) {
	i := len(h.labels)
	var literals []string
	for i > 0 && h.labels[i-1].name == "" {
		i--
	}
	for _, l := range h.labels[i:] {
		literals = append(literals, l.literal)
	}
	return strings.Join(literals, "."), i == 0 && !h.below && len(literals) > 0
}

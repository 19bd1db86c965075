package server

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"bridgehead/config"
)

// A reach is how a client that follows a URL comes to a listener.
type reach struct {
	listener *config.Listener
	note     string // what must be so that it does
	wrong    string // why it cannot, or ""
	status   int    // of the answer, if it gets one
}

// isSecure tells whether a URL asks for TLS.
func isSecure(u *url.URL) bool { return u.Scheme == "wss" || u.Scheme == "https" }

// isPage tells whether a URL is for a browser's address bar, and not for sockets.
func isPage(u *url.URL) bool { return u.Scheme == "http" || u.Scheme == "https" }

// portOf is the port of a URL, which its scheme has if it gives none.
func portOf(u *url.URL) string {
	if isSecure(u) {
		return cmp.Or(u.Port(), "443")
	}
	return cmp.Or(u.Port(), "80")
}

// reaches are the listeners that a URL may lead to, the likeliest first: those with its port, or else those that something in front
// may lead it to.
func reaches(listeners []config.Listener, u *url.URL) []reach {
	var direct, mapped, others []reach
	for i := range listeners {
		l := &listeners[i]
		switch same := l.TLS == isSecure(u); {
		case slices.ContainsFunc(l.Address, func(address string) bool { return portAt(address) == portOf(u) }):
			direct = append(direct, directly(l, u))
		case same:
			note := fmt.Sprintf("no listener has port %s: something in front must lead it here", portOf(u))
			mapped = append(mapped, reach{listener: l, note: note})
		case !l.Redirect:
			others = append(others, otherwise(l, u))
		}
	}
	for _, all := range [][]reach{direct, mapped} {
		if len(all) > 0 {
			slices.SortStableFunc(all, func(a, b reach) int { return cmp.Compare(a.distance(u), b.distance(u)) })
			return all
		}
	}
	return others
}

// portAt is the port of an address to listen on; Unix sockets have none.
func portAt(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}

// directly is a listener that has the URL's port.
func directly(l *config.Listener, u *url.URL) reach {
	switch {
	case l.TLS && !isSecure(u): // net/http answers so
		return reach{listener: l, status: 400, wrong: fmt.Sprintf("the port speaks TLS: use %ss://", u.Scheme)}
	case !l.TLS && isSecure(u):
		return reach{listener: l, wrong: fmt.Sprintf("the port has no TLS: use %s://, or set tls: true", u.Scheme[:len(u.Scheme)-1])}
	}
	return reach{listener: l}
}

// otherwise is a listener that has neither the URL's port nor speaks TLS as it says.
func otherwise(l *config.Listener, u *url.URL) reach {
	if l.TLS {
		const text = "no listener has port %s, and none takes clients without TLS: use %ss://"
		return reach{listener: l, wrong: fmt.Sprintf(text, portOf(u), u.Scheme)}
	}
	const text = "no listener has port %s or speaks TLS: something in front must end TLS and lead the port here"
	return reach{listener: l, note: fmt.Sprintf(text, portOf(u))}
}

// distance is 0 for a listener at the very address of the URL, 1 for one at all addresses, 2 for one elsewhere; those that redirect
// are farther away than those with routes.
func (r reach) distance(u *url.URL) int {
	least := 3
	for _, address := range r.listener.Address {
		if !r.listener.Redirect {
			least = min(least, distance(address, u))
		}
	}
	return least
}

func distance(address string, u *url.URL) int {
	host, _, err := net.SplitHostPort(address)
	if err != nil { // no TCP address
		return 2
	}
	addr, err := netip.ParseAddr(host)
	switch {
	case host == u.Hostname():
		return 0
	case host == "" || err == nil && addr.IsUnspecified():
		return 1
	}
	return 2
}

// isLoopback tells whether a host is surely this machine.
func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// String is the listener, and how it is reached.
func (r reach) String() string {
	l := r.listener
	text := l.Name
	if addresses := strings.Join(l.Address, ", "); l.Name != addresses {
		text += ": " + addresses
	}
	if l.TLS {
		text += " with TLS"
	} else {
		text += " without TLS"
	}
	if l.ProxyProtocol {
		text += " behind a PROXY header"
	}
	if l.Redirect {
		text += ", which redirects"
	}
	if aside := r.wrong + r.note; aside != "" { // there is one of them at most
		text += "; " + aside
	}
	return text
}

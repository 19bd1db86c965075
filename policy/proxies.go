package policy

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"bridgehead/internal/door"
)

// The headers in which proxies tell by which others a request has come. Any other header names the client alone.
const (
	XForwardedFor = "X-Forwarded-For" // the older form, and the default
	Forwarded     = "Forwarded"       // RFC 7239
)

// Proxies are those in front that are believed, and where they say who their client is. The zero Proxies believe nobody.
type Proxies struct {
	Networks Networks
	Header   string // "" is XForwardedFor
}

// An Arrival is where a request comes from, as far as that can be believed.
type Arrival struct {
	Client  netip.Addr // the true client: the peer, or what a trusted proxy says
	TLS     bool       // the client's side is TLS, here or as a trusted proxy says
	Trusted bool       // the peer is a trusted proxy
	Named   bool       // a trusted proxy names the client
	Doubt   string     // why the header of a trusted proxy says less than it should; "" if it does not

	hops     []netip.Addr // that are believed, from the client to the one before the peer
	elements string       // of a Forwarded header that are believed, as they came
	host     string       // that the client asked for, as a Forwarded header says
}

// Look says who sent r.
//
// From a peer outside the networks it is the peer, and r.TLS. Behind trusted proxies it is the right-most address of their header (all
// its lines, in order) that is not a trusted proxy itself; an entry that names nobody ends the walk, and what stands left of it is
// ignored, as a client may have written that. Of a header that names the client alone there has to be one line, with one address.
//
// About TLS decides the last X-Forwarded-Proto of a trusted peer, or with Forwarded the `proto` of the left-most entry that is believed.
//
// A peer on a Unix socket has no address: it counts as 127.0.0.1, and is believed if that is trusted. Behind a PROXY header, which only a
// trusted proxy may send, the peer is the one that it names, and the header may say that this one speaks TLS.
func (p *Proxies) Look(r *http.Request) Arrival {
	a := Arrival{Client: Peer(r), TLS: r.TLS != nil || door.From(r.Context()).Header().TLS()}
	if a.Trusted = p.Networks.Contain(a.Client); !a.Trusted {
		return a
	}
	switch name := p.header(); name {
	case Forwarded:
		p.followElements(&a, strings.Join(r.Header[name], ", "))
		return a
	case XForwardedFor:
		p.followAddresses(&a, strings.Join(r.Header[name], ","))
	default:
		a.ask(p.Header, r.Header[name])
	}
	if proto := lastField(r.Header["X-Forwarded-Proto"]); proto != "" {
		a.TLS = isSecure(proto)
	}
	return a
}

// header is the one that is believed, in canonical form.
func (p *Proxies) header() string {
	if p.Header == "" {
		return XForwardedFor
	}
	return http.CanonicalHeaderKey(p.Header)
}

// named takes a further hop, and tells whether it is a proxy of ours, which is believed in turn.
func (p *Proxies) named(a *Arrival, addr netip.Addr) (trusted bool) {
	a.Client, a.Named = addr, true
	a.hops = append(a.hops, addr)
	return p.Networks.Contain(addr)
}

// followAddresses goes from the peer leftwards as long as it meets trusted addresses.
func (p *Proxies) followAddresses(a *Arrival, left string) {
	for left != "" {
		i := strings.LastIndexByte(left, ',')
		addr, ok := forwardedAddr(left[i+1:])
		if !ok {
			a.Doubt = fmt.Sprintf("%s: %.100q is no address, and what stands left of it is not believed", XForwardedFor, left[i+1:])
			break
		}
		if !p.named(a, addr) {
			break
		}
		left = left[:max(i, 0)]
	}
	slices.Reverse(a.hops)
}

// followElements goes from the peer leftwards as long as it meets trusted addresses, through a Forwarded header.
func (p *Proxies) followElements(a *Arrival, all string) {
	for left := all; left != ""; {
		rest, e, ok := cutElement(left)
		addr, known, valid := parseNode(e.node)
		if !ok || !valid {
			wrong := left[max(len(rest), len(left)-100):] // its end, which is the nearest proxy's
			a.Doubt = fmt.Sprintf("%s: %q breaks RFC 7239, and neither it nor what stands left of it is believed", Forwarded, wrong)
			break
		}
		a.elements = strings.Trim(all[len(rest):], ", \t")
		if e.proto != "" {
			a.TLS = isSecure(e.proto)
		}
		if e.host != "" {
			a.host = e.host
		}
		if !known || !p.named(a, addr) {
			break
		}
		left = strings.TrimSuffix(rest, ",")
	}
	slices.Reverse(a.hops)
}

// ask looks for the client in a header that names it alone.
func (a *Arrival) ask(name string, lines []string) {
	if len(lines) == 0 {
		return
	}
	addr, ok := forwardedAddr(lines[0])
	switch {
	case len(lines) > 1:
		a.Doubt = fmt.Sprintf("%s came %d times, and none of them is believed: the proxy has to set it, not to add to it", name, len(lines))
	case !ok:
		a.Doubt = fmt.Sprintf("%s: %.100q is not one address, and not believed", name, lines[0])
	default:
		a.Client, a.Named, a.hops = addr, true, []netip.Addr{addr}
	}
}

func isSecure(proto string) bool {
	return strings.EqualFold(proto, "https") || strings.EqualFold(proto, "wss")
}

// forwardedAddr reads one entry of X-Forwarded-For: an address, in brackets or not, with a port or not.
func forwardedAddr(s string) (netip.Addr, bool) {
	s = strings.Trim(s, " \t")
	withPort, err := netip.ParseAddrPort(s)
	addr := withPort.Addr()
	if err != nil {
		if len(s) > 2 && s[0] == '[' && s[len(s)-1] == ']' && strings.Contains(s, ":") {
			s = s[1 : len(s)-1]
		}
		addr, err = netip.ParseAddr(s)
	}
	return plain(addr), err == nil && addr.Zone() == ""
}

func lastField(lines []string) string {
	joined := strings.Join(lines, ",")
	return strings.Trim(joined[strings.LastIndexByte(joined, ',')+1:], " \t")
}

// Peer is the address of the other end of the TCP connection, and 127.0.0.1 for a Unix socket.
func Peer(r *http.Request) netip.Addr {
	if r.RemoteAddr == "" || r.RemoteAddr[0] == '@' || r.RemoteAddr[0] == '/' { // a Unix socket
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	withPort, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return plain(withPort.Addr())
}

// Meet looks at who sends a request, and leaves in its headers nothing of what proxies say about their clients but what is believed, so
// that nobody who reads them later takes a stranger's word: no value, no authenticator and no backend. This is the one place where that
// is decided.
//
// From a stranger none of them stays, in whatever spelling. From a trusted proxy stay those of its kind: the one header that is believed,
// cut to its believed part, and X-Forwarded-Host and the like, unless it speaks Forwarded. X-Forwarded-For and Forwarded then both say
// what is believed, whichever it came by. What clients say of their certificates in headers never stays, and in a trailer nothing of
// all that does.
//
// The request that it returns may be another than r, with the same Header.
func (p *Proxies) Meet(r *http.Request) (*http.Request, Arrival) {
	a := p.Look(r)
	believed := p.header()
	var dropped []string
	for name := range r.Header {
		if speaks(name, believed) && !p.keeps(name, a.Trusted) {
			delete(r.Header, name)
			dropped = append(dropped, name)
		}
	}
	for name := range r.Trailer { // where no proxy says it
		if speaks(name, believed) {
			delete(r.Trailer, name)
		}
	}
	if a.Trusted {
		p.tell(r.Header, &a)
	} else if said := slices.DeleteFunc(dropped, ofCertificates); len(said) > 0 {
		name := slices.Min(said)
		if slices.Contains(said, XForwardedFor) {
			name = XForwardedFor
		}
		r = r.WithContext(context.WithValue(r.Context(), unbelieved{}, name))
	}
	return r, a
}

// keeps tells whether a header in which a peer speaks of its client stays.
func (p *Proxies) keeps(name string, trusted bool) bool {
	if !trusted || name != http.CanonicalHeaderKey(name) || strings.ContainsAny(name, "_.") {
		return false
	}
	switch believed := p.header(); {
	case name == believed:
		return true
	case name == XForwardedFor:
		return false
	default:
		return believed != Forwarded && strings.HasPrefix(name, "X-Forwarded-")
	}
}

// tell puts what is believed in the place of what a trusted proxy said.
func (p *Proxies) tell(h http.Header, a *Arrival) {
	if name := p.header(); name != Forwarded {
		put(h, name, a.addresses())
	}
	if a.host != "" {
		h["X-Forwarded-Host"] = []string{a.host}
	}
	put(h, XForwardedFor, a.addresses())
	if a.elements == "" {
		a.elements = a.translated(h["X-Forwarded-Host"])
	}
	put(h, Forwarded, a.elements)
}

func put(h http.Header, name, value string) {
	if value == "" {
		delete(h, name)
	} else {
		h[name] = []string{value}
	}
}

// addresses are the hops as X-Forwarded-For has them.
func (a *Arrival) addresses() string {
	texts := make([]string, len(a.hops))
	for i, hop := range a.hops {
		texts[i] = hop.String()
	}
	return strings.Join(texts, ", ")
}

// translated are the hops as Forwarded has them (RFC 7239, section 7.4), with what else is known of the first.
func (a *Arrival) translated(hosts []string) string {
	var elements []string
	for i, hop := range a.hops {
		host, proto := "", ""
		if i == 0 {
			proto = Scheme(a.TLS)
			if len(hosts) == 1 && !strings.Contains(hosts[0], ",") {
				host = hosts[0]
			}
		}
		elements = append(elements, Element(hop, host, proto))
	}
	return strings.Join(elements, ", ")
}

// Scheme is that of a client's side as proxies tell it.
func Scheme(tls bool) string {
	if tls {
		return "https"
	}
	return "http"
}

// unbelieved finds in a request's context the header that Meet has dropped.
type unbelieved struct{}

// Unbelieved is a header by which a stranger would have been taken for a proxy, and which Meet has dropped; "" if there was none.
func Unbelieved(r *http.Request) string {
	name, _ := r.Context().Value(unbelieved{}).(string)
	return name
}

// unlisted is a likely mistake: a proxy that nobody has listed; "" if it is none.
func unlisted(r *http.Request) string {
	if name := Unbelieved(r); name != "" {
		return fmt.Sprintf("%s sends %s: if it is a proxy of yours, list it under trusted_proxies", Peer(r), name)
	}
	return ""
}

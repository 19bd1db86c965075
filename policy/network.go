package policy

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"

	"bridgehead/internal/door"
)

// A Network is a set of addresses: a CIDR, a single address, `private` (RFC 1918 and unique local IPv6) or `loopback`.
type Network struct {
	text     string
	prefixes []netip.Prefix
}

// wellKnown are the networks that have a name.
var wellKnown = map[string][]netip.Prefix{
	"loopback": {netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")},
	"private": {
		netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"),
		netip.MustParsePrefix("fc00::/7"),
	},
}

// Loopback is the network of this machine's own clients.
func Loopback() Network { return Network{"loopback", wellKnown["loopback"]} }

// UnmarshalText reads a network.
func (n *Network) UnmarshalText(text []byte) error {
	s := string(text)
	if known, ok := wellKnown[s]; ok {
		*n = Network{s, known}
		return nil
	}
	if addr, err := netip.ParseAddr(s); err == nil {
		addr = plain(addr)
		*n = Network{s, []netip.Prefix{netip.PrefixFrom(addr, addr.BitLen())}}
		return nil
	}
	prefix, err := netip.ParsePrefix(s)
	if err != nil {
		return fmt.Errorf("%q is no network: write a CIDR such as 10.0.0.0/8, an address, private or loopback", s)
	}
	if masked := prefix.Masked(); masked != prefix {
		return fmt.Errorf("%q has bits set behind its prefix: write %s", s, masked)
	}
	if addr := prefix.Addr(); addr.Is4In6() && prefix.Bits() >= 96 {
		prefix = netip.PrefixFrom(addr.Unmap(), prefix.Bits()-96)
	}
	*n = Network{s, []netip.Prefix{prefix}}
	return nil
}

// String is the network as it was written.
func (n Network) String() string { return n.text }

// MarshalText gives the network as it was written.
func (n Network) MarshalText() ([]byte, error) { return []byte(n.text), nil }

// Networks are a set of addresses: those of each of them.
type Networks []Network

// Contain tells whether a is in one of the networks; an IPv4 address inside IPv6 counts as IPv4.
func (n Networks) Contain(a netip.Addr) bool {
	a = plain(a)
	for _, network := range n {
		for _, prefix := range network.prefixes {
			if prefix.Contains(a) {
				return true
			}
		}
	}
	return false
}

// Client says who sent r, and whether the client's side is TLS, where n are the proxies to be believed.
//
// From a peer outside n it is the peer, and r.TLS. Behind trusted proxies it is the right-most address of X-Forwarded-For (all its
// lines, in order) that is not a trusted proxy itself; an entry that is no address ends the walk, and what stands left of it is
// ignored, as a client may have written that. X-Forwarded-Proto of a trusted peer (its last value) decides about TLS.
//
// A peer on a Unix socket has no address: it counts as 127.0.0.1, and is believed if that is in n. Behind a PROXY header, which only a
// trusted proxy may send, the peer is the one that it names, and the header may say that this one speaks TLS.
func (n Networks) Client(r *http.Request) (addr netip.Addr, tls bool) {
	addr, tls = Peer(r), r.TLS != nil || door.From(r.Context()).Header().TLS()
	if !n.Contain(addr) {
		return addr, tls
	}
	if proto := lastField(r.Header.Values("X-Forwarded-Proto")); proto != "" {
		tls = strings.EqualFold(proto, "https") || strings.EqualFold(proto, "wss")
	}
	return n.walk(addr, r.Header.Values("X-Forwarded-For")), tls
}

// walk goes from the peer leftwards as long as it meets trusted addresses.
func (n Networks) walk(peer netip.Addr, lines []string) netip.Addr {
	last := peer
	for left := strings.Join(lines, ","); left != ""; {
		i := strings.LastIndexByte(left, ',')
		next, ok := forwardedAddr(left[i+1:])
		if !ok {
			return last
		}
		if last = next; !n.Contain(next) {
			return last
		}
		left = left[:max(i, 0)]
	}
	return last
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

// peer is the address of the other end of the TCP connection, and 127.0.0.1 for a Unix socket.
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

func lastField(lines []string) string {
	joined := strings.Join(lines, ",")
	return strings.Trim(joined[strings.LastIndexByte(joined, ',')+1:], " \t")
}

// Trusts reports whether the peer of r is one of these networks, so that what it says of its client counts.
func (n Networks) Trusts(r *http.Request) bool { return n.Contain(Peer(r)) }

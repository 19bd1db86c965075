package policy

import (
	"fmt"
	"net/netip"
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
		return fmt.Errorf("%.100q is no network: write a CIDR such as 10.0.0.0/8, an address, private or loopback", s)
	}
	if masked := prefix.Masked(); masked != prefix {
		return fmt.Errorf("%.100q has bits set behind its prefix: write %s", s, masked)
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

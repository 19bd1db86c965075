package policy

import (
	"net/http"
	"net/netip"
)

// Trusts reports whether the TCP peer of r is one of these networks, so that what it says of its client counts.
func (n Networks) Trusts(r *http.Request) bool { return n.Contain(peer(r)) }

// Peer is the address of the other end of r's TCP connection. A peer on a Unix socket counts as 127.0.0.1.
func Peer(r *http.Request) netip.Addr { return peer(r) }

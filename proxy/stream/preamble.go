package stream

import (
	"crypto/tls"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"

	"github.com/pires/go-proxyproto"

	"bridgehead/policy"
	"bridgehead/proxy"
	"bridgehead/routes"
)

// sendPreamble tells the stream who its client is, once and before any other byte (haproxy proxy-protocol.txt).
func sendPreamble(conn net.Conn, kind string, h *proxy.Handshake) error {
	if kind == "none" {
		return nil
	}
	header := &proxyproto.Header{Version: 1, Command: proxyproto.PROXY}
	header.TransportProtocol, header.SourceAddr, header.DestinationAddr = addresses(source(h), destination(h.Request))
	if kind == "proxy-v2" {
		header.Version = 2
		if err := header.SetTLVs(tlvs(h)); err != nil {
			return err
		}
	}
	_, err := header.WriteTo(conn)
	return err
}

// source is the true client; its port is known only when there is no proxy in front.
func source(h *proxy.Handshake) netip.AddrPort {
	if peer, err := netip.ParseAddrPort(h.Request.RemoteAddr); err == nil && policy.Peer(h.Request) == h.Client {
		return netip.AddrPortFrom(h.Client, peer.Port())
	}
	return netip.AddrPortFrom(h.Client, 0)
}

// destination is the address of ours that the client's connection came to.
func destination(r *http.Request) netip.AddrPort {
	local, _ := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	if local == nil {
		return netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
	}
	at := local.AddrPort()
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}

// addresses brings both ends to one family, as the header demands.
func addresses(from, to netip.AddrPort) (proxyproto.AddressFamilyAndProtocol, net.Addr, net.Addr) {
	family := proxyproto.TCPv4
	if from.Addr().Is6() || to.Addr().Is6() {
		family = proxyproto.TCPv6
		from = netip.AddrPortFrom(netip.AddrFrom16(from.Addr().As16()), from.Port())
		to = netip.AddrPortFrom(netip.AddrFrom16(to.Addr().As16()), to.Port())
	}
	return family, net.TCPAddrFromAddrPort(from), net.TCPAddrFromAddrPort(to)
}

// Types of our own, of those that the protocol leaves to applications: who the client is, as the route's authenticators say.
const (
	tlvUser   = proxyproto.PP2_TYPE_MIN_CUSTOM + 1 // 0xE1, its name
	tlvClaims = proxyproto.PP2_TYPE_MIN_CUSTOM + 2 // 0xE2, a JSON object
)

// tlvs say more of the connection than its addresses (section 2.2.1 and following).
func tlvs(h *proxy.Handshake) []proxyproto.TLV {
	all := []proxyproto.TLV{
		{Type: proxyproto.PP2_TYPE_AUTHORITY, Value: []byte(routes.Hostname(h.Request.Host))},
		{Type: proxyproto.PP2_TYPE_UNIQUE_ID, Value: []byte(h.ConnID)},
	}
	if h.User != "" {
		all = append(all, proxyproto.TLV{Type: tlvUser, Value: []byte(h.User)})
	}
	if len(h.Told) > 0 {
		claims, _ := json.Marshal(h.Told) // which was read from JSON
		all = append(all, proxyproto.TLV{Type: tlvClaims, Value: claims})
	}
	if !h.TLS {
		return all
	}
	const viaTLS, noCertificate = 0x01, 1
	ssl := []byte{viaTLS, 0, 0, 0, noCertificate}
	if state := h.Request.TLS; state != nil {
		version := tls.VersionName(state.Version)
		ssl = append(ssl, byte(proxyproto.PP2_SUBTYPE_SSL_VERSION), 0, byte(len(version)))
		ssl = append(ssl, version...)
	}
	return append(all, proxyproto.TLV{Type: proxyproto.PP2_TYPE_SSL, Value: ssl})
}

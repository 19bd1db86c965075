package stream

import (
	"crypto/tls"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"

	"bridgehead/internal/proxyproto"
	"bridgehead/policy"
	"bridgehead/proxy"
	"bridgehead/routes"
)

// sendPreamble tells the stream who its client is, once and before any other byte (haproxy proxy-protocol.txt).
func sendPreamble(conn net.Conn, kind string, h *proxy.Handshake) error {
	if kind == "none" {
		return nil
	}
	header := proxyproto.Header{Version: 1, Source: source(h), Destination: destination(h.Request)}
	if kind == "proxy-v2" {
		header.Version, header.TLVs = 2, tlvs(h)
	}
	raw, err := header.Append(nil)
	if err == nil {
		_, err = conn.Write(raw)
	}
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

// What the TLV of a TLS connection says of the client (section 2.2.6). The number that follows these is 0 if its certificate was verified.
const (
	viaTLS               = 0x01
	certificateHere      = 0x02
	certificateOfSession = 0x04
)

// maxCommonName is how long a common name may be (RFC 5280, appendix A.1). Longer ones are left out.
const maxCommonName = 64

// Types of our own, of those that the protocol leaves to applications: who the client is, as the route's authenticators say.
const (
	tlvUser   = proxyproto.Custom + 1 // 0xE1, its name
	tlvClaims = proxyproto.Custom + 2 // 0xE2, a JSON object
)

// tlvs say more of the connection than its addresses (section 2.2.1 and following).
func tlvs(h *proxy.Handshake) []proxyproto.TLV {
	all := []proxyproto.TLV{
		{Type: proxyproto.Authority, Value: []byte(routes.Hostname(h.Request.Host))},
		{Type: proxyproto.UniqueID, Value: []byte(h.ConnID)},
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
	ssl := []byte{viaTLS, 0, 0, 0, 1}
	cert := h.Certificate()
	if cert != nil {
		ssl = []byte{viaTLS | certificateHere | certificateOfSession, 0, 0, 0, 0}
	}
	if state := h.Request.TLS; state != nil {
		ssl = appendTLV(ssl, proxyproto.SSLVersion, tls.VersionName(state.Version))
	}
	if cert != nil && len(cert.Subject.CommonName) <= maxCommonName {
		ssl = appendTLV(ssl, proxyproto.SSLCommonName, cert.Subject.CommonName)
	}
	return append(all, proxyproto.TLV{Type: proxyproto.SSL, Value: ssl})
}

// appendTLV appends a part of a TLV, whose value has fewer than 256 bytes.
func appendTLV(dst []byte, kind byte, value string) []byte {
	return append(append(dst, kind, 0, byte(len(value))), value...)
}

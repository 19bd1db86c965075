package tls

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"net/netip"
	"strings"
)

// A Setup is what the handshakes of a listener are answered with. What the functions give holds at that moment, so that a reload may
// put others in its place while the listener lives on. They give nil when a reload has done away with TLS while a client knocked.
type Setup struct {
	Certs   func() *Certs
	Tickets func() *Tickets
	Clients *Clients // nil: no client is asked for a certificate
	HTTP2   bool     // clients may speak it, too
}

// ServerTLS returns a new configuration for a listener: TLS 1.2 and 1.3, HTTP/1.1 and, if asked for, HTTP/2.
//
// A client may take up a session of before under the host and the rule for client certificates that the session began with, as long
// as the host is served.
func ServerTLS(s Setup) *tls.Config {
	base := s.config(nil)
	base.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if challenge := s.Certs().challengeTLS(hello); challenge != nil || s.Clients == nil {
			return challenge, nil
		}
		return s.Clients.config(s.host(hello), hello, s.config), nil
	}
	return base
}

// config is for the clients of one rule for certificates; nil is those who are asked for none.
func (s Setup) config(rule []byte) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: s.protocols(),
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			now := s.Certs()
			if now == nil {
				return nil, nil
			}
			return now.certificate(hello)
		},
		WrapSession: func(cs tls.ConnectionState, session *tls.SessionState) ([]byte, error) {
			tickets := s.Tickets()
			if tickets == nil {
				return nil, errors.New("the listener speaks TLS no longer")
			}
			return tickets.seal(cs, session, binding(cs.ServerName, rule))
		},
		UnwrapSession: func(ticket []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
			now, tickets := s.Certs(), s.Tickets()
			if now == nil || tickets == nil || !now.resumes(hostName(cs.ServerName)) {
				return nil, nil
			}
			return tickets.open(ticket, cs, binding(cs.ServerName, rule))
		},
		CipherSuites: []uint16{ // of TLS 1.2: forward secret and authenticated; those of 1.3 are all both
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
			tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		},
	}
}

// protocols are those that clients may choose from, the best first (RFC 7301).
func (s Setup) protocols() []string {
	if s.HTTP2 {
		return []string{"h2", "http/1.1"}
	}
	return []string{"http/1.1"}
}

// host is the one that a client is answered for; "" if it named none and there is none for such clients.
func (s Setup) host(hello *tls.ClientHelloInfo) string {
	if now := s.Certs(); now != nil {
		return now.read(hello).name
	}
	return hostName(hello.ServerName)
}

// hostName is what a client named, in lower case. An IP literal is no name (RFC 6066, section 3): clients that send one are answered
// as those that name nothing.
func hostName(serverName string) string {
	if _, err := netip.ParseAddr(serverName); err == nil {
		return ""
	}
	return strings.ToLower(serverName)
}

// binding is what a session ticket is good for (RFC 6066, section 3: not for another name).
func binding(serverName string, rule []byte) []byte {
	sum := sha256.Sum256(bytes.Join([][]byte{[]byte("bridgehead"), []byte(hostName(serverName)), rule}, []byte{0}))
	return sum[:]
}

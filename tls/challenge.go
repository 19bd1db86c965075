package tls

import (
	"crypto/tls"
	"net/http"
	"slices"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
)

// Challenge answers a request of an authority that wants to see that a host is ours (http-01; RFC 8555, section 8.3), and tells
// whether it was one. It is for requests that came without TLS.
func (c *Certs) Challenge(w http.ResponseWriter, r *http.Request) bool {
	if c == nil || c.auto == nil || !certmagic.LooksLikeHTTPChallenge(r) {
		return false
	}
	if challenge, ok := certmagic.GetACMEChallenge(r.Host); ok {
		return certmagic.SolveHTTPChallenge(c.auto.zap, w, r, challenge.Challenge)
	}
	return false
}

// isChallenge tells whether it is an authority that says hello (tls-alpn-01; RFC 8737, section 3).
func isChallenge(hello *tls.ClientHelloInfo) bool {
	return hello.ServerName != "" && slices.Equal(hello.SupportedProtos, []string{acmez.ACMETLS1Protocol})
}

// challengeTLS is the configuration for an authority that says hello. It has no client certificate, and gets no more than the
// handshake.
func (c *Certs) challengeTLS(hello *tls.ClientHelloInfo) *tls.Config {
	if c == nil || c.auto == nil || !isChallenge(hello) {
		return nil
	}
	challenge, ok := certmagic.GetACMEChallenge(hello.ServerName)
	if !ok {
		return nil
	}
	cert, err := acmez.TLSALPN01ChallengeCert(challenge.Challenge)
	if err != nil {
		c.log.Debug("no certificate for a challenge", "host", hello.ServerName, "error", err)
		return nil
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{acmez.ACMETLS1Protocol}, Certificates: []tls.Certificate{*cert},
	}
}

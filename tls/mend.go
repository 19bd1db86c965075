package tls

import "strings"

// mends are what to do about the errors of TLS handshakes, by what their texts hold. The first that fits counts.
var mends = []struct{ text, mend string }{
	{"remote error: tls: unknown certificate authority", untrusted},
	{"remote error: tls: bad certificate", untrusted},
	{"remote error: tls: unknown certificate", untrusted},
	{"remote error: tls: expired certificate", "the client found the certificate expired: renew it, or set the clock of the client"},
	{"client sent an HTTP request to an HTTPS server", unsecured},
	{"first record does not look like a TLS handshake", unsecured},
	{"client offered only unsupported versions", "the client speaks TLS 1.1 or older: it needs TLS 1.2 or 1.3"},
	{"no cipher suite supported by both", "the client knows no cipher suite of today: it needs TLS 1.3, or ECDHE with AES-GCM or ChaCha20 of TLS 1.2"},
	{"tls: client didn't provide a certificate", "the listener's client_ca wants a certificate and the client shows none: give it one, " +
		"or set client_ca.optional"},
	{"tls: failed to verify certificate: x509: certificate signed by unknown authority", "the client's certificate is of an authority that is not " +
		"in the files of the listener's client_ca; the client has to send its intermediates too"},
	{"tls: failed to verify certificate", "the client's certificate is not good for the listener's client_ca: it must be valid now, and if it " +
		"limits its use, allow client authentication (clientAuth)"},
	{"client requested unsupported application protocols", "the client speaks no HTTP/1.1: it must, or the listener say http2: true"},
}

const (
	untrusted = "the client does not trust the certificate: with certificates.internal it must trust the root that `bridgehead ca` shows; " +
		"with certificates.files the certificate must hold the host's name, and its file the intermediates too; an ACME authority for tests is trusted by nobody"
	unsecured = "the client spoke without TLS to a port that has it: it must use wss:// or https://, or another port"
)

// Mend finds in a line of net/http's error log why a TLS handshake failed, and says what to do about it; "" if nothing is known.
// The mend is one of a few: lines that have the same may be told once.
func Mend(line string) string {
	for _, m := range mends {
		if strings.Contains(line, m.text) {
			return m.mend
		}
	}
	return ""
}

package policy

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"maps"
	"slices"
	"strings"
)

// certificateFields are what a client's certificate says, under the names that values and applications know.
var certificateFields = map[string]func(*x509.Certificate) string{
	"subject":     func(c *x509.Certificate) string { return c.Subject.String() },
	"issuer":      func(c *x509.Certificate) string { return c.Issuer.String() },
	"cn":          func(c *x509.Certificate) string { return c.Subject.CommonName },
	"serial":      func(c *x509.Certificate) string { return c.SerialNumber.Text(16) },
	"fingerprint": Fingerprint,
	"dns":         func(c *x509.Certificate) string { return first(c.DNSNames) },
	"email":       func(c *x509.Certificate) string { return first(c.EmailAddresses) },
	"uri": func(c *x509.Certificate) string {
		if len(c.URIs) == 0 {
			return ""
		}
		return c.URIs[0].String()
	},
}

// certificateList names the fields in messages.
var certificateList = "cert." + strings.Join(slices.Sorted(maps.Keys(certificateFields)), ", cert.")

func first(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return names[0]
}

// Fingerprint is the SHA-256 of a certificate in hexadecimal digits, in lower case and without colons.
func Fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

// ofCertificate is a field of the client's certificate. What has control characters in it, which no name needs, is none.
func ofCertificate(f *Facts, field string) string {
	c := f.Certificate()
	if c == nil {
		return ""
	}
	text := certificateFields[field](c)
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7F }) {
		return ""
	}
	return text
}

// CertificateHeader is where a backend finds the client's certificate (RFC 9440). CertificateChainHeader is never sent.
const (
	CertificateHeader      = "Client-Cert"
	CertificateChainHeader = "Client-Cert-Chain"
)

// EncodeCertificate is a certificate as CertificateHeader has it.
func EncodeCertificate(c *x509.Certificate) string {
	return ":" + base64.StdEncoding.EncodeToString(c.Raw) + ":"
}

package tls

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"
)

// How long certificates live. Each is replaced when two thirds of its life are over, so that a leaf, whose life is much shorter
// than the last third of its issuer's, never outlives it.
const (
	rootLife         = 10 * 365 * 24 * time.Hour
	intermediateLife = 7 * 24 * time.Hour
	leafLife         = 24 * time.Hour

	backdate = time.Hour // for clients whose clocks are slow
)

// An identity is a certificate with its private key.
type identity struct {
	cert *x509.Certificate
	key  crypto.Signer
	made time.Time
}

// due tells whether it is time to replace the identity.
func (i *identity) due(now time.Time) bool {
	return now.After(i.made.Add(i.cert.NotAfter.Sub(i.made) * 2 / 3))
}

// issue makes a key and signs a certificate for it with issuer, or, if that is nil, with itself. The certificate lives as long
// as life and the issuer allow.
func issue(template *x509.Certificate, life time.Duration, issuer *identity, now time.Time) (*identity, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template.NotBefore, template.NotAfter = now.Add(-backdate), now.Add(life)
	template.BasicConstraintsValid = true
	parent, signer := template, crypto.Signer(key)
	if issuer != nil {
		parent, signer = issuer.cert, issuer.key
		if parent.NotAfter.Before(template.NotAfter) {
			template.NotAfter = parent.NotAfter
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &identity{cert, key, now}, nil
}

// issueAuthority makes an authority below issuer, or a root if that is nil.
func issueAuthority(title string, life time.Duration, issuer *identity, now time.Time) (*identity, error) {
	template := &x509.Certificate{
		Subject:  pkix.Name{CommonName: title + " " + strings.ToLower(rand.Text()[:6])}, // tells it from others in a trust store
		IsCA:     true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	if issuer == nil {
		template.MaxPathLen = 1 // the intermediate
	} else {
		template.MaxPathLenZero = true // leaves alone
	}
	return issue(template, life, issuer, now)
}

// issueLeaf makes a certificate for a host name or wildcard, or for an IP address. One for an address also holds the loopback
// addresses, and those in also: behind a port mapping the client knows us by another address than we do.
func issueLeaf(subject string, also []net.IP, issuer *identity, now time.Time) (*identity, error) {
	template := &x509.Certificate{
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if len(subject) <= 64 { // the limit of a common name (RFC 5280, appendix A.1); what counts is the alternative name
		template.Subject.CommonName = subject
	}
	if addr, err := netip.ParseAddr(subject); err == nil {
		template.IPAddresses = append([]net.IP{addr.AsSlice(), net.IPv4(127, 0, 0, 1), net.IPv6loopback}, also...)
	} else {
		template.DNSNames = []string{subject}
	}
	return issue(template, leafLife, issuer, now)
}

// tlsCertificate is what a server sends: the leaf and its issuer; clients know the root.
func tlsCertificate(leaf, issuer *identity) *tls.Certificate {
	return &tls.Certificate{
		Certificate: [][]byte{leaf.cert.Raw, issuer.cert.Raw},
		PrivateKey:  leaf.key,
		Leaf:        leaf.cert,
	}
}

// checkLife returns an error if the certificate is not valid now.
func checkLife(cert *x509.Certificate, now time.Time) error {
	switch {
	case now.After(cert.NotAfter):
		return fmt.Errorf("it expired on %s", cert.NotAfter.Format(time.RFC3339))
	case now.Before(cert.NotBefore):
		return fmt.Errorf("it is valid from %s on: is this machine's clock right", cert.NotBefore.Format(time.RFC3339))
	}
	return nil
}

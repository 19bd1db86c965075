package auth

import (
	"context"
	"crypto/x509"
	"fmt"
	"time"

	"bridgehead/internal/yamlpos"
	"bridgehead/policy"
)

// MTLS are the options of client certificates. Their authority is that of the listener: its `client_ca`.
type MTLS struct {
	// What of the certificate is the user: `cn`, or the first of its names of the kind `dns`, `email` or `uri`.
	User string `yaml:"user"`
}

// DefaultMTLS has the values of keys that are not given.
func DefaultMTLS() MTLS { return MTLS{User: "cn"} }

// Validate reports what cannot work.
func (o *MTLS) Validate(at yamlpos.Path, p *yamlpos.Problems) {
	p.OneOf(at.Key("user"), o.User, "cn", "dns", "email", "uri")
}

// A certReader is the authenticator of client certificates.
type certReader struct{ user string }

func (o *MTLS) open(Setup) (authenticator, error) { return &certReader{o.User}, nil }

func (r *certReader) places() []place   { return nil }
func (r *certReader) headers() []string { return nil }
func (r *certReader) close()            {}

// check takes the certificate that the listener has verified, and no other: without chains nobody has vouched for it.
func (r *certReader) check(_ context.Context, a *ask) (*Identity, error) {
	cert := a.Certificate()
	if cert == nil {
		return nil, deny(reasonMissing, "there is no client certificate that the listener has verified: does it have client_ca?")
	}
	if now := time.Now(); now.After(cert.NotAfter) { // on a connection that is older than that
		return nil, deny(reasonExpired, "the client certificate has expired")
	}
	claims := certClaims(cert)
	users := claims.Texts(r.user)
	if len(users) == 0 || users[0] == "" {
		return nil, deny(reasonInvalid, "the client certificate %s has no %s to name the user", cert.SerialNumber, r.user)
	}
	return &Identity{
		User: users[0], Claims: claims, Expires: cert.NotAfter, Proof: fmt.Sprintf("user %q by a client certificate", users[0]),
	}, nil
}

// certClaims are what a certificate says of its holder.
func certClaims(cert *x509.Certificate) policy.Claims {
	claims := policy.Claims{
		"cn": cert.Subject.CommonName, "serial": cert.SerialNumber.String(), "fingerprint": policy.Fingerprint(cert),
		"sub": cert.Subject.String(), "issuer": cert.Issuer.String(),
	}
	var uris []string
	for _, u := range cert.URIs {
		uris = append(uris, u.String())
	}
	for name, texts := range map[string][]string{
		"dns": cert.DNSNames, "email": cert.EmailAddresses, "uri": uris, "ou": cert.Subject.OrganizationalUnit, "o": cert.Subject.Organization,
	} {
		var all []any
		for _, text := range texts {
			all = append(all, text)
		}
		if all != nil {
			claims[name] = all
		}
	}
	return claims
}

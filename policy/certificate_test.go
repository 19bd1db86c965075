package policy

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/url"
	"strings"
	"testing"
)

func TestWhatACertificateSays(t *testing.T) {
	t.Parallel()
	cert := &x509.Certificate{
		Raw: []byte("DER"), SerialNumber: big.NewInt(0xBEEF), Subject: pkix.Name{CommonName: "ann", Organization: []string{"a,b"}},
		Issuer: pkix.Name{CommonName: "ca"}, DNSNames: []string{"a.example", "b.example"}, EmailAddresses: []string{"ann@example.com"},
		URIs: []*url.URL{{Scheme: "spiffe", Host: "example.com", Path: "/ann"}},
	}
	wild := &x509.Certificate{
		Raw: []byte("DER"), SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "a\r\nX-Admin: yes"}, DNSNames: []string{"a\x00b"},
		EmailAddresses: []string{"a\x7F"},
	}
	for name, want := range map[string]string{
		"subject": `CN=ann,O=a\,b`, "issuer": "CN=ca", "cn": "ann", "serial": "beef", "dns": "a.example", "email": "ann@example.com",
		"uri": "spiffe://example.com/ann", "fingerprint": Fingerprint(cert),
	} {
		v, err := ParseValue("cert." + name)
		if err != nil {
			t.Fatal(err)
		}
		f := &Facts{Chains: [][]*x509.Certificate{{cert}}}
		if got, ok := v.Of(f); got != want || !ok || v.String() != "cert."+name {
			t.Errorf("%s is %q, want %q", v, got, want)
		}
		if got, ok := v.Of(&Facts{}); ok {
			t.Errorf("without a certificate %s is %q", v, got)
		}
		f.Chains[0][0] = wild
		if got, _ := v.Of(f); strings.ContainsAny(got, "\r\n\x00\x7F") {
			t.Errorf("%s is %q", v, got)
		}
	}
	if got := Fingerprint(cert); len(got) != 64 || strings.ToLower(got) != got {
		t.Errorf("the fingerprint is %q", got)
	}
	if EncodeCertificate(cert) != ":REVS:" {
		t.Errorf("encoded as %s", EncodeCertificate(cert))
	}
}

package tls

import (
	"crypto/x509"
	"errors"
	"io/fs"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// What is explained is what a client then gets.
func TestWhatIsExplainedIsServed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := writePair(t, dir, "first", holding("first.example"))
	below := writePair(t, dir, "below", holding("*.files.example"))
	at := writePair(t, dir, "at", &x509.Certificate{IPAddresses: []net.IP{{127, 0, 0, 1}}})
	old := writePairAt(t, dir, "old", holding("old.example"), time.Hour, time.Now().Add(-2*time.Hour))
	names := []string{"first.example", "*.app.example.com", "exact.example", "old.example"}
	for _, o := range []Options{
		{Internal: true, DefaultSNI: "exact.example"},
		{Files: []Pair{first, at}, DefaultSNI: "first.example"},
		{Files: []Pair{first, below}, DefaultSNI: "a.files.example"},
		{Files: []Pair{first}, Internal: true, DefaultSNI: "evil.example"},
		{},
		{Internal: true},
		{Files: []Pair{first, below, old}},
		{Files: []Pair{first, at}},
		{Files: []Pair{first, below, old}, Internal: true},
	} {
		address := listen(t, newCerts(t, o, names, t.TempDir(), newLogs()))
		for _, host := range []string{
			"first.example", "FIRST.example", "a.files.example", "a.b.files.example", "acme.app.example.com", "app.example.com",
			"exact.example", "old.example", "localhost", "127.0.0.1", "evil.example",
		} {
			got, err := Explain(o, names, host)
			if err != nil {
				t.Fatal(err)
			}
			if got.Source == "" {
				wantRefused(t, address, host)
				continue
			}
			leaf := served(t, address, host)
			takes := leaf.VerifyHostname(host) == nil && time.Now().Before(leaf.NotAfter)
			if got.OK != takes || !slices.ContainsFunc(got.Names, func(name string) bool { return slices.Contains(names2(leaf.DNSNames, leaf.IPAddresses), name) }) {
				t.Errorf("%+v: for %s it explains %+v, and serves %v %v", o, host, got, leaf.DNSNames, leaf.IPAddresses)
			}
		}
	}
}

// Explanations read no key and make no authority; a certificate that is not here leaves the question open.
func TestExplainNeedsNoMoreThanTheCertificates(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pair := writePair(t, dir, "pair", holding("a.example"))
	pair.Key = dir + "/none"
	if got, err := Explain(Options{Files: []Pair{pair}}, nil, "a.example"); err != nil || !got.OK || !strings.Contains(got.Text, "file "+pair.Cert+": for a.example, until 2") {
		t.Errorf("%+v, %v", got, err)
	}
	pair.Cert = dir + "/none"
	if _, err := Explain(Options{Files: []Pair{pair}}, nil, "a.example"); !errors.Is(err, ErrUnreadable) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v", err)
	}
	pair.Cert = dir + "/pair-key.pem"
	if _, err := Explain(Options{Files: []Pair{pair}}, nil, "a.example"); !errors.Is(err, ErrUnreadable) {
		t.Errorf("error %v", err)
	}
}

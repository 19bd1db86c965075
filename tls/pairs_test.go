package tls

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestPairsAreFoundByTheNamesTheyHold(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	files := []Pair{
		writePair(t, dir, "first", holding("first.example.com")),
		writePair(t, dir, "wild", holding("*.example.com", "example.com")),
		writePair(t, dir, "exact", holding("chat.example.com")),
		writePair(t, dir, "old", &x509.Certificate{Subject: pkix.Name{CommonName: "Old.example.net"}}),
	}
	c := newCerts(t, Options{Files: files}, []string{"chat.example.com", "gap.example.org"}, "", newLogs())
	address := listen(t, c)
	for name, holds := range map[string]string{
		"first.example.com":   "first.example.com",
		"chat.example.com":    "chat.example.com", // before the wildcard, though that stands first
		"CHAT.example.com":    "chat.example.com",
		"any.example.com":     "*.example.com",
		"example.com":         "*.example.com",
		"old.example.net":     "old.example.net", // by its common name
		"127.0.0.1":           "first.example.com",
		"":                    "first.example.com",
		"gap.example.org":     "first.example.com", // a route's host that no pair holds
		"sub.any.example.com": "",
		"evil.example":        "",
		"localhost":           "",
	} {
		if holds == "" {
			wantRefused(t, address, name)
		} else if leaf := served(t, address, name); !slices.Contains(names(leaf), holds) {
			t.Errorf("%q: the certificate of %v, want %s", name, names(leaf), holds)
		}
	}
}

func TestAPairThatHoldsTheAddressAnswersClientsWithoutAName(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	files := []Pair{
		writePair(t, dir, "first", holding("first.example.com")),
		writePair(t, dir, "address", &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}),
	}
	for _, internal := range []bool{false, true} {
		address := listen(t, newCerts(t, Options{Internal: internal, Files: files}, nil, dir, newLogs()))
		if leaf := served(t, address, ""); len(leaf.IPAddresses) != 1 {
			t.Errorf("internal %v: the certificate of %v", internal, names(leaf))
		}
	}
}

func TestAmongPairsForOneNameTheClientsAlgorithmDecides(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	now := time.Now()
	template := &x509.Certificate{DNSNames: []string{"chat.example.com"}, NotBefore: now, NotAfter: now.Add(90 * 24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	files := []Pair{
		writePair(t, dir, "ecdsa", holding("chat.example.com")),
		writeIdentity(t, dir, "rsa", &identity{cert: cert, key: key}),
	}
	address := listen(t, newCerts(t, Options{Files: files}, nil, "", newLogs()))
	for suite, want := range map[uint16]x509.PublicKeyAlgorithm{
		tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256:   x509.RSA,
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256: x509.ECDSA,
	} {
		state, err := dial(address, &tls.Config{
			ServerName: "chat.example.com", InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{suite},
		})
		if err != nil {
			t.Errorf("%s: %v", tls.CipherSuiteName(suite), err)
		} else if got := state.PeerCertificates[0].PublicKeyAlgorithm; got != want {
			t.Errorf("%s: a certificate with %v", tls.CipherSuiteName(suite), got)
		}
	}
}

func TestAChangedPairIsServedAndABrokenOneIsNot(t *testing.T) {
	t.Parallel()
	dir, l := t.TempDir(), newLogs()
	a := writePair(t, dir, "a", holding("a.example.com"))
	b := writePair(t, dir, "b", holding("b.example.com"))
	address := listen(t, newCerts(t, Options{Files: []Pair{a, b}}, nil, "", l))
	first := served(t, address, "a.example.com")
	l.await(t, "certificate loaded", 2)

	must(t, os.WriteFile(a.Cert, []byte("half a certif"), 0o644))
	l.await(t, "level=ERROR", 1)
	if l.count("a.pem with key "+a.Key) != 1 {
		t.Errorf("the log does not name the files:\n%s", l)
	}
	if !served(t, address, "a.example.com").Equal(first) {
		t.Error("a broken pair was not replaced by what it was")
	}

	writePair(t, dir, "b", holding("b.example.com", "also-b.example.com"))
	l.await(t, "also-b.example.com", 1)
	if l.count("a.pem with key "+a.Key) != 1 { // the other may be told too: its two files are not written at one moment
		t.Errorf("one broken file was told more than once:\n%s", l)
	}
	if !served(t, address, "a.example.com").Equal(first) {
		t.Error("another pair's change dropped the broken one")
	}

	writePair(t, dir, "a", holding("a.example.com", "new-a.example.com"))
	l.await(t, "new-a.example.com", 1)
	if served(t, address, "new-a.example.com").Equal(first) {
		t.Error("the mended pair is not served")
	}
}

// Kubernetes puts a new directory beside the old one and turns a link.
func TestAPairThatIsSwappedByALinkIsServed(t *testing.T) {
	t.Parallel()
	dir, l := t.TempDir(), newLogs()
	for _, version := range []string{"..1", "..2"} {
		must(t, os.Mkdir(filepath.Join(dir, version), 0o755))
		writePair(t, filepath.Join(dir, version), "tls", holding("v"+version[2:]+".example.com"))
	}
	must(t, os.Symlink("..1", filepath.Join(dir, "..data")))
	pair := Pair{filepath.Join(dir, "tls.pem"), filepath.Join(dir, "tls-key.pem")}
	for _, path := range []string{pair.Cert, pair.Key} {
		must(t, os.Symlink(filepath.Join("..data", filepath.Base(path)), path))
	}
	address := listen(t, newCerts(t, Options{Files: []Pair{pair}}, nil, "", l))
	served(t, address, "v1.example.com")

	must(t, os.Symlink("..2", filepath.Join(dir, "..data.new")))
	must(t, os.Rename(filepath.Join(dir, "..data.new"), filepath.Join(dir, "..data")))
	l.await(t, "v2.example.com", 1)
	served(t, address, "v2.example.com")
	wantRefused(t, address, "v1.example.com")
}

func TestABrokenPairAtTheStartIsAnError(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	good := writePair(t, dir, "good", holding("x"))
	other := writePair(t, dir, "other", holding("x"))
	empty := filepath.Join(dir, "empty.pem")
	must(t, os.WriteFile(empty, nil, 0o600))
	for _, test := range []struct {
		name string
		pair Pair
		says []string
	}{
		{"no file", Pair{filepath.Join(dir, "none.pem"), good.Key}, []string{"none.pem"}},
		{"neither file", Pair{filepath.Join(dir, "none.pem"), filepath.Join(dir, "nokey.pem")}, []string{"none.pem", "nokey.pem"}},
		{"a directory", Pair{dir, good.Key}, []string{dir, "directory"}},
		{"no certificate", Pair{empty, good.Key}, []string{empty, "find any PEM data in certificate"}},
		{"another's key", Pair{good.Cert, other.Key}, []string{good.Cert, other.Key, "does not match"}},
		{"key and certificate the wrong way round", Pair{good.Key, good.Cert}, []string{good.Cert, "may have been switched"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, err := New(Options{Files: []Pair{good, test.pair}}, Means{Log: newLogs().logger()})
			for _, words := range test.says {
				if err == nil || !strings.Contains(err.Error(), words) {
					t.Errorf("error %v does not say %q", err, words)
				}
			}
		})
	}
}

func TestTheLogSpeaksOfCertificatesThatClientsWillRefuse(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	now := time.Now()
	for _, test := range []struct {
		name string
		life time.Duration
		from time.Time
		warn string // "" is no warning
	}{
		{"fresh", 90 * day, now, ""},
		{"15 days left of 90", 90 * day, now.Add(-74 * day), ""},
		{"13 days left of 90", 90 * day, now.Add(-77 * day), "expires soon"},
		{"3 days left of 6", 6 * day, now.Add(-3 * day), ""},
		{"half a day left of 6", 6 * day, now.Add(-5*day - 12*time.Hour), "expires soon"},
		{"expired", 90 * day, now.Add(-91 * day), "clients will refuse this certificate"},
		{"not yet valid", 90 * day, now.Add(2 * day), "clients will refuse this certificate"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			l := newLogs()
			pair := writePairAt(t, t.TempDir(), "pair", holding("chat.example.com"), test.life, test.from)
			newCerts(t, Options{Files: []Pair{pair}}, []string{"chat.example.com", ""}, "", l)
			want := 0
			if test.warn != "" {
				want = 1
			}
			if l.count("level=WARN") != want || test.warn != "" && l.count(test.warn) != 1 {
				t.Errorf("want %d warnings, log:\n%s", want, l)
			}
		})
	}
}

func TestTheLogSpeaksOfHostsThatNoPairHolds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	files := []Pair{writePair(t, dir, "site", holding("www.example.com", "*.app.example.com"))}
	names := []string{"WWW.example.com", "*.app.example.com", "acme.app.example.com", "", "gap.example.com", "*.gap.example.com"}
	for internal, want := range map[bool]int{false: 2, true: 0} { // the local authority fills each gap
		l := newLogs()
		newCerts(t, Options{Internal: internal, Files: files}, names, dir, l)
		if l.count("no certificate holds this host") != want {
			t.Errorf("internal %v: want %d warnings, log:\n%s", internal, want, l)
		}
	}
}

func TestTheLogSpeaksOfAKeyThatAnybodyMayRead(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no such modes")
	}
	pair := writePair(t, t.TempDir(), "site", holding("www.example.com"))
	for mode, want := range map[os.FileMode]int{0o600: 0, 0o640: 0, 0o644: 1} { // groups such as ssl-cert are for this
		must(t, os.Chmod(pair.Key, mode))
		l := newLogs()
		newCerts(t, Options{Files: []Pair{pair}}, nil, "", l)
		if l.count("other users can read a private key") != want {
			t.Errorf("mode %v: want %d warnings, log:\n%s", mode, want, l)
		}
	}
}

func TestTheEndOfACertificateIsRecalledEveryDay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLogs()
		p := &pairs{log: l.logger(), done: make(chan struct{}), stopWatch: func() {}}
		p.all = []*pair{{Pair: writePair(t, t.TempDir(), "site", holding("www.example.com"))}}
		if broken := p.refresh(); broken != nil {
			t.Fatal(broken)
		}
		p.wg.Go(p.remind)
		time.Sleep(92*24*time.Hour + time.Hour)
		p.close()
		if soon, over := l.count("expires soon"), l.count("clients will refuse"); soon != 14 || over != 2 {
			t.Errorf("told %d times before and %d times after the end, want 14 and 2", soon, over)
		}
	})
}

// The watch may look at a pair before New does: the error is New's all the same.
func TestAPairThatWasNeverGoodStaysAnError(t *testing.T) {
	t.Parallel()
	p := &pair{Pair: Pair{"/none.pem", "/none-key.pem"}}
	for range 2 {
		if _, err := p.refresh(); err == nil {
			t.Error("no error")
		}
	}
}

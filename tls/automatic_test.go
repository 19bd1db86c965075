package tls

import (
	"crypto/x509"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"bridgehead/internal/metrics"
)

// Issuance is shown against a real authority, in test/acme. Here nobody answers at the directory.
const nobody = "https://127.0.0.1:1/dir"

func nobodyAnswers() Options {
	o := automaticOptions()
	o.ACME = []Issuer{{Directory: nobody}}
	return o
}

// keep puts a certificate where it lies after it was got.
func keep(t *testing.T, state, host string, life time.Duration, now time.Time) {
	t.Helper()
	key := (&certmagic.ACMEIssuer{CA: nobody}).IssuerKey()
	at := func(key string) string { return filepath.Join(state, stateDir, filepath.FromSlash(key)) }
	must(t, os.MkdirAll(at(certmagic.StorageKeys.CertsSitePrefix(key, host)), 0o700))
	p := writePairAt(t, t.TempDir(), "kept", &x509.Certificate{DNSNames: []string{host}}, life, now)
	must(t, os.Rename(p.Cert, at(certmagic.StorageKeys.SiteCert(key, host))))
	must(t, os.Rename(p.Key, at(certmagic.StorageKeys.SitePrivateKey(key, host))))
	must(t, os.WriteFile(at(certmagic.StorageKeys.SiteMeta(key, host)), fmt.Appendf(nil, `{"sans": [%q]}`, host), 0o600))
}

// eventually waits until holds is true.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	late := time.After(30 * time.Second)
	for !holds() {
		select {
		case <-late:
			t.Fatalf("%s: not within 30 s", what)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func status(c *Certs, subject string) Status {
	all := c.List()
	i := slices.IndexFunc(all, func(s Status) bool { return s.Subject == subject })
	if i < 0 {
		return Status{}
	}
	return all[i]
}

// What is kept is served without asking anybody; what is not, is refused, and says why.
func TestWhatIsKeptIsServedWhileNobodyAnswers(t *testing.T) {
	t.Parallel()
	state, l := t.TempDir(), newLogs()
	keep(t, state, "kept.example.com", 90*24*time.Hour, time.Now())
	c := newCerts(t, nobodyAnswers(), []string{"kept.example.com", "new.example.com"}, state, l)
	address := listen(t, c)
	eventually(t, "the certificate is loaded", func() bool { return !status(c, "kept.example.com").Until.IsZero() })
	if got := served(t, address, "KEPT.example.com"); got.DNSNames[0] != "kept.example.com" {
		t.Errorf("served %q", got.DNSNames)
	}
	eventually(t, "the attempt fails", func() bool { return status(c, "new.example.com").Error != "" })
	st := status(c, "new.example.com")
	if !st.Missing() || !strings.Contains(st.Error, "connection refused") || st.Next.IsZero() || st.Source != "automatic" {
		t.Errorf("%+v", st)
	}
	if _, err := dial(address, trustingNobody("new.example.com")); err == nil || !strings.Contains(err.Error(), "internal error") {
		t.Errorf("a host without a certificate: %v", err)
	}
	l.await(t, "TLS handshake refused: no certificate yet", 1)
	wantRefused(t, address, "other.example.com")

	all := c.List()
	c.Schedule(all)
	i := slices.IndexFunc(all, func(s Status) bool { return s.Subject == "kept.example.com" })
	if due := all[i].Until.Sub(all[i].Renewal); due < 29*24*time.Hour || due > 31*24*time.Hour {
		t.Errorf("it is renewed %s before its end", due)
	}
	if err := c.Renew(t.Context(), "other.example.com"); err != ErrUnknown {
		t.Errorf("renew a host that is not served: %v", err)
	}
}

// Files come first, then automatic certificates, then the local authority.
func TestThePrecedenceOfSources(t *testing.T) {
	t.Parallel()
	state := t.TempDir()
	keep(t, state, "auto.example.com", 90*24*time.Hour, time.Now())
	keep(t, state, "filed.example.com", 90*24*time.Hour, time.Now())
	o := nobodyAnswers()
	o.ACME[0].Hosts = []string{"*.example.com"}
	o.Internal = true
	o.Files = []Pair{writePair(t, t.TempDir(), "filed", holding("filed.example.com"))}
	names := []string{"auto.example.com", "filed.example.com", "private.lan", "*.wild.example.com"}
	c := newCerts(t, o, names, state, newLogs())
	address := listen(t, c)
	eventually(t, "the certificate is loaded", func() bool { return !status(c, "auto.example.com").Until.IsZero() })
	for host, source := range map[string]string{
		"auto.example.com": "automatic", "filed.example.com": "file", "private.lan": "authority", "a.wild.example.com": "authority", "localhost": "authority",
	} {
		got, err := Explain(o, names, host)
		if err != nil || got.Source != source {
			t.Errorf("%s comes from %q (%s), want %q, error %v", host, got.Source, got.Text, source, err)
		}
		leaf := served(t, address, host)
		internal := strings.HasPrefix(leaf.Issuer.CommonName, "bridgehead intermediate")
		if err := leaf.VerifyHostname(host); err != nil || internal != (source == "authority") {
			t.Errorf("%s gets a certificate for %q of %q", host, leaf.DNSNames, leaf.Issuer)
		}
	}
	if status(c, "filed.example.com").Source != "file" {
		t.Error("a certificate is got that a file holds")
	}
}

// A reload with other options goes on with what is there.
func TestCertificatesOutliveTheirOptions(t *testing.T) {
	t.Parallel()
	state, l := t.TempDir(), newLogs()
	keep(t, state, "stays.example.com", 90*24*time.Hour, time.Now())
	keep(t, state, "goes.example.com", 90*24*time.Hour, time.Now())
	o := nobodyAnswers()
	was := newCerts(t, o, []string{"stays.example.com", "goes.example.com"}, state, l)
	eventually(t, "both are loaded", func() bool {
		return !status(was, "stays.example.com").Until.IsZero() && !status(was, "goes.example.com").Until.IsZero()
	})
	o.KeyType, o.CheckInterval = "p384", time.Hour
	next, err := New(o, Means{State: state, Log: l.logger(), Was: was})
	must(t, err)
	t.Cleanup(next.Close)
	if next.auto != was.auto {
		t.Error("there is another cache")
	}
	next.Serve([]string{"stays.example.com"}, Listening{})
	was.auto.release() // as the reload does; the cleanup of was must not do so again
	was.auto = nil
	address := listen(t, next)
	served(t, address, "stays.example.com")
	wantRefused(t, address, "goes.example.com")
	if status(next, "goes.example.com").Subject != "" {
		t.Error("a host that is gone is listed")
	}
}

// Hosts that neither a file nor an authority can have are told.
func TestGapsBesideAutomaticCertificates(t *testing.T) {
	t.Parallel()
	o, l := nobodyAnswers(), newLogs()
	o.Files = []Pair{writePair(t, t.TempDir(), "filed", holding("filed.example.com"))}
	newCerts(t, o, []string{"filed.example.com", "auto.example.com", "*.gap.example.com"}, t.TempDir(), l)
	if l.count("no certificate holds this host") != 1 || l.count("host=*.gap.example.com") != 1 {
		t.Errorf("it says\n%s", l)
	}
}

// A certificate is found at the same cost among ten and among ten thousand.
func BenchmarkAutomatic(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			a, err := newAutomatic(b.TempDir(), time.Hour, newLogs().logger(), nil, nil)
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(a.hold().release)
			o := nobodyAnswers()
			p, _ := (&sources{options: o, issuers: o.issuers(), roots: []*x509.CertPool{nil}}).policy([]string{"0.example.com"}, Listening{}, func(string) bool { return false })
			config := p.config(a, "0.example.com")
			for i := range n {
				made, err := issue(holding(fmt.Sprintf("%d.example.com", i)), time.Hour, nil, time.Now())
				if err != nil {
					b.Fatal(err)
				}
				if _, err := config.CacheUnmanagedTLSCertificate(b.Context(), *tlsCertificate(made, made), nil); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if a.cached(fmt.Sprintf("%d.example.com", i%n)) == nil {
					b.Fatal("no certificate")
				}
			}
		})
	}
}

// A program that was killed while it wrote may leave a certificate beside another's key.
func TestAKeyThatDoesNotFitIsNoEnd(t *testing.T) {
	t.Parallel()
	state, l := t.TempDir(), newLogs()
	keep(t, state, "torn.example.com", 90*24*time.Hour, time.Now())
	other := writePair(t, t.TempDir(), "other", holding("torn.example.com"))
	keys, err := filepath.Glob(filepath.Join(state, stateDir, "certificates", "*", "*", "*.key"))
	if err != nil || len(keys) != 1 {
		t.Fatalf("%q, %v", keys, err)
	}
	must(t, os.Rename(other.Key, keys[0]))
	c := newCerts(t, nobodyAnswers(), []string{"torn.example.com"}, state, l)
	l.await(t, "the certificate that is kept cannot be used: getting another", 1)
	eventually(t, "the authority is asked", func() bool { return strings.Contains(status(c, "torn.example.com").Error, "connection refused") })
}

func TestOnDemandWithoutAnAuthority(t *testing.T) {
	t.Parallel()
	state, l, asked := t.TempDir(), newLogs(), make(chan string, 100)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.URL.Query().Get("domain")
		if strings.HasPrefix(r.URL.Query().Get("domain"), "stranger") {
			w.WriteHeader(http.StatusForbidden)
		}
	}))
	t.Cleanup(server.Close)
	keep(t, state, "kept.app.example.com", 90*24*time.Hour, time.Now())
	o := nobodyAnswers()
	demand := DefaultOnDemand()
	demand.Ask = server.URL
	o.OnDemand = &demand
	m := metrics.New("x")
	c, err := New(o, Means{State: state, Log: l.logger(), Metrics: m})
	must(t, err)
	t.Cleanup(c.Close)
	c.Serve([]string{"*.app.example.com"}, Listening{})
	address := listen(t, c)
	served(t, address, "kept.app.example.com")
	served(t, address, "kept.app.example.com")
	for range 3 {
		for _, host := range []string{"stranger.app.example.com", "new.app.example.com"} {
			if _, err := dial(address, trustingNobody(host)); err == nil || !strings.Contains(err.Error(), "internal error") {
				t.Errorf("%s: %v", host, err)
			}
		}
	}
	if len(asked) != 3 {
		t.Errorf("%d questions, want one for each host", len(asked))
	}
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	for _, want := range []string{`{outcome="failed"} 1`, `{outcome="issued"} 1`, `{outcome="refused"} 1`} {
		if !strings.Contains(w.Body.String(), "bridgehead_certificates_on_demand_total"+want) {
			t.Errorf("no %s in the metrics:\n%s", want, w.Body)
		}
	}
	if st := status(c, "kept.app.example.com"); st.Source != "on_demand" {
		t.Errorf("%+v", st)
	}
	if status(c, "stranger.app.example.com").Subject != "" {
		t.Error("a stranger's host is listed")
	}
}

func TestFilesOfAuthoritiesThatCannotBeRead(t *testing.T) {
	t.Parallel()
	empty := filepath.Join(t.TempDir(), "empty.pem")
	must(t, os.WriteFile(empty, nil, 0o600))
	for path, says := range map[string]string{empty: "holds no certificate in PEM", "/nowhere/ca.pem": "no such file"} {
		o := nobodyAnswers()
		o.ACME[0].CA = path
		if _, err := New(o, Means{State: t.TempDir(), Log: newLogs().logger()}); err == nil || !strings.Contains(err.Error(), "acme[0].ca: ") || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: error %v", path, err)
		}
	}
	if _, err := New(nobodyAnswers(), Means{Log: newLogs().logger()}); err == nil || !strings.Contains(err.Error(), "set `state`") {
		t.Errorf("without a state: error %v", err)
	}
}

func TestRequestsThatAreNoChallenge(t *testing.T) {
	t.Parallel()
	c := newCerts(t, nobodyAnswers(), nil, t.TempDir(), newLogs())
	for _, certs := range []*Certs{nil, c, newCerts(t, Options{Internal: true}, nil, t.TempDir(), newLogs())} {
		for _, path := range []string{"/", "/.well-known/acme-challenge/x", "/.well-known/acme-challenge/"} {
			w := httptest.NewRecorder()
			if certs.Challenge(w, httptest.NewRequest(http.MethodGet, "http://chat.example.com"+path, nil)) || w.Body.Len() > 0 {
				t.Errorf("%s is answered", path)
			}
		}
	}
}

// Package acme_test runs the program against Pebble, a real authority that speaks ACME, all on the loopback interface.
package acme_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// section is `certificates` with one authority. issuer is put behind its keys, more behind the section.
func section(a *authority, issuer, more string) string {
	profile := ", profile: default"
	if strings.Contains(issuer, "profile:") {
		profile = ""
	}
	return fmt.Sprintf("email: ops@example.com\nacme: [%s]\n%s", entry(a, profile+issuer), more)
}

func entry(a *authority, more string) string {
	return fmt.Sprintf("{directory: %q, ca: %q%s}", a.directory, a.file, more)
}

func TestTheFirstCertificate(t *testing.T) {
	t.Parallel()
	for name, more := range map[string]string{
		"http-01":     "challenges: [http-01]",
		"tls-alpn-01": "challenges: [tls-alpn-01]",
	} {
		t.Run("by "+name, func(t *testing.T) {
			t.Parallel()
			p := freePorts(t)
			a := newAuthority(t, settings{port: p, dns: newNameServer(t).address})
			g := newGateway(t, p, a.roots, section(a, "", more), "chat.example.com").start()
			cert := g.certified("chat.example.com")
			if len(cert.DNSNames) != 1 || cert.DNSNames[0] != "chat.example.com" {
				t.Errorf("it holds %q", cert.DNSNames)
			}
			g.dial("chat.example.com")
			g.logged("certificate obtained")
			if ready, err := g.get("/readyz"); err != nil || ready != "ready\n" {
				t.Errorf("/readyz says %q, error %v", ready, err)
			}
		})
	}
}

// No challenge but the one by the DNS can be answered for wildcards.
func TestWildcardsByTheDNS(t *testing.T) {
	t.Parallel()
	for name, provider := range map[string]func(t *testing.T, ns *nameServer, g *gateway) string{
		"rfc2136": func(t *testing.T, ns *nameServer, _ *gateway) string {
			return fmt.Sprintf("rfc2136: {server: %q, key_name: bridgehead, key: %q}, resolvers: [%q]", ns.address, tsigSecret, ns.address)
		},
		"webhook": func(t *testing.T, ns *nameServer, _ *gateway) string {
			return fmt.Sprintf("webhook: %q", recorder(t, ns)+"/record")
		},
		"exec": func(t *testing.T, ns *nameServer, g *gateway) string {
			g.env = append(g.env, "BRIDGEHEAD_TEST_RECORDER="+recorder(t, ns)+"/record")
			return fmt.Sprintf("exec: [%q, set]", os.Args[0])
		},
		"acme-dns": func(t *testing.T, ns *nameServer, _ *gateway) string {
			return fmt.Sprintf("acme_dns: {server: %q, username: u, password: p, subdomain: _acme-challenge.app.example.com}", recorder(t, ns))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, ns := freePorts(t), newNameServer(t)
			a := newAuthority(t, settings{port: p, dns: ns.address})
			g := newGateway(t, p, a.roots, "internal: true", "{tenant}.app.example.com")
			g.write(section(a, "", "dns: [{"+provider(t, ns, g)+"}]"), "{tenant}.app.example.com", "exact.app.example.com")
			g.start()
			for _, host := range []string{"one.app.example.com", "exact.app.example.com"} {
				if cert := g.certified(host); cert.DNSNames[0] != "*.app.example.com" {
					t.Errorf("%s has a certificate for %q", host, cert.DNSNames)
				}
			}
			if n := a.orders.Load(); n != 1 {
				t.Errorf("%d orders, want 1: the wildcard has the exact host too", n)
			}
			g.eventually("the record is gone", func() error {
				if left, ever := ns.left(); name != "acme-dns" && (left != 0 || ever != 1) {
					return fmt.Errorf("%d records are left of %d", left, ever)
				}
				return nil
			})
		})
	}
}

// recorder sets records for those who ask by HTTP: as a webhook, and as acme-dns.
func recorder(t *testing.T, ns *nameServer) (url string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var asked struct{ Action, Name, Value, Subdomain, Txt string }
		if err := json.NewDecoder(r.Body).Decode(&asked); err != nil || r.Method != http.MethodPost {
			http.Error(w, "no record", http.StatusBadRequest)
			return
		}
		switch {
		case r.URL.Path == "/update" && r.Header.Get("X-Api-User") == "u" && r.Header.Get("X-Api-Key") == "p":
			ns.set(asked.Subdomain, asked.Txt)
		case r.URL.Path == "/record" && asked.Action == "present":
			ns.set(asked.Name, asked.Value)
		case r.URL.Path == "/record" && asked.Action == "cleanup":
			ns.clear(asked.Name)
		default:
			http.Error(w, "not so", http.StatusForbidden)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func TestExternalAccountBinding(t *testing.T) {
	t.Parallel()
	p := freePorts(t)
	key := base64.RawURLEncoding.EncodeToString([]byte("a key of thirty-two bytes or more"))
	a := newAuthority(t, settings{port: p, dns: newNameServer(t).address, eab: map[string]string{"kid-1": key}})
	g := newGateway(t, p, a.roots, section(a, "", ""), "chat.example.com").start()
	g.logged("no certificate: clients of this host are refused")
	if ready, err := g.get("/readyz"); err != nil || !strings.Contains(ready, "chat.example.com: no certificate yet: ") {
		t.Errorf("/readyz says %q, error %v", ready, err)
	}
	if strings.Contains(g.log.String(), key) {
		t.Error("the key is in the log")
	}
	g.write(section(a, fmt.Sprintf(", eab: {key_id: kid-1, hmac: %q}", key), ""), "chat.example.com")
	if out, err := g.run("reload"); err != nil { // which does not wait for the time of the next attempt
		t.Fatalf("%s: %v", out, err)
	}
	g.certified("chat.example.com")
}

func TestProfilesAddressesAndKeys(t *testing.T) {
	t.Parallel()
	p := freePorts(t)
	a := newAuthority(t, settings{port: p, dns: newNameServer(t).address, lives: map[string]time.Duration{"shortlived": 6 * 24 * time.Hour}})
	g := newGateway(t, p, a.roots, section(a, ", profile: shortlived", "key_type: p384"), "127.0.0.1", "chat.example.com").start()
	cert := g.certified("chat.example.com")
	if life := cert.NotAfter.Sub(cert.NotBefore); life > 7*24*time.Hour {
		t.Errorf("it lives for %s", life)
	}
	// A client that dials an address names no host.
	g.eventually("a certificate for the address", func() error {
		cert, err := g.handshakeWith(&tls.Config{ServerName: "127.0.0.1", RootCAs: g.roots})
		if err == nil && !cert.IPAddresses[0].Equal(net.IPv4(127, 0, 0, 1)) {
			err = fmt.Errorf("it is for %v", cert.IPAddresses)
		}
		return err
	})
}

func TestTheNextAuthorityIsAskedIfOneIsGone(t *testing.T) {
	t.Parallel()
	p := freePorts(t)
	ns := newNameServer(t)
	gone := newAuthority(t, settings{port: p, dns: ns.address})
	a := newAuthority(t, settings{port: p, dns: ns.address, alternates: 1})
	gone.down()
	chain := a.ca.GetRootCert(1).Cert.Subject.CommonName
	config := fmt.Sprintf("acme: [%s, %s]", entry(gone, ""), entry(a, fmt.Sprintf(", profile: default, preferred_chain: %q", chain)))
	g := newGateway(t, p, a.roots, config, "chat.example.com").start()
	g.certified("chat.example.com")
	only := x509.NewCertPool()
	only.AddCert(a.ca.GetRootCert(1).Cert)
	if _, err := g.handshakeWith(&tls.Config{ServerName: "chat.example.com", RootCAs: only}); err != nil {
		t.Errorf("the preferred chain was not sent: %v", err)
	}
}

func TestHalfOfTheNoncesRejected(t *testing.T) {
	t.Parallel()
	p := freePorts(t)
	a := newAuthority(t, settings{port: p, dns: newNameServer(t).address, badNonces: "50"})
	g := newGateway(t, p, a.roots, section(a, "", ""), "chat.example.com").start()
	// With bad luck one attempt fails, and the operator tries again.
	g.eventually("a certificate", func() error {
		_, err := g.handshake("chat.example.com")
		if err != nil && strings.Contains(g.log.String(), "no certificate: clients") {
			g.run("certs", "renew", "chat.example.com")
		}
		return err
	})
}

// A renewal is nothing that an open socket would notice.
func TestRenewalWhileSocketsStayOpen(t *testing.T) {
	t.Parallel()
	p := freePorts(t)
	a := newAuthority(t, settings{port: p, dns: newNameServer(t).address, lives: map[string]time.Duration{"blink": 30 * time.Second}})
	g := newGateway(t, p, a.roots, section(a, ", profile: blink", "check_interval: 1s"), "chat.example.com").start()
	first := g.certified("chat.example.com")
	conn := g.dial("chat.example.com")
	for range 2 {
		g.eventually("another certificate", func() error {
			g.talk(conn)
			cert, err := g.handshake("chat.example.com")
			if err != nil {
				t.Fatalf("a client was refused: %v", err)
			}
			if cert.Equal(first) {
				return errors.New("it is the same")
			}
			if !first.NotAfter.After(time.Now()) {
				t.Error("it came when the last had expired")
			}
			first = cert
			return nil
		})
	}
	g.talk(conn)
	g.logged("certificate renewed")
	metrics, err := g.get("/metrics")
	for _, want := range []string{
		`bridgehead_certificate_issue_seconds_count{operation="obtained",outcome="ok"} 1`,
		`bridgehead_certificate_issue_seconds_count{operation="renewed",outcome="ok"} `,
		`bridgehead_certificate_not_after_seconds{source="automatic",subject="chat.example.com"} `,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("no %s in the metrics, error %v", want, err)
		}
	}
}

// The authority may want a certificate renewed at once (RFC 9773).
func TestTheAuthorityMovesTheRenewal(t *testing.T) {
	t.Parallel()
	p := freePorts(t)
	a := newAuthority(t, settings{port: p, dns: newNameServer(t).address, ariRefresh: "1"})
	g := newGateway(t, p, a.roots, section(a, "", "check_interval: 1s"), "chat.example.com").start()
	first := g.certified("chat.example.com")
	body, _ := json.Marshal(map[string]string{
		"Certificate": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: first.Raw})),
		"ARIResponse": fmt.Sprintf(`{"suggestedWindow": {"start": %q, "end": %q}}`,
			time.Now().Add(-2*time.Hour).Format(time.RFC3339), time.Now().Add(-time.Hour).Format(time.RFC3339)),
	})
	w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/set-renewal-info/", strings.NewReader(string(body)))
	r.Header.Set("User-Agent", "test")
	a.handler.ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		t.Fatalf("the window was not moved: %d %s", w.Code, w.Body)
	}
	g.eventually("another certificate", func() error {
		cert, err := g.handshake("chat.example.com")
		if err == nil && cert.Equal(first) {
			err = errors.New("it is the same")
		}
		return err
	})
	if n := a.orders.Load(); n < 2 {
		t.Errorf("%d orders", n)
	}
}

// What is kept serves while nobody can be asked; readiness and the log say how it is.
func TestTheAuthorityIsDown(t *testing.T) {
	t.Parallel()
	p := freePorts(t)
	a := newAuthority(t, settings{port: p, dns: newNameServer(t).address})
	g := newGateway(t, p, a.roots, section(a, "", ""), "chat.example.com").start()
	g.certified("chat.example.com")
	g.stop()

	a.down()
	g.write(section(a, "", ""), "chat.example.com", "new.example.com")
	g.start()
	g.certified("chat.example.com")
	g.eventually("readiness tells of the new host", func() error {
		ready, err := g.get("/readyz")
		if err == nil && (!strings.HasPrefix(ready, "ready\n") || !strings.Contains(ready, "new.example.com: no certificate yet: ") || strings.Contains(ready, "chat.")) {
			err = fmt.Errorf("it says %q", ready)
		}
		return err
	})
	a.up(t)
	if out, err := g.run("certs", "renew", "new.example.com"); err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	g.certified("new.example.com")
}

func TestTheAuthorityIsDownAndTheCertificateExpires(t *testing.T) {
	t.Parallel()
	p := freePorts(t)
	a := newAuthority(t, settings{port: p, dns: newNameServer(t).address, lives: map[string]time.Duration{"blink": 10 * time.Second}})
	g := newGateway(t, p, a.roots, section(a, ", profile: blink", "check_interval: 1s"), "chat.example.com").start()
	g.certified("chat.example.com")
	conn := g.dial("chat.example.com")
	a.down()
	g.eventually("readiness says that it has expired", func() error {
		ready, err := g.get("/readyz")
		if err == nil && !strings.Contains(ready, "chat.example.com: its certificate has expired: ") {
			err = fmt.Errorf("it says %q", ready)
		}
		return err
	})
	g.talk(conn)
	if _, err := g.handshakeWith(&tls.Config{ServerName: "chat.example.com", InsecureSkipVerify: true}); err != nil {
		t.Errorf("clients that take expired certificates are refused: %v", err)
	}
	g.logged("certificate not renewed: it is tried again")
	g.stop()
	a.up(t)
	g.start() // at once, and not an interval later
	g.certified("chat.example.com")
}

func TestAStateThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	p := freePorts(t)
	a := newAuthority(t, settings{port: p, dns: newNameServer(t).address})
	g := newGateway(t, p, a.roots, section(a, "", "internal: true"), "chat.example.com", "localhost")
	// Root may write everywhere, but not below a file.
	if err := os.MkdirAll(filepath.Join(g.dir, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	kept := filepath.Join(g.dir, "state", "acme")
	if err := os.WriteFile(kept, nil, 0o400); err != nil {
		t.Fatal(err)
	}
	g.start()
	g.eventually("readiness tells why", func() error {
		ready, err := g.get("/readyz")
		if err == nil && !strings.Contains(ready, kept) {
			err = fmt.Errorf("it says %q", ready)
		}
		return err
	})
	if n := a.orders.Load(); n != 0 {
		t.Errorf("%d certificates were ordered that could not be kept", n)
	}
	if err := os.Remove(kept); err != nil {
		t.Fatal(err)
	}
	if out, err := g.run("certs", "renew", "chat.example.com"); err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	g.certified("chat.example.com")
	filepath.WalkDir(kept, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if info, err := d.Info(); err == nil && info.Mode().Perm()&0o077 != 0 && !strings.Contains(path, "locks") {
			t.Errorf("others may read %s: %v", path, info.Mode())
		}
		return nil
	})
}

func TestKilledWhileACertificateIsGot(t *testing.T) {
	t.Parallel()
	p := freePorts(t)
	a := newAuthority(t, settings{port: p, dns: newNameServer(t).address})
	reached, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	a.instead(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasPrefix(r.URL.Path, "/finalize-order") {
			once.Do(func() { close(reached) })
			<-release
		}
		return false
	})
	g := newGateway(t, p, a.roots, section(a, "", ""), "chat.example.com").start()
	select {
	case <-reached:
	case <-time.After(patience):
		t.Fatal("nothing is ordered")
	}
	g.kill()
	a.instead(nil)
	close(release)
	g.start()
	g.certified("chat.example.com") // after the lock of the dead is seen to be old
}

func TestOnDemand(t *testing.T) {
	t.Parallel()
	p := freePorts(t)
	a := newAuthority(t, settings{port: p, dns: newNameServer(t).address})
	var asked atomic.Int64
	ask := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if !strings.HasPrefix(r.URL.Query().Get("domain"), "tenant") {
			http.Error(w, "no such tenant", http.StatusNotFound)
		}
	}))
	t.Cleanup(ask.Close)
	more := fmt.Sprintf("on_demand: {ask: %q, rate: 4/h, in_flight: 4}", ask.URL+"/may?x=1")
	g := newGateway(t, p, a.roots, section(a, "", more), "{tenant}.app.example.com").start()
	if ready, err := g.get("/readyz"); err != nil || ready != "ready\n" {
		t.Errorf("/readyz says %q, error %v", ready, err)
	}

	// The first handshake waits for its certificate.
	if cert, err := g.handshake("tenant-1.app.example.com"); err != nil || cert.DNSNames[0] != "tenant-1.app.example.com" {
		t.Fatalf("the first client is refused: %v", err)
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("%d questions, want 1", n)
	}
	g.dial("tenant-1.app.example.com")
	if n := asked.Load(); n != 1 {
		t.Errorf("a certificate that is there costs questions: %d", n)
	}

	// A refusal is an alert, and remembered.
	for range 5 {
		if _, err := g.handshake("stranger.app.example.com"); err == nil || !strings.Contains(err.Error(), "internal error") {
			t.Errorf("a stranger gets %v", err)
		}
	}
	if n := asked.Load(); n != 2 {
		t.Errorf("%d questions, want 2: refusals are remembered", n)
	}
	if _, err := g.handshake("tenant.elsewhere.example.com"); err == nil {
		t.Error("a host that no route serves has a certificate")
	}

	// A flood gets no more than the rate allows, and those who have a certificate do not notice.
	var wg sync.WaitGroup
	var got atomic.Int64
	for i := range 60 {
		wg.Go(func() {
			if _, err := g.handshake(fmt.Sprintf("tenant-flood-%d.app.example.com", i)); err == nil {
				got.Add(1)
			}
		})
	}
	for range 5 {
		g.dial("tenant-1.app.example.com")
	}
	wg.Wait()
	if n, orders := got.Load(), a.orders.Load(); n > 3 || n == 0 || orders > 4 {
		t.Errorf("%d certificates of a flood, %d orders; want 1 to 3, and 4 at most", n, orders)
	}
	metrics, err := g.get("/metrics")
	if !strings.Contains(metrics, `bridgehead_certificates_on_demand_total{outcome="limited"} `) || strings.Contains(metrics, "tenant-1.") {
		t.Errorf("the metrics do not count what was denied, or name tenants; error %v", err)
	}

	// What is kept is served after a restart, if it is still allowed.
	g.stop()
	orders := a.orders.Load()
	g.start()
	if _, err := g.handshake("tenant-1.app.example.com"); err != nil || a.orders.Load() != orders {
		t.Errorf("after a restart: error %v, %d more orders", err, a.orders.Load()-orders)
	}
}

// What was got on demand is renewed for those who use it.
func TestOnDemandIsRenewedWhileItIsUsed(t *testing.T) {
	t.Parallel()
	p := freePorts(t)
	a := newAuthority(t, settings{port: p, dns: newNameServer(t).address, lives: map[string]time.Duration{"blink": 30 * time.Second}})
	more := "check_interval: 1s\non_demand: {allow: \"*.app.example.com\"}"
	g := newGateway(t, p, a.roots, section(a, ", profile: blink", more), "{tenant}.app.example.com").start()
	used := g.certified("used.app.example.com")
	g.certified("idle.app.example.com")
	if _, err := g.handshake("refused.example.com"); err == nil {
		t.Error("a host that is not allowed has a certificate")
	}
	g.eventually("another certificate for who is used, and none for who is not", func() error {
		cert, err := g.handshake("used.app.example.com")
		switch {
		case err != nil:
			t.Fatalf("a client is refused: %v", err)
		case cert.Equal(used):
			return errors.New("it is the same")
		case !strings.Contains(g.log.String(), `msg="certificate not renewed" host=idle.app.example.com`):
			return errors.New("the idle one is renewed")
		}
		return nil
	})
}

func TestReloadWhileSocketsStayOpen(t *testing.T) {
	t.Parallel()
	p, ns := freePorts(t), newNameServer(t)
	a, other := newAuthority(t, settings{port: p, dns: ns.address}), newAuthority(t, settings{port: p, dns: ns.address})
	both := x509.NewCertPool()
	both.AddCert(a.ca.GetRootCert(0).Cert)
	both.AddCert(other.ca.GetRootCert(0).Cert)
	g := newGateway(t, p, both, section(a, "", ""), "chat.example.com").start()
	first := g.certified("chat.example.com")
	conn := g.dial("chat.example.com")

	reload := func(certificates string, hosts ...string) {
		t.Helper()
		g.write(certificates, hosts...)
		if out, err := g.run("reload"); err != nil {
			t.Fatalf("%s: %v", out, err)
		}
	}
	reload(section(a, "", ""), "chat.example.com", "new.example.com")
	g.certified("new.example.com")
	if cert := g.certified("chat.example.com"); !cert.Equal(first) {
		t.Error("a reload has changed a certificate that was good")
	}
	g.talk(conn)

	// Another authority: the old certificate serves until there is the new one.
	reload(section(other, "", ""), "chat.example.com")
	g.eventually("a certificate of the other authority", func() error {
		cert, err := g.handshake("chat.example.com")
		if err != nil {
			t.Fatalf("a client is refused meanwhile: %v", err)
		}
		if cert.Equal(first) {
			return errors.New("it is the old one")
		}
		return nil
	})
	if _, err := g.handshake("new.example.com"); err == nil {
		t.Error("a host that is gone has a certificate")
	}
	g.talk(conn)

	// A mistake changes nothing.
	g.write(section(other, ", ca: nowhere.pem", ""), "chat.example.com")
	if out, err := g.run("reload"); err == nil {
		t.Errorf("a mistake is taken: %s", out)
	}
	g.certified("chat.example.com")
}

func TestTheCommandsOfTheOperator(t *testing.T) {
	t.Parallel()
	p := freePorts(t)
	a := newAuthority(t, settings{port: p, dns: newNameServer(t).address})
	g := newGateway(t, p, a.roots, section(a, "", ""), "chat.example.com").start()
	first := g.certified("chat.example.com")
	out, err := g.run("certs")
	if err != nil || !strings.Contains(out, "chat.example.com") || !strings.Contains(out, "automatic") || !strings.Contains(out, "Pebble") {
		t.Errorf("certs says %q, error %v", out, err)
	}
	if out, err := g.run("certs", "renew", "chat.example.com"); err != nil {
		t.Errorf("renew says %q, error %v", out, err)
	}
	second := g.certified("chat.example.com")
	if second.Equal(first) {
		t.Error("it is not renewed")
	}
	if out, err := g.run("certs", "revoke", "chat.example.com", "--reason", "key_compromise"); err != nil {
		t.Errorf("revoke says %q, error %v", out, err)
	}
	if third := g.certified("chat.example.com"); third.Equal(second) {
		t.Error("it is not replaced")
	}
	if out, err := g.run("certs", "renew", "other.example.com"); err == nil || !strings.Contains(out, "other.example.com") {
		t.Errorf("a host without certificate: %q, error %v", out, err)
	}
}

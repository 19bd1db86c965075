package tls

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bridgehead/internal/yamlpos"
)

// A clientAuthority signs the certificates of clients.
type clientAuthority struct {
	*identity
	file string
}

func newClientAuthority(t *testing.T, file string) *clientAuthority {
	t.Helper()
	made, err := issueAuthority("clients", rootLife, nil, time.Now())
	must(t, err)
	must(t, os.RemoveAll(file))
	must(t, writePEM(file, 0o644, "CERTIFICATE", made.cert.Raw))
	return &clientAuthority{made, file}
}

// client has a certificate of the authority.
func (a *clientAuthority) client(t *testing.T, life time.Duration) *tls.Certificate {
	t.Helper()
	made, err := issue(&x509.Certificate{
		Subject: pkix.Name{CommonName: "device 7"}, DNSNames: []string{"seven.devices.example.com"}, URIs: []*url.URL{{Scheme: "urn", Opaque: "device:7"}},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, life, a.identity, time.Now())
	must(t, err)
	return &tls.Certificate{Certificate: [][]byte{made.cert.Raw}, PrivateKey: made.key, Leaf: made.cert}
}

func newClients(t *testing.T, o ClientCA, changed func(), l *logs) *Clients {
	t.Helper()
	clients, err := NewClients(o, changed, l.logger())
	must(t, err)
	t.Cleanup(clients.Close)
	return clients
}

// asking is a listener that asks for certificates.
func asking(t *testing.T, c *Certs, clients *Clients) *tls.Config {
	t.Helper()
	tickets := openTickets(t, t.TempDir(), newLogs())
	return ServerTLS(Setup{Certs: func() *Certs { return c }, Tickets: func() *Tickets { return tickets }, Clients: clients})
}

func TestClientsAreAskedForCertificates(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ours, theirs := newClientAuthority(t, filepath.Join(dir, "ours.pem")), newClientAuthority(t, filepath.Join(dir, "theirs.pem"))
	c := newCerts(t, Options{Internal: true}, []string{"devices.example.com", "chat.example.com", "{x}.sub.example.com"}, dir, newLogs())
	shown := map[string]*tls.Certificate{
		"none": nil, "good": ours.client(t, time.Hour), "foreign": theirs.client(t, time.Hour), "expired": ours.client(t, -time.Minute),
	}
	all, some := []string(nil), []string{"devices.example.com", "*.sub.example.com"}
	for _, test := range []struct {
		optional bool
		hosts    []string
		host     string
		shows    string
		want     string // part of the client's error; "" if it gets in
		proven   bool
	}{
		{false, all, "chat.example.com", "good", "", true},
		{false, all, "chat.example.com", "none", "certificate required", false},
		{false, all, "chat.example.com", "foreign", "certificate required", false}, // Go's client shows none that is not asked for
		{false, all, "chat.example.com", "expired", "expired certificate", false},
		{true, all, "chat.example.com", "good", "", true},
		{true, all, "chat.example.com", "none", "", false},
		{true, all, "chat.example.com", "expired", "expired certificate", false},
		{false, some, "devices.example.com", "good", "", true},
		{false, some, "devices.example.com", "none", "certificate required", false},
		{false, some, "DEVICES.example.com", "none", "certificate required", false},
		{false, some, "chat.example.com", "none", "", false},
		{false, some, "chat.example.com", "good", "", false}, // not asked, so not shown
		{false, all, "127.0.0.1", "none", "certificate required", false},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			server := asking(t, c, newClients(t, ClientCA{Files: []string{ours.file}, Optional: test.optional, Hosts: test.hosts}, nil, newLogs()))
			client := &tls.Config{ServerName: test.host, InsecureSkipVerify: true, MaxVersion: version}
			if cert := shown[test.shows]; cert != nil {
				client.Certificates = []tls.Certificate{*cert}
			}
			state, err := serverState(t, server, client)
			want := test.want
			if version == tls.VersionTLS12 && want == "certificate required" { // an alert of 1.3
				want = "handshake failure"
			}
			switch {
			case want == "" && err != nil, want != "" && (err == nil || !strings.Contains(err.Error(), want)):
				t.Errorf("%s, %+v: error %v, want %q", tls.VersionName(version), test, err, want)
			case (len(state.VerifiedChains) > 0) != test.proven:
				t.Errorf("%s, %+v: %d chains", tls.VersionName(version), test, len(state.VerifiedChains))
			}
		}
	}
}

// A session must not outlive the rule for its client's certificate.
func TestASessionIsOfOneRule(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ours, theirs := newClientAuthority(t, filepath.Join(dir, "ours.pem")), newClientAuthority(t, filepath.Join(dir, "theirs.pem"))
	both := []string{ours.file, theirs.file}
	c := newCerts(t, Options{Internal: true}, nil, dir, newLogs())
	tickets := openTickets(t, dir, newLogs())
	listener := func(o *ClientCA) *tls.Config {
		s := Setup{Certs: func() *Certs { return c }, Tickets: func() *Tickets { return tickets }}
		if o != nil {
			s.Clients = newClients(t, *o, nil, newLogs())
		}
		return ServerTLS(s)
	}
	for _, test := range []struct {
		what          string
		before, after *ClientCA
		resumes       bool
	}{
		{"the same", &ClientCA{Files: both}, &ClientCA{Files: both}, true},
		{"in another order", &ClientCA{Files: both}, &ClientCA{Files: []string{theirs.file, ours.file}}, true},
		{"another authority", &ClientCA{Files: both}, &ClientCA{Files: []string{ours.file}}, false},
		{"required", &ClientCA{Files: both, Optional: true}, &ClientCA{Files: both}, false},
		{"optional", &ClientCA{Files: both}, &ClientCA{Files: both, Optional: true}, false},
		{"asked", nil, &ClientCA{Files: both}, false},
		{"asked no more", &ClientCA{Files: both}, nil, false},
		{"asked elsewhere", &ClientCA{Files: both}, &ClientCA{Files: both, Hosts: []string{"other.example.com"}}, false},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			client := resuming(t, c, "localhost", version)
			client.Certificates = []tls.Certificate{*ours.client(t, time.Hour)}
			_, err := meetOverTCP(t, listener(test.before), client)
			must(t, err)
			state, err := meetOverTCP(t, listener(test.after), client)
			must(t, err)
			if state.DidResume != test.resumes {
				t.Errorf("%s, %s: resumed is %v", test.what, tls.VersionName(version), state.DidResume)
			}
		}
	}
}

func TestAuthoritiesAreReadAgain(t *testing.T) {
	t.Parallel()
	dir, l := t.TempDir(), newLogs()
	file := filepath.Join(dir, "ca.pem")
	old := newClientAuthority(t, file)
	changes := make(chan struct{}, 8)
	clients := newClients(t, ClientCA{Files: []string{file}}, func() { changes <- struct{}{} }, l)
	server := asking(t, newCerts(t, Options{Internal: true}, nil, dir, newLogs()), clients)
	enters := func(a *clientAuthority) bool {
		_, err := meetOverTCP(t, server, &tls.Config{
			ServerName: "localhost", InsecureSkipVerify: true,
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return a.client(t, time.Hour), nil },
		})
		return err == nil
	}
	state, err := serverState(t, server, &tls.Config{
		ServerName: "localhost", InsecureSkipVerify: true, Certificates: []tls.Certificate{*old.client(t, time.Hour)},
	})
	must(t, err)
	if err := clients.Check("localhost", state.VerifiedChains); err != nil {
		t.Error(err)
	}

	must(t, os.WriteFile(file, []byte("half a certif"), 0o644))
	l.await(t, "client_ca not reloaded, the authorities before stay", 1)
	if l.count(file+": it holds no certificate") != 1 || !enters(old) {
		t.Errorf("after a broken file the authority before is not what counts:\n%s", l)
	}

	next := newClientAuthority(t, filepath.Join(dir, "next.pem"))
	must(t, os.Rename(next.file, file))
	select {
	case <-changes:
	case <-time.After(30 * time.Second):
		t.Fatalf("the change was not told:\n%s", l)
	}
	if enters(old) || !enters(next) {
		t.Error("the new authority does not count alone")
	}
	if err := clients.Check("localhost", state.VerifiedChains); err != errNotAccepted {
		t.Errorf("a client of before: %v", err)
	}
	if len(changes) > 0 {
		t.Error("the broken file was told as a change")
	}
}

func TestWhoMayHaveAHost(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ours, theirs := newClientAuthority(t, filepath.Join(dir, "ours.pem")), newClientAuthority(t, filepath.Join(dir, "theirs.pem"))
	l := newLogs()
	required := newClients(t, ClientCA{Files: []string{ours.file}, Hosts: []string{"devices.example.com"}}, nil, l)
	optional := newClients(t, ClientCA{Files: []string{ours.file}, Optional: true}, nil, l)
	good := [][]*x509.Certificate{{ours.client(t, time.Hour).Leaf, ours.cert}}
	expired := [][]*x509.Certificate{{ours.client(t, -time.Minute).Leaf, ours.cert}}
	foreign := [][]*x509.Certificate{{theirs.client(t, time.Hour).Leaf, theirs.cert}}
	for _, test := range []struct {
		clients *Clients
		host    string
		chains  [][]*x509.Certificate
		want    error
	}{
		{nil, "devices.example.com", nil, nil},
		{required, "devices.example.com", good, nil},
		{required, "devices.example.com", nil, errNoCertificate},
		{required, "devices.example.com", foreign, errNotAccepted},
		{required, "devices.example.com", expired, errNotAccepted},
		{required, "devices.example.com", append(foreign, good...), nil},
		{required, "chat.example.com", nil, nil},
		{required, "chat.example.com", foreign, nil},
		{required, "", nil, nil},
		{optional, "devices.example.com", nil, nil},
		{optional, "devices.example.com", good, nil},
		{optional, "devices.example.com", foreign, errNotAccepted},
	} {
		if got := test.clients.Check(test.host, test.chains); got != test.want {
			t.Errorf("%+v: %v", test, got)
		}
	}
}

func TestFilesOfNoAuthority(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pair := writePair(t, dir, "pair", holding("a.example.com"))
	both := filepath.Join(dir, "both.pem")
	must(t, os.WriteFile(both, []byte(mustRead(t, pair.Cert)+mustRead(t, pair.Key)), 0o600))
	garbage := filepath.Join(dir, "garbage.pem")
	must(t, os.WriteFile(garbage, []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), 0o600))
	for path, want := range map[string]string{
		filepath.Join(dir, "none.pem"): "no such file", pair.Key: "holds a private key", both: "holds a private key", garbage: "garbage.pem: x509",
	} {
		if _, err := NewClients(ClientCA{Files: []string{pair.Cert, path}}, nil, newLogs().logger()); err == nil ||
			!strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "client_ca: "+path) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
}

func TestHostsOfAnAudience(t *testing.T) {
	t.Parallel()
	o := ClientCA{Hosts: []string{"Devices.example.com.", "*.iot.example.com", "{tenant}.app.example.com"}}
	for host, want := range map[string]bool{
		"devices.example.com": true, "a.iot.example.com": true, "a.b.iot.example.com": true, "x.app.example.com": true,
		"iot.example.com": false, "y.x.app.example.com": false, "example.com": false, "": false, "10.0.0.1": false,
	} {
		if o.Asks(host) != want {
			t.Errorf("%q: %v", host, !want)
		}
	}
	if all := (ClientCA{}); !all.Asks("") || !all.Asks("any.example.com") {
		t.Error("without hosts not everybody is asked")
	}
}

// serverState is a handshake as the server knows it.
func serverState(t *testing.T, server, client *tls.Config) (state tls.ConnectionState, err error) {
	t.Helper()
	copied := server.Clone()
	watch := func(cs tls.ConnectionState) error { state = cs; return nil }
	copied.VerifyConnection = watch
	if choose := server.GetConfigForClient; choose != nil {
		copied.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			chosen, err := choose(hello)
			if chosen != nil {
				chosen = chosen.Clone()
				chosen.VerifyConnection = watch
			}
			return chosen, err
		}
	}
	_, err = meetOverTCP(t, copied, client)
	return state, err
}

func TestClientCAValidates(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]string{
		"a.example.com": "", "*.example.com": "", "{t}.example.com": "", "10.0.0.1": "is an address", "[::1]": "is an address",
		"{t}": "is any host", "": "is any host", "https://a.example.com": "write the host alone", "a..b": "empty",
	} {
		doc, err := yamlpos.Parse("f", []byte("a: 1"))
		must(t, err)
		p := doc.Problems()
		(&ClientCA{Files: []string{"x"}, Hosts: []string{host}}).Validate(nil, p)
		if err := p.Err(); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %q", host, err, want)
		}
	}
}

func TestMendsOfClientCertificates(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ours, theirs := newClientAuthority(t, filepath.Join(dir, "ours.pem")), newClientAuthority(t, filepath.Join(dir, "theirs.pem"))
	server := asking(t, newCerts(t, Options{Internal: true}, nil, dir, newLogs()), newClients(t, ClientCA{Files: []string{ours.file}}, nil, newLogs()))
	shows := func(cert *tls.Certificate) func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	for _, test := range []struct {
		cert *tls.Certificate
		want string
	}{
		{new(tls.Certificate), "shows none"},
		{theirs.client(t, time.Hour), "of an authority that is not in the files"},
		{ours.client(t, -time.Minute), "must be valid now"},
	} {
		_, err := meetOverTCP(t, server, &tls.Config{ServerName: "localhost", InsecureSkipVerify: true, GetClientCertificate: shows(test.cert)})
		if err == nil {
			t.Errorf("a client gets in; want %q", test.want)
			continue
		}
		ours, _, _ := strings.Cut(err.Error(), "\n") // the client's is the next line
		if mend := Mend(ours); !strings.Contains(mend, test.want) {
			t.Errorf("%s: mend %q, want %q", ours, mend, test.want)
		}
	}
}

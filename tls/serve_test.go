package tls

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
)

func TestServeReplacesTheHosts(t *testing.T) {
	t.Parallel()
	c := newCerts(t, Options{Internal: true}, []string{"stays.example.com", "goes.example.com", "*.wild.example.com"}, t.TempDir(), newLogs())
	address := listen(t, c)
	stays, wild := served(t, address, "stays.example.com"), served(t, address, "a.wild.example.com")
	goes := served(t, address, "goes.example.com")
	wantRefused(t, address, "comes.example.com")

	c.Serve([]string{"stays.example.com", "comes.example.com", "*.wild.example.com"}, Listening{})
	wantRefused(t, address, "goes.example.com")
	served(t, address, "comes.example.com")
	if !served(t, address, "stays.example.com").Equal(stays) || !served(t, address, "b.wild.example.com").Equal(wild) {
		t.Error("a host that stays got another certificate")
	}

	c.Serve([]string{"goes.example.com"}, Listening{})
	wantRefused(t, address, "stays.example.com")
	if !served(t, address, "goes.example.com").Equal(goes) {
		t.Error("a host that came back got another certificate, though the one that was made is good")
	}
}

// The certificate for an address holds the addresses that are hosts of routes, so it follows them.
func TestServeReplacesTheAddresses(t *testing.T) {
	t.Parallel()
	c := newCerts(t, Options{Internal: true}, []string{"203.0.113.7"}, t.TempDir(), newLogs())
	address := listen(t, c)
	served(t, address, "") // is kept
	c.Serve([]string{"203.0.113.8"}, Listening{})
	if _, err := dial(address, trusting(t, c, "203.0.113.8")); err != nil {
		t.Error(err)
	}
	if _, err := dial(address, trusting(t, c, "203.0.113.7")); err == nil {
		t.Error("the certificate holds an address that no route names any more")
	}
}

func TestServeReplacesTheHostsThatTheFirstPairAnswers(t *testing.T) {
	t.Parallel()
	pair := writePair(t, t.TempDir(), "site", holding("www.example.com"))
	l := newLogs()
	c := newCerts(t, Options{Files: []Pair{pair}}, []string{"gap.example.com"}, "", l)
	address := listen(t, c)
	served(t, address, "gap.example.com")
	c.Serve([]string{"gap.example.com", "other.example.com", "www.example.com"}, Listening{})
	served(t, address, "other.example.com")
	for host, want := range map[string]int{"gap": 1, "other": 1, "www": 0} { // each is warned of once, when it is new
		if got := l.count("no certificate holds this host: clients will refuse the one they get\" host=" + host + "."); got != want {
			t.Errorf("%d warnings of %s, want %d:\n%s", got, host, want, l)
		}
	}
	c.Serve(nil, Listening{})
	wantRefused(t, address, "other.example.com")
	served(t, address, "www.example.com") // the pair holds it, whatever the routes say
}

func TestServeIsSafeUnderHandshakes(t *testing.T) {
	t.Parallel()
	c := newCerts(t, Options{Internal: true}, []string{"stays.example.com"}, t.TempDir(), newLogs())
	address := listen(t, c)
	config := trusting(t, c, "stays.example.com")
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for range 20 {
				if _, err := dial(address, config.Clone()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range 1000 {
		c.Serve([]string{"stays.example.com", fmt.Sprintf("%d.example.com", i), fmt.Sprintf("10.0.0.%d", i%250)}, Listening{})
	}
	wg.Wait()
}

// A reload may put other certificates in the place of a listener's, whose clients resume their sessions all the same, as long as
// their host is served.
func TestAListenerOutlivesItsCertificates(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := newCerts(t, Options{Internal: true}, []string{"chat.example.com"}, dir, newLogs())
	current := first
	config := serverTLS(t, func() *Certs { return current })
	client := trusting(t, first, "chat.example.com")
	client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	if handshakeWith(t, config, client).DidResume {
		t.Fatal("the first handshake resumes")
	}

	pair := writePair(t, dir, "site", holding("www.example.com"))
	current = newCerts(t, Options{Files: []Pair{pair}}, []string{"chat.example.com"}, "", newLogs())
	first.Close()
	if !handshakeWith(t, config, client).DidResume {
		t.Error("the session was not resumed: the keys of its ticket are gone")
	}
	state := handshakeWith(t, config, &tls.Config{ServerName: "www.example.com", InsecureSkipVerify: true})
	if got := names(state.PeerCertificates[0]); got[0] != "www.example.com" {
		t.Errorf("the certificate of %v", got)
	}
	if !handshakeWith(t, config, client).DidResume {
		t.Error("the session was not resumed")
	}
	current.Serve([]string{"other.example.com"}, Listening{})
	if _, err := tryHandshake(config, client); err == nil || !strings.Contains(err.Error(), "unrecognized name") {
		t.Errorf("a session reaches a host that is no longer served: %v", err)
	}
}

// A client that names nothing is answered as if it had named the default, unless somebody has asked for the address that it reached.
func TestClientsThatNameNoHost(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	www := writePair(t, dir, "www", holding("www.example.com"))
	at := writePair(t, dir, "at", &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
	for _, test := range []struct {
		what  string
		o     Options
		names []string
		want  string // the first name; "" if the client is refused
	}{
		{"a route's host", Options{Internal: true, DefaultSNI: "Chat.example.com"}, []string{"chat.example.com"}, "chat.example.com"},
		{"a pair", Options{Files: []Pair{www}, DefaultSNI: "www.example.com"}, nil, "www.example.com"},
		{"a pair has the address", Options{Files: []Pair{www, at}, DefaultSNI: "www.example.com"}, nil, "127.0.0.1"},
		{"a route has the address", Options{Internal: true, DefaultSNI: "chat.example.com"}, []string{"chat.example.com", "127.0.0.1"}, "127.0.0.1"},
		{"nobody has the default", Options{Internal: true, DefaultSNI: "none.example.com"}, []string{"chat.example.com"}, ""},
	} {
		l := newLogs()
		address := listen(t, newCerts(t, test.o, test.names, dir, l))
		for _, host := range []string{"", "127.0.0.1", "10.0.0.1"} { // an IP literal is no name
			if test.want == "" {
				wantRefused(t, address, host)
			} else if got := names(served(t, address, host)); got[0] != test.want {
				t.Errorf("%s: %q is shown a certificate for %v", test.what, host, got)
			}
		}
		if told := l.count("level=INFO msg=\"TLS handshake refused\" host=none.example.com"); test.want == "" && told != 1 {
			t.Errorf("%s: the refusal was told %d times:\n%s", test.what, told, l)
		}
	}
}

// What strangers name is told once each, and never more than a few of them.
func TestUnknownNamesAreToldOnce(t *testing.T) {
	t.Parallel()
	l := newLogs()
	address := listen(t, newCerts(t, Options{Internal: true}, []string{"chat.example.com"}, t.TempDir(), l))
	for i := range 40 {
		wantRefused(t, address, fmt.Sprintf("%d.evil.example", i%20))
		wantRefused(t, address, "one.evil.example")
	}
	if told := l.count("level=INFO msg=\"TLS handshake refused\" host=one.evil.example"); told != 1 {
		t.Errorf("one name was told %d times", told)
	}
	if told := l.count("level=INFO msg=\"TLS handshake refused\""); told > 10 {
		t.Errorf("%d lines were told", told)
	}
}

package tls

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestClientsThatTrustTheRootTrustEachHost(t *testing.T) {
	t.Parallel()
	names := []string{"chat.example.com", "*.app.example.com", "*.test", "*.*.deep.example.com", "203.0.113.7"}
	c := newCerts(t, Options{Internal: true}, names, t.TempDir(), newLogs())
	address := listen(t, c)
	for _, test := range []struct{ asked, holds string }{
		{"chat.example.com", "chat.example.com"},
		{"CHAT.example.com", "chat.example.com"},
		{"acme.app.example.com", "*.app.example.com"},
		{"other.app.example.com", "*.app.example.com"},
		{"site.test", "site.test"}, // OpenSSL does not take *.test
		{"a.b.deep.example.com", "a.b.deep.example.com"},
		{"localhost", "localhost"},
		{"127.0.0.1", "127.0.0.1"},   // goes without SNI: the local address
		{"::1", "::1"},               // another loopback address behind a port mapping
		{"203.0.113.7", "127.0.0.1"}, // a route's host that is an address
	} {
		t.Run(test.asked, func(t *testing.T) {
			t.Parallel()
			state, err := dial(address, trusting(t, c, test.asked))
			if err != nil {
				t.Fatal(err)
			}
			leaf := state.PeerCertificates[0]
			if !slices.Contains(names2(leaf.DNSNames, leaf.IPAddresses), test.holds) {
				t.Errorf("the certificate holds %v and %v, want %s", leaf.DNSNames, leaf.IPAddresses, test.holds)
			}
			if n := len(state.PeerCertificates); n != 2 {
				t.Errorf("%d certificates sent, want leaf and intermediate", n)
			}
		})
	}
}

func names2(dns []string, ips []net.IP) []string {
	all := slices.Clone(dns)
	for _, ip := range ips {
		all = append(all, ip.String())
	}
	return all
}

func TestUnknownHostsAreRefused(t *testing.T) {
	t.Parallel()
	l := newLogs()
	address := listen(t, newCerts(t, Options{Internal: true}, []string{"chat.example.com", "*.app.example.com"}, t.TempDir(), l))
	for _, name := range []string{"example.com", "evil.example", "app.example.com", "a.b.app.example.com", "xchat.example.com"} {
		wantRefused(t, address, name)
		l.await(t, "host="+name, 1)
	}
	if l.count("made a certificate") > 0 {
		t.Errorf("a refused name got a certificate:\n%s", l)
	}
}

func TestARouteForAnyHostServesAnyValidName(t *testing.T) {
	t.Parallel()
	c := newCerts(t, Options{Internal: true}, []string{"chat.example.com", ""}, t.TempDir(), newLogs())
	address := listen(t, c)
	if _, err := dial(address, trusting(t, c, "anything.example")); err != nil {
		t.Error(err)
	}
	wantRefused(t, address, "not a name")
	wantRefused(t, address, "-x.example")
}

// A client that breaks RFC 6066, section 3, and sends an address as a name: no certificate is made for what it likes.
func TestAnAddressInPlaceOfANameIsNoName(t *testing.T) {
	t.Parallel()
	server, client := net.Pipe()
	defer server.Close()
	defer client.Close()
	for _, name := range []string{"198.51.100.9", "2001:db8::1", ""} {
		if q := newAsked(&tls.ClientHelloInfo{ServerName: name, Conn: server}); q.name != "" || q.addr.IsValid() {
			t.Errorf("%q: asked %+v", name, q)
		}
	}
}

// handshake joins a client and a server by a pipe, which, other than a socket, keeps to the fake time of a bubble.
func handshake(t *testing.T, c *Certs, config *tls.Config) tls.ConnectionState {
	t.Helper()
	return handshakeWith(t, serverTLS(t, func() *Certs { return c }), config)
}

func handshakeWith(t *testing.T, server, config *tls.Config) tls.ConnectionState {
	t.Helper()
	state, err := tryHandshake(server, config)
	if err != nil {
		t.Fatal(err)
	}
	return state
}

// tryHandshake is a handshake, and a byte of the server's behind it. The error is that of both sides. It may be made in a bubble, where
// nothing is sent before the other side reads: with certificates on both sides each may wait for the other.
func tryHandshake(server, config *tls.Config) (tls.ConnectionState, error) {
	near, far := net.Pipe()
	return shake(near, far, server, config)
}

// meetOverTCP is tryHandshake over a socket.
func meetOverTCP(t *testing.T, server, config *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	near, err := net.Dial("tcp", l.Addr().String())
	must(t, err)
	far, err := l.Accept()
	must(t, err)
	for _, conn := range []net.Conn{near, far} {
		must(t, conn.SetDeadline(time.Now().Add(30*time.Second)))
	}
	return shake(near, far, server, config)
}

func shake(near, far net.Conn, server, config *tls.Config) (tls.ConnectionState, error) {
	defer near.Close()
	defer far.Close()
	client := tls.Client(near, config)
	result := make(chan error, 1)
	go func() {
		err := client.Handshake()
		if err == nil {
			_, err = client.Read(make([]byte, 1)) // a ticket comes before it
		}
		result <- err
	}()
	accepted := tls.Server(far, server)
	_, err := accepted.Write([]byte{'.'})
	err = errors.Join(err, <-result)
	return client.ConnectionState(), err
}

func TestALeafIsRenewedAfterTwoThirdsOfItsLife(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCerts(t, Options{Internal: true}, []string{"chat.example.com"}, t.TempDir(), newLogs())
		config := trusting(t, c, "chat.example.com")
		first := handshake(t, c, config).PeerCertificates[0]
		if life := time.Until(first.NotAfter); life != 24*time.Hour {
			t.Errorf("a leaf lives for %v, want 24h", life)
		}
		time.Sleep(15*time.Hour + 59*time.Minute)
		if !handshake(t, c, config).PeerCertificates[0].Equal(first) {
			t.Error("another leaf before two thirds of its life")
		}
		time.Sleep(2 * time.Minute)
		if handshake(t, c, config).PeerCertificates[0].Equal(first) {
			t.Error("the same leaf after two thirds of its life")
		}
	})
}

// The root stays; intermediates follow each other; at no time does a client meet a chain that it cannot verify.
func TestClientsTrustTheRootAsTimeGoesOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCerts(t, Options{Internal: true}, []string{"chat.example.com"}, t.TempDir(), newLogs())
		config := trusting(t, c, "chat.example.com")
		intermediates := make(map[string]bool)
		for range 30 * 24 {
			state := handshake(t, c, config)
			leaf, intermediate := state.PeerCertificates[0], state.PeerCertificates[1]
			intermediates[intermediate.SerialNumber.String()] = true
			if leaf.NotAfter.After(intermediate.NotAfter) {
				t.Fatalf("a leaf until %v outlives its issuer, until %v", leaf.NotAfter, intermediate.NotAfter)
			}
			if left := time.Until(leaf.NotAfter); left < 8*time.Hour {
				t.Fatalf("a leaf is served in its last %v", left)
			}
			time.Sleep(time.Hour)
		}
		if n := len(intermediates); n < 6 || n > 8 { // one each 4 days and 16 hours, when next a leaf is made
			t.Errorf("%d intermediates in 30 days", n)
		}
	})
}

func TestAnExpiredRootSignsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		state := t.TempDir()
		c := newCerts(t, Options{Internal: true}, nil, state, newLogs())
		time.Sleep(rootLife - 80*24*time.Hour)
		l := newLogs()
		newCerts(t, Options{Internal: true}, nil, state, l)
		if l.count("level=WARN") != 1 || l.count("expires soon") != 1 {
			t.Errorf("80 days before the end of the root:\n%s", l)
		}
		time.Sleep(80*24*time.Hour + time.Second)
		if _, err := c.authority.leaf("localhost", nil); err == nil || !strings.Contains(err.Error(), "expired") {
			t.Errorf("error %v, want that the root expired", err)
		}
	})
}

func TestLeavesAreBounded(t *testing.T) {
	t.Parallel()
	a, err := newAuthority(t.TempDir(), newLogs().logger())
	if err != nil {
		t.Fatal(err)
	}
	kept, err := a.leaf("kept.example", nil)
	if err != nil {
		t.Fatal(err)
	}
	again := func() {
		t.Helper()
		if cert, err := a.leaf("kept.example", nil); cert != kept {
			t.Fatalf("a leaf in use was dropped (error %v)", err)
		}
	}
	stub := a.leaves["kept.example"].Value.(*leaf)
	for i := range 3 * maxLeaves {
		a.keep(&leaf{stub.identity, fmt.Sprintf("%d.example", i), stub.sent})
		if i%1000 == 0 {
			again()
		}
	}
	again()
	if len(a.leaves) != maxLeaves || a.recent.Len() != maxLeaves {
		t.Errorf("%d leaves by name and %d in order, want %d", len(a.leaves), a.recent.Len(), maxLeaves)
	}
}

func BenchmarkMakeLeaf(b *testing.B) {
	a, err := newAuthority(b.TempDir(), newLogs().logger())
	if err != nil {
		b.Fatal(err)
	}
	issuer, err := a.issuer(time.Now())
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := issueLeaf("chat.example.com", nil, issuer, time.Now()); err != nil {
			b.Fatal(err)
		}
	}
}

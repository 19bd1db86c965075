package tls

import (
	"bytes"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestMendsOfHandshakesThatFail(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		greet func(net.Conn)
		mend  string
	}{
		{"a client that does not trust us", with(&tls.Config{ServerName: "localhost"}), untrusted},
		{"a client that expects another name", with(&tls.Config{ServerName: "localhost", MaxVersion: tls.VersionTLS12}), untrusted},
		{"HTTP", writes("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), unsecured},
		{"no TLS at all", writes("SSH-2.0-OpenSSH_9.6\r\n"), unsecured},
		{"TLS 1.1", with(&tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}),
			"the client speaks TLS 1.1 or older: it needs TLS 1.2 or 1.3"},
		{"an old cipher suite", with(&tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12,
			CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}}), "the client knows no cipher suite of today: " +
			"it needs TLS 1.3, or ECDHE with AES-GCM or ChaCha20 of TLS 1.2"},
		{"HTTP/2 alone", with(&tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}), "the client speaks no HTTP/1.1: it must, or the listener say http2: true"},
		{"a client that leaves", func(net.Conn) {}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			line := failedHandshake(t, c.greet)
			if got := Mend(line); got != c.mend {
				t.Errorf("%q: %q, want %q", line, got, c.mend)
			}
		})
	}
}

// What browsers send, which no Go client does.
func TestMendsOfAlerts(t *testing.T) {
	t.Parallel()
	for _, alert := range []string{"unknown certificate", "unknown certificate authority", "bad certificate", "expired certificate"} {
		if Mend("http: TLS handshake error from 192.0.2.1:1: remote error: tls: "+alert) == "" {
			t.Errorf("nothing is known of %q", alert)
		}
	}
	if mend := Mend("http: Accept error: accept tcp: too many open files; retrying in 5ms"); mend != "" {
		t.Errorf("an error that is none of TLS: %q", mend)
	}
}

// failedHandshake gives what a server logs of a client.
func failedHandshake(t *testing.T, greet func(net.Conn)) string {
	t.Helper()
	c := newCerts(t, Options{Internal: true}, []string{"localhost"}, t.TempDir(), newLogs())
	var out bytes.Buffer
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.Config.ErrorLog = log.New(&out, "", 0)
	s.Listener = tls.NewListener(s.Listener, serverTLS(t, func() *Certs { return c }))
	s.Start()
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	greet(conn)
	conn.(*net.TCPConn).CloseWrite()
	io.Copy(io.Discard, conn) // until the server is done with it
	conn.Close()
	s.Close()
	return strings.TrimSpace(out.String())
}

func with(config *tls.Config) func(net.Conn) {
	return func(conn net.Conn) { tls.Client(conn, config).Handshake() }
}

func writes(text string) func(net.Conn) {
	return func(conn net.Conn) { io.WriteString(conn, text) }
}

func TestAMissingCertificateIsToldOncePerHost(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pair := writePair(t, dir, "site", holding("www.example.com"))
	for _, c := range []struct {
		name    string
		options Options
		names   []string
		refused bool
		says    string
	}{
		{"no route has the host", Options{Internal: true}, []string{"chat.example.com"}, true,
			"no route and no certificate has this host; give a route this host, or list a certificate that holds it under certificates.files"},
		{"a route takes any host, and no pair holds this one", Options{Files: []Pair{pair}}, []string{""}, false,
			"no certificate holds this host, so that the first one was sent; list one that does under certificates.files, or set certificates.internal"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := newLogs()
			address := listen(t, newCerts(t, c.options, c.names, dir, l))
			for _, host := range []string{"a.example.com", "b.example.com"} {
				for range 3 {
					if c.refused {
						wantRefused(t, address, host)
					} else {
						served(t, address, host)
					}
				}
				heard := 0
				for line := range strings.Lines(l.String()) {
					if strings.Contains(line, "level=INFO") && strings.Contains(line, "host="+host) && strings.Contains(line, c.says) {
						heard++
					}
				}
				if heard != 1 || l.count("host="+host) != 3 {
					t.Errorf("%s is told %d times for all to hear, want once:\n%s", host, heard, l)
				}
			}
		})
	}
}

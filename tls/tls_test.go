package tls

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"bridgehead/internal/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

// logs keeps what is logged.
type logs struct {
	mu    sync.Mutex
	text  strings.Builder
	grown chan struct{} // closed and replaced with each line
}

func newLogs() *logs { return &logs{grown: make(chan struct{})} }

func (l *logs) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Write(p)
	close(l.grown)
	l.grown = make(chan struct{})
	return len(p), nil
}

func (l *logs) count(words string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), words)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// await waits until words have been logged n times.
func (l *logs) await(t *testing.T, words string, n int) {
	t.Helper()
	timeout := time.After(30 * time.Second)
	for {
		l.mu.Lock()
		grown := l.grown
		l.mu.Unlock()
		if l.count(words) >= n {
			return
		}
		select {
		case <-grown:
		case <-timeout:
			t.Fatalf("%q was not logged %d times:\n%s", words, n, l)
		}
	}
}

func newCerts(t *testing.T, o Options, names []string, state string, l *logs) *Certs {
	t.Helper()
	c, err := New(o, Means{State: state, Log: l.logger()})
	if err != nil {
		t.Fatal(err)
	}
	c.Serve(names, Listening{})
	t.Cleanup(c.Close)
	return c
}

// listen answers TLS handshakes on a socket of its own until the test ends.
func listen(t *testing.T, c *Certs) (address string) {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", serverTLS(t, func() *Certs { return c }))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn) // the handshake, then an echo
			})
		}
	})
	return l.Addr().String()
}

// serverTLS is for a listener that asks nobody for a certificate, and whose keys of tickets are never renewed.
func serverTLS(t *testing.T, get func() *Certs) *tls.Config {
	t.Helper()
	tickets := newTickets(t.TempDir(), slog.New(slog.DiscardHandler))
	return ServerTLS(Setup{Certs: get, Tickets: func() *Tickets { return tickets }})
}

// dial makes a handshake and returns what it agreed on.
func dial(address string, config *tls.Config) (tls.ConnectionState, error) {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", address, config)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer conn.Close()
	return conn.ConnectionState(), nil
}

// trusting is a client's configuration that trusts the local authority of c alone.
func trusting(t *testing.T, c *Certs, name string) *tls.Config {
	t.Helper()
	root, _, ok := c.Root()
	pool := x509.NewCertPool()
	if !ok || !pool.AppendCertsFromPEM(root) {
		t.Fatal("no root")
	}
	return &tls.Config{ServerName: name, RootCAs: pool}
}

// trustingNobody is a client that takes any certificate.
func trustingNobody(name string) *tls.Config {
	return &tls.Config{ServerName: name, InsecureSkipVerify: true}
}

// served returns the certificate that a client gets who takes any.
func served(t *testing.T, address, name string) *x509.Certificate {
	t.Helper()
	state, err := dial(address, &tls.Config{ServerName: name, InsecureSkipVerify: true})
	if err != nil {
		t.Fatalf("%q: %v", name, err)
	}
	return state.PeerCertificates[0]
}

func wantRefused(t *testing.T, address, name string) {
	t.Helper()
	_, err := dial(address, &tls.Config{ServerName: name, InsecureSkipVerify: true})
	if err == nil || !strings.Contains(err.Error(), "unrecognized name") {
		t.Errorf("%q: error %v, want the alert unrecognized_name", name, err)
	}
}

// writePair makes a self-signed certificate and puts it and its key in dir as title.pem and title-key.pem.
func writePair(t *testing.T, dir, title string, template *x509.Certificate) Pair {
	t.Helper()
	return writePairAt(t, dir, title, template, 90*24*time.Hour, time.Now())
}

func writePairAt(t *testing.T, dir, title string, template *x509.Certificate, life time.Duration, now time.Time) Pair {
	t.Helper()
	made, err := issue(template, life, nil, now)
	if err != nil {
		t.Fatal(err)
	}
	return writeIdentity(t, dir, title, made)
}

func writeIdentity(t *testing.T, dir, title string, made *identity) Pair {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(made.key)
	if err != nil {
		t.Fatal(err)
	}
	p := Pair{filepath.Join(dir, title+".pem"), filepath.Join(dir, title+"-key.pem")}
	for path, write := range map[string]func(path string) error{
		p.Cert: func(path string) error { return writePEM(path, 0o644, "CERTIFICATE", made.cert.Raw) },
		p.Key:  func(path string) error { return writePEM(path, 0o600, "PRIVATE KEY", key) },
	} {
		if err := write(path + ".new"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// holding is the template of a certificate for names.
func holding(names ...string) *x509.Certificate { return &x509.Certificate{DNSNames: names} }

func TestWhatListenersNegotiate(t *testing.T) {
	t.Parallel()
	c := newCerts(t, Options{Internal: true}, nil, t.TempDir(), newLogs())
	address := listen(t, c)
	for _, test := range []struct {
		name   string
		client *tls.Config
		want   string // or the alert
	}{
		{"TLS 1.1 is refused",
			&tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, "protocol version not supported"},
		{"TLS 1.2", &tls.Config{MaxVersion: tls.VersionTLS12}, "TLS 1.2"},
		{"TLS 1.3", &tls.Config{}, "TLS 1.3"},
		{"h2 is not offered", &tls.Config{NextProtos: []string{"h2", "http/1.1"}}, "TLS 1.3 http/1.1"},
		{"a client that speaks h2 alone is refused", &tls.Config{NextProtos: []string{"h2"}}, "no application protocol"},
		{"TLS 1.2 with CBC is refused",
			&tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}},
			"handshake failure"},
		{"TLS 1.2 with ChaCha20", &tls.Config{MaxVersion: tls.VersionTLS12,
			CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256}}, "TLS 1.2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			config := trusting(t, c, "localhost")
			test.client.ServerName, test.client.RootCAs = config.ServerName, config.RootCAs
			state, err := dial(address, test.client)
			got := strings.TrimSpace(tls.VersionName(state.Version) + " " + state.NegotiatedProtocol)
			if err != nil {
				got = strings.TrimPrefix(err.Error(), "remote error: tls: ")
			}
			if got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestASessionIsResumed(t *testing.T) {
	t.Parallel()
	c := newCerts(t, Options{Internal: true}, nil, t.TempDir(), newLogs())
	address := listen(t, c)
	config := trusting(t, c, "localhost")
	config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	for i := range 2 {
		conn, err := tls.Dial("tcp", address, config)
		if err != nil {
			t.Fatal(err)
		}
		echo := make([]byte, 2)
		fmt.Fprint(conn, "hi")
		if _, err := io.ReadFull(conn, echo); err != nil { // the ticket comes before the first bytes
			t.Fatal(err)
		}
		if resumed := conn.ConnectionState().DidResume; resumed != (i == 1) {
			t.Errorf("connection %d: resumed is %v", i, resumed)
		}
		conn.Close()
	}
}

func TestWithoutCertificatesEveryHandshakeIsRefused(t *testing.T) {
	t.Parallel()
	address := listen(t, newCerts(t, Options{}, []string{""}, "", newLogs()))
	wantRefused(t, address, "localhost")
	wantRefused(t, address, "")
}

func TestFilesWinOverTheAuthorityForTheNamesTheyHold(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pair := writePair(t, dir, "site", holding("www.example.com"))
	c := newCerts(t, Options{Internal: true, Files: []Pair{pair}}, []string{"www.example.com", "chat.example.com"}, dir, newLogs())
	address := listen(t, c)
	for name, want := range map[string]bool{"www.example.com": false, "chat.example.com": true, "127.0.0.1": true} {
		if _, err := dial(address, trusting(t, c, name)); (err == nil) != want {
			t.Errorf("%q: a client that trusts the local authority alone: %v", name, err)
		}
	}
	wantRefused(t, address, "other.example.com")
}

package server

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"bridgehead/policy"
)

// A signer is an authority for clients.
type signer struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newSigner(t *testing.T) *signer {
	t.Helper()
	s := &signer{t: t}
	s.cert, s.key = s.sign(&x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return s
}

// sign makes a certificate; the first is the signer's own.
func (s *signer) sign(template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	s.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	parent, with := s.cert, s.key
	if parent == nil {
		parent, with = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), with)
	if err != nil {
		s.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		s.t.Fatal(err)
	}
	return cert, key
}

// client is somebody with a certificate of the signer.
func (s *signer) client(name string) *tls.Certificate {
	cert, key := s.sign(&x509.Certificate{Subject: pkix.Name{CommonName: name}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	return &tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}
}

// writeSigners puts the certificates of signers in a file at once.
func writeSigners(t *testing.T, path string, signers ...*signer) {
	t.Helper()
	var text []byte
	for _, s := range signers {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.cert.Raw})...)
	}
	if err := errors.Join(os.WriteFile(path+".new", text, 0o600), os.Rename(path+".new", path)); err != nil {
		t.Fatal(err)
	}
}

// secure is how a client that names a host, and may have a certificate, speaks TLS.
func secure(host string, cert *tls.Certificate) *tls.Config {
	config := &tls.Config{ServerName: host, InsecureSkipVerify: true}
	if cert != nil {
		config.Certificates = []tls.Certificate{*cert}
	}
	return config
}

// visit opens a socket at the listener wss.
func (l *live) visit(sni, host string, cert *tls.Certificate, header http.Header) (*websocket.Conn, *http.Response, error) {
	l.t.Helper()
	d := websocket.Dialer{
		TLSClientConfig: secure(sni, cert), HandshakeTimeout: 20 * time.Second,
		NetDial: func(_, _ string) (net.Conn, error) { return net.Dial("tcp", l.Addr("wss").String()) },
	}
	conn, resp, err := d.Dial("wss://"+host+"/", header)
	if err == nil {
		l.t.Cleanup(func() { conn.Close() })
		conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	}
	return conn, resp, err
}

func (l *live) enter(host string, cert *tls.Certificate) *websocket.Conn {
	l.t.Helper()
	conn, _, err := l.visit(host, host, cert, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	talks(l.t, conn)
	return conn
}

// isUnproven waits for the end of a socket whose client has nothing to show.
func isUnproven(t *testing.T, conn *websocket.Conn) {
	t.Helper()
	_, data, err := conn.ReadMessage()
	if closed, ok := errors.AsType[*websocket.CloseError](err); !ok || closed.Code != 1008 {
		t.Fatalf("%q, %v; want a Close with 1008", data, err)
	}
}

const devices = `
certificates: {internal: true}
listeners: [{name: wss, address: "127.0.0.1:0", tls: true, client_ca: {CA}}]
admin: {address: "127.0.0.1:0"}
drain: 1s
routes:
  - {name: devices, host: devices.example.com, websocket: {to: "ws://TO", headers: {set: {X-Device: "{cert.cn}", X-Print: "{cert.fingerprint}", X-Claim: "{header.client-cert}"}}}}
  - {name: chat, host: chat.example.com, websocket: {to: "ws://TO"}}
`

func devicesWith(to, ca string) string {
	return strings.NewReplacer("TO", to, "{CA}", ca).Replace(devices)
}

// Headers of the client never pass for what it has proven, in whatever spelling.
func TestAProvenClientIsKnownToItsBackend(t *testing.T) {
	t.Parallel()
	heads := make(chan http.Header, 1)
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		heads <- r.Header.Clone()
		if conn, err := (&websocket.Upgrader{}).Upgrade(w, r, nil); err == nil {
			conn.Close()
		}
	}))
	t.Cleanup(backend.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	s := newSigner(t)
	writeSigners(t, ca, s)
	l := start(t, devicesWith(strings.TrimPrefix(backend.URL, "http://"), "{files: "+ca+", optional: true}"))
	forged := http.Header{"Client-Cert": {":Zm9yZ2Vk:"}, "Client_cert": {":Zm9yZ2Vk:"}, "Client.Cert.Chain": {"x"}, "X-Device": {"boss"}}
	seven := s.client("device 7")
	for _, cert := range []*tls.Certificate{nil, seven} {
		if _, _, err := l.visit("devices.example.com", "devices.example.com", cert, forged); err != nil {
			t.Fatal(err)
		}
		head := <-heads
		want := http.Header{}
		if cert != nil {
			want = http.Header{
				"Client-Cert": {policy.EncodeCertificate(cert.Leaf)}, "X-Device": {"device 7"}, "X-Print": {policy.Fingerprint(cert.Leaf)},
			}
		}
		for _, name := range []string{"Client-Cert", "Client_cert", "Client.Cert.Chain", "Client-Cert-Chain", "X-Device", "X-Print", "X-Claim"} {
			if got := head[name]; strings.Join(got, "|") != strings.Join(want[name], "|") {
				t.Errorf("%s is %q, want %q", name, got, want[name])
			}
		}
	}
}

func TestAConnectionServesNoHostWhoseClientsMustProveMore(t *testing.T) {
	t.Parallel()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	s := newSigner(t)
	writeSigners(t, ca, s)
	l := start(t, devicesWith(echo(t), "{files: "+ca+", hosts: devices.example.com}"))
	for _, test := range []struct {
		sni, host string
		cert      *tls.Certificate
		status    int
	}{
		{"chat.example.com", "chat.example.com", nil, 101},
		{"chat.example.com", "devices.example.com", nil, 421},
		{"chat.example.com", "DEVICES.example.com:8443", nil, 421},
		{"chat.example.com", "devices.example.com.", s.client("a"), 421}, // it was not asked for its certificate
		{"127.0.0.1", "devices.example.com", s.client("a"), 421},
		{"devices.example.com", "devices.example.com", s.client("a"), 101},
		{"devices.example.com", "chat.example.com", s.client("a"), 101}, // it has proven more than it need
	} {
		_, resp, err := l.visit(test.sni, test.host, test.cert, nil)
		if resp == nil {
			t.Errorf("%+v: %v", test, err)
		} else if resp.StatusCode != test.status || test.status == 421 && !resp.Close {
			t.Errorf("%+v: %s, close %v", test, resp.Status, resp.Close)
		}
	}
	if _, _, err := l.visit("devices.example.com", "devices.example.com", nil, nil); err == nil || !strings.Contains(err.Error(), "certificate required") {
		t.Errorf("without a certificate: %v", err)
	}
}

func TestSocketsEndWhenTheirCertificatesCountNoMore(t *testing.T) {
	t.Parallel()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	one, two := newSigner(t), newSigner(t)
	writeSigners(t, ca, one, two)
	to := echo(t)
	l := start(t, devicesWith(to, "{files: "+ca+", optional: true}"))
	first, second := l.enter("devices.example.com", one.client("one")), l.enter("devices.example.com", two.client("two"))
	nobody, other := l.enter("devices.example.com", nil), l.enter("chat.example.com", nil)
	idle, err := tls.Dial("tcp", l.Addr("wss").String(), secure("chat.example.com", one.client("idle")))
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	if status := ask(t, idle); status != http.StatusNotFound && status != http.StatusUpgradeRequired && status != http.StatusBadRequest {
		t.Fatalf("a request beside the sockets: %d", status)
	}

	writeSigners(t, ca, two)
	isUnproven(t, first)
	for _, conn := range []*websocket.Conn{second, nobody, other} {
		talks(t, conn)
	}
	if status := ask(t, idle); status != http.StatusMisdirectedRequest {
		t.Errorf("a connection of before is answered %d", status)
	}
	if _, _, err := l.visit("devices.example.com", "devices.example.com", one.client("one"), nil); err == nil {
		t.Error("a client of the authority that is gone gets in")
	}

	l.becomes(devicesWith(to, "{files: "+ca+", hosts: devices.example.com}")) // which now need one
	isUnproven(t, nobody)
	talks(t, second)
	talks(t, other)

	l.becomes(devicesWith(to, "{files: "+ca+"}")) // all
	isUnproven(t, other)
	talks(t, second)
	l.becomes(strings.Replace(devicesWith(to, ""), ", client_ca: ", "", 1))
	talks(t, second)
	last := l.enter("chat.example.com", nil)
	l.becomes(devicesWith(to, "{files: "+ca+"}"))
	isUnproven(t, last)
	talks(t, second)
}

// ask sends a request that asks for no socket, and gives the status of its answer.
func ask(t *testing.T, conn net.Conn) int {
	t.Helper()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	r, err := http.NewRequest("GET", "https://chat.example.com/", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Write(conn); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.ReadAll(resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode
}

func TestABrokenClientCAKeepsTheRunningConfiguration(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca.pem")
	s := newSigner(t)
	writeSigners(t, ca, s)
	to := echo(t)
	l := start(t, devicesWith(to, "{files: "+ca+"}"))
	open := l.enter("chat.example.com", s.client("a"))
	text := devicesWith(to, "{files: "+filepath.Join(dir, "none.pem")+"}")
	l.text.Store(&text)
	if _, err := l.Reload(); err == nil || !strings.Contains(err.Error(), "listener wss: client_ca: ") || !strings.Contains(err.Error(), "none.pem") {
		t.Errorf("error %v", err)
	}
	talks(t, open)
	l.enter("chat.example.com", s.client("b"))
	if _, _, err := l.visit("chat.example.com", "chat.example.com", nil, nil); err == nil {
		t.Error("a client without a certificate gets in")
	}
}

func TestARestartedProgramResumesSessions(t *testing.T) {
	t.Parallel()
	text := devicesWith(echo(t), "{files: CA, optional: true}")
	ca := filepath.Join(t.TempDir(), "ca.pem")
	writeSigners(t, ca, newSigner(t))
	c := parse(t, strings.Replace(text, "CA", ca, 1))
	client := secure("chat.example.com", nil)
	client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	for i := range 3 {
		s, err := New(c, "test", discard())
		if err != nil {
			t.Fatal(err)
		}
		s.Start()
		conn, err := tls.Dial("tcp", s.Addr("wss").String(), client)
		if err != nil {
			t.Fatal(err)
		}
		ask(t, conn) // the ticket comes before the answer
		if resumed := conn.ConnectionState().DidResume; resumed != (i > 0) {
			t.Errorf("start %d: resumed is %v", i, resumed)
		}
		conn.Close()
		s.Stop()
	}
}

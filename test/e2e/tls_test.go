package e2e

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// makePair makes a certificate that signs itself, and its key, both in PEM.
func makePair(t *testing.T, serial int64, hosts ...string) (cert, key []byte) {
	t.Helper()
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), DNSNames: hosts, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(0, 3, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, signer.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(signer)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

// shows shakes hands for a host and gives the certificate that was shown, verified by the edge's roots.
func (e *edge) shows(host string) *x509.Certificate {
	e.t.Helper()
	conn, err := tls.Dial("tcp", e.addr("wss"), clientTLS(e.roots, host))
	if err != nil {
		e.t.Fatalf("TLS to %s: %v", host, err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0]
}

func byTheAuthority(leaf *x509.Certificate) bool {
	return strings.HasPrefix(leaf.Issuer.CommonName, "bridgehead intermediate")
}

// alert shakes hands, which must fail, and gives the error.
func (e *edge) alert(config *tls.Config) error {
	e.t.Helper()
	conn, err := tls.Dial("tcp", e.addr("wss"), config)
	if err == nil {
		conn.Close()
		e.t.Fatalf("a handshake for %q succeeds", config.ServerName)
	}
	return err
}

func TestTheInternalAuthorityIsVerified(t *testing.T) {
	t.Parallel()
	e := startIn(t, room(t), own+`
certificates: {internal: true}
listeners: [{name: wss, address: "127.0.0.1:0", tls: true}]
routes:
  - {name: exact, host: chat.example.com, websocket: {to: "ws://`+backend(t, echo)+`"}}
  - {name: captured, host: "{tenant}.app.example.com", websocket: {to: "ws://`+backend(t, echo)+`"}}
`)
	for _, host := range []string{"chat.example.com", "CHAT.example.com", "one.app.example.com"} {
		conn := e.visit("wss://"+host+"/", nil)
		send(t, conn, "over TLS")
		if got := receive(t, conn); got != "over TLS" {
			t.Errorf("%s: got %q", host, got)
		}
	}
	if leaf := e.shows("chat.example.com"); !byTheAuthority(leaf) || leaf.NotAfter.Before(time.Now()) {
		t.Errorf("the certificate of %s, until %s", leaf.Issuer, leaf.NotAfter)
	}

	_, unknown := errors.AsType[x509.UnknownAuthorityError](e.alert(&tls.Config{ServerName: "chat.example.com", RootCAs: x509.NewCertPool()}))
	if !unknown {
		t.Error("a client that does not know the root accepts the certificate")
	}
	for _, host := range []string{"other.example.com", "a.b.app.example.com", "app.example.com", "localhost.example.com"} {
		err := e.alert(&tls.Config{ServerName: host, InsecureSkipVerify: true})
		if !strings.Contains(err.Error(), "unrecognized name") {
			t.Errorf("SNI %s: %v, want the alert unrecognized_name", host, err)
		}
	}
	err := e.alert(&tls.Config{ServerName: "chat.example.com", RootCAs: e.roots, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})
	if !strings.Contains(err.Error(), "protocol version") {
		t.Errorf("TLS 1.1: %v, want the alert protocol_version", err)
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		d := e.anyHost()
		d.TLSClientConfig.MinVersion, d.TLSClientConfig.MaxVersion = version, version
		conn, _, err := d.Dial("wss://chat.example.com/", nil)
		if err != nil {
			t.Errorf("%s: %v", tls.VersionName(version), err)
			continue
		}
		conn.Close()
	}
}

func TestPlainAndRedirectingListeners(t *testing.T) {
	t.Parallel()
	e := startIn(t, room(t), own+`
certificates: {internal: true}
listeners:
  - {name: redirecting, address: "127.0.0.1:0", redirect: true}
  - {name: ws, address: "127.0.0.1:0"}
  - {name: wss, address: "127.0.0.1:0", tls: true}
routes: [{name: r, websocket: {to: "ws://`+backend(t, echo)+`"}}]
`)
	conn, _, err := websocket.DefaultDialer.Dial("ws://"+e.addr("ws")+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	send(t, conn, "in the clear")
	receive(t, conn)

	_, port, _ := net.SplitHostPort(e.addr("wss"))
	for _, c := range []struct{ method, host, target, location string }{
		{"GET", "chat.example.com", "/", "https://chat.example.com:" + port + "/"},
		{"POST", "chat.example.com:8080", "/a%2Fb?x=1&y=%20", "https://chat.example.com:" + port + "/a%2Fb?x=1&y=%20"},
		{"GET", "[::1]:80", "//evil.example/", "https://[::1]:" + port + "//evil.example/"},
	} {
		resp := e.answer("redirecting", c.method+" "+c.target+" HTTP/1.1\r\nHost: "+c.host+"\r\nContent-Length: 0\r\n\r\n")
		if got := resp.Header.Get("Location"); resp.StatusCode != http.StatusPermanentRedirect || got != c.location {
			t.Errorf("%s %s%s: %s to %s, want 308 to %s", c.method, c.host, c.target, resp.Status, got, c.location)
		}
	}
	resp := e.answer("redirecting", handshake("/")) // no WebSocket client follows a redirect
	if resp.StatusCode != http.StatusUpgradeRequired || !resp.Close {
		t.Errorf("an upgrade on the redirecting listener: %s, want 426 and the end of the connection", resp.Status)
	}
}

// answer is what a plain listener says to a request.
func (e *edge) answer(listener, request string) *http.Response {
	e.t.Helper()
	conn, err := net.Dial("tcp", e.addr(listener))
	if err != nil {
		e.t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	io.WriteString(conn, request)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		e.t.Fatal(err)
	}
	return resp
}

func TestCertificatesOfFiles(t *testing.T) {
	t.Parallel()
	dir := room(t)
	cert, key := makePair(t, 1, "chat.example.com")
	write(t, dir, "cert.pem", string(cert))
	write(t, dir, "key.pem", string(key))
	e := startIn(t, dir, own+`
certificates: {files: [{cert: cert.pem, key: key.pem}]}
listeners: [{name: wss, address: "127.0.0.1:0", tls: true}]
routes: [{name: r, host: chat.example.com, websocket: {to: "ws://`+backend(t, echo)+`"}}]
`)
	e.roots.AppendCertsFromPEM(cert)
	if _, err := os.Stat(filepath.Join(dir, "state", "ca")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a local authority was made, which nobody asked for: %v", err)
	}
	open := e.visit("wss://chat.example.com/", nil)
	lives := func(when string) {
		t.Helper()
		send(t, open, when)
		if got := receive(t, open); got != when {
			t.Fatalf("%s the open socket answers %q", when, got)
		}
	}
	lives("before")

	// As certificate tools renew: both files replaced by renaming. Between the two the pair does not match, and the old one stays.
	cert, key = makePair(t, 2, "chat.example.com", "second.example.com")
	e.roots.AppendCertsFromPEM(cert)
	replace(t, dir, "cert.pem", cert)
	replace(t, dir, "key.pem", key)
	e.await(func(line map[string]any) bool {
		return line["msg"] == "certificate loaded" && strings.Contains(fmt.Sprint(line["names"]), "second.example.com")
	})
	if got := e.shows("chat.example.com").SerialNumber.Int64(); got != 2 {
		t.Errorf("a new handshake is shown certificate %d, want the new one", got)
	}
	lives("after the reload")
	e.visit("wss://chat.example.com/", nil)

	replace(t, dir, "key.pem", []byte("no key at all"))
	line := e.await(func(line map[string]any) bool {
		return line["level"] == "ERROR" && strings.Contains(fmt.Sprint(line["error"]), "key.pem") &&
			strings.Contains(fmt.Sprint(line["error"]), "PEM")
	})
	if line["msg"] != "certificate not reloaded, the old one stays" {
		t.Errorf("the log says %v", line)
	}
	if got := e.shows("chat.example.com").SerialNumber.Int64(); got != 2 {
		t.Errorf("with a broken pair a new handshake is shown certificate %d, want the old one", got)
	}
	lives("after the broken pair")
	if err := e.alert(&tls.Config{ServerName: "unheard.example.com"}); !strings.Contains(err.Error(), "unrecognized name") {
		t.Errorf("an unknown host: %v", err)
	}
}

// replace puts a file in the place of another at once.
func replace(t *testing.T, dir, name string, data []byte) {
	t.Helper()
	if err := os.Rename(write(t, dir, name+".new", string(data)), filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

func TestABrokenPairAtTheStart(t *testing.T) {
	t.Parallel()
	dir := room(t)
	cert, _ := makePair(t, 1, "chat.example.com")
	_, key := makePair(t, 2, "chat.example.com")
	write(t, dir, "cert.pem", string(cert))
	write(t, dir, "key.pem", string(key))
	write(t, dir, "config.yaml", own+`
certificates: {files: [{cert: cert.pem, key: key.pem}, {cert: none.pem, key: none.pem}]}
listeners: [{name: wss, address: "127.0.0.1:0", tls: true}]
routes: [{name: r, websocket: {to: "ws://127.0.0.1:9000"}}]
`)
	command(t, dir, "serve").wants(t, 1, "certificates: ", "cert.pem with key "+dir+"/key.pem", "private key does not match", "none.pem: no such file")
}

func TestFilesWinOverTheInternalAuthority(t *testing.T) {
	t.Parallel()
	dir := room(t)
	cert, key := makePair(t, 7, "chat.example.com")
	write(t, dir, "cert.pem", string(cert))
	write(t, dir, "key.pem", string(key))
	up := backend(t, echo)
	e := startIn(t, dir, own+`
certificates: {internal: true, files: [{cert: cert.pem, key: key.pem}]}
listeners: [{name: wss, address: "127.0.0.1:0", tls: true}]
routes:
  - {name: chat, host: chat.example.com, websocket: {to: "ws://`+up+`"}}
  - {name: other, host: other.example.com, websocket: {to: "ws://`+up+`"}}
`)
	e.roots.AppendCertsFromPEM(cert)
	if got := e.shows("chat.example.com").SerialNumber.Int64(); got != 7 {
		t.Errorf("the host of the pair is shown certificate %d", got)
	}
	if leaf := e.shows("other.example.com"); !byTheAuthority(leaf) {
		t.Errorf("the other host is shown a certificate of %s", leaf.Issuer)
	}
	e.visit("wss://chat.example.com/", nil)
	e.visit("wss://other.example.com/", nil)
}

func TestTheRootIsKept(t *testing.T) {
	t.Parallel()
	dir := room(t)
	config := own + `
certificates: {internal: true}
listeners: [{name: wss, address: "127.0.0.1:0", tls: true}]
routes: [{name: r, host: chat.example.com, websocket: {to: "ws://` + backend(t, echo) + `"}}]
`
	first := startIn(t, dir, config)
	root := filepath.Join(dir, "state", "ca", "root.pem")
	before, err := os.ReadFile(root)
	if err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]fs.FileMode{"root.pem": 0o644, "root-key.pem": 0o600, ".": fs.ModeDir | 0o700, "..": fs.ModeDir | 0o700} {
		if info, err := os.Stat(filepath.Join(dir, "state", "ca", name)); err != nil || info.Mode() != mode {
			t.Errorf("%s is %v, %v, want %v", name, info.Mode(), err, mode)
		}
	}
	if err := first.terminate(); err != nil {
		t.Fatalf("exit: %v", err)
	}

	second := startIn(t, dir, config)
	after, err := os.ReadFile(root)
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the root was made anew: %v", err)
	}
	second.roots = first.roots // of a client that was told to trust it once
	second.visit("wss://chat.example.com/", nil)
}

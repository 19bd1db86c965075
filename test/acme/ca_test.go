package acme_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
)

// An authority is Pebble, Let's Encrypt's server for tests, in this process.
type authority struct {
	directory string
	file      string         // the PEM file by which its own certificate is checked
	roots     *x509.CertPool // that its certificates lead to
	ca        *ca.CAImpl

	address string
	tls     *tls.Config
	handler http.Handler

	mu     sync.Mutex // guards the following
	server *http.Server

	orders atomic.Int64                                                      // that were placed
	before atomic.Pointer[func(w http.ResponseWriter, r *http.Request) bool] // answers in its place if it returns true
}

// settings are what a test wants of an authority.
type settings struct {
	port       ports
	dns        string // the name server that it asks
	lives      map[string]time.Duration
	eab        map[string]string
	badNonces  string // percent
	alternates int
	ariRefresh string // seconds after which clients may ask again when a certificate is to be renewed
}

// environment guards the variables by which Pebble is configured.
var environment sync.Mutex

func newAuthority(t *testing.T, s settings) *authority {
	t.Helper()
	a := &authority{}
	a.file, a.tls = selfSigned(t)
	out := log.New(&testLog{t: t}, "", 0)
	profiles := map[string]ca.Profile{"default": {Description: "d", ValidityPeriod: uint64((90 * 24 * time.Hour).Seconds())}}
	for name, life := range s.lives {
		profiles[name] = ca.Profile{Description: name, ValidityPeriod: uint64(life.Seconds())}
	}
	store := db.NewMemoryStore()
	for id, key := range s.eab {
		if err := store.AddExternalAccountKeyByID(id, key); err != nil {
			t.Fatal(err)
		}
	}
	environment.Lock()
	for name, value := range map[string]string{"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": or(s.badNonces, "0"), "PEBBLE_AUTHZREUSE": "0"} {
		os.Setenv(name, value)
	}
	a.ca = ca.New(out, store, "", "ecdsa", s.alternates, 1, profiles)
	validation := va.New(out, s.port.plain, s.port.secure, false, s.dns, store)
	front := wfe.New(out, store, validation, a.ca, []string{"pebble.letsencrypt.org"}, false, len(s.eab) > 0, 1, 1)
	environment.Unlock()
	api, management := front.Handler(), front.ManagementHandler()
	a.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if before := a.before.Load(); before != nil && (*before)(w, r) {
			return
		}
		switch {
		case strings.HasPrefix(r.URL.Path, "/set-renewal-info"):
			management.ServeHTTP(w, r)
			return
		case strings.HasPrefix(r.URL.Path, "/order-plz"):
			a.orders.Add(1)
		case strings.Contains(r.URL.Path, "renewalInfo") && s.ariRefresh != "":
			w = &refreshing{w, s.ariRefresh}
		}
		api.ServeHTTP(w, r)
	})
	a.roots = x509.NewCertPool()
	for i := range a.ca.GetNumberOfRootCerts() {
		a.roots.AddCert(a.ca.GetRootCert(i).Cert)
	}
	a.address = "127.0.0.1:0"
	a.up(t)
	t.Cleanup(a.down)
	a.directory = "https://" + a.address + wfe.DirectoryPath
	return a
}

// up has the authority listen, at the address that it had before.
func (a *authority) up(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp", a.address)
	if err != nil {
		t.Fatal(err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.address = l.Addr().String()
	a.server = &http.Server{Handler: a.handler, TLSConfig: a.tls, ErrorLog: log.New(io.Discard, "", 0)}
	go a.server.ServeTLS(l, "", "")
}

// down has it answer nobody.
func (a *authority) down() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.server.Close()
}

// instead has answer called before the authority.
func (a *authority) instead(answer func(w http.ResponseWriter, r *http.Request) bool) {
	if answer == nil {
		a.before.Store(nil)
		return
	}
	a.before.Store(&answer)
}

// A refreshing answer may be asked for again soon.
type refreshing struct {
	http.ResponseWriter
	after string
}

func (w *refreshing) WriteHeader(status int) {
	w.Header().Set("Retry-After", w.after)
	w.ResponseWriter.WriteHeader(status)
}

func (w *refreshing) Write(p []byte) (int, error) {
	w.Header().Set("Retry-After", w.after)
	return w.ResponseWriter.Write(p)
}

// selfSigned makes a certificate for 127.0.0.1.
func selfSigned(t *testing.T) (file string, config *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(24 * time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "authority.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return file, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// A testLog writes to the log of a test, until it ends.
type testLog struct {
	t  *testing.T
	mu sync.Mutex
	on bool
}

func (l *testLog) Write(p []byte) (int, error) { return len(p), nil }

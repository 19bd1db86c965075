package auth

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"bridgehead/internal/watch"
)

// A transport is how an identity provider is reached: it follows no redirects, keeps no cookies and knows no proxy. When the file of
// the authorities to trust changes, connections that are made from then on go by the new ones.
type transport struct {
	ca      string // "": the system's authorities
	atOnce  int
	with    Setup
	current atomic.Pointer[http.Transport]
	stop    func()
}

// newTransport reads the file of authorities, if there is one, and begins to watch it.
func newTransport(ca string, atOnce int, with Setup) (*transport, error) {
	t := &transport{ca: ca, atOnce: atOnce, with: with, stop: func() {}}
	if ca != "" && !with.Still {
		stop, err := watch.Files(with.Log, t.reload, ca)
		if err != nil {
			return nil, err
		}
		t.stop = stop
	}
	if err := t.read(); err != nil {
		t.stop()
		return nil, err
	}
	return t, nil
}

// RoundTrip is http.RoundTripper's.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	return t.current.Load().RoundTrip(r)
}

func (t *transport) close() {
	t.stop()
	t.current.Load().CloseIdleConnections()
}

func (t *transport) reload() {
	old := t.current.Load()
	if err := t.read(); err != nil {
		t.with.Log.Error("authorities not read again, the old ones stay", "error", err)
		return
	}
	old.CloseIdleConnections() // those in use are closed as soon as they are idle
	t.with.Log.Info("authorities read again", "file", t.ca)
}

func (t *transport) read() error {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.ca != "" {
		pem, err := os.ReadFile(t.ca)
		if err != nil {
			return fmt.Errorf("ca: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return fmt.Errorf("ca: %s has no certificate in it: write a PEM file", t.ca)
		}
	}
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	t.current.Store(&http.Transport{
		DialContext: dialer.DialContext, TLSClientConfig: config, ForceAttemptHTTP2: true, TLSHandshakeTimeout: 5 * time.Second,
		MaxIdleConns: t.atOnce, MaxIdleConnsPerHost: t.atOnce, IdleConnTimeout: 90 * time.Second, MaxResponseHeaderBytes: 64 << 10,
	})
	return nil
}

package tls

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"bridgehead/internal/seldom"
	"bridgehead/internal/watch"
)

// pairs are the certificates of the files.
type pairs struct {
	log     *slog.Logger
	told    *seldom.Log
	current atomic.Pointer[table]

	mu  sync.Mutex // guards the following: the files are read by one at a time
	all []*pair

	stopWatch func()
	done      chan struct{} // ends remind
	wg        sync.WaitGroup
}

// newPairs reads the files and begins to watch them.
func newPairs(files []Pair, told *seldom.Log, log *slog.Logger) (*pairs, error) {
	p := &pairs{told: told, log: log, done: make(chan struct{})}
	var paths []string
	for _, f := range files {
		p.all = append(p.all, &pair{Pair: f})
		paths = append(paths, f.Cert, f.Key)
	}
	stop, err := watch.Files(log, p.reload, paths...)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(p.refresh()...); err != nil {
		stop()
		return nil, err
	}
	p.stopWatch = stop
	p.wg.Go(p.remind)
	return p, nil
}

// close waits until nothing of p runs any more.
func (p *pairs) close() {
	p.stopWatch()
	close(p.done)
	p.wg.Wait()
}

// certificate is a source: the pairs that hold the name that was asked for.
func (p *pairs) certificate(q asked) (*tls.Certificate, error) {
	name := q.name
	if name == "" {
		name = q.addr.String()
	}
	held := p.current.Load().find(name)
	for _, cert := range held {
		if q.hello.SupportsCertificate(cert) == nil { // such as ECDSA before RSA, in the order of the configuration
			return cert, nil
		}
	}
	if len(held) > 0 {
		return held[0], nil
	}
	return nil, nil
}

// fallback is a source: the first pair, for clients that name nothing, or a host that is served but that no pair holds; these
// learn at least what is wrong.
func (p *pairs) fallback(q asked) (*tls.Certificate, error) {
	switch {
	case q.name == "":
		return p.current.Load().first, nil
	case q.hosts.serve(q.name):
		q.tell(p.log, p.told, "TLS handshake with a certificate that the client will refuse", "no certificate holds this host, so that "+
			"the first one was sent; list one that does under certificates.files, or set certificates.internal")
		return p.current.Load().first, nil
	}
	return nil, nil
}

// reload is called when a file has changed.
func (p *pairs) reload() {
	for _, err := range p.refresh() {
		p.log.Error("certificate not reloaded, the old one stays", "error", err)
	}
}

// refresh reads all files again and puts the certificates in force. A pair that is broken stays what it was; that is told once
// for each of its changes.
func (p *pairs) refresh() []error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var broken []error
	var fresh []*pair
	t := &table{byName: make(map[string][]*tls.Certificate)}
	for _, pair := range p.all {
		changed, err := pair.refresh()
		if changed || err != nil {
			pair.err = err
		}
		if err != nil {
			broken = append(broken, err)
		}
		if changed {
			fresh = append(fresh, pair)
		}
		if pair.cert != nil {
			t.add(pair.cert)
		}
	}
	p.current.Store(t)
	for _, pair := range fresh {
		p.log.Info("certificate loaded", "cert", pair.Cert, "names", names(pair.cert.Leaf), "until", pair.cert.Leaf.NotAfter)
		warnIfReadable(pair.Key, 0o007, p.log)
		pair.warnOfEnd(p.log)
	}
	return broken
}

// remind speaks every day of certificates whose end is near.
func (p *pairs) remind() {
	days := time.NewTicker(24 * time.Hour)
	defer days.Stop()
	for {
		select {
		case <-p.done:
			return
		case <-days.C:
		}
		p.mu.Lock()
		for _, pair := range p.all {
			pair.warnOfEnd(p.log)
		}
		p.mu.Unlock()
	}
}

// warnOfGaps speaks of hosts that no pair holds, but not of those that were there before.
func (p *pairs) warnOfGaps(now, before *hosts) {
	t := p.current.Load()
	for _, host := range slices.Sorted(maps.Keys(now.names)) {
		if host != "" && !before.names[host] && len(t.find(host)) == 0 {
			p.log.Warn("no certificate holds this host: clients will refuse the one they get", "host", host)
		}
	}
}

// A pair is one certificate as it was last read.
type pair struct {
	Pair
	cert *tls.Certificate // nil: none yet
	err  error            // of the last attempt to read it
	seen [sha256.Size]byte
}

// refresh reads the files again, and tells whether there is a new certificate. What was read before, good or bad, is passed
// over.
func (p *pair) refresh() (changed bool, err error) {
	certPEM, certErr := os.ReadFile(p.Cert)
	keyPEM, keyErr := os.ReadFile(p.Key)
	seen := sha256.Sum256(fmt.Appendf(nil, "%q %v %q %v", certPEM, certErr, keyPEM, keyErr))
	if seen == p.seen && p.cert != nil {
		return false, nil
	}
	p.seen = seen
	if err := errors.Join(certErr, keyErr); err != nil {
		return false, fmt.Errorf("certificate: %w", err)
	}
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return false, fmt.Errorf("certificate %s with key %s: %w", p.Cert, p.Key, err)
	}
	p.cert = &cert
	return true, nil
}

// A certificate that ends within notice is spoken of; one that lives for days alone, and is renewed late, only in the last
// sixth of its life.
const notice = 14 * 24 * time.Hour

// warnOfEnd speaks of a certificate that is not valid now or soon.
func (p *pair) warnOfEnd(log *slog.Logger) {
	leaf, now := p.cert.Leaf, time.Now()
	if err := checkLife(leaf, now); err != nil {
		log.Warn("clients will refuse this certificate", "cert", p.Cert, "error", err)
		return
	}
	if left := leaf.NotAfter.Sub(now); left < min(notice, leaf.NotAfter.Sub(leaf.NotBefore)/6) {
		log.Warn("this certificate expires soon", "cert", p.Cert, "until", leaf.NotAfter, "left", left.Round(time.Minute))
	}
}

// A table finds certificates by the names that they hold. It does not change once it is in force.
type table struct {
	first  *tls.Certificate
	byName map[string][]*tls.Certificate // in the order of the configuration
}

func (t *table) add(cert *tls.Certificate) {
	if t.first == nil {
		t.first = cert
	}
	for _, name := range names(cert.Leaf) {
		t.byName[name] = append(t.byName[name], cert)
	}
}

// find returns the certificates that hold name itself, or else those that hold its wildcard.
func (t *table) find(name string) []*tls.Certificate {
	if held := t.byName[name]; len(held) > 0 {
		return held
	}
	_, parent, _ := strings.Cut(name, ".")
	return t.byName["*."+parent]
}

// names are those that a certificate holds: its alternative names, or its common name if there are none, as old private
// authorities have it.
func names(cert *x509.Certificate) []string {
	var all []string
	for _, name := range cert.DNSNames {
		all = append(all, strings.ToLower(name))
	}
	for _, ip := range cert.IPAddresses {
		all = append(all, ip.String())
	}
	if len(all) == 0 {
		all = append(all, strings.ToLower(cert.Subject.CommonName))
	}
	return all
}

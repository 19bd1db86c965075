package tls

import (
	"container/list"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

// maxLeaves bounds the leaves that are kept. The one that was not asked for the longest goes first; to make it again costs
// less than the handshake that asks for it.
const maxLeaves = 4096

// An authority makes certificates for the hosts of the routes, for localhost and for the addresses at which clients reach us.
// The root lies in the state directory; the intermediate, which signs, lives in memory alone. Nothing runs in the background:
// whatever is due is made by the handshake that needs it.
type authority struct {
	root  *root
	hosts *hosts
	log   *slog.Logger

	mu           sync.Mutex // guards the following
	intermediate *identity
	leaves       map[string]*list.Element // by subject
	recent       *list.List               // of *leaf, the last one used first
}

// A leaf is a certificate that was made for subject.
type leaf struct {
	*identity
	subject string
	sent    *tls.Certificate
}

func newAuthority(state string, hosts *hosts, log *slog.Logger) (*authority, error) {
	root, err := openRoot(state, log)
	if err != nil {
		return nil, fmt.Errorf("local CA: %w", err)
	}
	return &authority{root: root, hosts: hosts, log: log, leaves: make(map[string]*list.Element), recent: list.New()}, nil
}

// certificate is a source.
func (a *authority) certificate(q asked) (*tls.Certificate, error) {
	switch {
	case q.name == "" && q.addr.IsValid():
		return a.leaf(q.addr.String())
	case q.name == "":
		return a.leaf(netip.IPv6Loopback().String())
	case q.name == "localhost" || a.hosts.serve(q.name):
		return a.leaf(a.hosts.subject(q.name))
	}
	return nil, nil
}

// leaf returns the certificate for a subject, and makes it if there is none or if it is due.
func (a *authority) leaf(subject string) (*tls.Certificate, error) {
	now := time.Now()
	if cert := a.cached(subject, now); cert != nil {
		return cert, nil
	}
	issuer, err := a.issuer(now)
	if err != nil {
		return nil, fmt.Errorf("local CA: %w", err)
	}
	made, err := issueLeaf(subject, a.hosts.ips, issuer, now)
	if err != nil {
		return nil, fmt.Errorf("local CA: make a certificate for %q: %w", subject, err)
	}
	a.log.Debug("the local CA made a certificate", "subject", subject, "until", made.cert.NotAfter)
	l := &leaf{made, subject, tlsCertificate(made, issuer)}
	a.keep(l)
	return l.sent, nil
}

func (a *authority) cached(subject string, now time.Time) *tls.Certificate {
	a.mu.Lock()
	defer a.mu.Unlock()
	e, ok := a.leaves[subject]
	if !ok {
		return nil
	}
	l := e.Value.(*leaf)
	if l.due(now) {
		return nil
	}
	a.recent.MoveToFront(e)
	return l.sent
}

// keep puts a leaf in the place of the older one for its subject.
func (a *authority) keep(l *leaf) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if old, ok := a.leaves[l.subject]; ok {
		a.recent.Remove(old)
	}
	a.leaves[l.subject] = a.recent.PushFront(l)
	if a.recent.Len() > maxLeaves {
		last := a.recent.Remove(a.recent.Back()).(*leaf)
		delete(a.leaves, last.subject)
	}
}

// issuer returns the intermediate, a new one if it is due. Leaves that the old one signed keep it in their chain.
func (a *authority) issuer(now time.Time) (*identity, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.intermediate != nil && !a.intermediate.due(now) {
		return a.intermediate, nil
	}
	if err := checkLife(a.root.cert, now); err != nil {
		return nil, a.root.broken(err)
	}
	made, err := issueAuthority("bridgehead intermediate", intermediateLife, a.root.identity, now)
	if err != nil {
		return nil, fmt.Errorf("make an intermediate: %w", err)
	}
	a.intermediate = made
	return made, nil
}

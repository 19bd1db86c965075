package tls

import (
	"container/list"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
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
	root *root
	log  *slog.Logger

	mu           sync.Mutex // guards the following
	intermediate *identity
	leaves       map[string]*list.Element // by key
	recent       *list.List               // of *leaf, the last one used first
}

// A leaf is a certificate that was made for the subject, and the addresses beside it, that key names.
type leaf struct {
	*identity
	key  string
	sent *tls.Certificate
}

func newAuthority(state string, log *slog.Logger) (*authority, error) {
	root, err := openRoot(state, log)
	if err != nil {
		return nil, fmt.Errorf("local CA: %w", err)
	}
	return &authority{root: root, log: log, leaves: make(map[string]*list.Element), recent: list.New()}, nil
}

// certificate is a source.
func (a *authority) certificate(q asked) (*tls.Certificate, error) {
	switch {
	case q.name == "" && q.addr.IsValid():
		return a.leaf(q.addr.String(), q.hosts.ips)
	case q.name == "":
		return a.leaf(netip.IPv6Loopback().String(), q.hosts.ips)
	case q.name == "localhost" || q.hosts.serve(q.name):
		return a.leaf(q.hosts.subject(q.name), nil)
	}
	return nil, nil
}

// leaf returns the certificate for a subject, which holds also these addresses if the subject is one, and makes it if there is
// none or if it is due.
func (a *authority) leaf(subject string, also []net.IP) (*tls.Certificate, error) {
	now, key := time.Now(), subject
	if len(also) > 0 {
		key = fmt.Sprint(subject, also)
	}
	if cert := a.cached(key, now); cert != nil {
		return cert, nil
	}
	issuer, err := a.issuer(now)
	if err != nil {
		return nil, fmt.Errorf("local CA: %w", err)
	}
	made, err := issueLeaf(subject, also, issuer, now)
	if err != nil {
		return nil, fmt.Errorf("local CA: make a certificate for %q: %w", subject, err)
	}
	a.log.Debug("the local CA made a certificate", "subject", subject, "until", made.cert.NotAfter)
	l := &leaf{made, key, tlsCertificate(made, issuer)}
	a.keep(l)
	return l.sent, nil
}

func (a *authority) cached(key string, now time.Time) *tls.Certificate {
	a.mu.Lock()
	defer a.mu.Unlock()
	e, ok := a.leaves[key]
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

// keep puts a leaf in the place of the older one of its key.
func (a *authority) keep(l *leaf) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if old, ok := a.leaves[l.key]; ok {
		a.recent.Remove(old)
	}
	a.leaves[l.key] = a.recent.PushFront(l)
	if a.recent.Len() > maxLeaves {
		last := a.recent.Remove(a.recent.Back()).(*leaf)
		delete(a.leaves, last.key)
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

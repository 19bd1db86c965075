// Package upstream holds the servers behind the bridges: where they are, how to reach them, and which is next.
package upstream

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"bridgehead/hub"
	"bridgehead/internal/yamlpos"
	"bridgehead/policy"
)

// To says where a route leads: URLs, or the name of one group.
type To []string

// Name gives the group that is named, if it is one: a word without `:` and `/`.
func (t To) Name() (string, bool) {
	if len(t) == 1 && !strings.ContainsAny(t[0], ":/") {
		return t[0], true
	}
	return "", false
}

// Validate reports targets that cannot work for a bridge that speaks the given schemes. It looks and never acts.
func (t To) Validate(at yamlpos.Path, p *yamlpos.Problems, schemes ...string) {
	if len(t) == 0 {
		p.Add(at, "is missing: say where the sockets lead, a URL or the name of an upstream")
	}
	if _, named := t.Name(); named {
		return
	}
	for i, s := range t {
		if err := CheckURL(s, schemes...); err != nil {
			p.Add(at.Index(i), "%v", err)
		}
	}
}

// Captures are the names that the URLs take from a route's host and path.
func (t To) Captures() (names []string) {
	for _, s := range t {
		if target, err := parse(s); err == nil {
			names = append(names, target.Captures()...)
		}
	}
	return names
}

// CheckURL reports what is wrong with a server's URL for a bridge that speaks the given schemes.
func CheckURL(s string, schemes ...string) error {
	if !strings.Contains(s, ":/") && !slices.Contains(schemes, "tcp") {
		address := s
		if _, behind, ok := strings.Cut(s, "//"); ok { // the colon is missing
			address = behind
		}
		return fmt.Errorf("%q has no scheme: write %s://%s", s, schemes[0], address)
	}
	t, err := parse(s)
	if err != nil {
		return err
	}
	if !slices.Contains(schemes, t.scheme) {
		return fmt.Errorf("%q has the scheme %s; this bridge speaks %s", s, t.scheme, strings.Join(schemes, ", "))
	}
	return nil
}

// A Group is a set of servers that do the same. It is safe for use by many, and lives through reloads: see [Group.Adopt].
type Group struct {
	name string // the entry of upstreams, or the key of a route's own group
	log  *slog.Logger
	wake chan struct{} // holds one element when the watcher is to look again

	mu       sync.Mutex // guards the following, and the fields of entries and servers that say so
	rules    rules
	resolver Resolver // nil: names are looked up for each socket
	key      []byte   // signs cookies
	entries  []*entry
	servers  []*server     // of all entries
	looked   chan struct{} // closed after the next look-up
	refused  uint64        // clients for which there was no server
}

// rules are what the options say of the group as a whole.
type rules struct {
	balance string
	hash    policy.Value
	retries int
	sticky  *Sticky       // nil: clients do not come back to their servers
	resolve time.Duration // between two look-ups of a name; 0: nobody looks them up
	slow    time.Duration // until a server that is new or back has its share
	health  *Health       // nil: nobody asks
	eject   Eject
}

// New builds a group. It reads the files that the TLS options name.
func New(o Options) (*Group, error) {
	return newGroup("", o, Setup{Log: slog.New(slog.DiscardHandler)})
}

func newGroup(name string, o Options, with Setup) (*Group, error) {
	base, err := o.TLS.config()
	if err != nil {
		return nil, err
	}
	g := &Group{
		name: name, log: with.Log.With("upstream", name), wake: make(chan struct{}, 1),
		resolver: with.Resolver, key: with.Key, looked: make(chan struct{}),
		rules: rules{
			balance: o.Balance, retries: o.Retries, health: o.Health, sticky: o.Sticky, resolve: o.Resolve, slow: o.SlowStart, eject: o.Eject,
		},
	}
	if o.Balance == hashing {
		if g.rules.hash, err = policy.ParseValue(o.Hash); err != nil {
			return nil, fmt.Errorf("hash: %w", err)
		}
	}
	_, listed := To{name}.Name()
	for _, so := range o.Servers {
		t, err := parse(so.URL)
		if err != nil {
			return nil, err
		}
		t.secure(base)
		if listed {
			t.group = name
		}
		g.list(t, so)
	}
	g.gatherLocked()
	return g, nil
}

// list adds an entry to a group that nobody else knows of yet.
func (g *Group) list(t *Target, o Server) {
	e := &entry{
		key: t.key, target: t, terms: terms{weight: float64(max(o.Weight, 1)), limit: o.MaxConnections, drain: o.Drain},
		token: token(g.key, g.name, t.key),
	}
	e.servers = []*server{g.newServer(e, host{})}
	g.nameLocked(e, time.Time{})
	g.entries = append(g.entries, e)
}

// newServer is a server of an entry; without an address it is the only one.
func (g *Group) newServer(e *entry, h host) *server {
	s := &server{key: e.key, addr: h.addr, entry: e, target: e.target.at(h), leases: make(map[*Lease]struct{})}
	if h.addr.IsValid() {
		s.key += " " + s.address()
	}
	s.token = g.token(s)
	return s
}

// Adopt makes the group what next is. Servers that stay keep all that is known of them, and their sockets. Adopt returns the sockets
// of those that do not, or that are to drain: the caller ends them, each at its time. Handshakes that are under way there end as soon as they
// open.
func (g *Group) Adopt(next *Group) (leaving []hub.Conn) {
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	before := g.servers
	asked := reflect.DeepEqual(g.rules.health, next.rules.health)
	sooner := next.rules.resolve < g.rules.resolve
	g.rules, g.resolver, g.key = next.rules, next.resolver, next.key
	g.adoptEntriesLocked(next.entries, now)
	for _, s := range g.servers {
		if g.rules.health == nil { // what nobody asks for any more does not hold
			s.down, s.streak = false, 0
		}
		if !asked {
			s.askAgain = time.Time{}
		}
		if sooner {
			s.entry.due = time.Time{}
		}
	}
	for _, s := range slices.Concat(before, g.servers) {
		if s.entry.terms.drain {
			leaving = append(leaving, s.takeOutLocked()...)
		}
	}
	g.wakeUp()
	return leaving
}

// adoptEntriesLocked takes over what next lists. What is not listed any more drains.
func (g *Group) adoptEntriesLocked(next []*entry, now time.Time) {
	before := make(map[string]*entry, len(g.entries))
	for _, e := range g.entries {
		before[e.key] = e
	}
	g.entries = make([]*entry, len(next))
	for i, e := range next {
		if kept := before[e.key]; kept != nil {
			kept.target, kept.terms, kept.token = e.target, e.terms, e.token
			for _, s := range kept.servers {
				s.target, s.token = kept.target.at(s.target.found), g.token(s)
			}
			e = kept
		} else {
			e.joined = now
			for _, s := range e.servers {
				s.risen = now
			}
		}
		g.entries[i] = e
		delete(before, e.key)
	}
	for _, e := range before {
		e.terms.drain, e.named = true, false
	}
	for _, e := range g.entries {
		g.nameLocked(e, now)
	}
	g.gatherLocked()
}

// secure lays the group's TLS options under the target's.
func (t *Target) secure(base *tls.Config) {
	if t.tls == nil {
		return
	}
	host := t.tls.ServerName
	t.tls = base.Clone()
	if t.tls.ServerName == "" {
		t.tls.ServerName = host
	}
	if t.scheme != "tls" { // an upgrade needs HTTP/1.1
		t.tls.NextProtos = []string{"http/1.1"}
	}
}

// A Setup is what groups need from around them.
type Setup struct {
	Log      *slog.Logger // for what changes about their servers
	Key      []byte       // signs cookies; see [LoadKey]
	Resolver Resolver     // finds the addresses of names; nil: each socket looks its server's up
}

// Groups are the named groups of a configuration.
type Groups map[string]*Group

// NewGroups builds all entries of the section `upstreams`, and the groups that routes have of their own under the keys of
// [Key].
func NewGroups(entries map[string]Options, with Setup) (Groups, error) {
	groups := make(Groups, len(entries))
	for name, o := range entries {
		g, err := newGroup(name, o, with)
		if err != nil {
			return nil, fmt.Errorf("upstream %s: %w", name, err)
		}
		groups[name] = g
	}
	return groups, nil
}

// Key is where the group of a route stands among all: under the name that `to` says, or under one that no entry of upstreams can
// have.
func Key(route string, to To) string {
	if name, ok := to.Name(); ok {
		return name
	}
	return "route:" + route
}

// Own are the options of a group of the URLs that a route lists. A URL that stands twice counts twice.
func (t To) Own() Options {
	o := DefaultOptions()
	for _, url := range t {
		if i := slices.IndexFunc(o.Servers, func(s Server) bool { return s.URL == url }); i >= 0 {
			o.Servers[i].Weight++
			continue
		}
		s := DefaultServer()
		s.URL = url
		o.Servers = append(o.Servers, s)
	}
	return o
}

// Leaving are the servers of a group whose sockets end when its options become other ones: they are gone, or are to drain from then on.
func Leaving(was, now Options) (urls []string) {
	for _, s := range was.Servers {
		i := slices.IndexFunc(now.Servers, func(n Server) bool { return n.URL == s.URL })
		if i < 0 || now.Servers[i].Drain && !s.Drain {
			urls = append(urls, s.URL)
		}
	}
	return urls
}

// For gives the group that a route leads to.
func (gs Groups) For(route string, to To) (*Group, error) {
	if g, ok := gs[Key(route, to)]; ok {
		return g, nil
	}
	return nil, fmt.Errorf("there is no upstream %q", strings.Join(to, ", "))
}

// config reads the files.
func (o *TLS) config() (*tls.Config, error) {
	c := &tls.Config{ServerName: o.ServerName, InsecureSkipVerify: o.Insecure}
	if o.CA != "" {
		pem, err := os.ReadFile(o.CA)
		if err != nil {
			return nil, fmt.Errorf("ca: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca: %s holds no PEM certificate", o.CA)
		}
	}
	if o.Cert != "" {
		pair, err := tls.LoadX509KeyPair(o.Cert, o.Key)
		if err != nil {
			return nil, fmt.Errorf("cert and key: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

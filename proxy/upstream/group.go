// Package upstream holds the servers behind the bridges: where they are, how to reach them, and which is next.
package upstream

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"

	"bridgehead/internal/yamlpos"
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

// Validate reports what cannot work. It looks and never acts.
func (o *Options) Validate(at yamlpos.Path, p *yamlpos.Problems) {
	if len(o.Servers) == 0 {
		p.Add(at.Key("servers"), "is missing: list at least one URL")
	}
	for i, s := range o.Servers {
		if _, err := parse(s.URL); err != nil {
			p.Add(at.Key("servers").Index(i), "%v", err)
		}
	}
	if (o.TLS.Cert == "") != (o.TLS.Key == "") {
		p.Add(at.Key("tls"), "cert and key belong together: give both or none")
	}
}

// A Group is a set of servers that do the same. It is safe for use by many.
type Group struct {
	current atomic.Pointer[servers]
	turn    atomic.Uint32
}

// servers are what the options of a group come to.
type servers struct {
	targets []*Target
	tls     *tls.Config
}

// New builds a group. It reads the files that the TLS options name.
func New(o Options) (*Group, error) {
	base, err := o.TLS.config()
	if err != nil {
		return nil, err
	}
	now := &servers{tls: base}
	for _, s := range o.Servers {
		t, err := parse(s.URL)
		if err != nil {
			return nil, err
		}
		t.secure(base)
		now.targets = append(now.targets, t)
	}
	g := new(Group)
	g.current.Store(now)
	return g, nil
}

// Adopt puts the servers of next, and how to speak TLS to them, in the place of the group's own. Connections that are open stay.
func (g *Group) Adopt(next *Group) { g.current.Store(next.current.Load()) }

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

// Groups are the named groups of a configuration.
type Groups map[string]*Group

// NewGroups builds all entries of the section `upstreams`.
func NewGroups(entries map[string]Options) (Groups, error) {
	groups := make(Groups, len(entries))
	for name, o := range entries {
		g, err := New(o)
		if err != nil {
			return nil, fmt.Errorf("upstream %s: %w", name, err)
		}
		for _, t := range g.current.Load().targets {
			t.group = name
		}
		groups[name] = g
	}
	return groups, nil
}

// For gives the group that a route leads to: the named one, or a new one of the URLs it lists.
func (gs Groups) For(to To) (*Group, error) {
	if name, ok := to.Name(); ok {
		if g, ok := gs[name]; ok {
			return g, nil
		}
		return nil, fmt.Errorf("there is no upstream %q", name)
	}
	var o Options
	for _, url := range to {
		o.Servers = append(o.Servers, Server{URL: url})
	}
	return New(o)
}

// Pick gives the next server in turn.
func (g *Group) Pick() *Target {
	targets := g.current.Load().targets
	return targets[(g.turn.Add(1)-1)%uint32(len(targets))]
}

// TLS is how to speak TLS to the group's servers, apart from their names. The caller must not change it.
func (g *Group) TLS() *tls.Config { return g.current.Load().tls }

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

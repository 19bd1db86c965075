package server

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"

	"bridgehead/config"
	"bridgehead/hub"
	"bridgehead/policy"
	"bridgehead/policy/auth"
	"bridgehead/proxy"
	"bridgehead/proxy/upstream"
	"bridgehead/proxy/webhook"
	"bridgehead/routes"
	certs "bridgehead/tls"
	"bridgehead/ws"
)

// A generation is what one configuration came to. It does not change once it is in force; what outlives it is shared with the next.
type generation struct {
	number    int
	config    *config.Config
	certs     *certs.Certs   // nil: no listener speaks TLS
	tickets   *certs.Tickets // nil too then
	groups    upstream.Groups
	addresses *policy.AddressLists
	auth      *auth.Set
	rows      map[string]*row
	table     *routes.Table
	fronts    []*front
	changed   *Diff // from the generation before
}

// A row is one route: a proxy and its bridge, or else another handler.
type row struct {
	proxy   *proxy.Proxy
	bridge  proxy.Bridge
	handler http.Handler
}

// A plan is a generation in the making. All that can fail is done while it is made, and touches nothing that is in force; what is
// done to that waits in effects.
type plan struct {
	*generation
	server *Server
	was    *generation
	undo   []func()
	// effects put the generation in force, in this order. They cannot fail.
	effects []func()
	drained []hub.Conn // what the effects found to end
}

// plan makes a generation. When it fails, nothing stays open.
func (s *Server) plan(c *config.Config, was *generation) (*plan, error) {
	p := &plan{server: s, was: was, generation: &generation{
		number: was.number + 1, config: c, rows: make(map[string]*row), changed: compare(was.config, c),
	}}
	p.changed.Generation = p.number
	for _, step := range []func() error{p.planState, p.planCerts, p.planFronts, p.planGroups, p.planAddresses, p.planAuth, p.planRoutes} {
		if err := step(); err != nil {
			for _, undo := range p.undo {
				undo()
			}
			return nil, err
		}
	}
	return p, nil
}

// then adds an effect.
func (p *plan) then(effect func()) { p.effects = append(p.effects, effect) }

func (p *plan) planState() error {
	if err := os.MkdirAll(p.config.State, 0o700); err != nil {
		return fmt.Errorf("state: %w; name a directory that this user may write", err)
	}
	p.then(func() { p.server.capacity.SetMax(p.config.MaxConnections) })
	if where := fleeting(p.config.State); where != "" && p.config.State != p.was.config.State && p.keeps() {
		p.server.log.Warn("what must survive a restart is lost then: authorities limit how often they give new certificates, and clients "+
			"would have to trust another local CA; let `state` lie on a volume or a disk", "state", p.config.State, "lies_on", where)
	}
	return nil
}

// keeps tells whether certificates are kept under `state`.
func (p *plan) keeps() bool {
	return p.config.Certificates.Automatic() || p.config.Certificates.Internal
}

// planCerts keeps the certificates as long as they come from the same place, with all that was made meanwhile.
func (p *plan) planCerts() (err error) {
	c, was := p.config, p.was
	switch {
	case !c.Certificates.Enabled():
		return nil
	case was.tickets != nil && c.State == was.config.State:
		p.tickets = was.tickets
	default:
		p.tickets = certs.OpenTickets(c.State, p.server.log)
		p.undo = append(p.undo, p.tickets.Close)
	}
	p.then(func() { p.certs.Serve(certNames(secureRoutes(c)), listening(p.fronts)) })
	if was.certs != nil && reflect.DeepEqual(c.Certificates, was.config.Certificates) && c.State == was.config.State {
		p.certs = was.certs
		return nil
	}
	with := certs.Means{State: c.State, Log: p.server.log, Metrics: p.server.metrics, Was: was.certs}
	if p.certs, err = certs.New(c.Certificates, with); err != nil {
		return fmt.Errorf("certificates: %w", err)
	}
	p.undo = append(p.undo, p.certs.Close)
	return nil
}

// planGroups keeps a group of servers under its name: what it counts goes on.
func (p *plan) planGroups() (err error) {
	entries, with := p.config.Groups(), upstream.Setup{Log: p.server.log, Resolver: p.server.names}
	if slices.ContainsFunc(slices.Collect(maps.Values(entries)), func(o upstream.Options) bool { return o.Sticky != nil }) {
		if with.Key, err = upstream.LoadKey(filepath.Join(p.config.State, "sticky.key")); err != nil {
			return fmt.Errorf("the key for sticky: %w", err)
		}
	}
	fresh, err := upstream.NewGroups(entries, with)
	if err != nil {
		return err
	}
	p.groups = maps.Clone(fresh)
	for name, next := range fresh {
		if kept, ok := p.was.groups[name]; ok {
			p.groups[name] = kept
			p.then(func() { p.leave(kept.Adopt(next)) })
		}
	}
	return nil
}

// planAddresses keeps the lists of addresses if none has changed.
func (p *plan) planAddresses() (err error) {
	if p.addresses, err = policy.WatchAddresses(p.config.Addresses(), p.was.addresses, p.server.log, p.server.review); err != nil {
		return err
	}
	if p.addresses != p.was.addresses {
		p.undo = append(p.undo, p.addresses.Close)
	}
	return nil
}

// planAuth keeps the authenticators that are as they were, with the keys that they have fetched.
func (p *plan) planAuth() (err error) {
	if p.auth, err = auth.NewSet(p.config.Authenticators, p.was.auth, auth.Setup{Log: p.server.log}); err != nil {
		return err
	}
	p.undo = append(p.undo, func() { p.auth.Release(p.was.auth) })
	return nil
}

// leave drains the sockets of servers that leave their group.
func (p *plan) leave(open []hub.Conn) {
	changes := p.changes()
	for _, c := range open {
		if change := changes[c.Info().Route]; change != nil {
			change.Draining++
		}
	}
	p.drained = append(p.drained, open...)
}

// changes are those of routes, by name.
func (p *plan) changes() map[string]*Change {
	return byName(p.changed.Routes, func(c *Change) string { return c.Name })
}

func (p *plan) planRoutes() error {
	changes := p.changes()
	all := make([]routes.Route, len(p.config.Routes))
	for i := range p.config.Routes {
		r := &p.config.Routes[i]
		pattern, err := r.Pattern()
		if err == nil {
			err = p.planRoute(r, changes[r.Name], pattern.HasHost())
		}
		if err != nil {
			return fmt.Errorf("route %s: %w", r.Name, err)
		}
		all[i] = routes.Route{Name: r.Name, Pattern: pattern, Listeners: r.Listeners, Handler: p.rows[r.Name].handler}
	}
	for name, old := range p.was.rows {
		if now := p.rows[name]; old.proxy != nil && (now == nil || now.proxy == nil) {
			p.retire(old, changes[name])
		}
	}
	p.table = routes.New(all)
	return nil
}

// planRoute keeps what the route has, or makes it anew. change is nil if the route is as it was.
func (p *plan) planRoute(r *config.Route, change *Change, hasHost bool) (err error) {
	old := p.was.rows[r.Name]
	if old != nil && change == nil && p.sameAround(r) {
		p.rows[r.Name] = old
		return nil
	}
	if r.Files != nil {
		now, err := newFiles(r)
		if err == nil {
			now.handler, err = p.guarded(r, hasHost, now.handler)
		}
		p.rows[r.Name] = now
		return err
	}
	if old != nil && old.proxy == nil { // it served files
		old = nil
	}
	terms, err := p.terms(r, hasHost)
	if err != nil {
		return err
	}
	if old == nil {
		now := &row{bridge: terms.Bridge}
		p.rows[r.Name] = now
		now.proxy, err = proxy.New(p.server.proxyConfig(r.Name), terms)
		now.handler = now.proxy
		return err
	}
	return p.renew(r.Name, old, terms, change)
}

// sameAround tells whether nothing else has changed that is a part of an unchanged route's terms. Files that an upstream names may
// hold something else by now.
func (p *plan) sameAround(r *config.Route) bool {
	if r.Files != nil && r.Auth.IsNone() && r.Addresses.IsZero() { // it lets everybody in
		return true
	}
	name, _ := r.Upstream()
	return p.config.Upstreams[name].TLS == (upstream.TLS{}) && reflect.DeepEqual(p.config.Proxies(), p.was.config.Proxies()) &&
		(r.Addresses.IsZero() || p.addresses == p.was.addresses) && p.pushURL() == p.was.pushURL()
}

// renew puts new terms in the place of a route's old ones.
func (p *plan) renew(name string, old *row, terms proxy.Terms, change *Change) error {
	drains := change != nil && change.Drains
	kept, ok := old.bridge.(*webhook.Bridge)
	if next, same := terms.Bridge.(*webhook.Bridge); ok && same && !drains { // its sessions follow their bridge
		terms.Bridge = kept
		p.then(func() { kept.Adopt(next) })
	}
	next, err := old.proxy.Prepare(terms)
	if err != nil {
		return err
	}
	p.rows[name] = &row{proxy: old.proxy, bridge: terms.Bridge, handler: old.proxy}
	p.then(func() {
		if drains {
			p.drain(old.proxy.Replace(next, routeChanged), change)
			return
		}
		open := old.proxy.Apply(next)
		if change != nil {
			change.Sockets = open
		}
	})
	return nil
}

// routeChanged is told to sockets that a reload ends.
var routeChanged = ws.Cause{Kind: ws.RouteRemoved}

func (p *plan) retire(old *row, change *Change) {
	p.then(func() { p.drain(old.proxy.Retire(routeChanged), change) })
}

func (p *plan) drain(open []hub.Conn, change *Change) {
	change.Sockets = len(open)
	p.drained = append(p.drained, open...)
}

// unwatch ends the looking at files that may end sockets, as far as next, which may be nil, does not go on with it.
func (g *generation) unwatch(next *generation) {
	if next == nil || next.addresses != g.addresses {
		g.addresses.Close()
	}
	for _, f := range g.fronts {
		if f.clients != nil && (next == nil || !slices.Contains(next.fronts, f)) {
			f.clients.Close()
		}
	}
}

// release lets go of what the generation holds and next, which may be nil, does not.
func (g *generation) release(next *generation) {
	if next == nil {
		next = new(generation)
	}
	g.unwatch(next)
	if g.tickets != nil && next.tickets != g.tickets {
		g.tickets.Close()
	}
	if g.certs != nil && next.certs != g.certs {
		g.certs.Close()
	}
	g.auth.Release(next.auth)
	for name, r := range g.rows {
		if b, ok := r.bridge.(*webhook.Bridge); ok && (next.rows[name] == nil || next.rows[name].bridge != r.bridge) {
			b.Close()
		}
	}
}

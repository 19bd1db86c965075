package proxy

import (
	"maps"
	"slices"

	"bridgehead/hub"
	"bridgehead/policy"
	"bridgehead/policy/auth"
	"bridgehead/ws"
)

// Terms are what the configuration says of a route. A reload may put others in their place while sockets are open.
type Terms struct {
	Kind      string // of the bridge: websocket, tcp or webhook
	HasHost   bool   // the route is bound to hosts
	Options   Options
	Bridge    Bridge
	Proxies   policy.Proxies
	Addresses *policy.AddressList // nil: clients may come from everywhere
	Auth      *auth.Checker       // nil: everybody may come in
}

// terms are Terms made ready. A socket belongs to those it was admitted under.
type terms struct {
	Terms
	origins *policy.Origins
	limiter *policy.Limiter
	era     int // grows when sockets that are open must not live on; set when the terms come into force
}

// A Prepared is new terms of a route that wait to be applied.
type Prepared struct{ terms *terms }

// Prepare makes terms ready and changes nothing yet.
func (p *Proxy) Prepare(t Terms) (*Prepared, error) {
	origins, err := policy.NewOrigins(t.Options.Origins, t.Options.RequireOrigin, t.HasHost)
	if err != nil {
		return nil, err
	}
	limiter, err := p.Limits.Limiter(p.Route, t.Options.Limits)
	if err != nil {
		return nil, err
	}
	return &Prepared{&terms{Terms: t, origins: origins, limiter: limiter}}, nil
}

// Apply puts new terms in force. Sockets that are open live on and obey them: their limits, sizes and clocks are those of the
// new terms from now on. The bridge is for new sockets. Apply returns how many are open.
func (p *Proxy) Apply(next *Prepared) int {
	p.mu.Lock()
	p.putLocked(next.terms)
	open := p.openLocked()
	p.mu.Unlock()
	for _, c := range open {
		c.obey(next.terms)
	}
	return len(open)
}

// Replace puts new terms in force that sockets which are open cannot live under. It returns these; the caller ends them with
// cause, each at its time. Those whose handshakes are under way end as soon as they open.
func (p *Proxy) Replace(next *Prepared, cause ws.Cause) []hub.Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	open := p.retireLocked(cause)
	p.putLocked(next.terms)
	return open
}

// Retire is for a route that is gone: it returns the sockets that are open, as Replace does.
func (p *Proxy) Retire(cause ws.Cause) []hub.Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.retireLocked(cause)
}

// putLocked makes terms those of new handshakes.
func (p *Proxy) putLocked(t *terms) {
	t.era = p.era
	t.limiter.Apply()
	p.room.SetMax(t.Options.MaxConnections)
	p.terms.Store(t)
}

// retireLocked begins an era in which the sockets that are open now have no place, and returns them.
func (p *Proxy) retireLocked(cause ws.Cause) []hub.Conn {
	p.era++
	p.retired = cause
	var open []hub.Conn
	for _, c := range p.openLocked() {
		open = append(open, c)
	}
	return open
}

func (p *Proxy) openLocked() []*Client { return slices.Collect(maps.Keys(p.clients)) }

// enter makes a client known to the route. If the terms that it was admitted under were replaced meanwhile, it obeys the new ones,
// or ends.
func (p *Proxy) enter(c *Client) {
	p.mu.Lock()
	p.clients[c] = struct{}{}
	late, cause := c.terms.era < p.era, p.retired
	if now := p.terms.Load(); !late && now != c.terms {
		c.obey(now) // under the lock, or else what is applied next could come first
	}
	p.mu.Unlock()
	if late {
		c.End(cause)
	}
	if cause := p.unwelcome(c); cause != nil { // what it was let in for stopped to count while it shook hands
		c.End(*cause)
	}
}

// unwelcome tells why a client would not be let in now, for what may change while its socket is open; nil: it would.
func (p *Proxy) unwelcome(c *Client) *ws.Cause {
	if err := p.terms.Load().Addresses.Check(&c.facts); err != nil {
		return &ws.Cause{Kind: ws.ClientBarred, Err: err}
	}
	if p.Admits == nil {
		return nil
	}
	if err := p.Admits(&c.facts); err != nil {
		return &ws.Cause{Kind: ws.ClientUnproven, Err: err}
	}
	return nil
}

// Unwelcome are the open sockets whose clients would not be let in now, by the kind of cause. The caller ends them, each at its time.
func (p *Proxy) Unwelcome() map[ws.Kind][]hub.Conn {
	p.mu.Lock()
	open := p.openLocked()
	p.mu.Unlock()
	unwelcome := make(map[ws.Kind][]hub.Conn)
	for _, c := range open {
		if cause := p.unwelcome(c); cause != nil {
			unwelcome[cause.Kind] = append(unwelcome[cause.Kind], c)
		}
	}
	return unwelcome
}

// forget is enter's counterpart.
func (p *Proxy) forget(c *Client) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.clients, c)
}

package server

import (
	"cmp"
	"net"
	"net/http"
	"strings"

	"bridgehead/config"
	"bridgehead/proxy"
	"bridgehead/proxy/files"
	"bridgehead/proxy/relay"
	"bridgehead/proxy/stream"
	"bridgehead/proxy/webhook"
	certs "bridgehead/tls"
)

// proxyConfig is what a route's proxy keeps for as long as the route exists.
func (s *Server) proxyConfig(route string) proxy.Config {
	return proxy.Config{
		Route: route, Node: s.node, Hub: s.hub, Limits: s.limits, Capacity: s.capacity, Farewell: s.farewell,
		Metrics: s.metrics.Route(route), Mends: s.mends, Loops: s.loops, Cut: s.cut, Admits: s.admits, Log: s.log,
	}
}

// terms are what the configuration says of a route.
func (p *plan) terms(r *config.Route, hasHost bool) (proxy.Terms, error) {
	t := proxy.Terms{HasHost: hasHost, Options: r.Options, Proxies: p.config.Proxies(), Addresses: p.addresses.List(r.Addresses)}
	var err error
	if t.Auth, err = p.auth.Checker(r.Auth, r.Require); err != nil {
		return t, err
	}
	t.Bridge, t.Kind, err = p.bridge(r)
	return t, err
}

func (p *plan) bridge(r *config.Route) (_ proxy.Bridge, kind string, err error) {
	switch {
	case r.WebSocket != nil:
		group, err := p.groups.For(r.Name, r.WebSocket.To)
		if err != nil {
			return nil, "", err
		}
		bridge, err := relay.New(*r.WebSocket, group)
		return bridge, "websocket", err
	case r.TCP != nil:
		group, err := p.groups.For(r.Name, r.TCP.To)
		if err != nil {
			return nil, "", err
		}
		return stream.New(*r.TCP, group), "tcp", nil
	}
	group, err := p.groups.For(r.Name, r.Webhook.To)
	if err != nil {
		return nil, "", err
	}
	bridge, err := webhook.New(*r.Webhook, webhook.Config{
		Route: r.Name, Group: group, PushURL: p.pushURL(), Metrics: p.server.metrics.Route(r.Name),
	})
	return bridge, "webhook", err
}

// guarded is a handler of a route that serves no sockets, behind what the route asks of its clients.
func (p *plan) guarded(r *config.Route, hasHost bool, next http.Handler) (http.Handler, error) {
	gate, err := p.gate(r, hasHost)
	if gate == nil || err != nil {
		return next, err
	}
	gate.Next = next
	return gate, nil
}

// gate is nil if the route lets everybody in.
func (p *plan) gate(r *config.Route, hasHost bool) (*proxy.Gate, error) {
	checker, err := p.auth.Checker(r.Auth, r.Require)
	addresses := p.addresses.List(r.Addresses)
	if checker == nil && addresses == nil || err != nil {
		return nil, err
	}
	limits, err := p.server.limits.Limiter(r.Name, r.Limits)
	if err != nil {
		return nil, err
	}
	return proxy.NewGate(proxy.Gate{
		Route: r.Name, Proxies: p.config.Proxies(), Addresses: addresses, Auth: checker, Limits: limits, Metrics: p.server.metrics.Route(r.Name),
		Mends: p.server.mends, Log: p.server.log,
	}, r.Options, hasHost)
}

func newFiles(r *config.Route) (*row, error) {
	fixed, _, _ := strings.Cut(r.Path, "{")
	h, err := files.New(*r.Files, fixed[:strings.LastIndexByte(fixed, '/')+1])
	return &row{handler: h}, err
}

// pushURL is where applications reach the push API of this program, "" if they cannot: as configured, or where the listener for
// applications listens, or else the one for operators, if that says on which of our addresses.
func (g *generation) pushURL() string {
	if p := g.config.Push; p != nil && p.URL != "" {
		return strings.TrimSuffix(p.URL, "/")
	}
	tcp, ok := cmp.Or(g.addr("push"), g.addr("admin")).(*net.TCPAddr)
	if !ok || tcp.IP.IsUnspecified() {
		return ""
	}
	return "http://" + tcp.String()
}

// addr is where the listener of that name listens; nil: there is none.
func (g *generation) addr(name string) net.Addr {
	for _, f := range g.fronts {
		if f.name == name {
			return f.socket.Addr()
		}
	}
	return nil
}

// secureRoutes are those that clients reach under TLS.
func secureRoutes(c *config.Config) (all []config.Route) {
	for i := range c.Routes {
		if c.Secure(&c.Routes[i]) {
			all = append(all, c.Routes[i])
		}
	}
	return all
}

// certNames are the hosts that certificates are needed for.
func certNames(rs []config.Route) (names []string) {
	for i := range rs {
		names = append(names, rs[i].CertHost())
	}
	return names
}

// listening are the addresses at which authorities find the listeners: of several those with the ports of the protocols.
func listening(fronts []*front) (at certs.Listening) {
	for _, f := range fronts {
		if !f.public {
			continue
		}
		address := f.socket.Addr().String()
		to, port := &at.Plain, ":80"
		if f.secure {
			to, port = &at.Secure, ":443"
		}
		if *to == "" || strings.HasSuffix(address, port) {
			*to = address
		}
	}
	return at
}

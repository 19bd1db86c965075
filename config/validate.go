package config

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"

	"bridgehead/internal/yamlpos"
	"bridgehead/policy"
	"bridgehead/policy/auth"
	"bridgehead/proxy"
	"bridgehead/proxy/upstream"
)

// validate reports everything that cannot work: what each section says of itself, then what spans them. It looks and never
// acts.
func (c *Config) validate(p *yamlpos.Problems) {
	var root yamlpos.Path
	if c.State == "" {
		p.Add(root.Key("state"), "is missing, and there is no home directory to put it in: name a directory")
	}
	if c.MaxConnections < 0 {
		p.Add(root.Key("max_connections"), "must not be negative; 0 is no limit")
	}
	if c.Workers < 0 {
		p.Add(root.Key("workers"), "must not be negative; 0 is one for each processor")
	}
	p.OneOf(root.Key("driver"), c.Driver, "auto", "loops", "goroutines")
	p.OneOf(root.Key("log").Key("format"), c.Log.Format, "text", "json")
	p.OneOf(root.Key("log").Key("level"), c.Log.Level, "debug", "info", "warn", "error")
	if err := policy.CheckClientHeader(c.ClientHeader); err != nil {
		p.Add(root.Key("client_header"), "%v", err)
	}
	c.Certificates.Validate(root.Key("certificates"), p)
	c.Admin.Validate(root.Key("admin"), p)
	if c.Push != nil {
		c.Push.Validate(root.Key("push"), p)
	}
	c.validateAuthenticators(root.Key("authenticators"), p)
	c.Defaults.Validate(root.Key("defaults"), p)
	c.validateAuth(&c.Defaults, root.Key("defaults"), p)
	c.validateListeners(root.Key("listeners"), p)
	c.validateUpstreams(root.Key("upstreams"), p)
	c.validateRoutes(root.Key("routes"), p)
	c.validateHosts(root.Key("routes"), p)
}

func (c *Config) validateListeners(at yamlpos.Path, p *yamlpos.Problems) {
	names, addresses := unique{}, unique{}
	for i := range c.Listeners {
		l, at := &c.Listeners[i], at.Index(i)
		l.Validate(at, p)
		names.add(at.Key("name"), p, l.Name)
		own := unique{}
		for _, address := range l.Address {
			if _, port, err := net.SplitHostPort(address); err == nil && port == "0" { // any port is another one
				own.add(at.Key("address"), p, address)
			} else {
				addresses.add(at.Key("address"), p, address)
			}
		}
		c.validateProxyProtocol(l, at, p)
		if l.TLS && !c.Certificates.Enabled() {
			noCertificates(at, p)
		}
	}
	if !slices.ContainsFunc(c.Listeners, func(l Listener) bool { return !l.Redirect }) {
		p.Add(at, "serve no routes: there has to be one that does not redirect")
	}
}

// validateProxyProtocol reports a listener that nobody could connect to.
func (c *Config) validateProxyProtocol(l *Listener, at yamlpos.Path, p *yamlpos.Problems) {
	local := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	switch {
	case !l.ProxyProtocol:
	case len(c.TrustedProxies) == 0:
		p.Add(at.Key("proxy_protocol"), "needs trusted_proxies: the header is taken from them alone, and nobody else may connect")
	case slices.ContainsFunc(l.Address, isUnix) && !c.TrustedProxies.Contain(local):
		p.Add(at.Key("proxy_protocol"), "needs loopback among trusted_proxies: peers on a Unix socket count as 127.0.0.1")
	}
}

// noCertificates reports a listener that needs certificates; it may not stand in the file.
func noCertificates(listener yamlpos.Path, p *yamlpos.Problems) {
	const mend = "set certificates.email to get them from Let's Encrypt, certificates.internal: true for a local authority, or " +
		"list certificates.files"
	if p.Given(listener) {
		p.Add(listener.Key("tls"), "needs certificates, and there are none: %s", mend)
	} else {
		p.Add(yamlpos.Path{"certificates"}, "are missing: a file without listeners is served on :443 with TLS; %s", mend)
	}
}

func (c *Config) validateUpstreams(at yamlpos.Path, p *yamlpos.Problems) {
	for _, name := range slices.Sorted(maps.Keys(c.Upstreams)) {
		u := c.Upstreams[name]
		u.Validate(at.Key(name), p)
		if _, ok := (upstream.To{name}).Name(); !ok {
			p.Add(at.Key(name), "the name must not hold `:` or `/`: `to` would take it for a URL")
		}
	}
}

func (c *Config) validateRoutes(at yamlpos.Path, p *yamlpos.Problems) {
	if len(c.Routes) == 0 {
		p.Add(at, "is missing: without a route every request is answered 404")
	}
	names := unique{}
	for i := range c.Routes {
		r, at := &c.Routes[i], at.Index(i)
		p.Inherit(at, yamlpos.Path{"defaults"})
		r.Validate(at, p)
		names.add(at.Key("name"), p, r.Name)
		c.validateRouteListeners(r, at.Key("listeners"), p)
		c.validateTargets(r, at, p)
		c.validateAuth(&r.Options, at, p)
		if len(r.Require) > 0 && r.Auth.IsNone() {
			p.Add(at.Key("require"), "needs auth: nobody is known here, and so nobody could come in; name an authenticator")
		}
	}
}

func (c *Config) validateAuthenticators(at yamlpos.Path, p *yamlpos.Problems) {
	for _, name := range slices.Sorted(maps.Keys(c.Authenticators)) {
		a := c.Authenticators[name]
		a.Validate(at.Key(name), p)
		if err := auth.CheckName(name); err != nil {
			p.Add(at.Key(name), "%v", err)
		}
	}
}

// validateAuth reports names of authenticators that are not there.
func (c *Config) validateAuth(o *proxy.Options, at yamlpos.Path, p *yamlpos.Problems) {
	for _, name := range o.Auth.Names() {
		if _, known := c.Authenticators[name]; !known {
			known := slices.Sorted(maps.Keys(c.Authenticators))
			p.Add(at.Key("auth"), "%s", missing("authenticator", name, known, "add it under authenticators or, to let everybody in, write none"))
		}
	}
}

// validateHosts reports hosts of routes under TLS that no certificate is to be had for. One without a host serves those of the others.
func (c *Config) validateHosts(at yamlpos.Path, p *yamlpos.Problems) {
	if p.Within(yamlpos.Path{"certificates"}) {
		return
	}
	named := slices.ContainsFunc(c.Routes, func(r Route) bool { return r.Host != "" && c.Secure(&r) })
	for i := range c.Routes {
		r := &c.Routes[i]
		if _, err := r.Pattern(); err != nil || !c.Secure(r) || r.Host == "" && named {
			continue
		}
		why := c.Certificates.Unassigned(r.CertHost())
		switch {
		case why == "":
		case r.Host == "":
			p.Add(at.Index(i), "gets no certificate: %s", why)
		default:
			p.Add(at.Index(i).Key("host"), "%q gets no certificate: %s", r.Host, why)
		}
	}
}

// Secure tells whether clients reach a route under TLS.
func (c *Config) Secure(r *Route) bool {
	return slices.ContainsFunc(c.Listeners, func(l Listener) bool { return l.TLS && r.on(l.Name) })
}

func (c *Config) validateRouteListeners(r *Route, at yamlpos.Path, p *yamlpos.Problems) {
	var serving []string
	for _, l := range c.Listeners {
		if !l.Redirect {
			serving = append(serving, l.Name)
		}
	}
	if r.Listeners != nil && len(r.Listeners) == 0 {
		p.Add(at, "must not be empty: leave the key out for all listeners")
	}
	for i, name := range r.Listeners {
		switch {
		case slices.Contains(serving, name):
		case slices.ContainsFunc(c.Listeners, func(l Listener) bool { return l.Name == name }):
			p.Add(at.Index(i), "listener %q redirects and serves no routes", name)
		default:
			p.Add(at.Index(i), "%s", missing("listener", name, serving, "write the name of one, or leave the key out for all"))
		}
	}
}

// validateTargets reports a `to` that names no upstream, or one that the route cannot use.
func (c *Config) validateTargets(r *Route, at yamlpos.Path, p *yamlpos.Problems) {
	for _, b := range r.bridges() {
		at, to := at.Key(b.key).Key("to"), b.targets()
		name, named := to.Name()
		_, known := c.Upstreams[name]
		switch {
		case named && known:
			c.validateUpstream(name, r, b, at, p)
		case named:
			entries := slices.Sorted(maps.Keys(c.Upstreams))
			p.Add(at, "%s", missing("upstream", name, entries, "write "+b.example+", or add it to upstreams"))
		}
		for i, name := range to {
			if _, known := c.Upstreams[name]; known && !named {
				p.Add(at.Index(i), "%q is an upstream, which stands alone: list further servers under upstreams", name)
			}
		}
	}
}

// validateUpstream reports servers of an upstream that a route cannot use: it speaks another protocol, or has no such capture.
func (c *Config) validateUpstream(name string, r *Route, b bridge, at yamlpos.Path, p *yamlpos.Problems) {
	if p.Within(yamlpos.Path{"upstreams", name}) {
		return
	}
	u := c.Upstreams[name]
	for _, s := range u.Servers {
		if err := upstream.CheckURL(s.URL, b.schemes...); err != nil {
			p.Add(at, "upstream %q: %v", name, err)
		} else if r.WebSocket != nil && r.WebSocket.HTTP && upstream.HasPath(s.URL) {
			p.Add(at, "upstream %q: %q has a path, and requests beside the sockets (http: true) keep their own: leave it out", name, s.URL)
		}
	}
	if pattern, err := r.Pattern(); err == nil {
		r.checkCaptures(at, p, pattern.Captures(), u.Captures()...)
	}
}

// missing says that a name is not there, and which one may have been meant or else what to do.
func missing(what, name string, known []string, otherwise string) string {
	return fmt.Sprintf("there is no %s %q%s", what, name, cmp.Or(yamlpos.DidYouMean(name, known), "; "+otherwise))
}

// unique finds names that are given twice; it holds where each stands first.
type unique map[string]yamlpos.Path

func (u unique) add(at yamlpos.Path, p *yamlpos.Problems, name string) {
	if first, ok := u[name]; ok && name != "" {
		p.Add(at, "%q is %s already: give each its own", name, first)
		return
	}
	u[name] = at
}

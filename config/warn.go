package config

import (
	"maps"
	"slices"
	"strings"

	"bridgehead/internal/yamlpos"
	"bridgehead/routes"
)

// warn reports what works and may not have been meant, in a configuration without problems.
func (c *Config) warn(p *yamlpos.Problems) {
	var root yamlpos.Path
	c.Certificates.Warn(root.Key("certificates"), p)
	c.warnDefaultSNI(root.Key("certificates").Key("default_sni"), p)
	if len(c.TrustedProxies) == 0 && p.Given(root.Key("client_header")) {
		p.Add(root.Key("client_header"), "is never believed: it is taken from trusted_proxies alone, and there are none; list the proxies in front")
	}
	c.warnListeners(root.Key("listeners"), p)
	c.warnUpstreams(root.Key("upstreams"), p)
	c.warnAuthenticators(root.Key("authenticators"), p)
	for i, r := range c.Routes {
		at := root.Key("routes").Index(i)
		p.Inherit(at, root.Key("defaults"))
		r.Addresses.Warn(at.Key("addresses"), p)
		if j := slices.Index(r.Origins, "*"); j >= 0 {
			p.Add(at.Key("origins").Index(j), "every page on the web may open sockets here in the name of its visitors; "+
				"list the pages that may")
		}
	}
	c.warnHidden(root.Key("routes"), p)
}

func (c *Config) warnDefaultSNI(at yamlpos.Path, p *yamlpos.Problems) {
	host := c.Certificates.DefaultSNI
	if host == "" || slices.ContainsFunc(c.Routes, func(r Route) bool {
		pattern, err := r.Pattern()
		return err == nil && pattern.MatchesHost(routes.Hostname(host))
	}) {
		return
	}
	p.Add(at, "no route has the host %q, so that clients which name none are refused unless a pair of certificates.files holds it: "+
		"name the host of a route", host)
}

func (c *Config) warnListeners(at yamlpos.Path, p *yamlpos.Problems) {
	for i, l := range c.Listeners {
		if l.Redirect {
			continue
		}
		open := slices.ContainsFunc(l.Address, func(a string) bool { return !isLocal(a) && !isHanded(a) })
		if !l.TLS && open && len(c.TrustedProxies) == 0 {
			p.Add(at.Index(i), "listener %q takes clients of other machines without TLS, so that everyone on the way can read and "+
				"change their messages: set tls: true or, if a proxy in front ends TLS, name it in trusted_proxies", l.Name)
		}
		if !slices.ContainsFunc(c.Routes, func(r Route) bool { return r.on(l.Name) }) {
			p.Add(at.Index(i), "listener %q serves no route: every route lists others; add it to the listeners of one, or remove it", l.Name)
		}
	}
}

func (c *Config) warnUpstreams(at yamlpos.Path, p *yamlpos.Problems) {
	used := map[string]bool{}
	for i := range c.Routes {
		for _, b := range c.Routes[i].bridges() {
			for _, to := range b.targets() {
				used[to] = true
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Upstreams)) {
		if !used[name] {
			p.Add(at.Key(name), "no route leads here: name it in the `to` of one, or remove it")
		}
		if c.Upstreams[name].TLS.Insecure {
			p.Add(at.Key(name).Key("tls").Key("insecure"), "the servers' certificates are NOT VERIFIED: anyone on the way can read and "+
				"change everything, and pass for the server; name the authority that signed them in tls.ca instead")
		}
	}
}

func (c *Config) warnAuthenticators(at yamlpos.Path, p *yamlpos.Problems) {
	used := map[string]bool{}
	for i := range c.Routes {
		for _, name := range c.Routes[i].Auth.Names() {
			used[name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Authenticators)) {
		a := c.Authenticators[name]
		if !used[name] {
			p.Add(at.Key(name), "no route asks for it: name it in the `auth` of one, or remove it")
		}
		a.Warnings(func(key, format string, args ...any) {
			at := at.Key(name)
			for part := range strings.SplitSeq(key, ".") {
				at = at.Key(part)
			}
			p.Add(at, format, args...)
		})
	}
}

// warnHidden reports routes that no request reaches, since an earlier one takes all of theirs.
func (c *Config) warnHidden(at yamlpos.Path, p *yamlpos.Problems) {
	patterns := make([]routes.Pattern, len(c.Routes))
	earlier := map[string][]int{} // by exact host; under "" those that may take several
	for i := range c.Routes {
		r := &c.Routes[i]
		patterns[i], _ = r.Pattern()
		host := exactHost(r.Host)
		candidates := earlier[""]
		if host != "" {
			candidates = slices.Concat(candidates, earlier[host])
		}
		for _, j := range candidates {
			if patterns[j].Covers(patterns[i]) && c.Routes[j].serves(r.Listeners) {
				p.Add(at.Index(i), "route %q is never reached: %q, which stands before it in %s, takes all of its requests; "+
					"let it stand in front of that one, or remove it", r.Name, c.Routes[j].Name, at.Index(j))
				break
			}
		}
		earlier[host] = append(earlier[host], i)
	}
}

// exactHost is a host without patterns as it is compared, or "": ten thousand of them need not be compared with each other.
func exactHost(host string) string {
	if strings.ContainsAny(host, "*{") {
		return ""
	}
	return routes.Hostname(host)
}

// on tells whether a listener serves the route.
func (r *Route) on(listener string) bool {
	return len(r.Listeners) == 0 || slices.Contains(r.Listeners, listener)
}

// serves tells whether the route is on all of the listeners; none named are all of them.
func (r *Route) serves(listeners []string) bool {
	if len(listeners) == 0 {
		return len(r.Listeners) == 0
	}
	return !slices.ContainsFunc(listeners, func(name string) bool { return !r.on(name) })
}

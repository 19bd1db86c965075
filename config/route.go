package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"bridgehead/internal/yamlpos"
	"bridgehead/policy"
	"bridgehead/policy/auth"
	"bridgehead/proxy"
	"bridgehead/proxy/files"
	"bridgehead/proxy/relay"
	"bridgehead/proxy/stream"
	"bridgehead/proxy/upstream"
	"bridgehead/proxy/webhook"
	"bridgehead/routes"
)

// A Route says which handshakes it takes, who may come in, and where their sockets lead.
type Route struct {
	// A name for logs, metrics and the API, the same across reloads. Default: host and path.
	Name string `yaml:"name"`
	// The host of its requests: `chat.example.com`, `*.example.com` for every name below, or with captures,
	// `{tenant}.example.com`. Default: every host.
	Host string `yaml:"host"`
	// The path of its requests: `/ws`, `/ws/*` for everything below too, or with captures, `/rooms/{room}` and
	// `/files/{rest...}`. Default: every path.
	Path string `yaml:"path"`
	// Names of the listeners that serve it. Default: all that do not redirect.
	Listeners []string `yaml:"listeners"`

	proxy.Options `yaml:",inline"`

	// It leads to WebSocket servers. A route has exactly one of `websocket`, `tcp`, `webhook` and `files`.
	WebSocket *relay.Options `yaml:"websocket"`
	// It leads to a TCP or Unix stream.
	TCP *stream.Options `yaml:"tcp"`
	// It leads to an HTTP application, which gets and gives messages as requests and answers.
	Webhook *webhook.Options `yaml:"webhook"`
	// It serves a directory of files beside the sockets.
	Files *files.Options `yaml:"files"`
}

// A bridge is the section of a route that says what stands behind it.
type bridge struct {
	key     string
	options interface {
		Validate(at yamlpos.Path, p *yamlpos.Problems)
	}
	to      *upstream.To // nil if it leads to no upstream
	schemes []string     // that it can speak; relay and webhook are both for HTTP servers
	example string       // of what may stand in `to`
}

// bridgeKeys are the sections of which a route has exactly one.
var bridgeKeys = []string{"websocket", "tcp", "webhook", "files"}

// bridges are the sections that the route has.
func (r *Route) bridges() []bridge {
	var all []bridge
	if r.WebSocket != nil {
		all = append(all, bridge{"websocket", r.WebSocket, &r.WebSocket.To, relay.Schemes, "a URL such as ws://127.0.0.1:9000"})
	}
	if r.TCP != nil {
		all = append(all, bridge{"tcp", r.TCP, &r.TCP.To, stream.Schemes, "host:port or unix:/path"})
	}
	if r.Webhook != nil {
		all = append(all, bridge{"webhook", r.Webhook, &r.Webhook.To, relay.Schemes, "a URL such as http://127.0.0.1:8000/hook"})
	}
	if r.Files != nil {
		all = append(all, bridge{"files", r.Files, nil, nil, ""})
	}
	return all
}

// Pattern is the route's host and path. It cannot fail for a route of a Config that was loaded.
func (r *Route) Pattern() (routes.Pattern, error) { return routes.Parse(r.Host, r.Path) }

// CertHost is the host as certificates have it: a capture stands for one label, as `*` does there; a route for every host is "".
func (r *Route) CertHost() string {
	labels := strings.Split(r.Host, ".")
	for i, label := range labels {
		if strings.HasPrefix(label, "{") {
			labels[i] = "*"
		}
	}
	return strings.Join(labels, ".")
}

// Validate reports what cannot work in the route itself. It looks and never acts.
func (r *Route) Validate(at yamlpos.Path, p *yamlpos.Problems) {
	r.Options.Validate(at, p)
	all := r.bridges()
	for _, b := range all {
		b.options.Validate(at.Key(b.key), p)
	}
	unsure := slices.ContainsFunc(bridgeKeys, func(key string) bool { return p.Broken(at.Key(key)) })
	if len(all) == 0 && !unsure {
		p.Add(at, "leads nowhere: give it one of %s", strings.Join(bridgeKeys, ", "))
	}
	if len(all) > 1 {
		p.Add(at.Key(all[1].key), "stands beside %s: a route has one of them", all[0].key)
	}
	r.validatePattern(at, p)
}

func (r *Route) validatePattern(at yamlpos.Path, p *yamlpos.Problems) {
	_, hostErr := routes.Parse(r.Host, "")
	if hostErr != nil {
		p.Add(at.Key("host"), "%v", hostErr)
	}
	_, pathErr := routes.Parse("", r.Path)
	if pathErr != nil {
		p.Add(at.Key("path"), "%v", pathErr)
	}
	if hostErr != nil || pathErr != nil {
		return
	}
	pattern, err := r.Pattern()
	if err != nil { // host and path do not go together
		p.Add(at, "%v", err)
		return
	}
	r.validateCaptures(at, p, pattern.Captures())
}

// validateCaptures reports captures that are used and that host and path do not have.
func (r *Route) validateCaptures(at yamlpos.Path, p *yamlpos.Problems, known []string) {
	for i, rule := range r.Limits {
		at := at.Key("limits").Index(i)
		for j, name := range rule.Per {
			r.checkValue(rule.PerAt(at, j), p, known, name)
		}
		for name := range rule.When {
			r.checkValue(at.Key("when").Key(name), p, known, name)
		}
	}
	for name, texts := range r.Require {
		r.checkCaptures(at.Key("require").Key(name), p, known, auth.Requirement{name: texts}.Captures()...)
	}
	for _, b := range r.bridges() {
		r.checkCaptures(at.Key(b.key).Key("to"), p, known, b.targets().Captures()...)
	}
	if r.WebSocket == nil {
		return
	}
	set := at.Key("websocket").Key("headers").Key("set")
	for name, text := range r.WebSocket.Headers.Set {
		if t, err := policy.ParseTemplate(text); err == nil {
			r.checkCaptures(set.Key(name), p, known, t.Captures()...)
		}
	}
}

// checkValue reports a value that is a capture which is not known.
func (r *Route) checkValue(at yamlpos.Path, p *yamlpos.Problems, known []string, name string) {
	if v, err := policy.ParseValue(name); err == nil && v.Capture() != "" {
		r.checkCaptures(at, p, known, v.Capture())
	}
}

// checkCaptures reports those of the used captures that are not known.
func (r *Route) checkCaptures(at yamlpos.Path, p *yamlpos.Problems, known []string, used ...string) {
	for _, name := range used {
		if slices.Contains(known, name) {
			continue
		}
		message := fmt.Sprintf("%q is no value of a handshake, and route %q has no capture {%s} in host or path", name, r.Name, name)
		p.Add(at, "%s%s", message, yamlpos.DidYouMean(name, known))
	}
}

// targets are the bridge's URLs, or the name of its upstream.
func (b bridge) targets() upstream.To {
	if b.to == nil {
		return nil
	}
	return *b.to
}

// Upstream is the entry under `upstreams` that the route leads to, if it does not list URLs itself.
func (r *Route) Upstream() (name string, ok bool) {
	return r.to().Name()
}

// Groups are all groups of servers: the entries of upstreams, and what routes list themselves, each under its [upstream.Key].
func (c *Config) Groups() map[string]upstream.Options {
	groups := maps.Clone(c.Upstreams)
	if groups == nil {
		groups = make(map[string]upstream.Options)
	}
	for i := range c.Routes {
		r := &c.Routes[i]
		if to := r.to(); len(to) > 0 {
			groups[upstream.Key(r.Name, to)] = c.Group(r)
		}
	}
	return groups
}

// Group is the group of servers that a route leads to: an entry of upstreams, or what it lists itself; none, if it serves files.
func (c *Config) Group(r *Route) upstream.Options {
	if name, ok := r.Upstream(); ok {
		return c.Upstreams[name]
	}
	return r.to().Own()
}

// to is where the route leads; nil if it serves files.
func (r *Route) to() upstream.To {
	for _, b := range r.bridges() {
		if to := b.targets(); len(to) > 0 {
			return to
		}
	}
	return nil
}

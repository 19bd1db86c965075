package relay

import (
	"strings"
	"time"

	"bridgehead/internal/yamlpos"
	"bridgehead/policy"
	"bridgehead/proxy/upstream"
)

// Schemes are those of servers that speak WebSocket; http and https mean the same.
var Schemes = []string{"ws", "wss", "http", "https"}

// Options are the section `websocket` of a route.
type Options struct {
	// Where the upstream WebSocket servers are: a URL, a list of URLs used in turn, or the name of an entry under `upstreams`.
	// Without a path the client's path and query pass unchanged; with one it replaces them and may hold captures, `{room}`, whose
	// slashes are encoded, and at the end of the path one that keeps them, `{rest...}`.
	To upstream.To `yaml:"to"`
	// What to change in the headers of the upstream handshake.
	Headers Headers `yaml:"headers"`
	// `pass` negotiates permessage-deflate between the client and the upstream; `off` strips the client's offer.
	Compression string `yaml:"compression"`
	// Whether the push API may send to these sockets between the upstream's messages.
	Push bool `yaml:"push"`
	// Bounds the opening of the upstream connection.
	Connect upstream.Connect `yaml:"connect"`
	// Pass requests that ask for no socket to the same servers, as those of socket.io's polling, SignalR's negotiation and an
	// application's own pages. Their origins are checked, where they have one or do more than read; `limits` and `max_connections`
	// are for sockets alone. `to` must have no path.
	HTTP bool `yaml:"http"`
	// Which pages of other origins may read the answers to such requests: `backend` leaves that to the headers of the servers,
	// `origins` answers preflights and allows those of the route's `origins`.
	CORS string `yaml:"cors"`
	// How long a server may take for the head of its answer to such a request; then 504. Long polls take that long.
	ResponseTimeout time.Duration `yaml:"response_timeout"`
	// The greatest number of such requests under way; more are answered 503. 0 is no limit.
	MaxRequests int `yaml:"max_requests"`
}

// Headers says how request headers change on the way to the upstream.
type Headers struct {
	// Headers to set, each with a text that may hold values of the handshake: `{client.ip}`, `{room}`, `{header.x-name}`.
	Set map[string]string `yaml:"set"`
	// Headers to remove.
	Remove []string `yaml:"remove"`
}

// DefaultOptions are the values of keys that are not given.
func DefaultOptions() Options {
	return Options{
		Compression: "pass", Connect: upstream.DefaultConnect(), CORS: "backend", ResponseTimeout: 2 * time.Minute, MaxRequests: 4096,
	}
}

// Validate reports what cannot work. It looks and never acts.
func (o *Options) Validate(at yamlpos.Path, p *yamlpos.Problems) {
	o.To.Validate(at.Key("to"), p, Schemes...)
	o.Connect.Validate(at.Key("connect"), p)
	p.OneOf(at.Key("compression"), o.Compression, "pass", "off")
	p.OneOf(at.Key("cors"), o.CORS, "backend", "origins")
	if o.MaxRequests < 0 {
		p.Add(at.Key("max_requests"), "must not be negative; 0 is no limit")
	}
	if o.HTTP {
		for i, s := range o.To {
			if upstream.HasPath(s) {
				p.Add(at.Key("to").Index(i), "%q has a path, and requests beside the sockets (http: true) keep their own: leave it out", s)
			}
		}
	}
	set := at.Key("headers").Key("set")
	for name, text := range o.Headers.Set {
		if err := checkName(name); err != nil && !strings.EqualFold(name, "host") {
			p.Add(set.Key(name), "%v", err)
		}
		if _, err := policy.ParseTemplate(text); err != nil {
			p.Add(set.Key(name), "%v", err)
		}
	}
	for i, name := range o.Headers.Remove {
		if err := checkName(name); err != nil {
			p.Add(at.Key("headers").Key("remove").Index(i), "%v", err)
		}
	}
}

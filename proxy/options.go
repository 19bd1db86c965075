package proxy

import (
	"bridgehead/internal/yamlpos"
	"bridgehead/policy"
	"bridgehead/proxy/pump"
)

// Options are what every kind of route shares: who may come in, how much they may send, and the life of their sockets.
type Options struct {
	// Origins of the pages that may open sockets here: `https://app.example.com`, `https://*.example.com`, `null`, or `*` for
	// every page. Default: the page's host and port equal the Host header's.
	Origins []string `yaml:"origins"`
	// Refuse clients that send no Origin header, which all browsers do and other clients need not.
	RequireOrigin bool `yaml:"require_origin"`
	// What each client may open and send. The default counts by client address.
	Limits []policy.Rule `yaml:"limits"`
	// The greatest number of open sockets on this route; more are answered 503.
	MaxConnections int `yaml:"max_connections"`
	// Sizes and clocks of each socket.
	Socket pump.Options `yaml:"socket"`
}

// DefaultOptions are the values of keys that are not given.
func DefaultOptions() Options {
	return Options{Limits: policy.DefaultRules(), Socket: pump.DefaultOptions()}
}

// Validate reports what cannot work. It looks and never acts.
func (o *Options) Validate(at yamlpos.Path, p *yamlpos.Problems) {
	for i, origin := range o.Origins {
		if err := policy.CheckOrigin(origin); err != nil {
			p.Add(at.Key("origins").Index(i), "%v", err)
		}
	}
	for i := range o.Limits {
		o.Limits[i].Validate(at.Key("limits").Index(i), p)
	}
	if o.MaxConnections < 0 {
		p.Add(at.Key("max_connections"), "must not be negative")
	}
	o.Socket.Validate(at.Key("socket"), p)
}

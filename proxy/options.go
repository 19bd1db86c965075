package proxy

import (
	"bridgehead/internal/yamlpos"
	"bridgehead/policy"
	"bridgehead/policy/auth"
	"bridgehead/proxy/pump"
)

// Options are what every kind of route shares: who may come in, how much they may send, and the life of their sockets.
type Options struct {
	// The addresses that clients may come from. It holds for requests beside the sockets and for files too, and sockets that are open end
	// with 1008 when their address is denied.
	Addresses policy.Addresses `yaml:"addresses"`
	// Origins of the pages that may open sockets here: `https://app.example.com`, `https://*.example.com`, `http://localhost:*`,
	// `null`, `self` for pages whose host and port equal the Host header's, or `*` for every page. Default: `self`.
	Origins []string `yaml:"origins"`
	// Refuse clients that send no Origin header, which all browsers do and other clients need not.
	RequireOrigin bool `yaml:"require_origin"`
	// Who may come in: the name of an entry under `authenticators`, `{any: [..]}` of several names, `{all: [..]}`, or `none`, for
	// everybody. It holds for requests beside the sockets and for files too.
	Auth auth.Use `yaml:"auth,whole"`
	// What those who come in have to be: `user` or `claim.NAME`, each with the values of which one has to be theirs. These may hold
	// captures: `claim.tenant: "{tenant}"`.
	Require auth.Requirement `yaml:"require"`
	// What clients may open and send: a list of rules, all of which count.
	Limits []policy.Rule `yaml:"limits"`
	// The greatest number of open sockets on the route; more are answered 503. 0 is no limit.
	MaxConnections int `yaml:"max_connections"`
	// How a client learns that it gets no socket: `status`, by that of the answer, which no script in a browser can read; or `close`:
	// the socket is opened, and closed at once with a code that scripts can read, 4401 (log in), 4403 (no), 4429 (too many), 1013
	// (later) and others. Requests beside the sockets are always answered by a status.
	Refuse string `yaml:"refuse"`
	// Sizes and clocks of each socket.
	Socket pump.Options `yaml:"socket"`
}

// DefaultOptions are the values of keys that are not given.
func DefaultOptions() Options {
	return Options{Limits: policy.DefaultRules(), Refuse: byStatus, Socket: pump.DefaultOptions()}
}

// Validate reports what cannot work. It looks and never acts.
func (o *Options) Validate(at yamlpos.Path, p *yamlpos.Problems) {
	o.Addresses.Validate(at.Key("addresses"), p)
	for i, origin := range o.Origins {
		if err := policy.CheckOrigin(origin); err != nil {
			p.Add(at.Key("origins").Index(i), "%v", err)
		}
	}
	o.Auth.Validate(at.Key("auth"), p)
	o.Require.Validate(at.Key("require"), p)
	for i := range o.Limits {
		o.Limits[i].Validate(at.Key("limits").Index(i), p)
	}
	if o.MaxConnections < 0 {
		p.Add(at.Key("max_connections"), "must not be negative")
	}
	p.OneOf(at.Key("refuse"), o.Refuse, byStatus, byClose)
	o.Socket.Validate(at.Key("socket"), p)
}

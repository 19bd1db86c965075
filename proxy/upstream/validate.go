package upstream

import (
	"bridgehead/internal/yamlpos"
	"bridgehead/policy"
)

// maxWeight keeps weights in a range where their sums and quotients are exact.
const maxWeight = 1000

// Validate reports what cannot work. It looks and never acts.
func (o *Options) Validate(at yamlpos.Path, p *yamlpos.Problems) {
	if len(o.Servers) == 0 {
		p.Add(at.Key("servers"), "is missing: list at least one URL")
	}
	first := make(map[string]yamlpos.Path)
	for i, s := range o.Servers {
		at := at.Key("servers").Index(i)
		s.validate(at, p)
		if before, twice := first[s.URL]; twice {
			p.Add(at, "%q is %s already: give that one a weight instead", s.URL, before)
		} else {
			first[s.URL] = at
		}
	}
	o.validateBalance(at, p)
	if o.Retries < 0 {
		p.Add(at.Key("retries"), "must not be negative; 0 tries one server alone")
	}
	if (o.TLS.Cert == "") != (o.TLS.Key == "") {
		p.Add(at.Key("tls"), "cert and key belong together: give both or none")
	}
}

func (s *Server) validate(at yamlpos.Path, p *yamlpos.Problems) {
	if _, err := parse(s.URL); err != nil {
		p.Add(at, "%v", err)
	}
	if s.Weight < 1 || s.Weight > maxWeight {
		p.Add(at.Key("weight"), "is %d: write a number from 1 to %d; a server that is to get no sockets has drain: true", s.Weight, maxWeight)
	}
	if s.MaxConnections < 0 {
		p.Add(at.Key("max_connections"), "must not be negative; 0 is no limit")
	}
}

func (o *Options) validateBalance(at yamlpos.Path, p *yamlpos.Problems) {
	p.OneOf(at.Key("balance"), o.Balance, roundRobin, leastConnections, randomTwo, hashing)
	switch {
	case o.Balance == hashing && o.Hash == "":
		p.Add(at.Key("hash"), "is missing: say which value of the handshake to go by, such as client.ip or header.x-user")
	case o.Balance != hashing && o.Hash != "":
		p.Add(at.Key("hash"), "is not used with balance: %s; write balance: %s", o.Balance, hashing)
	case o.Hash != "":
		if _, err := policy.ParseValue(o.Hash); err != nil {
			p.Add(at.Key("hash"), "%v", err)
		}
	}
}

// Captures are the names that the group takes from a route's host and path.
func (o *Options) Captures() []string {
	var urls To
	for _, s := range o.Servers {
		urls = append(urls, s.URL)
	}
	names := urls.Captures()
	if v, err := policy.ParseValue(o.Hash); err == nil && v.Capture() != "" {
		names = append(names, v.Capture())
	}
	return names
}

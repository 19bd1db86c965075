package upstream

import (
	"net/http"
	"strings"
	"time"

	"bridgehead/internal/yamlpos"
	"bridgehead/policy"
)

// maxWeight keeps weights in a range where their sums and quotients are exact.
const maxWeight = 1000

// minInterval is the least time between two questions to one server.
const minInterval = 100 * time.Millisecond

// minResolve is the least time between two look-ups of one name.
const minResolve = time.Second

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
	if o.Sticky != nil {
		o.Sticky.validate(at.Key("sticky"), p)
	}
	if o.SlowStart < 0 {
		p.Add(at.Key("slow_start"), "must not be negative; off gives a server its share at once")
	}
	if o.Resolve != 0 && o.Resolve < minResolve {
		p.Add(at.Key("resolve"), "must be %s at least, or off", minResolve)
	}
	if o.Health != nil {
		o.Health.validate(at.Key("health"), p)
	}
	o.Eject.validate(at.Key("eject"), p)
	if o.Retries < 0 {
		p.Add(at.Key("retries"), "must not be negative; 0 tries one server alone")
	}
	if (o.TLS.Cert == "") != (o.TLS.Key == "") {
		p.Add(at.Key("tls"), "cert and key belong together: give both or none")
	}
}

func (s *Sticky) validate(at yamlpos.Path, p *yamlpos.Problems) {
	if err := (&http.Cookie{Name: s.Cookie, Value: "x"}).Valid(); err != nil {
		p.Add(at.Key("cookie"), "%q cannot be the name of a cookie", s.Cookie)
	}
	p.OneOf(at.Key("same_site"), s.SameSite, "lax", "strict", "none")
	if s.TTL < 0 {
		p.Add(at.Key("ttl"), "must not be negative; off keeps the cookie until the browser is closed")
	}
}

func (h *Health) validate(at yamlpos.Path, p *yamlpos.Problems) {
	ways := 0
	for _, set := range []bool{h.TCP, h.HTTP != "", h.WebSocket != ""} {
		if set {
			ways++
		}
	}
	if ways != 1 {
		p.Add(at, "has %d of tcp, http and websocket: say one way to ask, such as tcp: true or http: /healthz", ways)
	}
	for key, path := range map[string]string{"http": h.HTTP, "websocket": h.WebSocket} {
		if path != "" && (path[0] != '/' || strings.ContainsFunc(path, func(r rune) bool { return r <= ' ' || r >= 0x7F })) {
			p.Add(at.Key(key), "%q is no path: it begins with a slash and holds no white space", path)
		}
	}
	if h.Interval < minInterval {
		p.Add(at.Key("interval"), "must be %s at least, else asking is all that the servers do", minInterval)
	}
	if h.Timeout <= 0 {
		p.Add(at.Key("timeout"), "must be positive: a silent server would be asked for ever")
	}
	for key, n := range map[string]int{"healthy": h.Healthy, "unhealthy": h.Unhealthy} {
		if n < 1 {
			p.Add(at.Key(key), "must be 1 at least")
		}
	}
}

func (e *Eject) validate(at yamlpos.Path, p *yamlpos.Problems) {
	if e.Failures < 0 {
		p.Add(at.Key("failures"), "must not be negative; 0 never leaves a server alone")
	}
	if e.Failures > 0 && e.Time <= 0 {
		p.Add(at.Key("time"), "must be positive; to leave no server alone write failures: 0")
	}
	if e.MaxTime < e.Time {
		p.Add(at.Key("max_time"), "must not be less than time, %s", e.Time)
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

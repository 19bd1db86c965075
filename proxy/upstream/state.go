package upstream

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// A State is what is known of one server at a moment.
type State struct {
	Upstream       string       `json:"upstream"`          // the entry of upstreams, or route:NAME for the servers that a route lists itself
	Server         string       `json:"server"`            // its URL, without a query
	Address        string       `json:"address,omitempty"` // of those that the name in the URL has
	State          string       `json:"state"`             // up, down, ejected, draining, full, gone or unknown
	Since          *time.Time   `json:"since,omitempty"`
	Weight         float64      `json:"weight"`
	Connections    int          `json:"connections"` // open now, with the handshakes that are under way
	MaxConnections int          `json:"max_connections,omitempty"`
	Probe          *Observation `json:"last_check,omitempty"`
	Failure        *Failure     `json:"last_failure,omitempty"`
	LookUp         *LookUp      `json:"last_lookup,omitempty"` // of the name in the URL

	// What only grows.
	Opened       uint64 `json:"opened_total"`
	Requests     uint64 `json:"requests_total"` // beside the sockets
	Failed       uint64 `json:"failed_total"`
	Ejections    uint64 `json:"ejections_total"`
	Probed       uint64 `json:"checks_total"`
	ProbesFailed uint64 `json:"checks_failed_total"`
}

// States are those of all servers, by the name of their group and in their order.
func (gs Groups) States() []State {
	all := []State{}
	for _, g := range gs {
		all = append(all, g.states(time.Now())...)
	}
	slices.SortStableFunc(all, func(a, b State) int { return cmp.Compare(a.Upstream, b.Upstream) })
	return all
}

// Refused counts for each group the clients for which it had no server.
func (gs Groups) Refused() map[string]uint64 {
	all := make(map[string]uint64, len(gs))
	for name, g := range gs {
		g.mu.Lock()
		all[name] = g.refused
		g.mu.Unlock()
	}
	return all
}

func (g *Group) states(now time.Time) (states []State) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range g.servers {
		if s.gone && len(s.leases) == 0 {
			continue
		}
		state := State{
			Upstream: g.name, Server: s.name(), Address: s.address(), State: cmp.Or(s.closedLocked(now), stateUp),
			Weight: s.entry.terms.weight, Connections: len(s.leases), MaxConnections: s.entry.terms.limit,
			Opened: s.opened, Requests: s.requests, Failed: s.failed, Ejections: s.ejections, Probed: s.probed, ProbesFailed: s.probesFailed,
		}
		if !s.since.IsZero() {
			since := s.since.UTC()
			state.Since = &since
		}
		if s.probed > 0 {
			asked := s.asked
			state.Probe = &asked
		}
		if s.failed > 0 {
			failure := s.failure
			state.Failure = &failure
		}
		if s.entry.looked > 0 {
			last := s.entry.last
			state.LookUp = &last
		}
		states = append(states, state)
	}
	return states
}

// name is what the server is called in logs and metrics: its URL, without the query, which may be secret. The addresses of one name
// share it.
func (s *server) name() string { return s.entry.name() }

// address tells the addresses of one name apart; "" if the URL holds none.
func (s *server) address() string {
	if !s.addr.IsValid() {
		return ""
	}
	return s.addr.String()
}

// attrs name the server in the log.
func (s *server) attrs(more ...any) []any {
	attrs := []any{"server", s.name()}
	if address := s.address(); address != "" {
		attrs = append(attrs, "address", address)
	}
	return append(attrs, more...)
}

// A Name is what is known of the name in the URL of a server.
type Name struct {
	Upstream, Server string
	Addresses        int // that it has now
	LookUps, Failed  uint64
}

// Names are those of all groups, in the order of the groups and their servers.
func (gs Groups) Names() (all []Name) {
	for _, name := range slices.Sorted(maps.Keys(gs)) {
		all = append(all, gs[name].names()...)
	}
	return all
}

func (g *Group) names() (all []Name) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, e := range g.entries {
		if e.named {
			all = append(all, Name{g.name, e.name(), e.presentLocked(), e.looked, e.lookedFailed})
		}
	}
	return all
}

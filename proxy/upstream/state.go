package upstream

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// A State is what is known of one server at a moment.
type State struct {
	Upstream       string       `json:"upstream"` // the entry of upstreams, or route:NAME for the servers that a route lists itself
	Server         string       `json:"server"`   // its URL, without a query
	State          string       `json:"state"`    // up, down, ejected, draining or full
	Since          *time.Time   `json:"since,omitempty"`
	Weight         float64      `json:"weight"`
	Connections    int          `json:"connections"` // open now, with the handshakes that are under way
	MaxConnections int          `json:"max_connections,omitempty"`
	Probe          *Observation `json:"last_check,omitempty"`
	Failure        *Failure     `json:"last_failure,omitempty"`

	// What only grows.
	Opened       uint64 `json:"opened_total"`
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
		state := State{
			Upstream: g.name, Server: s.name(), State: cmp.Or(s.closedLocked(now), stateUp), Weight: s.terms.weight,
			Connections: len(s.leases), MaxConnections: s.terms.limit,
			Opened: s.opened, Failed: s.failed, Ejections: s.ejections, Probed: s.probed, ProbesFailed: s.probesFailed,
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
		states = append(states, state)
	}
	return states
}

// name is what the server is called in logs and metrics: its URL, without the query, which may be secret.
func (s *server) name() string {
	name, _, _ := strings.Cut(s.key, "?")
	return name
}

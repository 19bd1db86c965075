package upstream

import (
	"time"

	"bridgehead/hub"
)

// The states of a server; the others than up take no clients.
const (
	stateUp       = "up"
	stateDown     = "down"
	stateEjected  = "ejected"
	stateDraining = "draining"
	stateFull     = "full"
)

// A server is one of a group, with what is known of it. It lives on through reloads for as long as the configuration has its URL,
// and after that until its last socket ends. The group's mutex guards what is not its key.
type server struct {
	key    string // its URL
	target *Target
	token  string // in the cookie that leads clients back here
	terms  terms
	weight float64             // of terms, and less of it during a slow start
	turn   float64             // how far round_robin owes it a socket
	leases map[*Lease]struct{} // sockets, and handshakes that may become some
	health
	counts
}

// counts only grow.
type counts struct{ opened, failed, ejections, probed, probesFailed uint64 }

// terms are what the configuration says of a server beside its URL.
type terms struct {
	weight float64
	limit  int // of sockets; 0: none
	drain  bool
}

func newServer(t *Target, o Server) *server {
	return &server{
		key: t.key, target: t, leases: make(map[*Lease]struct{}),
		terms: terms{weight: float64(max(o.Weight, 1)), limit: o.MaxConnections, drain: o.Drain},
	}
}

// closedLocked tells why the server can take no client; "" if it can.
func (s *server) closedLocked(now time.Time) string {
	switch {
	case s.terms.drain:
		return stateDraining
	case s.down:
		return stateDown
	case s.ejectedLocked(now):
		return stateEjected
	case s.terms.limit > 0 && len(s.leases) >= s.terms.limit:
		return stateFull
	}
	return ""
}

// weighLocked sets the weight of this moment: in a slow start it grows from a tenth to the whole.
func (s *server) weighLocked(now time.Time, slow time.Duration) {
	s.weight = s.terms.weight
	if age := now.Sub(s.risen); age < slow {
		s.weight *= max(0.1, float64(age)/float64(slow))
	}
}

// loadLocked is how busy the server would be with one more socket.
func (s *server) loadLocked() float64 { return float64(len(s.leases)+1) / s.weight }

// takeOutLocked gives the sockets of a server that is to have none. Each is given once.
func (s *server) takeOutLocked() (open []hub.Conn) {
	for l := range s.leases {
		if l.conn != nil && !l.leaving {
			l.leaving = true
			open = append(open, l.conn)
		}
	}
	return open
}

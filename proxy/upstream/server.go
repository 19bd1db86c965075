package upstream

import (
	"net/netip"
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
	stateGone     = "gone"    // its name has lost the address; it keeps its sockets
	stateUnknown  = "unknown" // its name has not been looked up yet
)

// A server is one of a group, with what is known of it. It lives on through reloads for as long as the configuration has its URL and
// its name has its address, and after that until its last socket ends. The group's mutex guards what is not its key.
type server struct {
	key    string // the URL of its entry, and its address if that was found by the name in it
	addr   netip.Addr
	entry  *entry
	target *Target
	token  string              // in the cookie that leads clients back here
	gone   bool                // the name has lost the address
	weight float64             // of its entry, and less of it during a slow start
	turn   float64             // how far round_robin owes it a socket
	leases map[*Lease]struct{} // sockets, and handshakes that may become some
	health
	counts
}

// counts only grow.
type counts struct{ opened, requests, failed, ejections, probed, probesFailed uint64 }

// closedLocked tells why the server can take no client; "" if it can.
func (s *server) closedLocked(now time.Time) string {
	switch {
	case s.entry.terms.drain:
		return stateDraining
	case s.gone:
		return stateGone
	case s.entry.pendingLocked():
		return stateUnknown
	case s.down:
		return stateDown
	case s.ejectedLocked(now):
		return stateEjected
	case s.fullLocked():
		return stateFull
	}
	return ""
}

func (s *server) fullLocked() bool {
	limit := s.entry.terms.limit
	return limit > 0 && len(s.leases) >= limit
}

// weighLocked sets the weight of this moment: in a slow start it grows from a tenth to the whole.
func (s *server) weighLocked(now time.Time, slow time.Duration) {
	s.weight = s.entry.terms.weight
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

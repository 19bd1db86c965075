package metrics

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// A Listener counts for one listener. Its methods may be called from any goroutine; those of a nil Listener count nothing.
type Listener struct {
	words                   *words
	connections, handshakes prometheus.Gauge
	refused                 *prometheus.CounterVec
}

// Listener returns the instruments of the listener of that name, always the same ones.
func (s *Set) Listener(name string) *Listener {
	if s == nil {
		return nil
	}
	name = strings.ToValidUTF8(name, "?")
	return &Listener{
		words:       &s.words,
		connections: s.families.listenerConnections.WithLabelValues(name),
		handshakes:  s.families.listenerHandshakes.WithLabelValues(name),
		refused:     s.families.listenerRefused.MustCurryWith(prometheus.Labels{"listener": name}),
	}
}

// Open tells how many connections there are, and how many of them have not sent a request yet.
func (l *Listener) Open(connections, handshakes int) {
	if l != nil {
		l.connections.Set(float64(connections))
		l.handshakes.Set(float64(handshakes))
	}
}

// Refused counts a connection that was not let in.
func (l *Listener) Refused(reason string) {
	if l != nil {
		l.refused.WithLabelValues(l.words.bound("door", reason)).Inc()
	}
}

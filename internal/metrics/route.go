package metrics

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The outcomes of a handshake.
const (
	Accepted = "accepted" // the client has its 101
	Refused  = "refused"  // a rule, or the backend, said no
	Failed   = "failed"   // something broke: the backend, the client's connection, we
)

// A Route counts for one route. Its methods may be called from any goroutine and are cheap; those of a nil Route count nothing.
type Route struct {
	words                                        *words
	connections                                  prometheus.Gauge
	lifetimes, handshakeTimes                    prometheus.Observer
	messagesIn, messagesOut                      prometheus.Counter
	bytesIn, bytesOut, throttled                 prometheus.Counter
	closed, handshakes, refusals, backendResults *prometheus.CounterVec
	requests, dismissals                         *prometheus.CounterVec
	backendTimes                                 prometheus.ObserverVec
}

// newRoute resolves all that is known beforehand, so that the hot path looks nothing up and a route shows its zeros from the
// start.
func newRoute(s *Set, name string) *Route {
	f, route := &s.families, prometheus.Labels{"route": name}
	r := &Route{
		words:          &s.words,
		connections:    f.connections.With(route),
		lifetimes:      f.lifetimes.With(route),
		handshakeTimes: f.handshakeTimes.With(route),
		messagesIn:     f.messages.WithLabelValues(name, "in"),
		messagesOut:    f.messages.WithLabelValues(name, "out"),
		bytesIn:        f.bytes.WithLabelValues(name, "in"),
		bytesOut:       f.bytes.WithLabelValues(name, "out"),
		throttled:      f.throttled.With(route),
		closed:         f.closed.MustCurryWith(route),
		handshakes:     f.handshakes.MustCurryWith(route),
		refusals:       f.refusals.MustCurryWith(route),
		dismissals:     f.dismissals.MustCurryWith(route),
		requests:       f.requests.MustCurryWith(route),
		backendTimes:   f.backendTimes.MustCurryWith(route),
		backendResults: f.backendResults.MustCurryWith(route),
	}
	for _, outcome := range []string{Accepted, Refused, Failed} {
		r.handshakes.WithLabelValues(outcome)
	}
	return r
}

// Opened counts a WebSocket that is open from now on.
func (r *Route) Opened() {
	if r != nil {
		r.connections.Inc()
	}
}

// Closed counts the end of a WebSocket that was Opened: why, who ended it, how long it lived.
func (r *Route) Closed(cause, by string, lived time.Duration) {
	if r == nil {
		return
	}
	r.connections.Dec()
	r.closed.WithLabelValues(r.words.bound("cause", cause), r.words.bound("by", by)).Inc()
	r.lifetimes.Observe(lived.Seconds())
}

// Handshake counts a handshake that is answered, with its outcome (Accepted, Refused or Failed) and the time from request to
// answer.
func (r *Route) Handshake(outcome string, took time.Duration) {
	if r == nil {
		return
	}
	r.handshakes.WithLabelValues(r.words.bound("outcome", outcome)).Inc()
	r.handshakeTimes.Observe(took.Seconds())
}

// Refused counts a handshake, or a request for no socket, that was refused, by a word for the reason: origin, limit, capacity, backend and so on.
func (r *Route) Refused(reason string) {
	if r != nil {
		r.refusals.WithLabelValues(r.words.bound("reason", reason)).Inc()
	}
}

// Dismissed counts one of the Refused that was told by a Close with this code.
func (r *Route) Dismissed(code int) {
	if r != nil {
		r.dismissals.WithLabelValues(r.words.bound("close code", strconv.Itoa(code))).Inc()
	}
}

// Request counts a request beside the sockets that was answered; a status outside 100 to 599 is of class other.
func (r *Route) Request(status int) {
	if r == nil {
		return
	}
	class := otherWord
	if status >= 100 && status < 600 {
		class = string(rune('0'+status/100)) + "xx"
	}
	r.requests.WithLabelValues(class).Inc()
}

// In counts messages and payload bytes from the client to the backend.
func (r *Route) In(messages, bytes int) {
	if r != nil {
		add(r.messagesIn, messages)
		add(r.bytesIn, bytes)
	}
}

// Out counts messages and payload bytes from the backend to the client.
func (r *Route) Out(messages, bytes int) {
	if r != nil {
		add(r.messagesOut, messages)
		add(r.bytesOut, bytes)
	}
}

// Backend counts one thing asked of the backend: what (connect, message, close and so on), how it went, and how long it took.
func (r *Route) Backend(op, outcome string, took time.Duration) {
	if r == nil {
		return
	}
	op = r.words.bound("op", op)
	r.backendResults.WithLabelValues(op, r.words.bound("backend outcome", outcome)).Inc()
	r.backendTimes.WithLabelValues(op).Observe(took.Seconds())
}

// Throttled counts a pause in which the client is not read because of a limit.
func (r *Route) Throttled() {
	if r != nil {
		r.throttled.Inc()
	}
}

// add spares the atomic operation where there is nothing to add, as in the middle of a long message.
func add(c prometheus.Counter, n int) {
	if n > 0 {
		c.Add(float64(n))
	}
}

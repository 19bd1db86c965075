// Package metrics counts what the program does, for Prometheus. It is the home of prometheus/client_golang: others hand a
// *Set and *Route around and call methods that say what happened.
//
// Names begin with bridgehead_; the labels are few and their values bounded: routes come from the configuration, all other
// values from a fixed vocabulary, of which no label takes more than maxWords.
package metrics

import (
	"net/http"
	"runtime"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Buckets of the histograms, in seconds.
var (
	latencyBuckets  = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}
	issueBuckets    = []float64{1, 2.5, 5, 10, 30, 60, 120, 300, 900}
	lifetimeBuckets = []float64{1, 10, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 24 * 3600, 7 * 24 * 3600}
)

// A Set holds all instruments of one program, in a registry of its own. Its methods may be called from any goroutine; those of
// a nil Set count nothing.
type Set struct {
	registry *prometheus.Registry
	families families
	words    words

	mu     sync.Mutex // guards the following
	routes map[string]*Route
}

// families are the metrics with their labels still open.
type families struct {
	connections                               *prometheus.GaugeVec
	lifetimes, handshakeTimes, backendTimes   *prometheus.HistogramVec
	closed, handshakes, refusals, throttled   *prometheus.CounterVec
	dismissals                                *prometheus.CounterVec
	messages, bytes, backendResults, unrouted *prometheus.CounterVec
	requests                                  *prometheus.CounterVec

	listenerConnections, listenerHandshakes *prometheus.GaugeVec
	listenerRefused                         *prometheus.CounterVec

	generation, reloadOK, reloadTime prometheus.Gauge
	reloads                          *prometheus.CounterVec

	issued   *prometheus.HistogramVec
	onDemand *prometheus.CounterVec
}

// New returns a Set that also tells the program's version and the figures of the process and of the Go runtime.
func New(version string) *Set {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "bridgehead_build_info",
			Help:        "Always 1; the labels tell which build runs.",
			ConstLabels: prometheus.Labels{"version": strings.ToValidUTF8(version, "?"), "goversion": runtime.Version()},
		}, func() float64 { return 1 }),
	)
	s := &Set{registry: registry, families: newFamilies(promauto.With(registry)), routes: make(map[string]*Route)}
	for _, outcome := range []string{"ok", "failed"} { // zeros from the start
		s.families.reloads.WithLabelValues(outcome)
	}
	return s
}

func newFamilies(f promauto.Factory) families {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Namespace: "bridgehead", Name: name, Help: help}, labels)
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		opts := prometheus.HistogramOpts{Namespace: "bridgehead", Name: name, Help: help, Buckets: buckets}
		return f.NewHistogramVec(opts, labels)
	}
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Namespace: "bridgehead", Name: name, Help: help})
	}
	gauges := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return f.NewGaugeVec(prometheus.GaugeOpts{Namespace: "bridgehead", Name: name, Help: help}, labels)
	}
	return families{
		connections: gauges("connections", "WebSockets that are open.", "route"),
		closed:      counter("connections_closed_total", "WebSockets that ended, by cause and by who ended them.", "route", "cause", "by"),
		lifetimes: histogram("connection_seconds", "How long WebSockets lived, from handshake to end.",
			lifetimeBuckets, "route"),
		handshakes: counter("handshakes_total", "Handshakes answered, by outcome.", "route", "outcome"),
		handshakeTimes: histogram("handshake_seconds", "From the request to the answer, the opening of the backend included.",
			latencyBuckets, "route"),
		refusals: counter("refusals_total", "Handshakes, and requests for no socket, that were refused, by reason.", "route", "reason"),
		dismissals: counter("refusals_closed_total", "Refused handshakes that were completed and closed, by the code of the Close.",
			"route", "code"),
		messages: counter("messages_total", "Messages; in is from the client to the backend.", "route", "direction"),
		bytes:    counter("bytes_total", "Payload bytes; in is from the client to the backend.", "route", "direction"),
		backendTimes: histogram("backend_seconds", "How long the backend took, by operation.",
			latencyBuckets, "route", "op"),
		backendResults:      counter("backend_total", "What was asked of the backend, by operation and outcome.", "route", "op", "outcome"),
		throttled:           counter("throttled_total", "Pauses in which a client was not read because of a limit.", "route"),
		requests:            counter("http_requests_total", "Requests beside the sockets, by the class of the answer's status.", "route", "class"),
		unrouted:            counter("unrouted_total", "Requests that matched no route.", "reason"),
		listenerConnections: gauges("listener_connections", "Connections of clients, those of WebSockets included.", "listener"),
		listenerHandshakes:  gauges("listener_handshakes", "Connections that have not sent their first request yet.", "listener"),
		listenerRefused:     counter("listener_refused_total", "Connections that were not let in, by reason.", "listener", "reason"),

		generation: gauge("config_generation", "The number of the configuration in force; each successful reload adds one."),
		reloadOK:   gauge("config_last_reload_successful", "1 if the last attempt to read the configuration succeeded, else 0."),
		reloadTime: gauge("config_last_success_timestamp_seconds", "When a configuration was last put in force."),
		reloads:    counter("config_reloads_total", "Attempts to put a configuration in force, that at the start included.", "outcome"),
		issued: histogram("certificate_issue_seconds", "How long authorities took for a certificate, by operation and outcome.",
			issueBuckets, "operation", "outcome"),
		onDemand: counter("certificates_on_demand_total", "Hosts whose first client asked for a certificate, by outcome.", "outcome"),
	}
}

// Handler serves the text exposition format.
func (s *Set) Handler() http.Handler {
	if s == nil {
		return http.NotFoundHandler()
	}
	return promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{})
}

// Unrouted counts a request that matched no route.
func (s *Set) Unrouted(reason string) {
	if s != nil {
		s.families.unrouted.WithLabelValues(s.words.bound("unrouted", reason)).Inc()
	}
}

// Configured counts an attempt to put a configuration in force; generation is the number of the one that is afterwards.
func (s *Set) Configured(generation int, ok bool) {
	if s == nil {
		return
	}
	if !ok {
		s.families.reloads.WithLabelValues("failed").Inc()
		s.families.reloadOK.Set(0)
		return
	}
	s.families.reloads.WithLabelValues("ok").Inc()
	s.families.reloadOK.Set(1)
	s.families.reloadTime.SetToCurrentTime()
	s.families.generation.Set(float64(generation))
}

// Route returns the instruments of the route of that name, always the same ones: its counts outlive a reload.
func (s *Set) Route(name string) *Route {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.routes[name]
	if !ok {
		r = newRoute(s, strings.ToValidUTF8(name, "?"))
		s.routes[name] = r
	}
	return r
}

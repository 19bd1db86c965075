package metrics

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// A Server is what is known of one server of a group at a moment. Its labels come from the configuration.
type Server struct {
	Upstream, Server                                string
	State                                           string // up, full, or why it takes nobody
	Connections                                     int
	Opened, Failed, Ejections, Checks, ChecksFailed uint64
}

// Upstreams names where to ask for the servers of the groups, and for the clients of each group for which there was none. It is called
// once; from then on each scrape asks. A server that is gone is gone from the metrics too.
func (s *Set) Upstreams(read func() (servers []Server, refused map[string]uint64)) {
	if s != nil {
		s.registry.MustRegister(&upstreams{read: read})
	}
}

// upstreams is a collector of what others count.
type upstreams struct {
	read func() ([]Server, map[string]uint64)
}

// A figure is one metric of a server.
type figure struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	of   func(*Server) float64
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("bridgehead_upstream_"+name, help, labels, nil)
}

var refusedDesc = desc("unavailable_total", "Clients for which no server could take a socket.", "upstream")

var figures = []figure{
	{desc("server_up", "1 if the server is in service, full or not; 0 if it is down, ejected or draining.", "upstream", "server"),
		prometheus.GaugeValue, func(s *Server) float64 {
			if s.State == "up" || s.State == "full" {
				return 1
			}
			return 0
		}},
	{desc("server_connections", "Open sockets, and handshakes under way, at the server.", "upstream", "server"),
		prometheus.GaugeValue, func(s *Server) float64 { return float64(s.Connections) }},
	{desc("server_opened_total", "Times the server was chosen for a client.", "upstream", "server"),
		prometheus.CounterValue, func(s *Server) float64 { return float64(s.Opened) }},
	{desc("server_failures_total", "Times a client could not be led to the server.", "upstream", "server"),
		prometheus.CounterValue, func(s *Server) float64 { return float64(s.Failed) }},
	{desc("server_ejections_total", "Times the server was left alone for a while, since it failed again and again.", "upstream", "server"),
		prometheus.CounterValue, func(s *Server) float64 { return float64(s.Ejections) }},
	{desc("server_checks_total", "Times the server was asked whether it is well.", "upstream", "server"),
		prometheus.CounterValue, func(s *Server) float64 { return float64(s.Checks) }},
	{desc("server_checks_failed_total", "Times it was not well.", "upstream", "server"),
		prometheus.CounterValue, func(s *Server) float64 { return float64(s.ChecksFailed) }},
}

// Describe is prometheus.Collector's.
func (u *upstreams) Describe(to chan<- *prometheus.Desc) {
	to <- refusedDesc
	for _, f := range figures {
		to <- f.desc
	}
}

// Collect is prometheus.Collector's. Two servers whose labels are the same, since they differ in what is not shown, count as the first:
// the exposition may not have a series twice.
func (u *upstreams) Collect(to chan<- prometheus.Metric) {
	servers, refused := u.read()
	seen := make(map[[2]string]bool)
	for i := range servers {
		s := &servers[i]
		labels := [2]string{strings.ToValidUTF8(s.Upstream, "?"), strings.ToValidUTF8(s.Server, "?")}
		if seen[labels] {
			continue
		}
		seen[labels] = true
		for _, f := range figures {
			to <- prometheus.MustNewConstMetric(f.desc, f.kind, f.of(s), labels[:]...)
		}
	}
	for upstream, n := range refused {
		to <- prometheus.MustNewConstMetric(refusedDesc, prometheus.CounterValue, float64(n), strings.ToValidUTF8(upstream, "?"))
	}
}

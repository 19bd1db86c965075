package metrics

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// A Server is what is known of one server of a group at a moment. Its labels come from the configuration, but for the address.
type Server struct {
	Upstream, Server string
	Address          string // of those that the name in its URL has; "" if there is no name
	State            string // up, full, or why it takes nobody
	Connections      int

	Opened, Requests, Failed, Ejections, Checks, ChecksFailed uint64
}

// A Name is what is known of the name in the URL of a server at a moment.
type Name struct {
	Upstream, Server string
	Addresses        int
	LookUps, Failed  uint64
}

// Upstreams are the figures of all groups at a moment.
type Upstreams struct {
	Servers []Server
	Names   []Name
	Refused map[string]uint64 // clients for which a group had no server
}

// Upstreams names where to ask for the figures of the groups. It is called once; from then on each scrape asks. A server that is gone
// is gone from the metrics too.
func (s *Set) Upstreams(read func() Upstreams) {
	if s != nil {
		s.registry.MustRegister(upstreams(read))
	}
}

// upstreams is a collector of what others count.
type upstreams func() Upstreams

// A figure is one metric of a server.
type figure struct {
	desc, ofAddress *prometheus.Desc // the latter for one of several servers that share a name
	kind            prometheus.ValueType
	of              func(*Server) float64
}

func newFigure(name, help string, kind prometheus.ValueType, of func(*Server) float64) figure {
	return figure{newDesc(name, help, "upstream", "server"), newDesc(name, help, "upstream", "server", "address"), kind, of}
}

var refused = newDesc("unavailable_total", "Clients for which no server could take a socket.", "upstream")

var figures = []figure{
	newFigure("server_up", "1 if the server is in service, full or not; 0 if it is down, ejected, draining or gone from its name.",
		prometheus.GaugeValue, func(s *Server) float64 {
			if s.State == "up" || s.State == "full" {
				return 1
			}
			return 0
		}),
	newFigure("server_connections", "Open sockets, and handshakes under way, at the server.",
		prometheus.GaugeValue, func(s *Server) float64 { return float64(s.Connections) }),
	newFigure("server_opened_total", "Times the server was chosen for a client.",
		prometheus.CounterValue, func(s *Server) float64 { return float64(s.Opened) }),
	newFigure("server_requests_total", "Times the server was chosen for a request beside the sockets.",
		prometheus.CounterValue, func(s *Server) float64 { return float64(s.Requests) }),
	newFigure("server_failures_total", "Times a client could not be led to the server.",
		prometheus.CounterValue, func(s *Server) float64 { return float64(s.Failed) }),
	newFigure("server_ejections_total", "Times the server was left alone for a while, since it failed again and again.",
		prometheus.CounterValue, func(s *Server) float64 { return float64(s.Ejections) }),
	newFigure("server_checks_total", "Times the server was asked whether it is well.",
		prometheus.CounterValue, func(s *Server) float64 { return float64(s.Checks) }),
	newFigure("server_checks_failed_total", "Times it was not well.",
		prometheus.CounterValue, func(s *Server) float64 { return float64(s.ChecksFailed) }),
}

// What is told of names, in this order.
var nameDescs = []*prometheus.Desc{
	newDesc("name_addresses", "Addresses that the name of the server has.", "upstream", "server"),
	newDesc("name_lookups_total", "Times the name was looked up.", "upstream", "server"),
	newDesc("name_lookups_failed_total", "Times nothing came of it.", "upstream", "server"),
}

func newDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("bridgehead_upstream_"+name, help, labels, nil)
}

// Describe is prometheus.Collector's. Nothing is described in advance: servers that share a name have one label more than others.
func (upstreams) Describe(chan<- *prometheus.Desc) {}

// Collect is prometheus.Collector's.
func (read upstreams) Collect(to chan<- prometheus.Metric) {
	now := read()
	collectServers(to, now.Servers)
	collectNames(to, now.Names)
	for upstream, n := range now.Refused {
		to <- prometheus.MustNewConstMetric(refused, prometheus.CounterValue, float64(n), strings.ToValidUTF8(upstream, "?"))
	}
}

// collectServers counts two servers whose labels are the same, since they differ in what is not shown, as the first: the exposition may
// not have a series twice.
func collectServers(to chan<- prometheus.Metric, servers []Server) {
	seen := make(map[[3]string]bool)
	for i := range servers {
		s := &servers[i]
		id := [3]string{strings.ToValidUTF8(s.Upstream, "?"), strings.ToValidUTF8(s.Server, "?"), s.Address}
		if seen[id] {
			continue
		}
		seen[id] = true
		for _, f := range figures {
			if s.Address == "" {
				to <- prometheus.MustNewConstMetric(f.desc, f.kind, f.of(s), id[:2]...)
			} else {
				to <- prometheus.MustNewConstMetric(f.ofAddress, f.kind, f.of(s), id[:]...)
			}
		}
	}
}

func collectNames(to chan<- prometheus.Metric, all []Name) {
	seen := make(map[[2]string]bool)
	for _, n := range all {
		id := [2]string{strings.ToValidUTF8(n.Upstream, "?"), strings.ToValidUTF8(n.Server, "?")}
		if seen[id] {
			continue
		}
		seen[id] = true
		to <- prometheus.MustNewConstMetric(nameDescs[0], prometheus.GaugeValue, float64(n.Addresses), id[:]...)
		to <- prometheus.MustNewConstMetric(nameDescs[1], prometheus.CounterValue, float64(n.LookUps), id[:]...)
		to <- prometheus.MustNewConstMetric(nameDescs[2], prometheus.CounterValue, float64(n.Failed), id[:]...)
	}
}

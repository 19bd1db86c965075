package server

import "bridgehead/internal/metrics"

// upstreams is what is known of the servers now, for the API of the operators.
func (s *Server) upstreams() any { return s.now.Load().groups.States() }

// samples are the figures of the servers for the metrics.
func (s *Server) samples() (servers []metrics.Server, refused map[string]uint64) {
	groups := s.now.Load().groups
	for _, st := range groups.States() {
		servers = append(servers, metrics.Server{
			Upstream: st.Upstream, Server: st.Server, State: st.State, Connections: st.Connections,
			Opened: st.Opened, Failed: st.Failed, Ejections: st.Ejections, Checks: st.Probed, ChecksFailed: st.ProbesFailed,
		})
	}
	return servers, groups.Refused()
}

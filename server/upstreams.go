package server

import "bridgehead/internal/metrics"

// upstreams is what is known of the servers now, for the API of the operators.
func (s *Server) upstreams() any { return s.now.Load().groups.States() }

// samples are the figures of the servers for the metrics.
func (s *Server) samples() metrics.Upstreams {
	groups := s.now.Load().groups
	all := metrics.Upstreams{Refused: groups.Refused()}
	for _, st := range groups.States() {
		all.Servers = append(all.Servers, metrics.Server{
			Upstream: st.Upstream, Server: st.Server, Address: st.Address, State: st.State, Connections: st.Connections, Opened: st.Opened,
			Requests: st.Requests, Failed: st.Failed, Ejections: st.Ejections, Checks: st.Probed, ChecksFailed: st.ProbesFailed,
		})
	}
	for _, n := range groups.Names() {
		all.Names = append(all.Names, metrics.Name(n))
	}
	return all
}

package server

import (
	"cmp"
	"fmt"
	"net"
	"net/http"
	"strings"

	"bridgehead/config"
	"bridgehead/proxy"
	"bridgehead/proxy/files"
	"bridgehead/proxy/relay"
	"bridgehead/proxy/stream"
	"bridgehead/proxy/upstream"
	"bridgehead/proxy/webhook"
	"bridgehead/routes"
)

// buildTable compiles the routes.
func (s *Server) buildTable() (*routes.Table, error) {
	groups, err := upstream.NewGroups(s.config.Upstreams)
	if err != nil {
		return nil, err
	}
	rows := make([]routes.Route, len(s.config.Routes))
	for i := range s.config.Routes {
		r := &s.config.Routes[i]
		if rows[i], err = s.buildRoute(r, groups); err != nil {
			return nil, fmt.Errorf("route %s: %w", r.Name, err)
		}
	}
	return routes.New(rows), nil
}

func (s *Server) buildRoute(r *config.Route, groups upstream.Groups) (routes.Route, error) {
	pattern, err := r.Pattern()
	if err != nil {
		return routes.Route{}, err
	}
	row := routes.Route{Name: r.Name, Pattern: pattern, Listeners: r.Listeners}
	if r.Files != nil {
		row.Handler, err = s.buildFiles(r)
		return row, err
	}
	bridge, kind, err := s.buildBridge(r, groups)
	if err != nil {
		return row, err
	}
	row.Handler, err = proxy.New(proxy.Config{
		Route: r.Name, Kind: kind, HasHost: pattern.HasHost(), Options: r.Options, Bridge: bridge,
		Node: s.node, Hub: s.hub, Limits: s.limits, Capacity: s.capacity, Trusted: s.config.TrustedProxies,
		Metrics: s.metrics.Route(r.Name), Log: s.log,
	})
	return row, err
}

func (s *Server) buildBridge(r *config.Route, groups upstream.Groups) (_ proxy.Bridge, kind string, err error) {
	switch {
	case r.WebSocket != nil:
		group, err := groups.For(r.WebSocket.To)
		if err != nil {
			return nil, "", err
		}
		bridge, err := relay.New(*r.WebSocket, group)
		return bridge, "websocket", err
	case r.TCP != nil:
		group, err := groups.For(r.TCP.To)
		if err != nil {
			return nil, "", err
		}
		return stream.New(*r.TCP, group), "tcp", nil
	}
	group, err := groups.For(r.Webhook.To)
	if err != nil {
		return nil, "", err
	}
	bridge, err := webhook.New(*r.Webhook, webhook.Config{
		Route: r.Name, Group: group, PushURL: s.pushURL(), Metrics: s.metrics.Route(r.Name),
	})
	if err == nil {
		s.closers = append(s.closers, bridge.Close)
	}
	return bridge, "webhook", err
}

func (s *Server) buildFiles(r *config.Route) (http.Handler, error) {
	fixed, _, _ := strings.Cut(r.Path, "{")
	h, err := files.New(*r.Files, strings.TrimSuffix(fixed, "*"))
	if err == nil {
		s.closers = append(s.closers, h.Close)
	}
	return h, err
}

// pushURL is where applications reach the push API of this program, "" if they cannot: as configured, or where the listener for
// applications listens, or else the one for operators, if that says on which of our addresses.
func (s *Server) pushURL() string {
	if p := s.config.Push; p != nil && p.URL != "" {
		return strings.TrimSuffix(p.URL, "/")
	}
	tcp, ok := cmp.Or(s.Addr("push"), s.Addr("admin")).(*net.TCPAddr)
	if !ok || tcp.IP.IsUnspecified() {
		return ""
	}
	return "http://" + tcp.String()
}

// certNames are the hosts that certificates are needed for. A capture stands for one label, as `*` does in a certificate; a
// route for every host is "".
func certNames(rs []config.Route) (names []string) {
	for i := range rs {
		labels := strings.Split(rs[i].Host, ".")
		for j, label := range labels {
			if strings.HasPrefix(label, "{") {
				labels[j] = "*"
			}
		}
		names = append(names, strings.Join(labels, "."))
	}
	return names
}

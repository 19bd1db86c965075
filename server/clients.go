package server

import (
	"crypto/x509"
	"log/slog"
	"net/http"

	"bridgehead/hub"
	"bridgehead/internal/seldom"
	"bridgehead/policy"
	"bridgehead/routes"
	certs "bridgehead/tls"
	"bridgehead/ws"
)

// clients are who asks the clients of a listener for certificates; nil: nobody.
func (g *generation) clients(listener string) *certs.Clients {
	for _, f := range g.fronts {
		if f.public && f.name == listener {
			return f.clients
		}
	}
	return nil
}

// mayHave tells why the client of a request must not have the host that it asks for: its connection may have been opened for another
// host, or under other rules than those of today.
func (s *Server) mayHave(listener string, r *http.Request) error {
	clients := s.now.Load().clients(listener)
	if clients == nil {
		return nil
	}
	var chains [][]*x509.Certificate
	if r.TLS != nil {
		chains = r.TLS.VerifiedChains
	}
	return clients.Check(routes.Hostname(r.Host), chains)
}

// misdirected sends a client away to open another connection (RFC 9110, section 15.5.20).
func (s *Server) misdirected(listener string, w http.ResponseWriter, r *http.Request, err error) {
	s.metrics.Unrouted("misdirected")
	s.mends.Log(s.log, slog.LevelInfo, seldom.Event{Kind: "misdirected", Detail: r.Host}, "request misdirected",
		"host", r.Host, "path", r.URL.Path, "listener", listener, "client", r.RemoteAddr, "error", err)
	w.Header().Set("Connection", "close")
	http.Error(w, "this connection does not serve this host: open another one for it", http.StatusMisdirectedRequest)
}

// admits is what each proxy asks of the clients it has.
func (s *Server) admits(f *policy.Facts) error {
	return s.now.Load().clients(f.Listener).Check(f.Host, f.Chains)
}

// reviews say for the log whose sockets a review ends.
var reviews = map[ws.Kind]string{
	ws.ClientUnproven: "closing sockets whose clients' certificates client_ca no longer accepts",
	ws.ClientBarred:   "closing sockets whose clients' addresses are no longer allowed",
}

// review ends the sockets whose clients would not be let in any more, for their addresses, for their certificates or for having none. It
// may be called from any goroutine that Stop waits for.
func (s *Server) review() {
	open := make(map[ws.Kind][]hub.Conn)
	now := s.now.Load()
	for _, r := range now.rows {
		if r.proxy == nil {
			continue
		}
		for kind, conns := range r.proxy.Unwelcome() {
			open[kind] = append(open[kind], conns...)
		}
	}
	for kind, conns := range open {
		s.log.Info(reviews[kind], "sockets", len(conns))
		s.serving.Go(func() { hub.Spread(s.stopped, conns, now.config.Drain, ws.Cause{Kind: kind}) })
	}
}

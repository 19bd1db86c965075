package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"bridgehead/admin"
	"bridgehead/config"
	"bridgehead/routes"
	"bridgehead/ws"
)

// A front is one open listener with the HTTP server behind it.
type front struct {
	name     string
	public   bool // for clients; the others are for operators and applications
	secure   bool
	listener net.Listener
	server   *http.Server
	log      *slog.Logger
}

// open opens all listeners. Those that did open stand in s.fronts, also when it fails.
func (s *Server) open() error {
	for i := range s.config.Listeners {
		if err := s.openPublic(&s.config.Listeners[i]); err != nil {
			return err
		}
	}
	c := admin.Config{
		Hub: s.hub, Metrics: s.metrics, Log: s.log, Version: s.version, Ready: s.ready, AdminTokens: s.config.Admin.Tokens,
	}
	if s.config.Push != nil {
		c.PushTokens = s.config.Push.Tokens
	}
	api := admin.New(c)
	if err := s.openPrivate("admin", s.config.Admin.Address, api.Admin()); err != nil || s.config.Push == nil {
		return err
	}
	return s.openPrivate("push", s.config.Push.Address, api.Push())
}

func (s *Server) openPublic(o *config.Listener) error {
	l, err := net.Listen("tcp", o.Address)
	if err != nil {
		return listenError(o.Name, err)
	}
	f := s.newFront(o.Name, l, s.limitBody(s.root(o), int64(o.BodySize)))
	f.public = true
	f.server.ReadHeaderTimeout = o.HeaderTimeout // TLS handshakes are bound by it too
	f.server.ReadTimeout = o.BodyTimeout
	f.server.IdleTimeout = o.KeepAlive
	f.server.MaxHeaderBytes = int(o.HeaderSize)
	if o.TLS {
		f.secure = true
		f.listener = tls.NewListener(l, s.certs.TLSConfig())
	}
	return nil
}

func (s *Server) openPrivate(name, address string, h http.Handler) error {
	l, err := admin.Listen(address)
	if err != nil {
		return listenError(name, err)
	}
	f := s.newFront(name, l, h)
	f.server.ReadHeaderTimeout = 10 * time.Second
	f.server.ReadTimeout = time.Minute
	f.server.IdleTimeout = 2 * time.Minute
	return nil
}

func listenError(name string, err error) error {
	err = fmt.Errorf("listener %s: %w", name, err)
	switch text := err.Error(); {
	case strings.Contains(text, "permission denied"):
		return fmt.Errorf("%w; ports below 1024 need root, or the capability CAP_NET_BIND_SERVICE", err)
	case strings.Contains(text, "address already in use"):
		return fmt.Errorf("%w; stop the program that listens there, or choose another address", err)
	}
	return err
}

func (s *Server) newFront(name string, l net.Listener, h http.Handler) *front {
	f := &front{name: name, listener: l, log: s.log.With("listener", name)}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true) // an upgrade needs it, and no listener promises more
	f.server = &http.Server{
		Handler: h, Protocols: protocols, DisableGeneralOptionsHandler: true,
		ErrorLog: slog.NewLogLogger(f.log.Handler(), slog.LevelDebug), // what strangers do to a port is no news
	}
	s.fronts = append(s.fronts, f)
	return f
}

func (f *front) serve() {
	if err := f.server.Serve(f.listener); !errors.Is(err, http.ErrServerClosed) {
		f.log.Error("the listener failed", "error", err)
	}
}

// stopAccepting closes the listener, and the connections that wait for a request. Upgraded sockets live on.
func (f *front) stopAccepting() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // not to wait for requests under way: they are answered while the sockets drain
	if err := f.server.Shutdown(ctx); err != nil && !errors.Is(err, context.Canceled) {
		f.log.Warn("stop accepting", "error", err)
	}
}

func (f *front) stop() {
	f.server.Close()
	f.listener.Close() // in case it never served
}

// root is what a listener for clients does with a request.
func (s *Server) root(o *config.Listener) http.Handler {
	if o.Redirect {
		return http.HandlerFunc(s.redirect)
	}
	name := o.Name
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodConnect { // we are nobody's forward proxy
			w.Header().Set("Connection", "close")
			http.Error(w, "CONNECT is not for this server", http.StatusMethodNotAllowed)
			return
		}
		match, ok := s.table.Load().Match(name, r)
		if !ok {
			s.metrics.Unrouted("no route")
			s.log.Debug("no route", "host", r.Host, "path", r.URL.Path, "listener", name)
			routes.NotFound(w, r)
			return
		}
		match.ServeHTTP(w, r)
	})
}

// limitBody bounds what a request may bring besides its head; 0 is no limit.
func (s *Server) limitBody(h http.Handler, limit int64) http.Handler {
	if limit <= 0 {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength > limit {
			w.Header().Set("Connection", "close")
			http.Error(w, fmt.Sprintf("the body is larger than %d bytes", limit), http.StatusRequestEntityTooLarge)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, limit)
		h.ServeHTTP(w, r)
	})
}

// redirect sends a client to the same address under TLS. 308 keeps its method.
func (s *Server) redirect(w http.ResponseWriter, r *http.Request) {
	host := routes.Hostname(r.Host)
	if host == "" || ws.IsUpgrade(r) { // no WebSocket client follows
		w.Header().Set("Connection", "close")
		http.Error(w, "use https or wss: this port only redirects", http.StatusUpgradeRequired)
		return
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if port := s.securePort(); port != "443" {
		host = host + ":" + port
	}
	http.Redirect(w, r, "https://"+host+r.URL.RequestURI(), http.StatusPermanentRedirect)
}

// securePort is the port of the first listener with TLS.
func (s *Server) securePort() string {
	for _, f := range s.fronts {
		if f.public && f.secure {
			_, port, _ := net.SplitHostPort(f.listener.Addr().String())
			return port
		}
	}
	return "443"
}

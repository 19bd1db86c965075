package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"bridgehead/admin"
	"bridgehead/config"
	"bridgehead/internal/door"
	"bridgehead/internal/seldom"
	"bridgehead/internal/sockets"
	"bridgehead/internal/systemd"
	"bridgehead/policy"
	"bridgehead/proxy"
	"bridgehead/proxy/pump"
	"bridgehead/routes"
	certs "bridgehead/tls"
	"bridgehead/ws"
)

// A front is one HTTP server on an open socket. When its options change, a reload puts another front on the same socket.
type front struct {
	name    string
	options any  // from the configuration; equal ones make the same front
	public  bool // for clients; the others are for operators and applications
	secure  bool
	socket  net.Listener // outlives the front if the next one listens there too
	lease   *lease
	door    *door.Door     // nil: everybody is let in
	clients *certs.Clients // that are asked for certificates; nil: none
	server  *http.Server
	second  *http.Server // for HTTP/2, on connections that the first accepts; nil: there is none
	address string
	served  chan struct{} // closed when the server has ended; nil: it never began
	log     *slog.Logger
}

// key names where a front listens. Ports that the system chooses are told apart by the names of their listeners.
func (f *front) key(address string) string {
	if strings.HasSuffix(address, ":0") {
		return f.name + " " + address
	}
	return address
}

// planFronts opens what is new. Fronts whose options did not change are kept.
func (p *plan) planFronts() error {
	for i := range p.config.Listeners {
		if err := p.planListener(&p.config.Listeners[i]); err != nil {
			return err
		}
	}
	s, c := p.server, p.config
	api := admin.Config{
		Hub: s.hub, Metrics: s.metrics, Log: s.log, Version: s.version, Ready: s.ready, AdminTokens: c.Admin.Tokens, Reload: s.reloadCall,
		Upstreams: s.upstreams, Certificates: s.certificates, ChangeCertificate: s.changeCertificate, Lacking: s.lacking,
	}
	operators := front{name: "admin", options: c.Admin}
	err := p.planFront(operators, c.Admin.Address, one(admin.Listen), func(f *front) error { return s.private(f, admin.New(api).Admin()) })
	if err != nil || c.Push == nil {
		return err
	}
	api.PushTokens = c.Push.Tokens
	applications := front{name: "push", options: *c.Push}
	return p.planFront(applications, c.Push.Address, one(admin.Listen), func(f *front) error { return s.private(f, admin.New(api).Push()) })
}

// planListener makes a front for each socket of a listener. They share one door.
func (p *plan) planListener(l *config.Listener) error {
	d := p.server.door(l.Name)
	p.then(func() { d.Set(doorOptions(l, p.config.TrustedProxies)) })
	for _, address := range l.Address {
		o := *l
		o.Address = []string{address} // whatever others it has, this front is the same
		if err := p.planAccess(&o); err != nil {
			return p.listenError(l.Name, err)
		}
		f := front{name: o.Name, options: o, public: true, secure: o.TLS, door: d}
		if err := p.planFront(f, address, listener(&o), func(f *front) error { return p.public(f, &o) }); err != nil {
			return err
		}
	}
	return nil
}

// planAccess lets others connect to a unix socket that is open, if the configuration says so.
func (p *plan) planAccess(l *config.Listener) error {
	path, ok := strings.CutPrefix(l.Address[0], unixScheme)
	if !ok {
		return nil
	}
	for _, old := range p.was.fronts {
		was, public := old.options.(config.Listener)
		if !public || old.address != l.Address[0] || was.Access() == l.Access() {
			continue
		}
		p.undo = append(p.undo, func() { _ = was.Access().Set(path) }) // as it could be set before
		return l.Access().Set(path)
	}
	return nil
}

const (
	unixScheme    = "unix:"
	systemdScheme = "systemd:"
)

// listener opens what the address of a listener says; what systemd hands over may be several sockets.
func listener(l *config.Listener) func(string) ([]net.Listener, error) {
	return func(address string) ([]net.Listener, error) {
		if name, ok := strings.CutPrefix(address, systemdScheme); ok {
			return systemd.Listen(name)
		}
		return one(func(address string) (net.Listener, error) {
			if path, ok := strings.CutPrefix(address, unixScheme); ok {
				return sockets.Listen(path, l.Access())
			}
			return net.Listen("tcp", address)
		})(address)
	}
}

func one(listen func(string) (net.Listener, error)) func(string) ([]net.Listener, error) {
	return func(address string) ([]net.Listener, error) {
		l, err := listen(address)
		return []net.Listener{l}, err
	}
}

// door is that of a listener, whichever generation it belongs to. The caller holds reloading, or nobody else knows of s yet.
func (s *Server) door(name string) *door.Door {
	d, ok := s.doors[name]
	if !ok {
		d = door.New(name, s.log, s.mends, s.metrics.Listener(name))
		s.doors[name] = d
	}
	return d
}

func doorOptions(l *config.Listener, trusted policy.Networks) door.Options {
	return door.Options{
		Proxy: l.ProxyProtocol, Trusted: trusted.Contain, Timeout: l.HeaderTimeout, TLS: l.TLS,
		Connections: l.MaxConnections, Handshakes: l.MaxHandshakes,
	}
}

// planFront keeps the fronts that listen at an address, or takes their sockets over, or opens what listen does. build makes the server
// behind each.
func (p *plan) planFront(model front, address string, listen func(string) ([]net.Listener, error), build func(*front) error) error {
	model.log = p.server.log.With("listener", model.name)
	var open []net.Listener
	for _, old := range p.was.fronts {
		switch {
		case old.key(old.address) != model.key(address):
		case reflect.DeepEqual(old.options, model.options):
			p.fronts = append(p.fronts, old)
			open = append(open, nil)
		default:
			open = append(open, old.socket)
		}
	}
	if open == nil {
		var err error
		if open, err = listen(address); err != nil {
			return p.listenError(model.name, err)
		}
		p.undo = append(p.undo, func() {
			for _, socket := range open {
				socket.Close()
			}
		})
	}
	for _, socket := range open {
		if socket == nil { // its front is kept
			continue
		}
		f := model
		f.address, f.socket, f.lease = address, socket, &lease{Listener: socket}
		if err := build(&f); err != nil {
			return fmt.Errorf("listener %s: %w", f.name, err)
		}
		p.fronts = append(p.fronts, &f)
	}
	return nil
}

func (p *plan) listenError(name string, err error) error {
	err = fmt.Errorf("listener %s: %w", name, err)
	switch text := err.Error(); {
	case strings.Contains(text, "permission denied"):
		return fmt.Errorf("%w; ports below 1024 need root, or the capability CAP_NET_BIND_SERVICE", err)
	case strings.Contains(text, "address already in use") && len(p.was.fronts) > 0:
		return fmt.Errorf("%w; if it is another listener of this program that has the port, change it in two steps, or restart", err)
	case strings.Contains(text, "address already in use"):
		return fmt.Errorf("%w; stop the program that listens there, or choose another address", err)
	}
	return err
}

// public makes the server for clients.
func (p *plan) public(f *front, o *config.Listener) (err error) {
	s := p.server
	if o.ClientCA != nil {
		if f.clients, err = certs.NewClients(*o.ClientCA, s.review, f.log); err != nil {
			return err
		}
		p.undo = append(p.undo, f.clients.Close)
	}
	h := s.limitBody(s.root(o), int64(o.BodySize))
	if o.HSTS != nil {
		h = strict(h, o.HSTS.String())
	}
	f.server = s.newHTTP(f, arrive(h))
	f.server.ConnContext = door.Context
	f.server.ReadHeaderTimeout = o.HeaderTimeout // TLS handshakes are bound by it too
	f.server.ReadTimeout = o.BodyTimeout
	f.server.IdleTimeout = o.KeepAlive
	f.server.MaxHeaderBytes = int(o.HeaderSize)
	if o.TLS {
		f.server.TLSConfig = certs.ServerTLS(certs.Setup{Certs: s.certs, Tickets: s.tickets, Clients: f.clients, HTTP2: o.HTTP2})
	}
	f.server.BaseContext = func(net.Listener) context.Context { return proxy.WithListener(context.Background(), f.name) }
	if o.HTTP2 {
		f.addHTTP2()
	}
	return nil
}

// arrive says that a connection's first request has come.
func arrive(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		door.From(r.Context()).Pass().Arrived()
		h.ServeHTTP(w, r)
	})
}

// strict tells browsers to come by TLS alone. A backend may say so as well; of two such headers the first counts (RFC 6797, section 8.1).
func strict(h http.Handler, value string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Strict-Transport-Security", value)
		h.ServeHTTP(w, r)
	})
}

// private makes the server for operators or applications.
func (s *Server) private(f *front, h http.Handler) error {
	f.server = s.newHTTP(f, h)
	f.server.ReadHeaderTimeout = 10 * time.Second
	f.server.ReadTimeout = time.Minute
	f.server.IdleTimeout = 2 * time.Minute
	return nil
}

func (s *Server) newHTTP(f *front, h http.Handler) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true) // an upgrade needs it, and no listener promises more
	return &http.Server{
		Handler: h, Protocols: protocols, DisableGeneralOptionsHandler: true,
		ErrorLog: log.New(&errorLog{f.log, s.mends}, "", 0),
	}
}

// An errorLog takes what net/http has to say about connections. What strangers do to a port is no news, but for the mistakes that
// have a mend.
type errorLog struct {
	log   *slog.Logger
	mends *seldom.Log
}

// Write is io.Writer's; it is called once for each line.
func (l *errorLog) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	if mend := certs.Mend(text); mend != "" {
		l.mends.Log(l.log, slog.LevelInfo, seldom.Event{Kind: "TLS", Detail: mend}, "TLS handshake failed", "error", text+"; "+mend)
	} else {
		l.log.Debug(text)
	}
	return len(line), nil
}

// serve is the way of every connection: through the door, where a PROXY header is read, then through TLS, to net/http. Nothing is
// waited for here; what is read is read in the connection's own goroutine.
func (f *front) serve() {
	defer close(f.served)
	var l net.Listener = f.lease
	if f.door != nil {
		l = f.door.Listener(l)
	}
	if f.secure {
		l = tls.NewListener(pump.WireListener{Listener: l}, f.server.TLSConfig)
	}
	if err := f.server.Serve(l); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
		f.log.Error("the listener failed", "error", err)
	}
}

// close stops to accept, and ends the connections that wait for a request. Those that have not sent their first one yet, requests
// under way and upgraded sockets live on. The socket stays open, and whatever queues on it waits. (http.Server.Shutdown would drop
// connections whose first request it has not read.)
func (f *front) close() {
	f.lease.Close()
	if f.served != nil {
		<-f.served
	}
	f.server.SetKeepAlivesEnabled(false)
	f.sendAway()
}

// stop ends all at once.
func (f *front) stop() {
	f.server.Close()
	f.lease.Close()
	f.socket.Close()
}

// A lease lets one HTTP server accept on a socket until it is closed; the socket is then free for the next.
type lease struct {
	net.Listener
	ended atomic.Bool
}

// begin undoes what the end of the lease before has done to the socket. It is called before anybody may end this one.
func (l *lease) begin() { l.setDeadline(time.Time{}) }

// Accept is net.Listener's.
func (l *lease) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil && l.ended.Load() {
		return nil, net.ErrClosed
	}
	return conn, err
}

// Close ends the lease: a blocked Accept returns.
func (l *lease) Close() error {
	if !l.ended.Swap(true) {
		l.setDeadline(time.Now())
	}
	return nil
}

func (l *lease) setDeadline(t time.Time) {
	if socket, ok := l.Listener.(interface{ SetDeadline(time.Time) error }); ok { // as those of TCP and unix sockets are
		_ = socket.SetDeadline(t) // it fails on a socket that is closed, which then accepts no more anyhow
	}
}

// root is what a listener for clients does with a request.
func (s *Server) root(o *config.Listener) http.Handler {
	serve := s.routed(o.Name)
	if o.Redirect {
		serve = s.redirect
	}
	if o.TLS {
		return serve
	}
	return s.challenged(serve)
}

// routed has requests served by the routes of a listener.
func (s *Server) routed(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 1 { // the request before may have left one
			_ = http.NewResponseController(w).SetWriteDeadline(time.Time{})
		}
		if r.Method == http.MethodConnect { // we are nobody's forward proxy
			w.Header().Set("Connection", "close")
			http.Error(w, "CONNECT is not for this server", http.StatusMethodNotAllowed)
			return
		}
		if err := s.mayHave(name, r); err != nil {
			s.misdirected(name, w, r, err)
			return
		}
		match, ok := s.now.Load().table.Match(name, r)
		if !ok {
			s.unrouted(name, w, r)
			return
		}
		match.ServeHTTP(w, r)
	}
}

// unrouted answers a request that no route takes. A handshake is worth a line: it comes from somebody who expects a socket here.
func (s *Server) unrouted(listener string, w http.ResponseWriter, r *http.Request) {
	s.metrics.Unrouted("no route")
	args := []any{"host", r.Host, "path", r.URL.Path, "listener", listener}
	if ws.IsUpgrade(r) {
		s.mends.Log(s.log, slog.LevelInfo, seldom.Event{Kind: "no route", Detail: r.Host + r.URL.Path}, "no route", append(args, "error",
			"no route has this host and path on this listener; bridgehead explain tells which come near, and a proxy in front has to pass Host on")...)
	} else {
		s.log.Debug("no route", args...)
	}
	routes.NotFound(w, r)
}

// limitBody bounds what a request may bring besides its head; 0 is no limit.
func (s *Server) limitBody(h http.Handler, limit int64) http.Handler {
	if limit <= 0 {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor > 1 && ws.IsUpgrade(r) { // its body is the socket
			h.ServeHTTP(w, r)
			return
		}
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
	for _, f := range s.now.Load().fronts {
		if at, ok := f.socket.Addr().(*net.TCPAddr); ok && f.public && f.secure {
			return strconv.Itoa(at.Port)
		}
	}
	return "443"
}

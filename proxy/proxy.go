package proxy

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"bridgehead/hub"
	"bridgehead/internal/door"
	"bridgehead/internal/metrics"
	"bridgehead/internal/seldom"
	"bridgehead/policy"
	"bridgehead/policy/auth"
	"bridgehead/proxy/pump"
	"bridgehead/routes"
	"bridgehead/ws"
)

// A Config is what a Proxy is made of for as long as its route exists.
type Config struct {
	Route    string // its name
	Node     string // of this program, part of connection ids
	Hub      *hub.Hub
	Limits   *policy.Store
	Capacity *policy.Capacity // of the whole program
	Farewell *policy.Capacity // for refused clients of the whole program that are told by a Close; beyond it the status tells them
	Metrics  *metrics.Route
	Mends    *seldom.Log     // of the whole program
	Loops    *pump.Loops     // that carry sockets; nil: goroutines do
	Cut      context.Context // ends when requests beside the sockets may take no longer; nil: never
	// Admits tells why a client must not be here, for what it has proven to its listener; nil if it may. What it says may change while
	// sockets are open. May be nil.
	Admits func(*policy.Facts) error
	Log    *slog.Logger
}

// A Proxy serves the handshakes of one route, through all reloads. It is an http.Handler.
type Proxy struct {
	Config
	room  *policy.Capacity // of this route
	terms atomic.Pointer[terms]

	mu      sync.Mutex // guards the following
	clients map[*Client]struct{}
	era     int
	retired ws.Cause // of the sockets of earlier eras
}

// New builds the proxy of a route. The options have been validated.
func New(c Config, t Terms) (*Proxy, error) {
	p := &Proxy{Config: c, room: policy.NewCapacity(0), clients: make(map[*Client]struct{})}
	first, err := p.Prepare(t)
	if err != nil {
		return nil, err
	}
	p.Log = c.Log.With("route", c.Route)
	p.putLocked(first.terms) // nobody else knows of p yet
	return p, nil
}

// ServeHTTP takes a client from its handshake to the start of its traffic. The socket lives on after it returns, but over HTTP/2, where
// its stream would end.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	t := p.terms.Load()
	if rs := t.requests(r); rs != nil {
		p.serveRequest(w, p.meet(t, r), t, rs)
		return
	}
	if stream := p.serveHandshake(w, r, t); stream != nil {
		<-stream.Done()
	}
}

// serveHandshake opens a socket, or refuses it. It gives the stream of one that was opened over HTTP/2, else nil.
func (p *Proxy) serveHandshake(w http.ResponseWriter, r *http.Request, t *terms) *pump.Stream {
	began := time.Now()
	h, err := p.handshake(t, r)
	if err != nil {
		if failed(r, err) && t.Addresses.Check(&h.Facts) == nil { // who is denied counts nowhere
			t.limiter.Fail(&h.Facts, began)
		}
		p.refuse(w, t, h, err, began)
		return nil
	}
	since, ok := p.Hub.Enter()
	if !ok {
		p.refuse(w, t, h, unavailable("draining"), began)
		return nil
	}
	defer p.Hub.Leave()
	place, err := p.admit(r.Context(), t, h, began)
	if err != nil {
		p.refuse(w, t, h, err, began)
		return nil
	}
	if r.ProtoMajor > 1 { // the time that the listener gives a body is not for what a socket brings
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	}
	session, err := p.open(r.Context(), t.Bridge, h)
	if err != nil {
		place.release()
		p.refuse(w, t, h, err, began)
		return nil
	}
	h.Reply.greet(h.Identity)
	c := p.newClient(t, h, session, place)
	p.Hub.Add(c, since) // before the 101: whoever learns of the client by then can reach it
	p.enter(c)
	err = c.upgrade(w, h)
	stream, _ := c.Conn.(*pump.Stream)
	if err != nil {
		p.Metrics.Handshake(metrics.Failed, time.Since(began))
		c.abandon(err)
		return stream
	}
	p.Metrics.Handshake(metrics.Accepted, time.Since(began))
	c.run()
	return stream
}

// handshake reads what is known of the client. The Handshake is usable for the log even when there is an error.
func (p *Proxy) handshake(t *terms, r *http.Request) (h *Handshake, err error) {
	h = p.meet(t, r)
	h.Offer, err = ws.CheckRequest(r)
	h.Subprotocols = h.Offer.Subprotocols
	return h, err
}

// meet finds out who sends a request.
func (p *Proxy) meet(t *terms, r *http.Request) *Handshake {
	r, from := t.Proxies.Meet(r)
	h := &Handshake{
		Facts: policy.Facts{
			Request: r, ConnID: p.newID(), Client: from.Client, TLS: from.TLS, Listener: listenerOf(r), Host: routes.Hostname(r.Host), Chains: chainsOf(r),
		},
		Metrics: p.Metrics,
	}
	h.Log = slog.New(about{p.Log.Handler(), h.ConnID, from.Client})
	if conn := door.From(r.Context()); conn.Header() != nil {
		h.Log = h.Log.With("proxy", conn.Peer().String())
		if id := conn.Header().Value("unique_id"); id != "" {
			h.Log = h.Log.With("proxy_id", id)
		}
	}
	doubt(p.Mends, h.Log, p.Route, &from)
	return h
}

// chainsOf are those of the certificate that the client of r has proven to its listener; nil: none.
func chainsOf(r *http.Request) [][]*x509.Certificate {
	if r.TLS == nil {
		return nil
	}
	return r.TLS.VerifiedChains
}

// doubt tells of a trusted proxy that does not say who its client is as it should.
func doubt(mends *seldom.Log, log *slog.Logger, route string, from *policy.Arrival) {
	if from.Doubt != "" {
		mends.Log(log, slog.LevelWarn, seldom.Event{Kind: route + " client header", Detail: from.Doubt}, "client header not believed", "error", from.Doubt)
	}
}

// newID names a connection: the node, so that a push from any other can find it, and more than 100 random bits.
func (p *Proxy) newID() string { return "c_" + p.Node + "_" + strings.ToLower(rand.Text()) }

// admit asks the policies, the cheap ones first.
func (p *Proxy) admit(ctx context.Context, t *terms, h *Handshake, now time.Time) (place, error) {
	if err := t.Addresses.Check(&h.Facts); err != nil {
		return place{}, err
	}
	if err := t.origins.Check(h.Request); err != nil {
		return place{}, forbidden(err)
	}
	grant, err := t.limiter.Admit(&h.Facts, now)
	if err != nil {
		return place{}, err
	}
	pl := place{grant: grant}
	err = t.try(ctx, h, t.origins.Vouch)
	if err == nil {
		err = t.limiter.Identify(grant, &h.Facts, now)
	}
	if err != nil {
		pl.release()
		return place{}, err
	}
	for i, room := range [...]*policy.Capacity{p.room, p.Capacity} {
		if !room.Acquire() {
			pl.release()
			return place{}, unavailable("capacity")
		}
		pl.rooms[i] = room
	}
	return pl, nil
}

// A place is what an admitted client holds of the limits.
type place struct {
	grant *policy.Grant
	rooms [2]*policy.Capacity // nil: not reached
}

func (p *place) release() {
	p.grant.Release()
	for _, room := range p.rooms {
		if room != nil {
			room.Release()
		}
	}
}

// open opens the bridge. A panic in it is this client's 500 and nobody else's trouble.
func (p *Proxy) open(ctx context.Context, bridge Bridge, h *Handshake) (session Session, err error) {
	began := time.Now()
	defer func() {
		if v := recover(); v != nil {
			h.Log.Error("panic while opening the bridge", "panic", v, "stack", string(debug.Stack()))
			err = &Refusal{Status: http.StatusInternalServerError, Reason: "internal", Err: fmt.Errorf("panic: %v", v)}
		}
		outcome := "ok"
		if err != nil {
			outcome = "error"
		}
		p.Metrics.Backend("open", outcome, time.Since(began))
	}()
	return bridge.Open(ctx, h)
}

// cloneFacts keeps what outlives the request, without the memory of the request.
func cloneFacts(f policy.Facts) policy.Facts {
	f.Request = nil
	f.User, f.Claims, f.Told = strings.Clone(f.User), auth.Known(&f), nil
	f.Host = strings.Clone(f.Host)
	f.Subprotocols = slices.Clone(f.Subprotocols)
	for i, s := range f.Subprotocols {
		f.Subprotocols[i] = strings.Clone(s)
	}
	return f
}

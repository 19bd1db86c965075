// Package webhook bridges sockets to an HTTP application that knows nothing of them. What happens to a socket becomes events:
// `connect` before the upgrade, `message` for what the client sends, `close` at the end. Events are posted in order, one request
// at a time per connection, signed and retried; the replies say what to send to the client.
//
// json.go is the wire dialect, pure functions from events to bytes and from bytes to a reply. An application is HTTP: the pool,
// signatures, retries. A session is one socket: its queue and what replies do to it. The package is the home of standard-webhooks.
package webhook

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"bridgehead/internal/metrics"
	"bridgehead/proxy"
	"bridgehead/proxy/upstream"
)

// A Config is what a Bridge needs from around it.
type Config struct {
	Route   string          // its name, which every request says
	Group   *upstream.Group // where the application is
	PushURL string          // where the application can push to the sockets of this program; "" if nowhere
	Metrics *metrics.Route
}

// A Bridge opens sessions with an application. It is safe for use by many.
type Bridge struct{ current atomic.Pointer[setup] }

// A setup is what the options come to. Sessions ask their bridge for it each time, so that they follow changed options.
type setup struct {
	Config
	options Options
	forward []string // headers, canonical
	app     *application
}

// New builds the bridge of a route. The options have been validated.
func New(o Options, c Config) (*Bridge, error) {
	keys, err := newSigner(o.Secret)
	if err != nil {
		return nil, err
	}
	s := &setup{Config: c, options: o, app: &application{
		transport: newTransport(o.InFlight), keys: keys, inFlight: make(chan struct{}, o.InFlight), retries: o.Retries,
		metrics: c.Metrics,
	}}
	for _, name := range o.ForwardHeaders {
		s.forward = append(s.forward, http.CanonicalHeaderKey(name))
	}
	b := new(Bridge)
	b.current.Store(s)
	return b, nil
}

// Adopt makes b and all its sessions what next is: they sign with its secrets and keep to its bounds from their next request on.
// What was sent before ends as it began.
func (b *Bridge) Adopt(next *Bridge) {
	b.current.Swap(next.current.Load()).app.close()
}

// Close ends the connections that wait for the next request. Sessions are not disturbed.
func (b *Bridge) Close() { b.current.Load().app.close() }

// Open asks the application whether the client may come in.
func (b *Bridge) Open(ctx context.Context, h *proxy.Handshake) (proxy.Session, error) {
	now := b.current.Load()
	s := newSession(b, h)
	asked := s.event(typeConnect, event{connecting: now.connecting(h)})
	// An application that has been asked may say yes, and must then hear of the end: a client that leaves meanwhile does not
	// interrupt the question.
	ctx = context.WithoutCancel(ctx)
	by := time.Now().Add(now.options.Timeout)
	lease, err := now.Group.Open(ctx, &h.Facts, func(ctx context.Context, target *upstream.Target) error {
		r, err := s.question(h, target, time.Until(by), asked)
		if err != nil {
			return &upstream.Answer{Err: err}
		}
		resp, err := now.app.post(ctx, r, 1)
		if err != nil && !errors.Is(err, errBusy) {
			err = target.Fault(err)
		}
		if _, ok := errors.AsType[*unreached](err); ok {
			return err
		}
		if err = s.answered(h, &resp, err); err != nil {
			return &upstream.Answer{Err: err}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.lease, s.ways = lease, ways(now.Group, h)
	h.Reply.SetCookie(lease.Cookie(&h.Facts))
	return s, nil
}

// ways are the URLs of this client's requests at the servers that a group lists, for when its own cannot be reached any more; nil if
// there is one alone.
func ways(g *upstream.Group, h *proxy.Handshake) map[string]*url.URL {
	targets := g.Targets()
	if len(targets) < 2 {
		return nil
	}
	found := make(map[string]*url.URL, len(targets))
	for _, t := range targets {
		if to, err := endpoint(t, h); err == nil {
			found[t.Key()] = to
		}
	}
	return found
}

// question is the request that asks one server.
func (s *session) question(h *proxy.Handshake, target *upstream.Target, timeout time.Duration, asked event) (_ *request, err error) {
	s.at.server = target
	if s.at.url, err = endpoint(target, h); err != nil {
		return nil, err
	}
	return s.request(timeout, asked)
}

// answered does what the application said of the client.
func (s *session) answered(h *proxy.Handshake, resp *response, err error) error {
	switch {
	case errors.Is(err, errBusy):
		return &proxy.Refusal{Status: http.StatusServiceUnavailable, Header: http.Header{"Retry-After": {"1"}}, Reason: "busy", Err: err}
	case err != nil:
		return err
	case resp.status/100 == 4:
		return s.setup().refusal(resp)
	case judge(resp.status) != done:
		return resp.err()
	}
	answer, err := resp.reply()
	if err != nil {
		return err
	}
	return s.accept(h, answer)
}

// endpoint is where this client's requests go. ws and wss mean http and https here. If there is no such place, the client is refused.
func endpoint(target *upstream.Target, h *proxy.Handshake) (*url.URL, error) {
	to, err := target.URL(&h.Facts)
	if err != nil {
		return nil, &proxy.Refusal{Status: http.StatusBadRequest, Reason: "handshake", Err: err}
	}
	if rest, ok := strings.CutPrefix(to.Scheme, "ws"); ok {
		to.Scheme = "http" + rest
	}
	return to, nil
}

// connecting is the handshake as the application sees it.
func (s *setup) connecting(h *proxy.Handshake) *connecting {
	r := h.Request
	c := &connecting{
		Method: r.Method, Path: r.URL.EscapedPath(), Query: r.URL.RawQuery, Origin: r.Header.Get("Origin"),
		Subprotocols: h.Offer.Subprotocols, TLS: h.TLS, Certificate: newCertificate(h.Certificate()),
	}
	for _, name := range s.forward {
		lines := r.Header[name]
		if name == "Host" { // net/http keeps it apart
			lines = []string{r.Host}
		}
		if len(lines) == 0 {
			continue
		}
		if c.Headers == nil {
			c.Headers = make(map[string]string)
		}
		separator := ", " // RFC 9110, section 5.3
		if name == "Cookie" {
			separator = "; " // RFC 6265, section 4.2.1
		}
		c.Headers[strings.ToLower(name)] = strings.Join(lines, separator)
	}
	return c
}

// refusal hands the application's 4xx to the client.
func (s *setup) refusal(resp *response) error {
	pass := []string{"Www-Authenticate", "Retry-After"}
	r := &proxy.Refusal{Status: resp.status, Header: http.Header{}, Reason: "upstream", Err: resp.err()}
	if s.options.RefusalBody {
		r.Body = resp.body
		pass = append(pass, "Content-Type")
	}
	for _, name := range pass {
		if lines := resp.header[name]; len(lines) > 0 {
			r.Header[name] = lines
		}
	}
	return r
}

// accept lets the client in as the application said.
func (s *session) accept(h *proxy.Handshake, r reply) error {
	a := &r.accept
	if a.Subprotocol != "" && !slices.Contains(h.Offer.Subprotocols, a.Subprotocol) {
		return fmt.Errorf("the application chose the subprotocol %q, which the client did not offer: it offered %q",
			a.Subprotocol, h.Offer.Subprotocols)
	}
	header, refused := a.header()
	if len(refused) > 0 {
		s.log.Warn("headers that an application may not set were left out", "headers", refused)
	}
	h.Reply = proxy.Reply{Header: header, Subprotocol: a.Subprotocol, User: a.User, State: kept(a.State), Push: true}
	s.connection.Subprotocol, s.connection.State = a.Subprotocol, h.Reply.State
	if a.User != "" {
		s.connection.User = a.User
	}
	s.welcome = r.actions
	return nil
}

// newSession is a session that nobody has accepted yet.
func newSession(b *Bridge, h *proxy.Handshake) *session {
	now := time.Now()
	s := &session{
		bridge: b, log: h.Log, since: now,
		connection: connection{
			ID: h.ConnID, User: strings.Clone(h.User), Claims: h.Told, ConnectedAt: stamp(now), PushURL: b.current.Load().PushURL,
		},
	}
	if h.Client.IsValid() {
		s.connection.RemoteIP = h.Client.String()
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	return s
}

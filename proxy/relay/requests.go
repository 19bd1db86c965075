package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptrace"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"bridgehead/policy"
	"bridgehead/proxy"
	"bridgehead/proxy/upstream"
)

const (
	// restsAtMost is how long a connection to a server is kept for the next request. Servers close theirs too, and a request that
	// meets that moment is lost: 5s is the shortest time that is common among them, and Node's.
	restsAtMost = 4 * time.Second
	// restingAtMost is how many connections are kept for each server.
	restingAtMost = 64
)

// requests passes on what asks for no socket. Its connections are never those of sockets.
type requests struct {
	bridge    *Bridge
	room      *policy.Capacity
	transport *http.Transport
}

func newRequests(b *Bridge) *requests {
	return &requests{bridge: b, room: policy.NewCapacity(b.options.MaxRequests), transport: upstream.Through(&http.Transport{
		DisableCompression:     true, // what the client accepts is between the two
		MaxIdleConnsPerHost:    restingAtMost,
		IdleConnTimeout:        restsAtMost,
		ResponseHeaderTimeout:  b.options.ResponseTimeout,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: maxHead,
	})}
}

// Requests are proxy.Beside's.
func (b *Bridge) Requests() proxy.Requests {
	if b.requests == nil {
		return nil
	}
	return b.requests
}

// CORS is proxy.Requests'.
func (rs *requests) CORS() bool { return rs.bridge.options.CORS == "origins" }

// Plan is proxy.Requests'.
func (rs *requests) Plan(h *proxy.Handshake) (proxy.Plan, error) {
	plan, err := rs.bridge.Plan(h)
	for i, to := range plan.To {
		plan.To[i] = "http" + strings.TrimPrefix(strings.TrimPrefix(to, "http"), "ws")
	}
	return plan, err
}

// Serve is proxy.Requests'. Until there is a connection for it, a request may go to another server; then it is that one's. What it is
// answered in error is its failure.
func (rs *requests) Serve(w http.ResponseWriter, h *proxy.Handshake) (err error) {
	if !rs.room.Acquire() {
		return &proxy.Refusal{
			Status: http.StatusServiceUnavailable, Header: http.Header{"Retry-After": {"5"}}, Reason: "capacity",
			Err: errors.New("no room: as many requests are under way as max_requests lets"), Body: []byte("no room for another request now\n"),
		}
	}
	defer rs.room.Release()
	p := &passage{requests: rs, h: h}
	defer p.end()
	through := httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { rs.rewrite(r, h) },
		Transport:     p,
		FlushInterval: -1,
		ModifyResponse: func(resp *http.Response) error {
			if cookie := p.lease.Cookie(&h.Facts); cookie != nil { // the socket that follows is to find the same server
				resp.Header.Add("Set-Cookie", cookie.String())
			}
			resp.Header.Del("Alt-Svc") // it names ports of the server's, which clients do not reach
			return refuseUpgrade(resp)
		},
		ErrorHandler: func(_ http.ResponseWriter, _ *http.Request, failed error) { err = failed },
		ErrorLog:     slog.NewLogLogger(h.Log.Handler(), slog.LevelDebug),
	}
	through.ServeHTTP(w, h.Request)
	if err != nil && p.target != nil {
		err = fmt.Errorf("request to %s: %w", p.target.Address(), p.target.Fault(err))
	}
	return err
}

// A passage is the way of one request to a server, chosen when it is sent.
type passage struct {
	*requests
	h      *proxy.Handshake
	target *upstream.Target // that was tried last; nil: none
	lease  *upstream.Lease  // nil: none was reached
}

func (p *passage) end() {
	if p.lease != nil {
		p.lease.Release()
	}
}

// RoundTrip is http.RoundTripper's.
func (p *passage) RoundTrip(r *http.Request) (resp *http.Response, err error) {
	ctx, cancel := context.WithTimeout(r.Context(), p.bridge.options.Connect.Timeout)
	defer cancel()
	p.lease, err = p.bridge.group.Pass(ctx, &p.h.Facts, func(ctx context.Context, t *upstream.Target) (err error) {
		p.target = t
		resp, err = p.send(ctx, r, t) //nolint:bodyclose // the caller of RoundTrip closes it
		return err
	})
	if err != nil {
		return nil, err
	}
	if !passing(resp.StatusCode) {
		p.lease.Reached()
	}
	return resp, nil
}

// send sends the request to one server. ctx bounds the time until there is a connection. Its error is an [*upstream.Answer] unless
// there was none; nothing of the body was read then.
func (p *passage) send(ctx context.Context, r *http.Request, t *upstream.Target) (*http.Response, error) {
	to, err := address(t, p.h)
	if err != nil {
		return nil, &upstream.Answer{Err: err}
	}
	reached := new(atomic.Bool)
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { reached.Store(true) }}
	out := r.WithContext(httptrace.WithClientTrace(r.Context(), trace))
	out.URL = httpURL(to)
	if r.Body != nil {
		out.Body = &unsent{r.Body, reached}
	}
	by, _ := ctx.Deadline()
	resp, err := p.transport.RoundTrip(t.Carry(out, by))
	if err != nil && reached.Load() {
		err = &upstream.Answer{Err: err}
	}
	return resp, err
}

// An unsent body stays open for the next server as long as none was reached.
type unsent struct {
	io.ReadCloser
	reached *atomic.Bool
}

// Close is io.Closer's.
func (u *unsent) Close() error {
	if !u.reached.Load() {
		return nil
	}
	return u.ReadCloser.Close()
}

// rewrite makes the request to the server: of its head nothing is the client's but what the rule for headers lets pass.
func (rs *requests) rewrite(r *httputil.ProxyRequest, h *proxy.Handshake) {
	host, header := rs.bridge.headers.of(h)
	if te := r.Out.Header["Te"]; te != nil { // `trailers`, if the client takes them
		header["Te"] = te
	}
	r.Out.Host, r.Out.Header = host, header
	r.Out.Trailer = nil
	if trailer := rs.bridge.headers.trailer(r.In); trailer != nil && r.Out.Body != nil {
		r.Out.Trailer = trailer
		r.Out.Body = &trailing{r.Out.Body, r.In, trailer}
	}
}

// httpURL is the URL of a server as net/http knows it.
func httpURL(to *url.URL) *url.URL {
	u := *to
	u.Scheme = strings.Replace(u.Scheme, "ws", "http", 1)
	return &u
}

// trailer has the names that the client announces for behind its body, without those that it may not say in front of it either.
func (hs *headers) trailer(r *http.Request) http.Header {
	var trailer http.Header
	for name := range r.Trailer {
		if checkName(name) == nil && !hs.withholds(policy.FoldHeader(name)) {
			if trailer == nil {
				trailer = make(http.Header)
			}
			trailer[http.CanonicalHeaderKey(name)] = nil
		}
	}
	return trailer
}

// trailing is a body whose end brings the announced trailer.
type trailing struct {
	io.ReadCloser
	from    *http.Request
	trailer http.Header
}

// Read is io.Reader's.
func (t *trailing) Read(p []byte) (int, error) {
	n, err := t.ReadCloser.Read(p)
	if err == io.EOF {
		for name := range t.trailer {
			t.trailer[name] = t.from.Trailer[name]
		}
	}
	return n, err
}

// refuseUpgrade turns away the socket of a server that was asked for none.
func refuseUpgrade(resp *http.Response) error {
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return &upstream.Fault{
			Kind: "upgrade", Mend: "the server must not upgrade what asks for no upgrade", Err: errors.New("the server answered a request with 101"),
		}
	}
	return nil
}

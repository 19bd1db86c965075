package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
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
	rs := &requests{bridge: b, room: policy.NewCapacity(b.options.MaxRequests)}
	rs.transport = &http.Transport{
		DialContext: rs.dial, DialTLSContext: rs.dial,
		DisableCompression:     true, // what the client accepts is between the two
		MaxIdleConnsPerHost:    restingAtMost,
		IdleConnTimeout:        restsAtMost,
		ResponseHeaderTimeout:  b.options.ResponseTimeout,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: maxHead,
	}
	return rs
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

// targetKey finds the server in the context of a request, and so in that of the dial for it.
type targetKey struct{}

// dial connects to the server that was chosen for a request, with TLS where it has that.
func (rs *requests) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, rs.bridge.options.Connect.Timeout)
	defer cancel()
	target, _ := ctx.Value(targetKey{}).(*upstream.Target)
	return target.Dial(ctx)
}

// Serve is proxy.Requests'. A body is never sent twice: if its server is gone, the request has failed.
func (rs *requests) Serve(w http.ResponseWriter, h *proxy.Handshake) (err error) {
	if !rs.room.Acquire() {
		return &proxy.Refusal{
			Status: http.StatusServiceUnavailable, Header: http.Header{"Retry-After": {"5"}}, Reason: "capacity",
			Err: errors.New("no room: as many requests are under way as max_requests lets"), Body: []byte("no room for another request now\n"),
		}
	}
	defer rs.room.Release()
	var target *upstream.Target
	var to *url.URL
	lease, err := rs.bridge.group.Open(h.Request.Context(), &h.Facts, func(_ context.Context, t *upstream.Target) (err error) {
		target = t
		if to, err = address(t, h); err != nil {
			return &upstream.Answer{Err: err}
		}
		return nil
	})
	if err != nil {
		return err
	}
	defer lease.Release()
	through := httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { rs.rewrite(r, h, to) },
		Transport:     rs.transport,
		FlushInterval: -1,
		ModifyResponse: func(resp *http.Response) error {
			if cookie := lease.Cookie(&h.Facts); cookie != nil { // the socket that follows is to find the same server
				resp.Header.Add("Set-Cookie", cookie.String())
			}
			return refuseUpgrade(resp)
		},
		ErrorHandler: func(_ http.ResponseWriter, _ *http.Request, failed error) { err = failed },
		ErrorLog:     slog.NewLogLogger(h.Log.Handler(), slog.LevelDebug),
	}
	through.ServeHTTP(w, h.Request.WithContext(context.WithValue(h.Request.Context(), targetKey{}, target)))
	if err != nil {
		err = fmt.Errorf("request to %s: %w", target.Address(), target.Fault(err))
	}
	return err
}

// rewrite makes the request to the server: of its head nothing is the client's but what the rule for headers lets pass.
func (rs *requests) rewrite(r *httputil.ProxyRequest, h *proxy.Handshake, to *url.URL) {
	host, header := rs.bridge.headers.of(h)
	if te := r.Out.Header["Te"]; te != nil { // `trailers`, if the client takes them
		header["Te"] = te
	}
	r.Out.Host, r.Out.Header, r.Out.URL = host, header, httpURL(to)
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
		if f := fold(name); checkName(name) == nil && !hs.withholds(f) {
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

package webhook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"bridgehead/internal/metrics"
	"bridgehead/proxy/upstream"
)

const (
	maxReply    = 16 << 20 // of the body of a reply that says yes
	maxRefusal  = 64 << 10 // of any other body; the rest is not read
	dialTimeout = 5 * time.Second
	idleTimeout = 90 * time.Second
)

// errBusy is met by a request that found no place among those under way.
var errBusy = errors.New("in_flight requests are under way already, and none ended in time")

// An application is what stands behind a route: it takes requests, some at once, over connections that are kept for the next. It
// follows no redirects, keeps no cookies and knows no proxy. It is safe for use by many.
type application struct {
	transport http.RoundTripper
	closed    atomic.Bool // no connection is to be kept for the next request
	keys      signer
	inFlight  chan struct{} // holds one element per request under way
	retries   int
	metrics   *metrics.Route
}

// A request is one POST, with the same id and bytes in every attempt.
type request struct {
	op      string // the type of its events
	id      string
	to      way
	body    []byte
	timeout time.Duration // of one attempt

	elsewhere func(error) (way, bool) // finds another server
}

// A way is where a client's requests go.
type way struct {
	server *upstream.Target
	url    *url.URL
}

// An unreached is the error of an attempt that found no connection: nobody has seen the request.
type unreached struct{ err error }

func (u *unreached) Error() string { return u.err.Error() }

func (u *unreached) Unwrap() error { return u.err }

// A response is the answer to one attempt.
type response struct {
	status int
	header http.Header
	body   []byte
	cut    bool // the body was longer
}

// newTransport gives the pool of connections. It keeps as many as requests may be under way.
func newTransport(inFlight int) *http.Transport {
	return upstream.Through(&http.Transport{
		ForceAttemptHTTP2: true, MaxIdleConns: inFlight, MaxIdleConnsPerHost: inFlight, IdleConnTimeout: idleTimeout,
		MaxResponseHeaderBytes: 64 << 10, DisableCompression: true,
	}, "h2", "http/1.1")
}

// post makes one attempt. Its error is errBusy, or what kept the whole answer from coming.
func (a *application) post(ctx context.Context, r *request, attempt int) (response, error) {
	if err := a.wait(ctx, r.timeout); err != nil {
		a.metrics.Backend(r.op, "busy", r.timeout)
		return response{}, err
	}
	defer func() { <-a.inFlight }()

	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	began := time.Now()
	resp, err := a.exchange(ctx, r, attempt)
	if err != nil {
		err = fmt.Errorf("post %s to %s: %w", r.op, r.to.server.Address(), err)
	}
	a.metrics.Backend(r.op, outcome(resp, err), time.Since(began))
	return resp, err
}

// wait takes a place among the requests under way.
func (a *application) wait(ctx context.Context, patience time.Duration) error {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case a.inFlight <- struct{}{}:
		return nil
	case <-timer.C:
		return errBusy
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (a *application) exchange(ctx context.Context, r *request, attempt int) (response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.to.url.String(), bytes.NewReader(r.body))
	if err != nil {
		return response{}, err
	}
	req.Header = http.Header{
		"Content-Type": {jsonType}, "User-Agent": {"bridgehead"}, "Bridgehead-Attempt": {strconv.Itoa(attempt)},
	}
	if r.op == typeConnect {
		// A client is asked for once, and should not suffer when the server ends an idle connection at the moment we use it.
		// This header is not sent: it allows net/http to repeat a request that met such an end.
		req.Header["Idempotency-Key"] = nil
	}
	if err := a.keys.sign(req.Header, r.id, time.Now(), r.body); err != nil {
		return response{}, err
	}
	var reached atomic.Bool
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { reached.Store(true) }}
	req = req.WithContext(httptrace.WithClientTrace(ctx, trace))
	resp, err := a.transport.RoundTrip(r.to.server.Carry(req, time.Now().Add(dialTimeout)))
	if err != nil && !reached.Load() {
		return response{}, &unreached{err}
	}
	if err != nil {
		return response{}, err
	}
	defer a.settle()
	defer resp.Body.Close()
	return read(resp)
}

// close ends the connections that wait for the next request; from now on none waits.
func (a *application) close() {
	a.closed.Store(true)
	a.settle()
}

// settle ends the connection that a request of a closed application has left behind.
func (a *application) settle() {
	if a.closed.Load() {
		(&http.Client{Transport: a.transport}).CloseIdleConnections()
	}
}

// read reads an answer to its end, or to the bound of its body.
func read(resp *http.Response) (response, error) {
	limit := maxRefusal
	if judge(resp.StatusCode) == done {
		limit = maxReply
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, int64(limit)+1))
	if err != nil {
		return response{}, fmt.Errorf("read the answer: %w", err)
	}
	r := response{status: resp.StatusCode, header: resp.Header, body: body}
	if len(body) > limit {
		r.body, r.cut = body[:limit], true
	}
	return r, nil
}

// reply is what an answer that says yes asks for.
func (r *response) reply() (reply, error) {
	if r.cut {
		return reply{}, fmt.Errorf("reply is larger than %d bytes", maxReply)
	}
	return parseReply(r.header.Get("Content-Type"), r.body)
}

// err says what was answered instead of yes.
func (r *response) err() error {
	if to, _, _ := strings.Cut(r.header.Get("Location"), "?"); r.status/100 == 3 && to != "" { // a query may be secret
		return fmt.Errorf("the application answered %d to %q; redirects are not followed: set `to` to where it really is", r.status, to)
	}
	return fmt.Errorf("the application answered %d %s", r.status, http.StatusText(r.status))
}

// A verdict is what a status means for the events of a request.
type verdict int

const (
	done     verdict = iota // taken
	refused                 // not wanted, and never will be
	disowned                // the application does not know this connection
	again                   // not now
	failed                  // no answer that means anything here
)

// judge reads a status.
func judge(status int) verdict {
	switch {
	case status/100 == 2:
		return done
	case status == http.StatusGone:
		return disowned
	case status == http.StatusRequestTimeout, status == http.StatusTooEarly, status == http.StatusTooManyRequests, status/100 == 5:
		return again
	case status/100 == 4:
		return refused
	}
	return failed
}

// outcome names how an attempt went, for the metrics.
func outcome(r response, err error) string {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	case err != nil:
		return "error"
	}
	return strconv.Itoa(r.status/100) + "xx"
}

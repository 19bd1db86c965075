package proxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"bridgehead/policy"
	"bridgehead/policy/auth"
	"bridgehead/ws"
)

// requests are what takes r if it asks for no socket; nil: it is a handshake, well made or not, or the route has sockets alone.
func (t *terms) requests(r *http.Request) Requests {
	beside, ok := t.Bridge.(Beside)
	if !ok || ws.IsAttempt(r) {
		return nil
	}
	return beside.Requests()
}

// serveRequest passes on a request that asks for no socket. It counts as no handshake, and of
// the limits those alone are for it that count who fails to authenticate.
func (p *Proxy) serveRequest(w http.ResponseWriter, h *Handshake, t *terms, rs Requests) {
	began, r := time.Now(), h.Request
	out := &answer{ResponseWriter: w, control: http.NewResponseController(w), patience: t.Options.Socket.WriteTimeout}
	_ = out.control.SetWriteDeadline(time.Time{}) // what others have set
	defer func() {                                // also when the copying of the answer ends in a panic, as it does if a side is gone
		out.extend()
		p.Metrics.Request(out.status)
		h.Log.Debug("request", "method", r.Method, "path", r.URL.Path, "status", out.status, "bytes", out.bytes,
			"duration", time.Since(began).Round(time.Millisecond).String())
	}()
	err := p.passRequest(out, h, t, rs)
	if err == nil {
		return
	}
	refused := refusal(err)
	p.Metrics.Refused(refused.Reason)
	p.tell(h.Log, refused)
	refused.write(out)
}

// passRequest asks the policies, then the server.
func (p *Proxy) passRequest(out *answer, h *Handshake, t *terms, rs Requests) error {
	if err := t.Addresses.Check(&h.Facts); err != nil {
		return err
	}
	if err := t.checkPage(h.Request); err != nil {
		return noReading(err)
	}
	if rs.CORS() {
		out.cors = t.cors(h.Request)
		if isPreflight(h.Request) {
			out.WriteHeader(http.StatusNoContent)
			return nil
		}
	}
	if _, ok := p.Hub.Enter(); !ok {
		return unavailable("draining")
	}
	defer p.Hub.Leave()
	if err := t.limiter.Spare(&h.Facts, time.Now()); err != nil {
		return err
	}
	if err := t.try(h.Request.Context(), h, t.vouch); err != nil {
		return err
	}
	out.cookies(h.Identity)
	ctx, cancel := context.WithCancel(h.Request.Context())
	defer cancel()
	if p.Cut != nil {
		defer context.AfterFunc(p.Cut, cancel)()
	}
	in := readPatiently(h.Request, out.control)
	defer in.leave()
	h.Request = h.Request.WithContext(ctx)
	h.Request.Body, out.in = in, in
	_ = out.control.EnableFullDuplex() // the server decides when it answers, and what it still reads
	err := rs.Serve(out, h)
	if failed := in.failed.Load(); err != nil && failed != nil {
		return failed.refusal()
	}
	return err
}

// checkPage tells why the page behind a request may not send it. What only reads may come without an Origin, as pages and what they
// are made of do.
func (t *terms) checkPage(r *http.Request) error {
	if readsAlone(r) {
		return nil
	}
	return t.origins.Check(r)
}

// readsAlone tells whether a request reads and has no Origin, as a page's own.
func readsAlone(r *http.Request) bool {
	reads := r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == http.MethodOptions
	return reads && len(r.Header["Origin"]) == 0
}

// vouch tells why the cookies of a request do not count. They do for what only reads and comes without an Origin, as pages do: another
// page can send such a request, but it cannot read the answer.
func vouch(origins *policy.Origins, r *http.Request) error {
	if readsAlone(r) {
		return nil
	}
	return origins.Vouch(r)
}

func (t *terms) vouch(r *http.Request) error { return vouch(t.origins, r) }

func noReading(err error) *Refusal {
	return &Refusal{Status: http.StatusForbidden, Reason: "origin", Err: err, Body: []byte("this page may not send requests here\n")}
}

// cookies adds what the client's authentication has for it.
func (a *answer) cookies(id *auth.Identity) {
	if id != nil {
		for _, line := range id.Cookies {
			a.Header().Add("Set-Cookie", line)
		}
	}
}

// An answer is on its way to the client. A client that does not read for too long loses it.
type answer struct {
	http.ResponseWriter
	control  *http.ResponseController
	patience time.Duration // for each write; 0 is no end
	cors     http.Header   // in place of the server's; nil: the server's
	in       *body         // what it answers; nil: nothing was read of it
	status   int
	bytes    int64
}

// Unwrap is for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// extend gives the client time for what is written next. The deadline stays until the next request.
func (a *answer) extend() {
	if a.patience > 0 {
		_ = a.control.SetWriteDeadline(time.Now().Add(a.patience)) // a connection without deadlines does without
	}
}

// WriteHeader is http.ResponseWriter's.
func (a *answer) WriteHeader(status int) {
	if status >= http.StatusOK && a.status == 0 {
		a.status = status
		a.allow()
		if a.in != nil && !a.in.ended.Load() { // what is left of the body must not be read as another request
			a.Header().Set("Connection", "close")
		}
	}
	a.extend()
	a.ResponseWriter.WriteHeader(status)
}

// Write is http.ResponseWriter's.
func (a *answer) Write(p []byte) (int, error) {
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	a.extend()
	n, err := a.ResponseWriter.Write(p)
	a.bytes += int64(n)
	return n, err
}

// allow puts our CORS headers in the place of the server's.
func (a *answer) allow() {
	if a.cors == nil {
		return
	}
	h := a.Header()
	for name := range h {
		if strings.HasPrefix(name, "Access-Control-") && name != "Access-Control-Expose-Headers" {
			h.Del(name)
		}
	}
	for name, values := range a.cors {
		h[name] = append(h[name], values...)
	}
}

// cors are the headers by which a page whose origin was checked may read an answer (Fetch, section 3.3). Every page may, where all
// origins are allowed, but then not in the name of its visitor.
func (t *terms) cors(r *http.Request) http.Header {
	h := http.Header{"Vary": {"Origin"}}
	origin := r.Header.Get("Origin")
	switch {
	case origin == "":
		return h
	case t.origins.Any():
		h.Set("Access-Control-Allow-Origin", "*")
	default:
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Allow-Credentials", "true")
	}
	if isPreflight(r) {
		h.Set("Access-Control-Allow-Methods", r.Header.Get("Access-Control-Request-Method"))
		if names := r.Header.Get("Access-Control-Request-Headers"); names != "" {
			h.Set("Access-Control-Allow-Headers", names)
		}
		h.Set("Access-Control-Max-Age", "600")
	}
	return h
}

func isPreflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && r.Header.Get("Origin") != "" && r.Header.Get("Access-Control-Request-Method") != ""
}

// A body is what the client sends. It may take as long as it likes, as long as it goes on.
type body struct {
	io.ReadCloser
	control  *http.ResponseController
	patience time.Duration // for each read; 0 is no end
	failed   atomic.Pointer[bodyError]
	ended    atomic.Bool // nothing of it is left
	left     atomic.Bool // nobody reads it any more
	reading  sync.Mutex  // held while it is read
}

// rest is how long a client may go on with a body that nobody reads, so that it can hear the answer.
const rest = time.Second

// readPatiently makes the time that the listener gives a request count for each part of its body, and not for the answer.
func readPatiently(r *http.Request, control *http.ResponseController) *body {
	b := &body{ReadCloser: r.Body, control: control}
	if server, ok := r.Context().Value(http.ServerContextKey).(*http.Server); ok {
		b.patience = server.ReadTimeout
	}
	if r.ContentLength == 0 {
		b.done()
	}
	return b
}

// done lets the connection wait for the answer, however long: net/http takes the end of a deadline for the client's.
func (b *body) done() {
	b.ended.Store(true)
	_ = b.control.SetReadDeadline(time.Time{})
}

// leave ends the reading before the end. A server may have answered while the client is still at it, and the read that is under way
// then must not outlive the request: net/http would end it, and take the deadline of the connection for its own.
func (b *body) leave() {
	if b.ended.Load() {
		return
	}
	b.left.Store(true)
	if b.control.SetReadDeadline(time.Unix(1, 0)) != nil { // a connection without deadlines does without
		return
	}
	b.reading.Lock()
	defer b.reading.Unlock()
	_ = b.control.SetReadDeadline(time.Now().Add(rest))
}

// Read is io.Reader's.
func (b *body) Read(p []byte) (int, error) {
	b.reading.Lock()
	defer b.reading.Unlock()
	if b.patience > 0 && !b.left.Load() {
		_ = b.control.SetReadDeadline(time.Now().Add(b.patience))
	}
	if b.left.Load() { // also if it was left a moment ago, and leave's deadline is gone
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := b.ReadCloser.Read(p)
	switch {
	case err == io.EOF:
		b.done()
	case err != nil && !errors.Is(err, http.ErrBodyReadAfterClose):
		b.failed.CompareAndSwap(nil, &bodyError{err})
	}
	return n, err
}

// A bodyError is the client's fault.
type bodyError struct{ err error }

func (e *bodyError) refusal() *Refusal {
	refused := &Refusal{
		Status: http.StatusBadRequest, Header: http.Header{"Connection": {"close"}}, Reason: "body", Err: e.err,
		Body: []byte("the body of the request broke off\n"),
	}
	if _, ok := errors.AsType[*http.MaxBytesError](e.err); ok {
		refused.Status, refused.Body = http.StatusRequestEntityTooLarge, []byte(e.err.Error()+"\n")
	} else if timedOut(e.err) {
		refused.Status, refused.Body = http.StatusRequestTimeout, []byte("the body of the request did not come in time\n")
	}
	return refused
}

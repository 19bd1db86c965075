package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"

	"bridgehead/internal/metrics"
	"bridgehead/internal/seldom"
	"bridgehead/policy"
	"bridgehead/ws"
)

// fullRetry is when a client that met a full or ending program may try again.
const fullRetry = 5 * time.Second

// clientClosedRequest is how logs know a client that left before it was answered; nginx has made it customary.
const clientClosedRequest = 499

// refusal finds the answer to an error on the way to a socket.
func refusal(err error) *Refusal {
	r := answerTo(err)
	if e, ok := errors.AsType[interface {
		error
		Cookie() *http.Cookie
	}](err); ok { // as of a client that is led back to its server no more
		r.Header = r.Header.Clone()
		if r.Header == nil {
			r.Header = make(http.Header)
		}
		r.Header.Add("Set-Cookie", e.Cookie().String())
	}
	return r
}

func answerTo(err error) *Refusal {
	if r, ok := errors.AsType[*Refusal](err); ok {
		return r
	}
	if h, ok := errors.AsType[*ws.HandshakeError](err); ok {
		return &Refusal{Status: h.Status, Header: h.Header, Body: []byte(h.Message + "\n"), Reason: "handshake", Err: err}
	}
	if r, ok := denied(err); ok {
		return r
	}
	if _, ok := errors.AsType[*policy.Barred](err); ok {
		return &Refusal{Status: http.StatusForbidden, Reason: "address", Err: err, Body: []byte("clients may not come here from this address\n")}
	}
	if e, ok := errors.AsType[*policy.Exceeded](err); ok {
		return &Refusal{
			Status: http.StatusTooManyRequests, Header: retryAfter(max(e.RetryAfter, time.Second)), Reason: limitReason(e), Err: err,
			Body: []byte("too many connections or attempts from this client\n"),
		}
	}
	if u, ok := errors.AsType[unavailableError](err); ok {
		return &Refusal{
			Status: http.StatusServiceUnavailable, Header: retryAfter(u.RetryAfter()), Reason: "no server", Err: err,
			Body: []byte("no server can take another socket now\n"),
		}
	}
	if errors.Is(err, context.Canceled) { // nothing else ends the context of a handshake: nobody reads this answer
		return &Refusal{Status: clientClosedRequest, Reason: "client gone", Err: err}
	}
	if timedOut(err) {
		return &Refusal{Status: http.StatusGatewayTimeout, Reason: "backend timeout", Err: err, Body: []byte("the backend did not answer in time\n")}
	}
	return &Refusal{Status: http.StatusBadGateway, Reason: "backend", Err: err, Body: []byte("the backend cannot be reached\n")}
}

// An unavailableError is that of a bridge whose servers can take nobody now.
type unavailableError interface {
	error
	RetryAfter() time.Duration
}

func forbidden(err error) *Refusal {
	return &Refusal{Status: http.StatusForbidden, Reason: "origin", Err: err, Body: []byte("this page may not open a socket here\n")}
}

// shortages say for the log why there is no room.
var shortages = map[string]string{
	"capacity": "every place is taken; to have more, raise max_connections, the route's or the program's",
	"draining": "the program is ending",
}

func unavailable(reason string) *Refusal {
	return &Refusal{
		Status: http.StatusServiceUnavailable, Header: retryAfter(fullRetry), Reason: reason,
		Err: fmt.Errorf("no room: %s", shortages[reason]), Body: []byte("no room for another socket now\n"),
	}
}

// retryAfter rounds up to the whole seconds that the header speaks in (RFC 9110, section 10.2.3).
func retryAfter(d time.Duration) http.Header {
	return http.Header{"Retry-After": {strconv.Itoa(int(math.Ceil(d.Seconds())))}}
}

func timedOut(err error) bool {
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		return true
	}
	return errors.Is(err, context.DeadlineExceeded)
}

// refuse answers a handshake that gets no socket, counts it, and logs why.
func (p *Proxy) refuse(w http.ResponseWriter, t *terms, h *Handshake, err error, began time.Time) {
	refused := refusal(err)
	p.Metrics.Refused(refused.Reason)
	p.Metrics.Handshake(refused.outcome(), time.Since(began))
	if c, ok := t.farewell(h.Request, refused); ok && p.Farewell.Acquire() {
		defer p.Farewell.Release()
		p.Metrics.Dismissed(int(c.Code))
		p.tell(h.Log, refused, "code", int(c.Code))
		p.dismiss(w, t, h, refused, c)
		return
	}
	p.tell(h.Log, refused)
	refused.end(w, h.Request)
}

// end is the answer of the status. The connection ends with it: what the client sent behind its handshake must not be read as another
// request.
func (r *Refusal) end(w http.ResponseWriter, asked *http.Request) {
	if ws.IsAttempt(asked) && !slices.Contains(r.Header["Connection"], "close") { // a 426 says so itself, beside its Upgrade
		w.Header().Set("Connection", "close")
	}
	r.write(w)
}

func (r *Refusal) write(w http.ResponseWriter) {
	h := w.Header()
	for name, values := range r.Header {
		h[name] = append(h[name], values...)
	}
	if h.Get("Content-Type") == "" {
		h.Set("Content-Type", "text/plain; charset=utf-8")
	}
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(r.Status)
	w.Write(r.Body)
}

// tell logs a refusal. The first of its sort in an interval is heard, and the others are there for whoever debugs.
func (p *Proxy) tell(log *slog.Logger, refused *Refusal, more ...any) {
	if page, ok := errors.AsType[*policy.Forbidden](refused); ok {
		page.Route = p.Route
	}
	args := append([]any{"status", refused.Status, "reason", refused.Reason, "error", refused.Error()}, more...)
	if refused.Status == clientClosedRequest { // nobody is there to mend it
		log.Debug("refused", args...)
		return
	}
	p.Mends.Log(log, refused.level(), seldom.Event{Kind: p.Route + " " + refused.kind(), Detail: refused.sort()}, "refused", args...)
}

// sort tells a refusal from others with its reason, such as by the origin or the backend. An error whose text differs each time,
// as by a port, has a Key.
func (r *Refusal) sort() string {
	type keyed interface {
		error
		Key() string
	}
	if e, ok := errors.AsType[keyed](r); ok {
		return e.Key()
	}
	return r.Error()
}

// outcome tells a client that was not let in from a backend, or a program, that could not take it.
func (r *Refusal) outcome() string {
	switch r.Status {
	case http.StatusInternalServerError, http.StatusBadGateway, http.StatusGatewayTimeout:
		return metrics.Failed
	}
	return metrics.Refused
}

// level is how loud a refusal is when it is heard: faults of ours and of backends are warnings; the others are a client's fault,
// or the configuration's.
func (r *Refusal) level() slog.Level {
	if r.Status >= http.StatusInternalServerError && r.Status != http.StatusNotImplemented {
		return slog.LevelWarn
	}
	return slog.LevelInfo
}

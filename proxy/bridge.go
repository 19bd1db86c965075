// Package proxy carries one client from its handshake to its close: the policies decide, a bridge opens what stands behind the
// route, the client is upgraded and registered, and when it ends everything it held is given back and one line is logged.
package proxy

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"

	"bridgehead/internal/metrics"
	"bridgehead/policy"
	"bridgehead/policy/auth"
	"bridgehead/ws"
)

// A Bridge opens what stands behind a route. It serves many clients at once.
type Bridge interface {
	// Open runs before the client is upgraded, so that a dead backend is a 502 and not a 101 followed by a close. It fills
	// h.Reply. ctx bounds Open alone. Its error may be a *Refusal; any other is answered 504 if it is a timeout, else 502.
	Open(ctx context.Context, h *Handshake) (Session, error)

	// Plan tells where Open would lead the client, without asking a backend. Its error may be a *Refusal, as that of Open.
	Plan(h *Handshake) (Plan, error)
}

// A Beside is a Bridge whose servers may also take the requests of a route that ask for no socket.
type Beside interface {
	Requests() Requests // nil: they do not
}

// Requests are what a Bridge does with requests that ask for no socket.
type Requests interface {
	// Serve passes on h.Request and its answer. Its error means that nothing was written, and is answered as that of Open.
	Serve(w http.ResponseWriter, h *Handshake) error

	// Plan tells where Serve would lead the request.
	Plan(h *Handshake) (Plan, error)

	// CORS tells whether the route's origins decide which pages may read the answers, and not the servers' headers.
	CORS() bool
}

// A Session is one client's way through a bridge.
type Session interface {
	// Start begins the traffic and returns. It is called once, after the upgrade.
	Start(c *Client)

	// Close ends the traffic on both sides and returns when they are closed. It is called exactly once for every Session that
	// Open returned, started or not, on a goroutine of its own.
	Close(cause ws.Cause)
}

// A Reporter is a Session that has something to tell its backend when the socket is closed. Report is called once after Close; by
// then the client's place is free and its end is logged, so it may take its time, but the program's end waits for it.
type Reporter interface{ Report(cause ws.Cause) }

// A Handshake is a client's request for a socket, as a bridge sees it.
type Handshake struct {
	// Facts are what is known of the client. Facts.Request is valid until Open returns, and holds no token. Of what proxies say in its
	// headers there is nothing left but what is believed.
	policy.Facts

	Offer    ws.Offer
	Identity *auth.Identity // who the client is; nil if the route asks nobody
	Reply    Reply

	Log     *slog.Logger // carries route, connection and client
	Metrics *metrics.Route
}

// A Reply is what a bridge tells the client, and what it learned about it.
type Reply struct {
	Header      http.Header // further headers of the 101
	Subprotocol string      // one of those offered, or none
	Extensions  string      // permessage-deflate as negotiated, or none
	User        string      // who the client is, if the backend says so
	State       json.RawMessage
	Push        bool // whether others than the bridge may send to this client
}

func (r *Reply) answer() ws.Answer {
	return ws.Answer{Subprotocol: r.Subprotocol, Extensions: r.Extensions, Header: r.Header}
}

// SetCookie adds a cookie to the 101; nil is none.
func (r *Reply) SetCookie(c *http.Cookie) {
	if c == nil {
		return
	}
	if r.Header == nil {
		r.Header = make(http.Header)
	}
	r.Header.Add("Set-Cookie", c.String())
}

// A Refusal answers a handshake with something else than a socket.
type Refusal struct {
	Status int
	Header http.Header
	Body   []byte
	Reason string // one word for the metrics
	Err    error  // for the log
}

func (r *Refusal) Error() string {
	if r.Err != nil {
		return r.Err.Error()
	}
	return http.StatusText(r.Status)
}

func (r *Refusal) Unwrap() error { return r.Err }

package proxy

import (
	"log/slog"
	"net/http"
	"time"

	"bridgehead/internal/seldom"
	"bridgehead/policy"
	"bridgehead/policy/auth"
)

// A Gate stands before a handler that serves no sockets, and lets in whom the route's authenticators let in. It is an http.Handler.
type Gate struct {
	Route   string
	Auth    *auth.Checker
	Limits  *policy.Limiter // of which those rules count that punish failures; nil: none
	Trusted policy.Networks
	Mends   *seldom.Log
	Log     *slog.Logger
	Next    http.Handler

	origins *policy.Origins
}

// NewGate makes a Gate ready. The options have been validated.
func NewGate(g Gate, o Options, hasHost bool) (*Gate, error) {
	var err error
	g.origins, err = policy.NewOrigins(o.Origins, o.RequireOrigin, hasHost)
	return &g, err
}

// ServeHTTP asks who sends the request.
func (g *Gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f, _, err := g.admit(r)
	before := *f
	before.Request = r // with its tokens, as rules have seen it
	if err = judge(g.Limits, &before, err); err == nil {
		w.Header().Add("Vary", "Authorization, Cookie") // what is cached is for this client
		g.Next.ServeHTTP(w, f.Request)
		return
	}
	refused := refusal(err)
	log := g.Log.With("route", g.Route, "client", f.Client.String())
	event := seldom.Event{Kind: g.Route + " " + refused.kind(), Detail: refused.sort()}
	g.Mends.Log(log, refused.level(), event, "refused", "status", refused.Status, "reason", refused.Reason, "error", refused.Error())
	refused.write(w)
}

// admit finds out who sends a request. What is then known of it has the request without tokens.
func (g *Gate) admit(r *http.Request) (*policy.Facts, *auth.Identity, error) {
	addr, secure := g.Trusted.Client(r)
	f := &policy.Facts{Request: r, Client: addr, TLS: secure}
	if err := g.Limits.Spare(f, time.Now()); err != nil {
		return f, nil, err
	}
	id, err := g.Auth.Admit(r.Context(), f, vouch(g.origins, r))
	return f, id, err
}

// Present writes a token into a request that is to be explained, as [Proxy.Present] does.
func (g *Gate) Present(r *http.Request, token string) bool { return present(g.Auth, r, token) }

// Explain tells what the gate makes of a request.
func (g *Gate) Explain(r *http.Request) []Verdict {
	f, id, err := g.admit(r)
	before := *f
	before.Request = r // with its tokens, as rules see it
	return append(explainFailures(g.Limits, g.Auth, &before), known(g.Auth, id, err))
}

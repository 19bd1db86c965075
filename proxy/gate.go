package proxy

import (
	"log/slog"
	"net/http"
	"time"

	"bridgehead/internal/metrics"
	"bridgehead/internal/seldom"
	"bridgehead/policy"
	"bridgehead/policy/auth"
)

// A Gate stands before a handler that serves no sockets, and lets in whom the route's addresses and authenticators let in. It is an
// http.Handler.
type Gate struct {
	Route     string
	Proxies   policy.Proxies
	Addresses *policy.AddressList // nil: clients may come from everywhere
	Auth      *auth.Checker       // nil: everybody may come in
	Limits    *policy.Limiter     // of which those rules count that punish failures; nil: none
	Metrics   *metrics.Route
	Mends     *seldom.Log
	Log       *slog.Logger
	Next      http.Handler

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
	f := g.meet(r)
	before := *f // with its tokens, as rules see it
	_, err := g.admit(f)
	if err = judge(g.Limits, &before, err); err == nil {
		if g.Auth != nil {
			w.Header().Add("Vary", "Authorization, Cookie") // what is cached is for this client
		}
		g.Next.ServeHTTP(w, f.Request)
		return
	}
	refused := refusal(err)
	g.Metrics.Refused(refused.Reason)
	event := seldom.Event{Kind: g.Route + " " + refused.kind(), Detail: refused.sort()}
	g.Mends.Log(g.log(f), refused.level(), event, "refused", "status", refused.Status, "reason", refused.Reason, "error", refused.Error())
	refused.write(w)
}

func (g *Gate) log(f *policy.Facts) *slog.Logger {
	return g.Log.With("route", g.Route, "client", f.Client.String())
}

// meet finds out where a request comes from.
func (g *Gate) meet(r *http.Request) *policy.Facts {
	r, from := g.Proxies.Meet(r)
	f := &policy.Facts{Request: r, Client: from.Client, TLS: from.TLS, Chains: chainsOf(r)}
	if from.Doubt != "" {
		doubt(g.Mends, g.log(f), g.Route, &from)
	}
	return f
}

// admit finds out who sends a request. What is then known of it has the request without tokens.
func (g *Gate) admit(f *policy.Facts) (*auth.Identity, error) {
	if err := g.Addresses.Check(f); err != nil {
		return nil, err
	}
	if err := g.Limits.Spare(f, time.Now()); err != nil {
		return nil, err
	}
	return g.ask(f)
}

func (g *Gate) ask(f *policy.Facts) (*auth.Identity, error) {
	return g.Auth.Admit(f.Request.Context(), f, vouch(g.origins, f.Request))
}

// Present writes a token into a request that is to be explained, as [Proxy.Present] does.
func (g *Gate) Present(r *http.Request, token string) bool { return present(g.Auth, r, token) }

// Explain tells what the gate makes of a request.
func (g *Gate) Explain(r *http.Request) []Verdict {
	f := g.meet(r)
	verdicts := explainAddress(g.Addresses, f)
	if g.Auth == nil {
		return verdicts
	}
	verdicts = append(verdicts, explainFailures(g.Limits, g.Auth, f)...)
	id, err := g.ask(f)
	return append(verdicts, known(g.Auth, id, err))
}

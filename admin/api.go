package admin

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"

	"bridgehead/hub"
	"bridgehead/internal/metrics"
)

// ErrNotNow is what a call meets that the program cannot do in its present state.
var ErrNotNow = errors.New("not now")

// Config is what an API works on.
type Config struct {
	Hub         *hub.Hub
	Metrics     *metrics.Set
	Log         *slog.Logger
	AdminTokens []Token                                 // who may use the listener for operators; none: clients on this machine
	PushTokens  []Token                                 // who may use the listener for applications; none: clients on this machine
	Reload      func(dryRun bool) (diff any, err error) // reads the configuration again, or tells what that would change
	Upstreams   func() any                              // what is known of the servers behind the routes
	// Certificates is what is known of the certificates.
	Certificates func() any
	// ChangeCertificate renews the certificate of a subject, or gets the first; with a reason it revokes and replaces it. The error
	// may be an ErrNoCertificate.
	ChangeCertificate func(ctx context.Context, subject, reason string) error
	Lacking           func() []string // hosts without a certificate that clients take, and why; they do not make the program unready
	Ready             func() error    // why no sockets are taken, such as a drain; nil, or an answer of nil, is ready
	Version           string          // of the program
}

// An API answers operators and applications. Its handlers may be used at once.
//
// A call takes as long as its client takes to send the body and, if it waits for its messages to be written, up to
// [MaxWait] more: the server's timeouts must allow for that, and bound the rest.
type API struct{ Config }

// New gives the API of c.
func New(c Config) *API { return &API{Config: c} }

// Admin is the handler of the listener for operators: every call.
func (a *API) Admin() http.Handler {
	return newSite(append(a.operatorCalls(), a.applicationCalls()...), newGuard(a.AdminTokens), a.Log)
}

// Push is the handler of the listener for applications: the calls that send to sockets, list and end them.
func (a *API) Push() http.Handler {
	return newSite(a.applicationCalls(), newGuard(a.PushTokens), a.Log)
}

func (a *API) operatorCalls() []call {
	return []call{
		{"GET", "/{$}", roleRead, "this list", a.index},
		{"GET", "/healthz", anybody, "200 while the program runs", a.health},
		{"GET", "/readyz", anybody, "200, or 503 with the reason why no sockets are taken", a.ready},
		{"GET", "/metrics", roleRead, "Prometheus metrics", a.metrics},
		{"GET", "/v1/upstreams", roleRead, "the servers behind the routes, and how they are", a.upstreams},
		{"GET", "/v1/certificates", roleRead, "the certificates: who signed them, when they end and are renewed, what failed", a.certificates},
		{"POST", "/v1/certificates/{subject}/renew", roleAdmin, "get another in the place of an automatic one, or try again to get the first", a.renew},
		{"POST", "/v1/certificates/{subject}/revoke", roleAdmin, "have an automatic one declared invalid, and get another: ?reason=", a.revoke},
		{"POST", "/v1/reload", roleAdmin, "read the configuration again: ?dry_run=true tells what would change", a.reload},
	}
}

func (a *API) applicationCalls() []call {
	return []call{
		{"POST", "/v1/send", rolePush, "send a message to a socket, or to all of a route", a.send},
		{"GET", "/v1/connections", roleRead, "the open sockets: ?route=, user=, limit=, cursor=", a.list},
		{"POST", "/v1/connections/close", roleClose, "end the sockets of a user, subject, jti, route or address", a.endAll},
		{"GET", "/v1/connections/{id}", roleRead, "one socket", a.show},
		{"DELETE", "/v1/connections/{id}", roleClose, "end a socket: ?code=, reason=", a.end},
	}
}

func (a *API) index(w http.ResponseWriter, _ *http.Request, _ *caller) error {
	plain(w, http.StatusOK, "bridgehead "+a.Version+"\n\n"+listing(append(a.operatorCalls(), a.applicationCalls()...)))
	return nil
}

func (a *API) health(w http.ResponseWriter, _ *http.Request, _ *caller) error {
	plain(w, http.StatusOK, "ok\n")
	return nil
}

func (a *API) ready(w http.ResponseWriter, _ *http.Request, _ *caller) error {
	status, text := http.StatusOK, "ready"
	if a.Ready != nil {
		if reason := a.Ready(); reason != nil {
			status, text = http.StatusServiceUnavailable, "not ready: "+reason.Error()
		}
	}
	if a.Lacking != nil { // one host without a certificate must not take the others out of service, nor hide us from its authority
		text = strings.Join(append([]string{text}, a.Lacking()...), "\n")
	}
	plain(w, status, text+"\n")
	return nil
}

func (a *API) metrics(w http.ResponseWriter, r *http.Request, _ *caller) error {
	a.Metrics.Handler().ServeHTTP(w, r)
	return nil
}

func (a *API) upstreams(w http.ResponseWriter, _ *http.Request, _ *caller) error {
	return answer(w, http.StatusOK, map[string]any{"servers": a.Upstreams()})
}

// reload answers with what has changed, or would change. A configuration that cannot be used is 422; the one before goes on.
func (a *API) reload(w http.ResponseWriter, r *http.Request, _ *caller) error {
	query, err := readQuery(r, "dry_run")
	if err != nil {
		return err
	}
	dryRun := query.Get("dry_run")
	if query.Has("dry_run") && dryRun != "true" && dryRun != "false" {
		return refuse(http.StatusBadRequest, "dry_run is %q: write true or false", dryRun)
	}
	diff, err := a.Reload(dryRun == "true")
	switch {
	case errors.Is(err, ErrNotNow):
		return refuse(http.StatusServiceUnavailable, "%v", err)
	case err != nil:
		return refuse(http.StatusUnprocessableEntity, "%v", err)
	}
	return answer(w, http.StatusOK, diff)
}

func plain(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	w.Write([]byte(text))
}

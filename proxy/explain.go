package proxy

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"bridgehead/policy"
	"bridgehead/policy/auth"
	"bridgehead/ws"
)

// A Plan is what a bridge would do for a client if its backend agrees.
type Plan struct {
	To          []string // the servers as this client would reach them
	Choice      string   // how one of several is chosen
	Notes       []string // on how they are spoken to
	Subprotocol string   // what is certainly chosen
	Chooses     bool     // the subprotocol is chosen by the bridge, not by its backend
}

// A Verdict is the answer to one of the questions that are asked of a handshake.
type Verdict struct {
	Subject string         // handshake, address, origin, limit, auth, capacity or backend
	Text    string         // what is so, or what is wrong and how to mend it
	Refusal *Refusal       // how the client is answered; nil: it passes
	Close   *ws.CloseFrame // what tells the client instead of the refusal's status; nil: that does
	Unknown bool           // that cannot be told without asking others
	Plan    *Plan          // of the backend
}

// unborn stands in explanations for the id of a connection.
const unborn = "c_explained"

// Explain asks of a request whatever ServeHTTP would ask, in its order, and goes on after a no. It counts nothing, asks no backend,
// and takes the client for the only one.
func (p *Proxy) Explain(r *http.Request) []Verdict {
	t := p.terms.Load()
	if rs := t.requests(r); rs != nil {
		return p.explainRequest(t, rs, r)
	}
	h, err := p.handshake(t, r)
	h.ConnID = unborn
	verdicts := []Verdict{verdict("handshake", "a WebSocket's", err)}
	verdicts = append(verdicts, explainAddress(t.Addresses, &h.Facts)...)
	verdicts = append(verdicts, p.explainOrigin(t, h.Request))
	verdicts = append(verdicts, t.explainLimits(h, false)...)
	verdicts = append(verdicts, t.explainAuth(h, t.origins.Vouch))
	verdicts = append(verdicts, t.explainLimits(h, true)...)
	verdicts = append(verdicts, p.explainCapacity(), t.explainBackend(h))
	for i := range verdicts {
		t.explainFarewell(r, &verdicts[i])
	}
	return verdicts
}

// explainFarewell tells whether it is a Close that tells of a refusal.
func (t *terms) explainFarewell(asked *http.Request, v *Verdict) {
	if v.Refusal == nil {
		return
	}
	if c, ok := t.farewell(asked, v.Refusal); ok {
		v.Close = &c
	}
}

// Present writes a token into a request that is to be explained, as a client would. It is false if the route asks for none.
func (p *Proxy) Present(r *http.Request, token string) bool {
	return present(p.terms.Load().Auth, r, token)
}

func present(c *auth.Checker, r *http.Request, token string) bool {
	f := policy.Facts{Request: r}
	ok := c.Put(&f, token)
	if len(f.Subprotocols) > 0 {
		r.Header["Sec-Websocket-Protocol"] = append([]string{strings.Join(f.Subprotocols, ", ")}, r.Header["Sec-Websocket-Protocol"]...)
	}
	return ok
}

// Secrets are the names of the query parameters that nobody is to see.
func (p *Proxy) Secrets() []string { return p.terms.Load().Auth.Secrets() }

// explainAuth finds out who the client is. From then on the handshake has no tokens, also if it is not let in.
func (t *terms) explainAuth(h *Handshake, vouch func(*http.Request) error) Verdict {
	err := t.authenticate(h.Request.Context(), h, vouch)
	if h.Identity == nil {
		t.Auth.Strip(&h.Facts)
		h.Offer.Subprotocols = h.Subprotocols
	}
	return known(t.Auth, h.Identity, err)
}

// known tells what the authenticators of a route make of a client.
func known(asked *auth.Checker, id *auth.Identity, err error) Verdict {
	if unasked, ok := errors.AsType[*auth.Unasked](err); ok {
		return Verdict{Subject: "auth", Text: id.Proof + "; " + unasked.Error(), Unknown: true}
	}
	if asked == nil {
		return Verdict{Subject: "auth", Text: "none: the route asks nobody who it is"}
	}
	if err == nil {
		return Verdict{Subject: "auth", Text: id.Proof}
	}
	return verdict("auth", "", err)
}

// verdict is yes, for a reason, or a refusal.
func verdict(subject, yes string, err error) Verdict {
	if err == nil {
		return Verdict{Subject: subject, Text: yes}
	}
	refused := refusal(err)
	return Verdict{Subject: subject, Text: refused.Error(), Refusal: refused}
}

func (p *Proxy) explainOrigin(t *terms, r *http.Request) Verdict {
	reason, err := t.origins.Reason(r)
	if err != nil {
		return p.noEntry(forbidden(err))
	}
	return Verdict{Subject: "origin", Text: reason}
}

// noEntry tells of a refused page where to list its origin.
func (p *Proxy) noEntry(refused *Refusal) Verdict {
	if page, ok := errors.AsType[*policy.Forbidden](refused); ok {
		page.Route = p.Route
	}
	return verdict("origin", "", refused)
}

// explainRequest asks of a request for no socket whatever serveRequest would ask.
func (p *Proxy) explainRequest(t *terms, rs Requests, r *http.Request) []Verdict {
	h := p.meet(t, r)
	h.ConnID = unborn
	page := Verdict{Subject: "origin", Text: "no Origin header, as in requests that only read"}
	if err := t.checkPage(h.Request); err != nil {
		page = p.noEntry(noReading(err))
	} else if r.Header["Origin"] != nil {
		page = p.explainOrigin(t, h.Request)
	}
	verdicts := []Verdict{{Subject: "handshake", Text: "none: a request beside the sockets, to the same servers"}}
	verdicts = append(verdicts, explainAddress(t.Addresses, &h.Facts)...)
	verdicts = append(verdicts, page)
	verdicts = append(verdicts, explainFailures(t.limiter, t.Auth, &h.Facts)...)
	return append(verdicts, t.explainAuth(h, t.vouch), planned(rs.Plan(h)))
}

// explainAddress tells which list and entry decides; nothing, if there is no list.
func explainAddress(l *policy.AddressList, f *policy.Facts) []Verdict {
	if l == nil {
		return nil
	}
	reason, err := l.Reason(f)
	return []Verdict{verdict("address", reason, err)}
}

// explainLimits has one verdict per rule: the first client of a key is always let in. Late rules are those by who the client is.
func (t *terms) explainLimits(h *Handshake, late bool) (verdicts []Verdict) {
	counts := t.limiter.Counts(&h.Facts)
	for _, c := range counts {
		if c.Late != late {
			continue
		}
		verdicts = append(verdicts, Verdict{Subject: "limit", Text: countText(c, t.Auth)})
	}
	if len(counts) == 0 && !late {
		return []Verdict{{Subject: "limit", Text: "none"}}
	}
	return verdicts
}

// countText says what a rule makes of a client.
func countText(c policy.Count, asked *auth.Checker) string {
	if c.Why != "" {
		return notCounted(c)
	}
	var most []string
	if c.Rule.Connections > 0 {
		most = append(most, fmt.Sprintf("%d open", c.Rule.Connections))
	}
	if !c.Rule.ConnectRate.IsOff() {
		most = append(most, c.Rule.ConnectRate.String()+" handshakes")
	}
	if !c.Rule.Failures.IsOff() {
		most = append(most, failuresText(&c.Rule))
	}
	var traffic []string
	if !c.Rule.Messages.IsOff() {
		traffic = append(traffic, c.Rule.Messages.String()+" messages")
	}
	if !c.Rule.Bytes.IsOff() {
		traffic = append(traffic, c.Rule.Bytes.String()+" bytes")
	}
	if !c.Rule.Frames.IsOff() {
		traffic = append(traffic, c.Rule.Frames.String()+" frames")
	}
	if len(traffic) > 0 {
		most = append(most, strings.Join(traffic, " and ")+" ("+c.Rule.OnExceed+")")
	}
	if c.Rule.Fragments > 0 {
		most = append(most, fmt.Sprintf("%d fragments a message", c.Rule.Fragments))
	}
	if c.Rule.MessageSize > 0 {
		most = append(most, c.Rule.MessageSize.String()+" a message")
	}
	return fmt.Sprintf("per %s: at most %s", keyText(c, asked), strings.Join(most, ", "))
}

func (p *Proxy) explainCapacity() Verdict {
	return Verdict{Subject: "capacity", Text: fmt.Sprintf("%s on the route, %s in all", atMost(p.room.Max()), atMost(p.Capacity.Max()))}
}

func atMost(n int) string {
	if n == 0 {
		return "no limit"
	}
	return fmt.Sprintf("at most %d open", n)
}

func (t *terms) explainBackend(h *Handshake) Verdict { return planned(t.Bridge.Plan(h)) }

func planned(plan Plan, err error) Verdict {
	if err != nil {
		return verdict("backend", "", err)
	}
	text := strings.Join(plan.To, ", or ")
	if len(plan.To) > 1 {
		text += " (" + plan.Choice + ")"
	}
	return Verdict{Subject: "backend", Text: text, Plan: &plan}
}

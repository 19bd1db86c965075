package proxy

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"bridgehead/policy"
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
	Subject string   // handshake, origin, limit, capacity or backend
	Text    string   // what is so, or what is wrong and how to mend it
	Refusal *Refusal // how the client is answered; nil: it passes
	Plan    *Plan    // of the backend
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
	verdicts := []Verdict{verdict("handshake", "a WebSocket's", err), p.explainOrigin(t, r)}
	verdicts = append(verdicts, t.explainLimits(h)...)
	verdicts = append(verdicts, p.explainCapacity())
	return append(verdicts, t.explainBackend(h))
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
	if err := t.checkPage(r); err != nil {
		page = p.noEntry(noReading(err))
	} else if r.Header["Origin"] != nil {
		page = p.explainOrigin(t, r)
	}
	return []Verdict{
		{Subject: "handshake", Text: "none: a request beside the sockets, to the same servers"}, page, planned(rs.Plan(h)),
	}
}

// explainLimits has one verdict per rule: the first client of a key is always let in.
func (t *terms) explainLimits(h *Handshake) (verdicts []Verdict) {
	for _, c := range t.limiter.Counts(&h.Facts) {
		verdicts = append(verdicts, Verdict{Subject: "limit", Text: countText(c)})
	}
	if len(verdicts) == 0 {
		return []Verdict{{Subject: "limit", Text: "none"}}
	}
	return verdicts
}

// countText says what a rule makes of a client.
func countText(c policy.Count) string {
	if c.Why != "" {
		return fmt.Sprintf("per %s: not counted: %s", c.Rule.Per, c.Why)
	}
	var most []string
	if c.Rule.Connections > 0 {
		most = append(most, fmt.Sprintf("%d open", c.Rule.Connections))
	}
	if !c.Rule.ConnectRate.IsOff() {
		most = append(most, c.Rule.ConnectRate.String()+" handshakes")
	}
	var traffic []string
	if !c.Rule.Messages.IsOff() {
		traffic = append(traffic, c.Rule.Messages.String()+" messages")
	}
	if !c.Rule.Bytes.IsOff() {
		traffic = append(traffic, c.Rule.Bytes.String()+" bytes")
	}
	if len(traffic) > 0 {
		most = append(most, strings.Join(traffic, " and ")+" ("+c.Rule.OnExceed+")")
	}
	return fmt.Sprintf("per %s = %s: at most %s", c.Rule.Per, c.Key, strings.Join(most, ", "))
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

package admin

import (
	"net/http"
	"net/netip"
	"strconv"

	"bridgehead/hub"
	"bridgehead/ws"
)

// How many connections a page of the list holds.
const (
	defaultPage = 100
	maxPage     = 1000
)

// maxReason is the longest reason of a close, in bytes (RFC 6455, section 5.5: a control frame holds 125, two are the code's).
const maxReason = ws.MaxControlPayload - 2

// A page is a part of the list of connections.
type page struct {
	Connections []hub.Info `json:"connections"`
	Next        string     `json:"next,omitempty"` // the cursor of the next page; absent on the last one
}

// list serves GET /v1/connections: those that are open, in the order of their ids.
func (a *API) list(w http.ResponseWriter, r *http.Request, _ *caller) error {
	query, err := readQuery(r, "route", "user", "limit", "cursor")
	if err != nil {
		return err
	}
	limit := defaultPage
	if text := query.Get("limit"); text != "" {
		limit, err = strconv.Atoi(text)
		if err != nil || limit < 1 || limit > maxPage {
			return refuse(http.StatusBadRequest, "limit %q: must be a number from 1 to %d", text, maxPage)
		}
	}
	return answer(w, http.StatusOK, a.page(query.Get("route"), query.Get("user"), query.Get("cursor"), limit))
}

// page lists up to limit connections with an id above the cursor; an empty route or user stands for all.
func (a *API) page(route, user, cursor string, limit int) page {
	p := page{Connections: []hub.Info{}}
	for _, c := range a.Hub.All() {
		if c.ID() <= cursor {
			continue
		}
		info := c.Info()
		if route != "" && info.Route != route || user != "" && info.User != user {
			continue
		}
		if len(p.Connections) == limit {
			p.Next = p.Connections[limit-1].ID
			break
		}
		p.Connections = append(p.Connections, info)
	}
	return p
}

// show serves GET /v1/connections/{id}.
func (a *API) show(w http.ResponseWriter, r *http.Request, _ *caller) error {
	if _, err := readQuery(r); err != nil {
		return err
	}
	c, err := a.find(r.PathValue("id"))
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, c.Info())
}

// end serves DELETE /v1/connections/{id}. It answers when the end has begun: the close handshake takes its time.
func (a *API) end(w http.ResponseWriter, r *http.Request, by *caller) error {
	cause, err := readCause(w, r)
	if err != nil {
		return err
	}
	c, err := a.find(r.PathValue("id"))
	if err != nil {
		return err
	}
	info := c.Info()
	c.End(cause)
	a.Log.Info("connection closed by API", "token", by.name, "conn", info.ID, "route", info.Route,
		"code", cause.Code, "reason", cause.Reason)
	return answer(w, http.StatusAccepted, info)
}

// A selection is whose sockets a call ends: all that is given has to be theirs.
type selection struct {
	user, subject, jti, route *string
	address                   netip.Prefix // the zero Prefix is everywhere
}

// selects tells whether a socket is one of them.
func (s *selection) selects(info hub.Info) bool {
	for _, m := range []struct {
		want *string
		have any
	}{{s.user, info.User}, {s.subject, info.Claims["sub"]}, {s.jti, info.Claims["jti"]}, {s.route, info.Route}} {
		if m.want != nil && m.have != *m.want {
			return false
		}
	}
	if !s.address.IsValid() {
		return true
	}
	addr, err := netip.ParseAddr(info.Client)
	return err == nil && s.address.Contains(addr.Unmap().WithZone(""))
}

// endAll serves POST /v1/connections/close. It answers when the ends have begun, with the number of sockets that were open. One whose
// handshake is under way ends as soon as it is open.
func (a *API) endAll(w http.ResponseWriter, r *http.Request, by *caller) error {
	if _, err := readQuery(r); err != nil {
		return err
	}
	body, err := readBody(w, r)
	if err != nil {
		return err
	}
	s, cause, err := readSelection(body)
	if err != nil {
		return err
	}
	ended := a.Hub.EndAll(s.selects, cause)
	a.Log.Info("connections closed by API", "token", by.name, "sockets", ended, "code", cause.Code, "reason", cause.Reason)
	return answer(w, http.StatusAccepted, map[string]int{"matched": ended})
}

// readSelection reads which sockets are meant, and what they are told. None means none: nobody ends all by a slip.
func readSelection(body []byte) (*selection, ws.Cause, error) {
	s := new(selection)
	var address, reason *string
	var code *int
	known := members{
		"user": &s.user, "subject": &s.subject, "jti": &s.jti, "route": &s.route, "address": &address, "code": &code, "reason": &reason,
	}
	if err := known.decode(body, "the body"); err != nil {
		return nil, ws.Cause{}, err
	}
	if address != nil {
		var err error
		if s.address, err = parseClients(*address); err != nil {
			return nil, ws.Cause{}, err
		}
	}
	if s.user == nil && s.subject == nil && s.jti == nil && s.route == nil && address == nil {
		return nil, ws.Cause{}, refuse(http.StatusBadRequest, "whose sockets? give one or more of user, subject, jti, route and address")
	}
	for name, text := range map[string]*string{"user": s.user, "subject": s.subject, "jti": s.jti, "route": s.route} {
		if text != nil && *text == "" { // those without a user are not one user's
			return nil, ws.Cause{}, refuse(http.StatusBadRequest, "the member %q is empty", name)
		}
	}
	cause, err := causeOf(code, reason)
	return s, cause, err
}

// parseClients reads an address or a CIDR.
func parseClients(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		addr = addr.Unmap().WithZone("")
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return prefix, refuse(http.StatusBadRequest, "address %q: write an IP address, or a CIDR such as 203.0.113.0/24", text)
	}
	if addr := prefix.Addr(); addr.Is4In6() && prefix.Bits() >= 96 {
		prefix = netip.PrefixFrom(addr.Unmap(), prefix.Bits()-96)
	}
	return prefix.Masked(), nil
}

func (a *API) find(id string) (hub.Conn, error) {
	c, ok := a.Hub.Get(id)
	if !ok {
		return nil, gone(id)
	}
	return c, nil
}

// gone is 410 rather than 404: an id is never given twice, so that nobody need ask for it again.
func gone(id string) error {
	return refuse(http.StatusGone, "connection %q is not open here: forget it", id)
}

// readCause gives the close code and reason that a call asks for: in its query or in its body.
func readCause(w http.ResponseWriter, r *http.Request) (ws.Cause, error) {
	query, err := readQuery(r, "code", "reason")
	if err != nil {
		return ws.Cause{}, err
	}
	if r.ContentLength == 0 {
		return causeFromQuery(query.Get("code"), query.Get("reason"))
	}
	if len(query) > 0 {
		return ws.Cause{}, refuse(http.StatusBadRequest, "give code and reason in the query or in the body, not in both")
	}
	body, err := readBody(w, r)
	if err != nil {
		return ws.Cause{}, err
	}
	return causeFromBody(body)
}

func causeFromQuery(code, reason string) (ws.Cause, error) {
	if code == "" {
		return kicked(int(ws.CodeNormal), reason)
	}
	number, err := strconv.Atoi(code)
	if err != nil {
		return ws.Cause{}, refuse(http.StatusBadRequest, "code %q: must be a number, such as %d", code, ws.CodeNormal)
	}
	return kicked(number, reason)
}

func causeFromBody(body []byte) (ws.Cause, error) {
	var code *int
	var reason *string
	if err := (members{"code": &code, "reason": &reason}).decode(body, "the body"); err != nil {
		return ws.Cause{}, err
	}
	return causeOf(code, reason)
}

// causeOf is the end that was asked for, with 1000 if no code was given.
func causeOf(code *int, reason *string) (ws.Cause, error) {
	number, text := int(ws.CodeNormal), ""
	if code != nil {
		number = *code
	}
	if reason != nil {
		text = *reason
	}
	return kicked(number, text)
}

func kicked(code int, reason string) (ws.Cause, error) {
	if code < 0 || code > 0xffff || !ws.Code(code).Sendable() {
		return ws.Cause{}, refuse(http.StatusBadRequest,
			"code %d may not stand in a close frame: use one of 1000-1003, 1007-1014 and 3000-4999", code)
	}
	if len(reason) > maxReason {
		return ws.Cause{}, refuse(http.StatusBadRequest,
			"the reason is %d bytes long: a close frame has room for %d", len(reason), maxReason)
	}
	return ws.Cause{Kind: ws.Kicked, Code: ws.Code(code), Reason: reason}, nil
}

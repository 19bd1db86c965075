package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"bridgehead/policy/auth"
	"bridgehead/proxy/pump"
	"bridgehead/ws"
)

// How a client learns that it gets no socket.
const (
	byStatus = "status" // of the answer, which no script in a browser can read
	byClose  = "close"  // of a socket that is opened for nothing else
)

// closeBase makes a close code of the client's faults among the statuses, in the range that is free for applications.
const closeBase = 4000

// courtesy is how long a client that is told by a Close may take to hear it and to answer.
const courtesy = 2 * time.Second

// closing is the Close that tells what the status of a refusal does, for scripts: 4000 and the status, if the client can do something
// about it, and 1013 if all it can do is to come back. It says no more than that, as a foreign page may read it. It is false for what
// only a status can tell: the request is no handshake, or nobody is there.
func (r *Refusal) closing() (c ws.CloseFrame, ok bool) {
	if _, malformed := errors.AsType[*ws.HandshakeError](r); malformed || r.Status == clientClosedRequest {
		return c, false
	}
	switch {
	case r.Status == http.StatusUnauthorized, r.Status < http.StatusBadRequest, r.Status == http.StatusBadRequest && r.isOfAuth():
		c = ws.CloseFrame{Code: closeBase + http.StatusUnauthorized, Reason: "authentication needed"} // and a redirect leads there
	case r.Status == http.StatusForbidden:
		c = ws.CloseFrame{Code: closeBase + http.StatusForbidden, Reason: "not allowed"}
	case r.Status == http.StatusTooManyRequests:
		c = ws.CloseFrame{Code: closeBase + http.StatusTooManyRequests, Reason: "too many connections" + r.retryText()}
	case r.Status < http.StatusInternalServerError:
		c = ws.CloseFrame{Code: closeBase + ws.Code(r.Status), Reason: cmp.Or(strings.ToLower(http.StatusText(r.Status)), "refused")}
	case r.Status == http.StatusInternalServerError:
		c = ws.CloseFrame{Code: ws.CodeInternalError, Reason: "internal error"}
	default:
		c = ws.CloseFrame{Code: ws.CodeTryAgainLater, Reason: "not available now" + r.retryText()}
	}
	return c, true
}

// isOfAuth tells that it was not clear who the client is, which a new login mends.
func (r *Refusal) isOfAuth() bool {
	_, ok := errors.AsType[*auth.Denied](r)
	return ok
}

// retryText says when to come back, if the refusal does. A date, as backends may write it, is not worth a clock.
func (r *Refusal) retryText() string {
	seconds, err := strconv.ParseUint(r.Header.Get("Retry-After"), 10, 32)
	if err != nil {
		return ""
	}
	return fmt.Sprintf(", retry in %d s", seconds)
}

// farewell is the Close that tells a refusal to whoever asked, as the route wants it. It is false if the status does.
func (t *terms) farewell(asked *http.Request, refused *Refusal) (ws.CloseFrame, bool) {
	if t.Options.Refuse != byClose || asked.Header["Authorization"] == nil && refused.asksBrowser() {
		return ws.CloseFrame{}, false
	}
	return refused.closing()
}

// browserSchemes are those that browsers answer by themselves, with what their user has once typed.
var browserSchemes = []string{"basic", "digest", "negotiate", "ntlm"}

// asksBrowser tells whether a browser may take the answer as a question, and come again with its own answer (RFC 9110, section 11.6.1).
func (r *Refusal) asksBrowser() bool {
	if r.Status != http.StatusUnauthorized {
		return false
	}
	for _, line := range r.Header["Www-Authenticate"] {
		for challenge := range strings.SplitSeq(line, ",") {
			scheme, _, _ := strings.Cut(strings.TrimSpace(challenge), " ")
			if slices.Contains(browserSchemes, strings.ToLower(scheme)) {
				return true
			}
		}
	}
	return false
}

// dismiss opens the socket of a refused handshake and closes it at once. It is no Client: no bridge, no limit and no list has it.
func (p *Proxy) dismiss(w http.ResponseWriter, t *terms, h *Handshake, refused *Refusal, c ws.CloseFrame) {
	answer := ws.Answer{Subprotocol: t.anySubprotocol(h), Header: http.Header{"Set-Cookie": refused.Header["Set-Cookie"]}}
	up, err := upgrade(w, h, answer, ws.AppendCloseFrame(nil, c.Code, c.Reason, false), after(courtesy))
	defer up.pass.Leave()
	if err != nil {
		h.Log.Debug("gone before it was told", "error", err)
		if up.conn != nil {
			up.conn.Close()
		}
		return
	}
	ctx, cancel := context.WithTimeout(cmp.Or(p.Cut, context.Background()), courtesy)
	defer cancel()
	pump.Dismiss(ctx, up.conn, up.early)
}

// anySubprotocol chooses one of those offered, since browsers fail a socket before its Close if none is: the marker before a token, or
// else the first, and never a token.
func (t *terms) anySubprotocol(h *Handshake) string {
	marker := t.Auth.Marker(&h.Facts)
	if h.Identity != nil { // the token is gone
		marker = h.Identity.Marker
	}
	if marker == "" && len(h.Subprotocols) > 0 {
		return h.Subprotocols[0]
	}
	return marker
}

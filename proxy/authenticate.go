package proxy

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"runtime/debug"
	"time"

	"bridgehead/policy/auth"
	"bridgehead/ws"
)

// authenticate finds out who the client is, if the route asks for it. vouch tells why its cookies do not count, if so. From then on
// the handshake has no tokens. A panic is this client's 500.
func (t *terms) authenticate(ctx context.Context, h *Handshake, vouch func(*http.Request) error) (err error) {
	if t.Auth == nil {
		return nil
	}
	defer func() {
		if v := recover(); v != nil {
			h.Log.Error("panic while authenticating", "panic", v, "stack", string(debug.Stack()))
			err = &Refusal{Status: http.StatusInternalServerError, Reason: "internal", Err: fmt.Errorf("panic: %v", v)}
		}
	}()
	h.Identity, err = t.Auth.Admit(ctx, &h.Facts, vouch(h.Request))
	h.Offer.Subprotocols = h.Subprotocols
	return err
}

// greet adds to a reply what the client's authentication has for it.
func (r *Reply) greet(id *auth.Identity) {
	if id == nil {
		return
	}
	if r.Subprotocol == "" { // browsers fail a socket that offers subprotocols of which none is chosen
		r.Subprotocol = id.Marker
	}
	for _, line := range id.Cookies {
		if r.Header == nil {
			r.Header = make(http.Header)
		}
		r.Header.Add("Set-Cookie", line)
	}
}

// denied is the refusal of a client that may not come in.
func denied(err error) (*Refusal, bool) {
	d, ok := errors.AsType[*auth.Denied](err)
	if !ok {
		return nil, false
	}
	return &Refusal{Status: d.Status, Header: d.Header, Body: d.Body, Reason: d.Reason, Err: err}, true
}

// A vigil ends a socket whose client may not stay.
type vigil struct {
	ctx    context.Context // of questions that are asked again
	stop   context.CancelFunc
	timers []*time.Timer
}

// keepVigil watches over a socket that is open. nil: there is nothing to watch.
func (c *Client) keepVigil(id *auth.Identity) *vigil {
	if id == nil || id.Expires.IsZero() && len(id.Rechecks) == 0 {
		return nil
	}
	v := new(vigil)
	v.ctx, v.stop = context.WithCancel(context.Background())
	if !id.Expires.IsZero() {
		cause := ws.Cause{Kind: ws.TokenExpired, Code: id.Code, Reason: "authentication expired"}
		v.timers = append(v.timers, time.AfterFunc(time.Until(id.Expires), func() { c.End(cause) }))
	}
	for _, r := range id.Rechecks {
		v.again(c, r)
	}
	return v
}

// again asks from time to time; not all sockets of one moment at once.
func (v *vigil) again(c *Client, r auth.Recheck) {
	pause := func() time.Duration { return r.Every - rand.N(r.Every/10+1) }
	var timer *time.Timer
	ready := make(chan struct{})
	timer = time.AfterFunc(pause(), func() {
		defer c.rescue("checking again")
		<-ready
		err := r.Ask(v.ctx)
		switch {
		case v.ctx.Err() != nil: // the socket has ended meanwhile
		case err != nil:
			c.End(ws.Cause{Kind: ws.Unauthorized, Code: r.Code, Reason: "authentication withdrawn", Err: err})
		default:
			timer.Reset(pause())
		}
	})
	close(ready)
	v.timers = append(v.timers, timer)
}

// end is for a socket that has ended.
func (v *vigil) end() {
	if v == nil {
		return
	}
	v.stop()
	for _, t := range v.timers {
		t.Stop()
	}
}

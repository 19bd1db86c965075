package auth

import (
	"cmp"
	"context"
	"net/http"
	"time"

	"bridgehead/policy"
	"bridgehead/ws"
)

// An Identity is who a client is, and for how long.
type Identity struct {
	User     string
	Claims   policy.Claims
	Told     policy.Claims // those that backends are told
	Expires  time.Time     // when an open socket is closed; zero: it is not
	Code     ws.Code       // that it is closed with
	Rechecks []Recheck     // what an open socket is asked from time to time

	Header  http.Header // that the upstream sees in place of the client's own; a name without values is the client's no more
	Cookies []string    // Set-Cookie lines for the client
	Marker  string      // of subprotocols, which is chosen if the backend chooses none; "" if there was none

	Proof string // how the client was known, for people
}

// A Recheck asks again whether a client may stay.
type Recheck struct {
	Every time.Duration
	Code  ws.Code // to close the socket with
	// Ask tells why the client may not stay; it is a [*Denied]. One that is [Denied.Undecided] says that nobody could tell.
	Ask func(context.Context) error
}

// Undecided tells whether nobody could judge the client.
func (d *Denied) Undecided() bool { return d.undecided() }

// join adds what another authenticator has found out. The first says who the client is.
func (id *Identity) join(other *Identity) {
	id.User = cmp.Or(id.User, other.User)
	id.Marker = cmp.Or(id.Marker, other.Marker)
	id.Claims, id.Told = merge(id.Claims, other.Claims), merge(id.Told, other.Told)
	if !other.Expires.IsZero() && (id.Expires.IsZero() || other.Expires.Before(id.Expires)) {
		id.Expires, id.Code = other.Expires, other.Code
	}
	id.Rechecks = append(id.Rechecks, other.Rechecks...)
	id.Cookies = append(id.Cookies, other.Cookies...)
	for name, values := range other.Header {
		if id.Header == nil {
			id.Header = make(http.Header)
		}
		id.Header[name] = values
	}
	id.Proof += "; " + other.Proof
}

// merge gives the members of both; those of the first win.
func merge(first, second policy.Claims) policy.Claims {
	if len(first) == 0 {
		return second
	}
	all := make(policy.Claims, len(first)+len(second))
	for _, c := range []policy.Claims{second, first} {
		for name, value := range c {
			all[name] = value
		}
	}
	return all
}

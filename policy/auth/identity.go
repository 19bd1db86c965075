package auth

import (
	"cmp"
	"context"
	"maps"
	"net/http"
	"slices"
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

	Header  http.Header // that the upstream sees in place of the client's own
	Cookies []string    // Set-Cookie lines for the client
	Marker  string      // of subprotocols, which is chosen if the backend chooses none; "" if there was none

	Proof string // how the client was known, for people
}

// A Recheck asks again whether a client may stay.
type Recheck struct {
	Every time.Duration
	Code  ws.Code // to close the socket with
	// Ask tells why the client may not stay, in a [*Denied]. It is called by one at a time.
	Ask func(context.Context) error
}

// join adds what another authenticator has found out. The first says who the client is.
func (id *Identity) join(other *Identity) {
	id.User = cmp.Or(id.User, other.User)
	id.Marker = cmp.Or(id.Marker, other.Marker)
	id.Claims, id.Told = merge(id.Claims, other.Claims), merge(id.Told, other.Told)
	if !other.Expires.IsZero() && (id.Expires.IsZero() || other.Expires.Before(id.Expires)) {
		id.Expires, id.Code = other.Expires, other.Code
	}
	id.Rechecks = slices.Concat(id.Rechecks, other.Rechecks)
	id.Cookies = slices.Concat(id.Cookies, other.Cookies)
	header := id.Header.Clone() // which may be that of a cache
	for name, values := range other.Header {
		if header == nil {
			header = make(http.Header)
		}
		header[name] = values
	}
	id.Header = header
	id.Proof += "; " + other.Proof
}

// merge gives the members of both; those of the first win.
func merge(first, second policy.Claims) policy.Claims {
	if len(first) == 0 {
		return second
	}
	all := make(policy.Claims, len(first)+len(second))
	for _, c := range []policy.Claims{second, first} {
		maps.Copy(all, c)
	}
	return all
}

package auth

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"bridgehead/policy"
)

// An authenticator is one way to find out who a client is. It is safe for use by many.
type authenticator interface {
	// check tells who sent a request; the error is a *Denied, or an *Unasked in explanations.
	check(ctx context.Context, a *ask) (*Identity, error)
	// places are where its tokens may stand, the best first.
	places() []place
	// headers are those that it speaks in to backends, so that no client may.
	headers() []string
	close()
}

// An ask is a request as authenticators see it.
type ask struct {
	*policy.Facts
	noCookies error // why its cookies do not count; nil: they do
}

// An Unasked is met in explanations alone: what the client says is all right as far as can be told without asking others.
type Unasked struct {
	text  string
	blank bool // nothing at all is known of the client
}

func (u *Unasked) Error() string { return u.text }

// A Checker is what one route asks of its clients. A nil Checker lets everybody in. It is safe for use by many.
type Checker struct {
	all     bool // every authenticator has to let the client in, not one of them
	ways    []*way
	demands []demand
}

// Checker makes ready what a route asks for.
func (s *Set) Checker(u Use, q Requirement) (*Checker, error) {
	if u.IsNone() {
		return nil, nil
	}
	c := &Checker{all: len(u.All) > 0}
	for _, name := range u.Names() {
		w := s.ways[name]
		if w == nil {
			return nil, fmt.Errorf("there is no authenticator %q", name)
		}
		c.ways = append(c.ways, w)
	}
	var err error
	c.demands, err = newDemands(q)
	return c, err
}

// Admit finds out who the client is and whether it may come in; noCookies tells why its cookies do not count, if so. When it may, f
// knows it from then on, and has in the place of the request a copy without tokens, for all that follows. The error is a [*Denied];
// in explanations it may be an [*Unasked], beside what is known so far.
func (c *Checker) Admit(ctx context.Context, f *policy.Facts, noCookies error) (*Identity, error) {
	if c == nil {
		return nil, nil
	}
	id, err := c.identify(ctx, &ask{f, noCookies})
	if id == nil {
		return nil, err
	}
	f.User, f.Claims, f.Told = id.User, id.Claims, id.Told
	unasked, ok := errors.AsType[*Unasked](err)
	blank := ok && unasked.blank
	for i := 0; i < len(c.demands) && !blank; i++ {
		if err := c.demands[i].meets(f); err != nil {
			return nil, deny(reasonForbidden, "%w", err)
		}
	}
	c.strip(f, id)
	return id, err
}

// Strip takes the tokens out of a handshake that is not admitted, and yet goes on in an explanation.
func (c *Checker) Strip(f *policy.Facts) {
	if c != nil {
		c.strip(f, new(Identity))
	}
}

// identify asks the authenticators.
func (c *Checker) identify(ctx context.Context, a *ask) (*Identity, error) {
	if c.all {
		return c.identifyAll(ctx, a)
	}
	var first error
	for _, w := range c.ways {
		id, err := w.check(ctx, a)
		if id != nil {
			return id, err
		}
		if denied, ok := errors.AsType[*Denied](err); ok && denied.Reason == reasonAmbiguous {
			return nil, err
		}
		if first == nil || worse(err, first) {
			first = err
		}
	}
	return nil, first
}

// worse tells whether of two refusals the second to come says more: what is wrong with a token, rather than that there is none.
func worse(err, than error) bool { return isMissing(than) && !isMissing(err) }

func isMissing(err error) bool {
	denied, ok := errors.AsType[*Denied](err)
	return ok && denied.Reason == reasonMissing
}

func (c *Checker) identifyAll(ctx context.Context, a *ask) (*Identity, error) {
	var all *Identity
	var unasked error
	for _, w := range c.ways {
		id, err := w.check(ctx, a)
		if id == nil {
			return nil, err
		}
		if err != nil {
			unasked = err
		}
		if all == nil {
			all = id
		} else {
			all.join(id)
		}
	}
	return all, unasked
}

// strip replaces the request of f by a copy without the tokens of the route's authenticators, in which the headers of these say what
// they have found out.
func (c *Checker) strip(f *policy.Facts, id *Identity) {
	trailer := f.Request.Trailer
	f.Request = f.Request.Clone(f.Request.Context())
	f.Request.Trailer = trailer // which net/http fills when the body ends
	f.Subprotocols = slices.Clone(f.Subprotocols)
	id.Marker = c.Marker(f)
	for _, w := range c.ways {
		if !w.options.ForwardToken {
			for _, p := range w.places() {
				p.strip(f)
			}
		}
		for _, name := range w.headers() {
			dropHeader(f.Request.Header, name)
			dropHeader(trailer, name)
			releaseHeader(f.Request.Header, name)
		}
	}
	maps.Copy(f.Request.Header, id.Header)
}

// Marker is that of a token among the subprotocols that are offered, "" if there is none.
func (c *Checker) Marker(f *policy.Facts) string {
	if c == nil {
		return ""
	}
	for _, w := range c.ways {
		for _, p := range w.places() {
			if p.kind == inSubprotocol && slices.Contains(f.Subprotocols, p.name) {
				return p.name
			}
		}
	}
	return ""
}

// releaseHeader takes a header out of those that the client's Connection header claims for its own connection: it would not reach the
// backend (RFC 9110, section 7.6.1).
func releaseHeader(h http.Header, name string) {
	for i, line := range h["Connection"] {
		var kept []string
		for token := range strings.SplitSeq(line, ",") {
			if fold(strings.TrimSpace(token)) != fold(name) {
				kept = append(kept, token)
			}
		}
		h["Connection"][i] = strings.Join(kept, ",")
	}
}

// Secret tells whether a value of a handshake is where a token may stand, so that nobody is to see it.
func (c *Checker) Secret(v policy.Value) bool {
	if c == nil {
		return false
	}
	for _, w := range c.ways {
		for _, p := range w.places() {
			if strings.EqualFold(p.String(), v.String()) || strings.EqualFold(p.header(), v.String()) {
				return true
			}
		}
	}
	return false
}

// Secrets are the names of the query parameters in which tokens may stand.
func (c *Checker) Secrets() (names []string) {
	if c == nil {
		return nil
	}
	for _, w := range c.ways {
		for _, p := range w.places() {
			if p.kind == inQuery {
				names = append(names, p.name)
			}
		}
	}
	return names
}

// Put writes a token into a handshake that is to be explained, at the first place where the route looks for one. It is false if the
// route looks nowhere.
func (c *Checker) Put(f *policy.Facts, token string) bool {
	if c == nil {
		return false
	}
	for _, w := range c.ways {
		if places := w.places(); len(places) > 0 {
			places[0].put(f, token)
			return true
		}
	}
	return false
}

// String says what the route asks for.
func (c *Checker) String() string {
	if c == nil {
		return none
	}
	var names []string
	for _, w := range c.ways {
		names = append(names, w.name)
	}
	if c.all {
		return strings.Join(names, " and ")
	}
	return strings.Join(names, " or ")
}

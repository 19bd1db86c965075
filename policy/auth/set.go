package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"time"

	"bridgehead/policy"
	"bridgehead/ws"
)

// A Setup is what authenticators need from around them.
type Setup struct {
	Log *slog.Logger
	// Still authenticators ask nobody and watch nothing: they are for explanations.
	Still bool
}

// A Set is the authenticators of one configuration.
type Set struct{ ways map[string]*way }

// A way is one authenticator with its name, and with what holds for all kinds.
type way struct {
	authenticator
	name    string
	options Options
}

// NewSet makes the authenticators ready. Those that the Set before has with equal options are taken over with all that they know. was
// may be nil, and is not changed. When NewSet fails, nothing that it made runs on.
func NewSet(options map[string]Options, was *Set, with Setup) (*Set, error) {
	s := &Set{ways: make(map[string]*way, len(options))}
	for _, name := range slices.Sorted(maps.Keys(options)) {
		o := options[name]
		if was != nil && was.ways[name] != nil && reflect.DeepEqual(was.ways[name].options, o) {
			s.ways[name] = was.ways[name]
			continue
		}
		with := with
		with.Log = with.Log.With("authenticator", name)
		a, err := o.open(with)
		if err != nil {
			s.Release(was)
			return nil, fmt.Errorf("authenticator %s: %w", name, err)
		}
		s.ways[name] = &way{a, name, o}
	}
	return s, nil
}

// Release ends the authenticators that the next Set, which may be nil, has not taken over.
func (s *Set) Release(next *Set) {
	if s == nil {
		return
	}
	for name, w := range s.ways {
		if next == nil || next.ways[name] != w {
			w.close()
		}
	}
}

// check is the authenticator's, with what the options of all kinds say.
func (w *way) check(ctx context.Context, a *ask) (*Identity, error) {
	id, err := w.authenticator.check(ctx, a)
	if denied, ok := errors.AsType[*Denied](err); ok {
		copied := *denied
		if challenge := w.challenge(denied); challenge != "" {
			copied.Header = http.Header{"Www-Authenticate": {challenge}}
		}
		copied.Err = fmt.Errorf("%s: %w", w.name, denied.Err)
		return nil, &copied
	}
	if id == nil {
		return nil, err
	}
	id.Proof = fmt.Sprintf("%s: %s", w.name, id.Proof)
	id.Told = id.Claims.Pick(w.options.ForwardClaims...)
	id.Code = ws.Code(w.options.CloseCode)
	if w.options.OnExpiry == keep {
		id.Expires = time.Time{}
	}
	for i := range id.Rechecks {
		id.Rechecks[i].Code = id.Code
	}
	return id, err
}

// challenge tells a client that was refused for its token how to bring one (RFC 6750, section 3).
func (w *way) challenge(d *Denied) string {
	switch {
	case d.Status != http.StatusUnauthorized || d.Header != nil || w.options.JWT == nil && w.options.APIKey == nil:
		return ""
	case d.Reason == reasonMissing:
		return `Bearer realm="bridgehead"`
	}
	return `Bearer realm="bridgehead", error="invalid_token"`
}

// Known are what is kept of an identity while its socket is open: what backends are told, and by what the API finds it.
func Known(f *policy.Facts) policy.Claims {
	return merge(f.Told, f.Claims.Pick("sub", "jti"))
}

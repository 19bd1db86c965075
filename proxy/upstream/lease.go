package upstream

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"bridgehead/hub"
	"bridgehead/policy"
	"bridgehead/ws"
)

// An Answer is an error that says what the server decided about a client: no other server is asked then.
type Answer struct{ Err error }

func (a *Answer) Error() string { return a.Err.Error() }

func (a *Answer) Unwrap() error { return a.Err }

// Unavailable is the error for a client that no server of a group may take now.
type Unavailable struct {
	group string
	why   map[string]int // servers, by what keeps them from it
}

func (u *Unavailable) Error() string {
	var whys []string
	for _, why := range slices.Sorted(maps.Keys(u.why)) {
		whys = append(whys, fmt.Sprintf("%d %s", u.why[why], why))
	}
	return fmt.Sprintf("no server of %s can take a socket now: %s", u.group, strings.Join(whys, ", "))
}

// RetryAfter is when a client may try again.
func (u *Unavailable) RetryAfter() time.Duration { return retryAfter }

const retryAfter = 5 * time.Second

// A Lease is a client's place at a server: it counts there from before the connection is opened until its Release. Its methods may
// be called from any goroutine.
type Lease struct {
	group *Group
	key   string // what is hashed of the client

	// The group's mutex guards the following.
	server  *server
	target  *Target  // the server's, as the configuration had it when the lease came there
	conn    hub.Conn // nil before Carry
	leaving bool     // the socket was given to who ends it
	trial   bool     // the server was left alone before
}

// Target is how to reach the server.
func (l *Lease) Target() *Target {
	l.group.mu.Lock()
	defer l.group.mu.Unlock()
	return l.target
}

// leavingCause ends the sockets of a server that leaves its group.
var leavingCause = ws.Cause{Kind: ws.RouteRemoved}

// Carry names the socket that the lease is for. If its server has left the group meanwhile, the socket ends.
func (l *Lease) Carry(c hub.Conn) {
	l.group.mu.Lock()
	l.conn = c
	late := l.server.terms.drain && !l.leaving
	l.leaving = l.leaving || late
	l.group.mu.Unlock()
	if late {
		c.End(leavingCause)
	}
}

// Release gives the place back. It may be called more than once.
func (l *Lease) Release() {
	l.group.mu.Lock()
	defer l.group.mu.Unlock()
	l.server.letGoLocked(l)
}

// Well tells whether the server is neither down nor left alone.
func (l *Lease) Well() bool {
	l.group.mu.Lock()
	defer l.group.mu.Unlock()
	return !l.server.down && l.server.until.IsZero()
}

// Reached tells that the server has answered.
func (l *Lease) Reached() { l.group.succeed(l) }

// Tried are servers that could not be reached for one purpose. The zero value is none.
type Tried struct{ servers []*server }

// Move moves the lease to another server than its own, which could not be reached because of err, if that is not nil, and than those tried before. It is false if the
// group has no other, or does not allow that many retries; then the lease stays where it is.
func (l *Lease) Move(tried *Tried, err error) bool {
	g := l.group
	if err != nil {
		g.fail(l, err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	tried.servers = append(tried.servers, l.server)
	if len(tried.servers) > g.rules.retries {
		return false
	}
	free, _ := g.freeLocked(tried.servers)
	if len(free) == 0 {
		return false
	}
	_, held := l.server.leases[l]
	l.server.letGoLocked(l)
	l.server = g.rules.choose(free, l.key)
	l.target = l.server.target
	if held {
		l.server.takeLocked(l)
	}
	return true
}

// Open finds a server for a client: try opens a connection to it. When that fails and is no [Answer], the next server is tried, as
// often as the group allows and before ctx ends; each but the last may take half of the time that is left. The error is the last
// one that try gave, without its Answer, or an [*Unavailable]. The caller releases the lease when the socket ends.
func (g *Group) Open(ctx context.Context, f *policy.Facts, try func(context.Context, *Target) error) (*Lease, error) {
	key, shown, retries := g.plan(f)
	var failed error
	for tried := []*server(nil); ; {
		lease, more, err := g.lease(key, shown, tried)
		if err != nil {
			if failed != nil {
				err = failed
			}
			return nil, err
		}
		more = more && len(tried) < retries
		failed = lease.try(ctx, more, try)
		answer, answered := errors.AsType[*Answer](failed)
		gone := errors.Is(ctx.Err(), context.Canceled)
		switch {
		case failed == nil || answered:
			g.succeed(lease)
		case !gone:
			g.fail(lease, failed)
		}
		switch {
		case failed == nil:
			return lease, nil
		case answered:
			return nil, answer.Err
		case !more || ctx.Err() != nil:
			return nil, failed
		}
		g.log.Debug("trying the next server", "failed", lease.server.name(), "error", failed)
		tried = append(tried, lease.server)
	}
}

// plan is what the group's rules make of a client.
func (g *Group) plan(f *policy.Facts) (key, shown string, retries int) {
	g.mu.Lock()
	r := g.rules
	g.mu.Unlock()
	key, _ = r.hash.Of(f)
	return strings.Clone(key), r.sticky.shown(f), r.retries
}

// lease takes a place at a server that is none of those tried. more tells whether there would be yet another.
func (g *Group) lease(key, shown string, tried []*server) (_ *Lease, more bool, _ error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	free, why := g.freeLocked(tried)
	if len(free) == 0 && len(tried) == 0 {
		g.refused++
	}
	if len(free) == 0 {
		return nil, false, &Unavailable{g.label(), why}
	}
	s := stuck(free, shown)
	if s == nil {
		s = g.rules.choose(free, key)
	}
	l := &Lease{target: s.target, group: g, server: s, key: key}
	s.takeLocked(l)
	return l, len(free) > 1, nil
}

// freeLocked are the servers that can take a client and are none of those tried. why counts the others that cannot.
func (g *Group) freeLocked(tried []*server) (free []*server, why map[string]int) {
	now := time.Now()
	for _, s := range g.servers {
		if closed := s.closedLocked(now); closed != "" {
			if why == nil {
				why = make(map[string]int)
			}
			why[closed]++
		} else if !slices.Contains(tried, s) {
			s.weighLocked(now, g.rules.slow)
			free = append(free, s)
		}
	}
	return free, why
}

// label names the group in errors.
func (g *Group) label() string {
	if _, named := (To{g.name}).Name(); named && g.name != "" {
		return "upstream " + g.name
	}
	return "the route"
}

// try opens a connection to the leased server; when it fails, the place is free again.
func (l *Lease) try(ctx context.Context, more bool, open func(context.Context, *Target) error) (err error) {
	opened := false
	defer func() { // also when open panics
		if !opened {
			l.Release()
		}
	}()
	if deadline, ok := ctx.Deadline(); ok && more {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)/2)
		defer cancel()
	}
	err = open(ctx, l.target)
	opened = err == nil
	return err
}

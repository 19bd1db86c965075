package upstream

import (
	"cmp"
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
	request bool     // it is for a request, and does not count among the sockets
	conn    hub.Conn // nil before Carry
	leaving bool     // the socket was given to who ends it
	trial   bool     // the server was left alone before
}

// Target is how to reach the server.
func (l *Lease) Target() *Target {
	l.group.mu.Lock()
	defer l.group.mu.Unlock()
	return l.server.target
}

// leavingCause ends the sockets of a server that leaves its group.
var leavingCause = ws.Cause{Kind: ws.RouteRemoved}

// Carry names the socket that the lease is for. If its server has left the group meanwhile, the socket ends.
func (l *Lease) Carry(c hub.Conn) {
	l.group.mu.Lock()
	l.conn = c
	late := l.server.entry.terms.drain && !l.leaving
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

// Well tells whether the server is neither down, nor left alone, nor gone from its name.
func (l *Lease) Well() bool {
	l.group.mu.Lock()
	defer l.group.mu.Unlock()
	return !l.server.down && !l.server.gone && l.server.until.IsZero()
}

// Reached tells that the server has answered.
func (l *Lease) Reached() { l.group.succeed(l) }

// Tried are servers that could not be reached for one purpose. The zero value is none.
type Tried struct{ servers []*server }

// Move moves the lease to another server than its own, which could not be reached because of err, if that is not nil, and than those
// tried before. It is false if the group has no other, or does not allow that many retries; then the lease stays where it is.
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
	free, _ := g.freeLocked(l.request, tried.servers)
	if len(free) == 0 {
		return false
	}
	_, held := l.server.leases[l]
	l.server.letGoLocked(l)
	l.server = g.rules.choose(free, l.key)
	if held {
		l.server.takeLocked(l)
	}
	return true
}

// A Try opens a connection to a server for a client. ctx bounds it.
type Try func(ctx context.Context, t *Target) error

// Open finds a server for a client's socket: try opens a connection to it. When that fails and is no [Answer], the next server is tried, as
// often as the group allows and before ctx ends; each but the last may take half of the time that is left. The error is the last
// one that try gave, without its Answer, or an [*Unavailable]. The caller releases the lease when the socket ends.
func (g *Group) Open(ctx context.Context, f *policy.Facts, try Try) (*Lease, error) {
	return g.open(ctx, f, try, false)
}

// Pass is Open for a request beside the sockets: it does not count among them. What a server answers to it says nothing of
// sockets: the caller calls [Lease.Reached] if it shows that the server is well.
func (g *Group) Pass(ctx context.Context, f *policy.Facts, try Try) (*Lease, error) {
	return g.open(ctx, f, try, true)
}

func (g *Group) open(ctx context.Context, f *policy.Facts, try Try, request bool) (*Lease, error) {
	g.awaitNames(ctx)
	key, shown, retries := g.plan(f)
	var failed error
	for tried := []*server(nil); ; {
		lease, more, err := g.lease(key, shown, tried, request)
		if err != nil {
			return nil, cmp.Or(failed, err)
		}
		more = more && len(tried) < retries
		err = lease.try(ctx, more, try)
		if err == nil {
			if !request {
				g.succeed(lease)
			}
			return lease, nil
		}
		if answer, ok := errors.AsType[*Answer](err); ok {
			if !request {
				g.succeed(lease)
			}
			return nil, answer.Err
		}
		if !errors.Is(ctx.Err(), context.Canceled) { // the client has not gone
			g.fail(lease, err)
		}
		failed = g.unstuck(err, f)
		tried = append(tried, lease.server)
		if ctx.Err() != nil || len(tried) > retries || !more && !g.another(ctx, lease.server.entry, tried, request) {
			return nil, failed
		}
		g.log.Debug("trying the next server", lease.server.attrs("error", err)...)
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
func (g *Group) lease(key, shown string, tried []*server, request bool) (_ *Lease, more bool, _ error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	free, why := g.freeLocked(request, tried)
	if len(free) == 0 && len(tried) == 0 {
		g.refused++
	}
	if len(free) == 0 {
		return nil, false, &Unavailable{g.label(), why}
	}
	s := g.rules.choose(near(free, shown), key)
	l := &Lease{group: g, server: s, key: key, request: request}
	s.takeLocked(l)
	return l, len(free) > 1, nil
}

// freeLocked are the servers that can take a client and are none of those tried. why counts the others that cannot. What is full has
// room for a request.
func (g *Group) freeLocked(request bool, tried []*server) (free []*server, why map[string]int) {
	now := time.Now()
	for _, s := range g.servers {
		if closed := s.closedLocked(now); closed != "" && !(request && closed == stateFull) {
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
func (l *Lease) try(ctx context.Context, more bool, open Try) (err error) {
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
	err = open(ctx, l.Target())
	opened = err == nil
	return err
}

package upstream

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"
)

const (
	// lookUpTimeout is how long a look-up may take.
	lookUpTimeout = 5 * time.Second
	// lookUpsAtMost bounds how many look-ups a [Resolver] of [Sparing] has under way.
	lookUpsAtMost = 32
	// addressesAtMost bounds how many servers one name may stand for.
	addressesAtMost = 256
)

// A Resolver finds the addresses of a name. [net.Resolver] is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Sparing asks a resolver no more than a bounded number of questions at once; others wait.
func Sparing(r Resolver) Resolver { return &sparing{r, make(chan struct{}, lookUpsAtMost)} }

type sparing struct {
	resolver Resolver
	asking   chan struct{}
}

// LookupNetIP is Resolver's. The time for the answer begins with the question.
func (s *sparing) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	select {
	case s.asking <- struct{}{}:
		defer func() { <-s.asking }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, lookUpTimeout)
	defer cancel()
	return s.resolver.LookupNetIP(ctx, network, host)
}

// An entry is a server as the configuration lists it. If its URL holds a name, each address of that is a server of its own. It lives on
// through reloads for as long as the configuration has its URL. The group's mutex guards what is not its key.
type entry struct {
	key     string  // its URL
	target  *Target // as it is written
	terms   terms
	token   string    // begins those of its servers
	joined  time.Time // the group; zero: it was there from the beginning
	servers []*server // those that have gone, and have sockets still, are the last
	lookUps
}

// terms are what the configuration says of a server beside its URL.
type terms struct {
	weight float64
	limit  int // of sockets; 0: none
	drain  bool
}

// lookUps are what is known of the name in a URL.
type lookUps struct {
	named   bool // there is one, and somebody looks it up
	looking bool
	began   time.Time // the last one
	due     time.Time // the next one; zero: at once
	last    LookUp

	looked, lookedFailed uint64
}

// A LookUp is what came of looking up a name.
type LookUp struct {
	Observation
	Addresses int `json:"addresses"` // that it found
}

// name is what the entry is called in logs and metrics: its URL, without the query, which may be secret.
func (e *entry) name() string {
	name, _, _ := strings.Cut(e.key, "?")
	return name
}

// pendingLocked tells whether nothing is known of the name yet. If its first look-up fails, clients look it up themselves, and learn why.
func (e *entry) pendingLocked() bool { return e.named && e.looked == 0 }

// presentLocked counts the servers that have not gone.
func (e *entry) presentLocked() (n int) {
	for _, s := range e.servers {
		if !s.gone {
			n++
		}
	}
	return n
}

// presentLocked counts the servers that have not gone.
func (g *Group) presentLocked() (n int) {
	for _, e := range g.entries {
		n += e.presentLocked()
	}
	return n
}

// A host is what one server has of the addresses of its name.
type host struct {
	addr netip.Addr   // tells it from others
	ways []netip.Addr // to it, the best first; two at most
}

// hosts makes servers of addresses, which stand in the order that the system prefers. An IPv4 address and an IPv6 address, as
// localhost has, are two ways to one server. Of more than that only one kind is taken, since many servers have one of each: the kind that
// the system prefers.
func hosts(found []netip.Addr) (all []host) {
	var each, four, six []netip.Addr
	for _, a := range found {
		if a = a.Unmap(); slices.Contains(each, a) {
			continue
		}
		each = append(each, a)
		if a.Is4() {
			four = append(four, a)
		} else {
			six = append(six, a)
		}
	}
	if len(each) > 0 && len(four) <= 1 && len(six) <= 1 {
		return []host{{slices.Concat(four, six)[0], each}}
	}
	kind := four
	if len(each) > 0 && each[0].Is6() {
		kind = six
	}
	slices.SortFunc(kind, netip.Addr.Compare)
	for _, a := range kind[:min(len(kind), addressesAtMost)] {
		all = append(all, host{a, []netip.Addr{a}})
	}
	return all
}

// lookUpsDue are the entries whose names are to be looked up now; next is when others are.
func (g *Group) lookUpsDue(now time.Time) (due []*entry, next time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	next = time.Hour
	for _, e := range g.entries {
		switch {
		case !e.named || e.looking:
		case e.due.After(now):
			next = min(next, e.due.Sub(now))
		default:
			e.looking, e.began = true, now
			due = append(due, e)
		}
	}
	return due, next
}

// lookUp looks up the name of an entry.
func (g *Group) lookUp(ctx context.Context, e *entry) {
	began := time.Now()
	g.mu.Lock()
	resolver := g.resolver
	g.mu.Unlock()
	found, err := resolver.LookupNetIP(ctx, "ip", e.target.name)
	if ctx.Err() != nil {
		g.stopLooking(e)
		return
	}
	g.learn(e, began, hosts(found), err)
	g.wakeUp()
}

// stopLooking leaves a look-up to the next watcher.
func (g *Group) stopLooking(e *entry) {
	g.mu.Lock()
	defer g.mu.Unlock()
	e.looking, e.due = false, time.Time{}
}

// learn takes note of what came of looking up a name. What fails changes nothing: the addresses from before are the best guess.
func (g *Group) learn(e *entry, began time.Time, found []host, err error) {
	now := time.Now()
	g.mu.Lock()
	before := e.last
	first := e.looked == 0
	e.looking, e.looked = false, e.looked+1
	e.due = began.Add(jitter(max(g.rules.resolve, minResolve)))
	e.last = LookUp{Observation{At: began.UTC(), Took: milliseconds(now.Sub(began))}, len(found)}
	var joined, left []string
	switch {
	case err != nil:
		e.last.Error, e.lookedFailed = err.Error(), e.lookedFailed+1
	case e.named:
		joined, left = g.leadLocked(e, found, now)
	}
	close(g.looked)
	g.looked = make(chan struct{})
	g.mu.Unlock()
	log := g.log.With("server", e.name())
	switch {
	case err != nil && (before.Error == "" || first):
		log.Warn("name cannot be looked up; the addresses from before are used on", "name", e.target.name, "error", err)
	case err == nil && before.Error != "":
		log.Info("name can be looked up again", "name", e.target.name)
	}
	switch {
	case first:
		log.Debug("addresses of a name", "name", e.target.name, "addresses", joined)
	case len(joined)+len(left) > 0:
		log.Info("addresses of a name have changed", "name", e.target.name, "joined", joined, "gone", left)
	}
}

// leadLocked makes the servers of an entry those at some addresses. Those that stay keep all that is known of them.
func (g *Group) leadLocked(e *entry, to []host, now time.Time) (joined, left []string) {
	before := e.servers
	e.servers = nil
	known := slices.ContainsFunc(before, func(s *server) bool { return s.addr.IsValid() })
	for _, h := range to {
		i := slices.IndexFunc(before, func(s *server) bool { return s.addr == h.addr })
		if i < 0 {
			s := g.newServer(e, h)
			if s.risen = e.joined; known {
				s.risen = now
			}
			joined = append(joined, s.address())
			e.servers = append(e.servers, s)
			continue
		}
		s := before[i]
		if s.target = e.target.at(h); s.gone {
			s.gone, s.risen = false, now
			joined = append(joined, s.address())
		}
		e.servers = append(e.servers, s)
	}
	for _, s := range before {
		if slices.Contains(e.servers, s) {
			continue
		}
		if !s.gone && s.addr.IsValid() {
			left = append(left, s.address())
		}
		if s.gone = true; len(s.leases) > 0 {
			e.servers = append(e.servers, s)
		}
	}
	g.gatherLocked()
	return joined, left
}

// nameLocked tells the entry whether somebody looks its name up. If nobody does any more, it is one server again.
func (g *Group) nameLocked(e *entry, now time.Time) {
	named := e.target.name != "" && g.rules.resolve > 0 && g.resolver != nil
	if e.named == named {
		return
	}
	if e.lookUps = (lookUps{named: named}); !named {
		g.leadLocked(e, []host{{}}, now)
	}
}

// gatherLocked lists the servers of all entries.
func (g *Group) gatherLocked() {
	g.servers = nil
	for _, e := range g.entries {
		g.servers = append(g.servers, e.servers...)
	}
}

// lookAgainLocked has the name of a server that failed looked up soon: it may have moved.
func (g *Group) lookAgainLocked(e *entry, now time.Time) {
	if soonest := e.began.Add(minResolve); e.named && !e.looking && e.due.After(soonest) {
		e.due = soonest
		if soonest.Before(now) {
			e.due = now
		}
		g.wakeUp()
	}
}

// another waits for a look-up that is due, since a server has failed, and tells whether there is one now that was not tried.
func (g *Group) another(ctx context.Context, e *entry, tried []*server, request bool) bool {
	var free []*server
	g.await(ctx, func() bool {
		free, _ = g.freeLocked(request, tried)
		return len(free) > 0 || !e.looking && (!e.named || e.due.After(time.Now()))
	})
	return len(free) > 0
}

// awaitNames waits until something is known of one of the servers, after the start.
func (g *Group) awaitNames(ctx context.Context) {
	known := func(e *entry) bool { return !e.pendingLocked() }
	g.await(ctx, func() bool { return len(g.entries) == 0 || slices.ContainsFunc(g.entries, known) })
}

// await waits until enough, which is asked after each look-up with the mutex held, is true, and no longer than a look-up may take.
func (g *Group) await(ctx context.Context, enough func() bool) {
	var patience <-chan time.Time
	for {
		g.mu.Lock()
		done, looked := enough(), g.looked
		g.mu.Unlock()
		if done {
			return
		}
		if patience == nil {
			patience = time.After(lookUpTimeout)
		}
		select {
		case <-looked:
		case <-patience:
			return
		case <-ctx.Done():
			return
		}
	}
}

package policy

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// A Store holds what clients have used of their limits, for the whole process and all generations of its configuration. Its
// methods may be called from any goroutine.
//
// Memory is bounded: an account stays while it has sockets open, and after that until its rates have recovered, when forgetting it
// changes nothing. If there are more of these than the Store may keep, some are forgotten before:
//
//   - Accounts belong to the networks that their clients come from: the /48 of IPv6; of IPv4 the /16 where addresses are counted and the /24
//     where another value is, of which one address may send many. A network that holds more than a 64th of the Store's room in accounts of
//     one rule is a crowd. The largest crowd makes room, those first that would recover first. So whoever fills the Store with a network's
//     worth of keys pushes out itself, and nobody else.
//   - Nobody gets rid of a debt by that: the network answers for it. The worst of the debts that were forgotten is that of its common
//     account, by which those of its clients are counted together that have no account of their own, until the last of these debts
//     would have been paid.
//   - If there is no crowd, because all come from different networks, those are forgotten first that would recover first, and for good.
//     To push out one debt takes as many that are deeper as there is room for.
//
// Each call takes time by the logarithm of the accounts. Sockets that are open are bounded by max_connections.
type Store struct {
	max int

	mu       sync.Mutex           // guards the following; an account's lock may be taken while it is held
	ledgers  map[string][]*ledger // by route: one for each rule that the process has ever seen, a few hundred bytes
	accounts map[accountID]*account
	subnets  map[subnetID]*subnet     // those that have accounts
	soonest  ranking[subnet, *subnet] // those that have idle accounts, the one that can forget one first on top
	crowds   map[*subnet]struct{}     // those that hold much of the room
	commons  int                      // common accounts, which are not among accounts
	idle     int                      // accounts without open sockets
	clock    time.Time                // the latest time seen: callers read theirs before they wait for the lock
}

type accountID struct {
	ledger *ledger
	key    string
}

// A claim asks for one more socket in the account of a key.
type claim struct {
	rule   *limit
	key    string
	client netip.Addr
}

func (c *claim) account() accountID { return accountID{c.rule.ledger, c.key} }

// NewStore keeps at most maxKeys accounts besides those of open sockets.
func NewStore(maxKeys int) *Store {
	return &Store{
		max: maxKeys, ledgers: map[string][]*ledger{}, accounts: map[accountID]*account{}, subnets: map[subnetID]*subnet{},
		crowds: map[*subnet]struct{}{},
	}
}

// Len is the number of accounts.
func (s *Store) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.accounts) + s.commons
}

// ledger finds or opens the ledger of the n-th rule of a route that counts the same.
func (s *Store) ledger(route, counts string, nth int) *ledger {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.ledgers[route] {
		if l.counts == counts && l.nth == nth {
			return l
		}
	}
	l := &ledger{counts: counts, nth: nth}
	l.rule.Store(new(Rule))
	s.ledgers[route] = append(s.ledgers[route], l)
	return l
}

// apply sets what the ledgers of a route say to open sockets: nothing, for a rule that is gone.
func (s *Store) apply(route string, rules []limit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	says := map[*ledger]*Rule{}
	for i := range rules {
		says[rules[i].ledger] = &rules[i].Rule
	}
	for _, l := range s.ledgers[route] {
		rule := says[l]
		if rule == nil {
			rule = new(Rule)
		}
		l.rule.Store(rule)
	}
}

// admit opens one more socket in the accounts of all claims, or in none.
func (s *Store) admit(claims []claim, now time.Time) ([]*account, *Exceeded) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now = s.tickLocked(now)
	for _, c := range claims {
		if a := s.findLocked(c, now); a != nil {
			if exceeded := a.admits(&c.rule.Rule, now); exceeded != nil {
				return nil, exceeded
			}
		}
	}
	accounts := make([]*account, len(claims))
	for i, c := range claims {
		accounts[i] = s.openLocked(c, now)
		charge(&accounts[i].connects, c.rule.ConnectRate, 1, now)
	}
	return accounts, nil
}

// findLocked gives the account that counts a claim; nil: there is none yet.
func (s *Store) findLocked(c claim, now time.Time) *account {
	if a := s.accounts[c.account()]; a != nil {
		return a
	}
	if n := s.subnets[c.rule.subnetOf(c.client)]; n != nil && n.common != nil && now.Before(n.until) {
		return n.common
	}
	return nil
}

// openLocked counts one socket more.
func (s *Store) openLocked(c claim, now time.Time) *account {
	a := s.findLocked(c, now)
	switch {
	case a == nil:
		c.key = strings.Clone(c.key) // it may be cut from the request's header
		a = &account{ledger: c.rule.ledger, subnet: s.subnetLocked(c), key: c.key}
		a.subnet.accounts++
		s.accounts[c.account()] = a
	case a.open == 0:
		s.wakeLocked(a)
	}
	a.open++
	return a
}

func (s *Store) subnetLocked(c claim) *subnet {
	id := c.rule.subnetOf(c.client)
	n := s.subnets[id]
	if n == nil {
		n = &subnet{id: id}
		s.subnets[id] = n
	}
	return n
}

// hold moves a grant from the accounts it has to those of other rules.
func (s *Store) hold(g *Grant, l *Limiter, f *Facts, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g.released {
		return
	}
	now = s.tickLocked(now)
	old := *g.accounts.Load()
	var next []*account
	for i := range l.rules {
		rule := &l.rules[i]
		held := slices.IndexFunc(old, func(a *account) bool { return a.ledger == rule.ledger })
		key, known := rule.key(f)
		switch {
		case rule.Except.Contain(f.Client):
		case held >= 0:
			next = append(next, old[held])
		case known:
			next = append(next, s.openLocked(claim{rule, key, f.Client}, now))
		}
	}
	g.accounts.Store(&next)
	for _, a := range old {
		if !slices.Contains(next, a) {
			s.closeLocked(a, now)
		}
	}
}

func (s *Store) release(g *Grant, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g.released {
		return
	}
	g.released = true
	now = s.tickLocked(now)
	for _, a := range *g.accounts.Load() {
		s.closeLocked(a, now)
	}
}

// closeLocked counts one socket less.
func (s *Store) closeLocked(a *account, now time.Time) {
	if a.open--; a.open > 0 {
		return
	}
	s.restLocked(a, now)
	for s.idle > s.max { // at most two: the first may leave a common account
		s.evictLocked(now)
	}
}

// restLocked puts an account that has no open sockets among the idle ones.
func (s *Store) restLocked(a *account, now time.Time) {
	a.recovered = a.recovery(now)
	n := a.subnet
	n.idle.add(a)
	s.settleLocked(n, len(n.idle)-1)
}

// wakeLocked takes an account from among the idle ones.
func (s *Store) wakeLocked(a *account) {
	n := a.subnet
	n.idle.remove(a)
	s.settleLocked(n, len(n.idle)+1)
}

// sweep is how many accounts one call forgets at most, so that none takes long after a flood. One call adds fewer.
const sweep = 16

// tickLocked makes time go forward only, and forgets some of the accounts that have recovered.
func (s *Store) tickLocked(now time.Time) time.Time {
	if now.Before(s.clock) {
		now = s.clock
	}
	s.clock = now
	for range sweep {
		if len(s.soonest) == 0 || s.soonest[0].idle[0].recovered.After(now) {
			break
		}
		s.forgetLocked(s.soonest[0].idle[0])
	}
	return now
}

// forgetLocked drops an idle account.
func (s *Store) forgetLocked(a *account) {
	s.wakeLocked(a)
	n := a.subnet
	if a == n.common {
		n.common = nil
		s.commons--
	} else {
		delete(s.accounts, accountID{a.ledger, a.key})
	}
	if n.accounts--; n.accounts == 0 {
		delete(s.subnets, n.id)
	}
}

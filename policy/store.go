package policy

import (
	"container/heap"
	"slices"
	"strings"
	"sync"
	"time"
)

// A Store holds what clients have used of their limits, for the whole process and all generations of its configuration. Its
// methods may be called from any goroutine.
//
// Memory is bounded: an account stays while it has sockets open, and after that until its rates have recovered, when forgetting it
// changes nothing. If there are more than the Store may keep, those are forgotten first that would recover first; so a flood of
// keys pushes out itself, and nobody gets rid of a debt by it. Sockets that are open are bounded by max_connections.
type Store struct {
	max int

	mu       sync.Mutex           // guards the following; an account's lock may be taken while it is held
	ledgers  map[string][]*ledger // by route: one for each rule that the process has ever seen, a few hundred bytes
	accounts map[accountID]*account
	idle     idleAccounts
	clock    time.Time // the latest time seen: callers read theirs before they wait for the lock
}

type accountID struct {
	ledger *ledger
	key    string
}

// A claim asks for one more socket in the account of a key.
type claim struct {
	rule *limit
	key  string
}

func (c claim) account() accountID { return accountID{c.rule.ledger, c.key} }

// NewStore keeps at most maxKeys accounts besides those of open sockets.
func NewStore(maxKeys int) *Store {
	return &Store{max: maxKeys, ledgers: map[string][]*ledger{}, accounts: map[accountID]*account{}}
}

// Len is the number of accounts.
func (s *Store) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.accounts)
}

// ledger finds or opens the ledger of the n-th rule of a route that counts per the same value.
func (s *Store) ledger(route, per string, nth int) *ledger {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.ledgers[route] {
		if l.per == per && l.nth == nth {
			return l
		}
	}
	l := &ledger{per: per, nth: nth}
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
		if a := s.accounts[c.account()]; a != nil {
			if exceeded := a.admits(&c.rule.Rule, now); exceeded != nil {
				return nil, exceeded
			}
		}
	}
	accounts := make([]*account, len(claims))
	for i, c := range claims {
		accounts[i] = s.openLocked(c)
		charge(&accounts[i].connects, c.rule.ConnectRate, 1, now)
	}
	for len(s.accounts) > s.max && len(s.idle) > 0 {
		s.forgetLocked()
	}
	return accounts, nil
}

func (s *Store) openLocked(c claim) *account {
	a := s.accounts[c.account()]
	switch {
	case a == nil:
		c.key = strings.Clone(c.key) // it may be cut from the request's header
		a = &account{ledger: c.rule.ledger, key: c.key}
		s.accounts[c.account()] = a
	case a.open == 0:
		heap.Remove(&s.idle, a.place)
	}
	a.open++
	return a
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
			next = append(next, s.openLocked(claim{rule, key}))
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
	if a.open--; a.open == 0 {
		a.recovered = a.recovery(now)
		heap.Push(&s.idle, a)
	}
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
		if len(s.idle) == 0 || s.idle[0].recovered.After(now) {
			break
		}
		s.forgetLocked()
	}
	return now
}

// forgetLocked drops the idle account that recovers first.
func (s *Store) forgetLocked() {
	a := heap.Pop(&s.idle).(*account)
	delete(s.accounts, accountID{a.ledger, a.key})
}

// idleAccounts is a heap of the accounts without open sockets; the one that recovers first is on top.
type idleAccounts []*account

func (h idleAccounts) Len() int           { return len(h) }
func (h idleAccounts) Less(i, j int) bool { return h[i].recovered.Before(h[j].recovered) }
func (h idleAccounts) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

// Push is heap.Interface's.
func (h *idleAccounts) Push(x any) {
	a := x.(*account)
	a.place = len(*h)
	*h = append(*h, a)
}

// Pop is heap.Interface's.
func (h *idleAccounts) Pop() any {
	last := len(*h) - 1
	a := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return a
}

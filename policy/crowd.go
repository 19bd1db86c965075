package policy

import (
	"net/netip"
	"time"
)

// A subnet is where the clients of some accounts of one ledger come from. What it holds of a Store is its share.
type subnet struct {
	id       subnetID
	accounts int // those of open sockets too
	idle     ranking[account, *account]
	place    int // among the networks with idle accounts

	// common counts the clients without an account of their own, once some of the network were forgotten that were not to be; nil: there
	// were none. New clients count there until `until`, when the last of the debts that were forgotten would have been paid.
	common *account
	until  time.Time
}

type subnetID struct {
	ledger *ledger
	prefix netip.Prefix
}

// subnetOf is where accounts of a client belong. One who counts by its address alone has as many accounts as addresses; others may have
// any number of them at one.
func (l *limit) subnetOf(client netip.Addr) subnetID {
	bits := 24
	switch addr := plain(client); {
	case addr.Is6():
		bits = 48
	case l.byAddress():
		bits = 16
	}
	prefix, _ := plain(client).Prefix(bits) // the zero Prefix is that of clients without an address
	return subnetID{l.ledger, prefix}
}

func (n *subnet) before(other *subnet) bool { return n.idle[0].before(other.idle[0]) }
func (n *subnet) at() *int                  { return &n.place }

// crowdShare is the part of a Store's room that makes a network a crowd, and leastCrowd the fewest idle accounts of one.
const (
	crowdShare = 64
	leastCrowd = 16
)

// settleLocked follows a change of the network's idle accounts, of which there were so many.
func (s *Store) settleLocked(n *subnet, were int) {
	s.idle += len(n.idle) - were
	switch {
	case were == 0 && len(n.idle) > 0:
		s.soonest.add(n)
	case were > 0 && len(n.idle) == 0:
		s.soonest.remove(n)
	case len(n.idle) > 0:
		s.soonest.settle(n)
	}
	if len(n.idle) > max(leastCrowd, s.max/crowdShare) {
		s.crowds[n] = struct{}{}
	} else if were > leastCrowd {
		delete(s.crowds, n)
	}
}

// evictLocked makes room for one account: in the largest crowd or, if there is none, where it is free first.
func (s *Store) evictLocked(now time.Time) {
	var largest *subnet
	for n := range s.crowds { // crowdShare at most
		if largest == nil || len(n.idle) > len(largest.idle) {
			largest = n
		}
	}
	if largest == nil {
		s.forgetLocked(s.soonest[0].idle[0])
		return
	}
	a := largest.idle[0]
	if a == largest.common {
		a = largest.idle.second()
	}
	s.forgetLocked(a)
	if a.recovered.After(now) {
		s.mergeLocked(largest, a, now)
	}
}

// mergeLocked has the network answer for what an account owed that is forgotten.
func (s *Store) mergeLocked(n *subnet, a *account, now time.Time) {
	common := n.common
	switch {
	case common == nil:
		common = &account{ledger: n.id.ledger, subnet: n}
		n.common = common
		n.accounts++
		s.commons++
	case common.open == 0:
		s.wakeLocked(common)
	}
	common.absorb(a, now)
	if a.recovered.After(n.until) {
		n.until = a.recovered
	}
	if common.open == 0 {
		s.restLocked(common, now)
	}
}

// absorb takes over what is worse of the other account.
func (a *account) absorb(b *account, now time.Time) {
	a.connects.absorb(&b.connects, now)
	a.penalty = a.penalty.absorb(b.penalty, now)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sent.absorb(&b.sent, now)
}

package policy

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"bridgehead/internal/unit"
)

// A ledger is one rule of one route through all generations of the configuration. Accounts belong to it, so that they outlive a
// reload, and sockets that are open are held to what it says now.
type ledger struct {
	counts string // whom the rule counts, and by what
	nth    int    // among the rules of the route that count the same: numbers may change, and rules before it come and go
	rule   atomic.Pointer[Rule]
}

// An account is what one key has used of one rule: all clients of one address, say.
type account struct {
	ledger *ledger
	subnet *subnet
	key    string // "": it is the network's common one

	// Guarded by the Store's lock.
	open      int       // sockets; while there are any the account is not forgotten
	connects  bucket    // handshakes
	penalty   *penalty  // for those that failed; nil: none has
	place     int       // among the idle accounts of its network, if none is open
	recovered time.Time // when it will be as good as new, if none is open

	drawn atomic.Pointer[Rule] // by which the meters have drawn ahead; set under mu

	mu    sync.Mutex // guards the following, but for what the meters have drawn ahead
	sent  meters     // what clients send
	clock time.Time  // the latest time seen: callers read theirs before they wait for the lock
}

func (a *account) before(b *account) bool { return a.recovered.Before(b.recovered) }
func (a *account) at() *int               { return &a.place }

// exceeds says which rule is exceeded, and by whom.
func (a *account) exceeds(r *Rule, what, limit string) *Exceeded {
	e := &Exceeded{Rule: r.String(), What: what, Limit: limit, key: a.key}
	if a.key == "" {
		e.key = a.subnet.id.prefix.String()
		e.Hint = e.key + " counts as one client for a while, since there are too many of it to be told apart"
	}
	return e
}

// admits tells why one more socket would exceed the rule.
func (a *account) admits(r *Rule, now time.Time) *Exceeded {
	if exceeded := a.punished(r, now); exceeded != nil {
		return exceeded
	}
	if r.Connections > 0 && a.open >= r.Connections {
		return a.exceeds(r, "connections", fmt.Sprintf("%d open", r.Connections))
	}
	if r.ConnectRate.IsOff() {
		return nil
	}
	if wait := a.connects.wait(r.ConnectRate, now); wait > 0 {
		e := a.exceeds(r, "connect_rate", r.ConnectRate.String())
		e.RetryAfter = wait
		return e
	}
	return nil
}

// charge counts what its clients have sent, by debt; the answer is the pause until the account is out of debt, or the reason to close.
func (a *account) charge(t Traffic, now time.Time) (time.Duration, *Exceeded) {
	rule := a.ledger.rule.Load()
	if a.drawn.Load() == rule {
		if t = a.sent.spend(rule, t); t == (Traffic{}) {
			return 0, nil
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.drawn.Load() != rule { // what was drawn by another may be more than this one allows
		a.sent.forfeit()
		a.drawn.Store(rule)
	}
	pause, what, rate := a.sent.charge(rule, t, a.tickLocked(now))
	if pause > 0 && rule.OnExceed == Close {
		e := a.exceeds(rule, what, rate.String())
		e.RetryAfter = pause
		return 0, e
	}
	return pause, nil
}

// debt is how long a client that is throttled has to pause.
func (a *account) debt(now time.Time) time.Duration {
	rule := a.ledger.rule.Load()
	if rule.OnExceed == Close {
		return 0
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.sent.debt(rule, a.tickLocked(now))
}

// tickLocked makes time go forward only.
func (a *account) tickLocked(now time.Time) time.Time {
	if now.Before(a.clock) {
		now = a.clock
	}
	a.clock = now
	return now
}

func charge(b *bucket, r unit.Rate, n int, now time.Time) time.Duration {
	if r.IsOff() || n <= 0 {
		return 0
	}
	return b.charge(r, n, now)
}

// recovery is when all its buckets will be full.
func (a *account) recovery(now time.Time) time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return now.Add(max(a.connects.full(now), a.penalty.forgotten(now), a.sent.full(now)))
}

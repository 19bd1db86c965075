package policy

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"
)

// Exceeded says which rule a client has exceeded.
type Exceeded struct {
	Rule       string        // `per client.ip`
	What       string        // the key of the rule: connections, connect_rate, messages, bytes or frames
	Limit      string        // what the rule allows: `256 open`, `50/s`
	RetryAfter time.Duration // when it would pass again; 0 is not known: when one of the client's sockets ends
	Hint       string        // a likely mistake in the configuration, or ""
}

// Error names the rule and the mend.
func (e *Exceeded) Error() string {
	text := fmt.Sprintf("limit %s: %s is at %s; to allow more, raise it under limits", e.Rule, e.What, e.Limit)
	if e.Hint != "" {
		text += "; " + e.Hint
	}
	return text
}

// A Limiter is the rules of one route in one generation of the configuration. A nil Limiter limits nothing. Its methods may be
// called from any goroutine.
type Limiter struct {
	store *Store
	route string
	rules []limit
}

// A limit is a rule made ready.
type limit struct {
	Rule
	value  Value
	ledger *ledger
}

// Limiter makes the rules of a route ready. It changes nothing for sockets that are open: that is for [Limiter.Apply].
//
// What was counted for the n-th rule with the same `per` of a route of the same name goes on counting.
func (s *Store) Limiter(route string, rules []Rule) (*Limiter, error) {
	l := &Limiter{store: s, route: route}
	nth := map[string]int{}
	for i, rule := range rules {
		value, err := ParseValue(rule.Per)
		if err != nil {
			return nil, fmt.Errorf("route %s: limits[%d]: per: %w", route, i, err)
		}
		l.rules = append(l.rules, limit{rule, value, s.ledger(route, rule.Per, nth[rule.Per])})
		nth[rule.Per]++
	}
	return l, nil
}

// Apply puts these rules in force on the route, in place of the Limiter before: what they say of messages and bytes holds for all
// sockets, those too that are open. Before it, Admit counts by these rules alone and messages by those before.
func (l *Limiter) Apply() {
	if l != nil {
		l.store.apply(l.route, l.rules)
	}
}

// Admit counts one more socket by all rules or by none, but for those that count by who the client is: that is not known yet, and
// they have their turn in Identify. The error is an [*Exceeded]. The socket's end is told by [Grant.Release].
func (l *Limiter) Admit(f *Facts, now time.Time) (*Grant, error) {
	if l == nil {
		return nil, nil
	}
	accounts, exceeded := l.store.admit(l.claims(f, false), now)
	if exceeded != nil {
		exceeded.Hint = hint(exceeded, f)
		return nil, exceeded
	}
	g := &Grant{store: l.store}
	g.accounts.Store(&accounts)
	return g, nil
}

// Identify counts an admitted socket also by the rules of user and claims, by all or by none. f knows by now who the client is. The
// error is an [*Exceeded], and the grant is then what it was before.
func (l *Limiter) Identify(g *Grant, f *Facts, now time.Time) error {
	if l == nil || g == nil {
		return nil
	}
	claims := l.claims(f, true)
	if len(claims) == 0 {
		return nil
	}
	accounts, exceeded := l.store.admit(claims, now)
	if exceeded != nil {
		return exceeded
	}
	all := slices.Concat(*g.accounts.Load(), accounts) // nobody else holds the grant of a socket that is not open
	g.accounts.Store(&all)
	return nil
}

// Hold makes an open socket obey these rules in place of those it was admitted by; it counts by all that count it, even beyond what
// they allow. f is what is still known of the client: a rule by something else than that holds it only if one did before.
func (l *Limiter) Hold(g *Grant, f *Facts, now time.Time) {
	if l != nil && g != nil {
		l.store.hold(g, l, f, now)
	}
}

// claims are what the rules count f by: those of its identity, or all others.
func (l *Limiter) claims(f *Facts, ofIdentity bool) (claims []claim) {
	for i := range l.rules {
		if l.rules[i].value.OfIdentity() != ofIdentity {
			continue
		}
		if key, ok := l.rules[i].key(f); ok {
			claims = append(claims, claim{&l.rules[i], key})
		}
	}
	return claims
}

// longestKey bounds the memory of a key that the client chose; a longer one is counted by its hash.
const longestKey = 64

// key is what the rule counts f by; false if it does not count it.
func (l *limit) key(f *Facts) (string, bool) {
	if l.Except.Contain(f.Client) {
		return "", false
	}
	key, ok := l.value.Of(f)
	if !ok {
		return "", false
	}
	if addr := plain(f.Client); addr.Is6() && l.Per == "client.ip" {
		key = netip.PrefixFrom(addr, 64).Masked().String()
	}
	if len(key) > longestKey {
		sum := sha256.Sum256([]byte(key))
		key = string(sum[:])
	}
	return key, true
}

// hint finds clients that share one address because their proxy is not trusted.
func hint(e *Exceeded, f *Facts) string {
	if e.Rule != "per client.ip" {
		return ""
	}
	return unlisted(f.Request)
}

// A Grant is the place that one socket holds in the limits of its route. A nil Grant limits nothing. Its methods may be called from
// any goroutine.
type Grant struct {
	store    *Store
	accounts atomic.Pointer[[]*account] // changed under the Store's lock
	released bool                       // guarded by the Store's lock
}

// Release gives the place back. It may be called more than once.
func (g *Grant) Release() {
	if g != nil {
		g.store.release(g, time.Now())
	}
}

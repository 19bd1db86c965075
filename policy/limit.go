package policy

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Exceeded says which rule a client has exceeded.
type Exceeded struct {
	Rule       string        // `per client.ip`
	What       string        // the key of the rule: connections, connect_rate, failures, messages, bytes or frames
	Limit      string        // what the rule allows: `256 open`, `50/s`
	RetryAfter time.Duration // when it would pass again; 0 is not known: when one of the client's sockets ends
	Hint       string        // a likely mistake in the configuration, or what else is to be known, or ""

	key string // who has exceeded it
}

// Kind is the same for whoever exceeds the same limit, and Key tells these apart. Both are for logs, which must not show a Key: it may be
// a token.
func (e *Exceeded) Kind() string { return e.Rule + " " + e.What }

// Key is as Kind says. A hint is worth to be told too.
func (e *Exceeded) Key() string { return e.key + e.Hint }

// Error names the rule and the mend.
func (e *Exceeded) Error() string {
	text := fmt.Sprintf("limit %s: %s is at %s; to allow more, raise it under limits", e.Rule, e.What, e.Limit)
	if e.What == "failures" {
		text = fmt.Sprintf("limit %s: failures were more than %s: refused for %s", e.Rule, e.Limit, e.RetryAfter.Round(time.Second))
	}
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
	asks  []string // the claims that its rules look at
}

// A limit is a rule made ready.
type limit struct {
	Rule
	values []Value
	when   []condition
	late   bool // it is known only who it counts when the client has authenticated
	ledger *ledger
}

// Limiter makes the rules of a route ready. It changes nothing for sockets that are open: that is for [Limiter.Apply].
//
// What was counted for the n-th rule with the same `per` and `when` of a route of the same name goes on counting.
func (s *Store) Limiter(route string, rules []Rule) (*Limiter, error) {
	l := &Limiter{store: s, route: route}
	nth := map[string]int{}
	for i, rule := range rules {
		made, err := newLimit(rule)
		if err != nil {
			return nil, fmt.Errorf("route %s: limits[%d]: %w", route, i, err)
		}
		counts := strings.Join(rule.Per, ", ") + " " + rule.When.key()
		made.ledger = s.ledger(route, counts, nth[counts])
		nth[counts]++
		l.rules = append(l.rules, made)
		l.asks = append(l.asks, made.claims()...)
	}
	return l, nil
}

func newLimit(rule Rule) (l limit, err error) {
	l.Rule = rule
	for _, name := range rule.Per {
		value, err := ParseValue(name)
		if err != nil {
			return l, fmt.Errorf("per: %w", err)
		}
		l.values = append(l.values, value)
	}
	_, l.late = rule.late()
	l.when, err = newConditions(rule.When)
	return l, err
}

// claims are the names of those that the rule looks at.
func (l *limit) claims() (names []string) {
	for _, value := range l.values {
		names = append(names, value.Claim())
	}
	for _, c := range l.when {
		names = append(names, c.value.Claim())
	}
	return slices.DeleteFunc(names, func(name string) bool { return name == "" })
}

// byAddress tells whether nothing but its address tells a client from others.
func (l *limit) byAddress() bool { return len(l.Per) == 1 && l.Per[0] == "client.ip" }

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
		exceeded.hint(f)
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
	g.claims = f.Claims.Pick(l.asks...)
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
// they allow. f is what is still known of the client; the grant knows the claims that rules have looked at. A rule by something else than
// that holds it only if one did before.
func (l *Limiter) Hold(g *Grant, f *Facts, now time.Time) {
	if l == nil || g == nil {
		return
	}
	known := *f
	if len(g.claims) > 0 {
		known.Claims = maps.Clone(g.claims)
		maps.Copy(known.Claims, f.Claims)
	}
	l.store.hold(g, l, &known, now)
}

// claims are what the rules count f by: those of its identity, or all others.
func (l *Limiter) claims(f *Facts, ofIdentity bool) (claims []claim) {
	for i := range l.rules {
		if l.rules[i].late != ofIdentity {
			continue
		}
		if key, ok := l.rules[i].key(f); ok {
			claims = append(claims, claim{&l.rules[i], key, f.Client})
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
	for i := range l.when {
		if !l.when[i].holds(f) {
			return "", false
		}
	}
	key := ""
	for i := range l.values {
		text, ok := l.text(i, f)
		switch {
		case !ok:
			return "", false
		case len(l.values) == 1:
			key = text
		default: // the length says where the next begins: a client may have any character in its values
			key += strconv.Itoa(len(text)) + ":" + text
		}
	}
	if len(key) > longestKey {
		sum := sha256.Sum256([]byte(key))
		key = string(sum[:])
	}
	return key, true
}

// text is the i-th of the values that the rule counts f by.
func (l *limit) text(i int, f *Facts) (string, bool) {
	if addr := plain(f.Client); l.Per[i] == "client.ip" && addr.Is6() {
		return netip.PrefixFrom(addr, 64).Masked().String(), true
	}
	return l.values[i].Of(f)
}

// hint finds clients that share one address because their proxy is not trusted.
func (e *Exceeded) hint(f *Facts) {
	if !strings.Contains(e.Rule, "client.ip") {
		return
	}
	if hint := unlisted(f.Request); hint != "" {
		e.Hint = hint
	}
}

// A Grant is the place that one socket holds in the limits of its route. A nil Grant limits nothing. Its methods may be called from
// any goroutine.
type Grant struct {
	store    *Store
	accounts atomic.Pointer[[]*account] // changed under the Store's lock
	released bool                       // guarded by the Store's lock
	claims   Claims                     // of the client, that rules look at; it does not change once the socket is open
}

// Release gives the place back. It may be called more than once.
func (g *Grant) Release() {
	if g != nil {
		g.store.release(g, time.Now())
	}
}

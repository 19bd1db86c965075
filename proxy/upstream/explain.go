package upstream

import (
	"cmp"
	"slices"

	"bridgehead/policy"
)

// Targets are the servers of the group as they are listed, in their order.
func (g *Group) Targets() []*Target {
	g.mu.Lock()
	defer g.mu.Unlock()
	var all []*Target
	for _, e := range g.entries {
		all = append(all, e.target)
	}
	return all
}

// Plan are the servers that a client may come to, and how one of them is chosen. It takes all for idle.
func (g *Group) Plan(f *policy.Facts) (targets []*Target, how string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	entries := slices.DeleteFunc(slices.Clone(g.entries), func(e *entry) bool { return e.terms.drain })
	key, hashed := g.rules.hash.Of(f)
	if hashed {
		slices.SortStableFunc(entries, func(a, b *entry) int { return cmp.Compare(b.scoreLocked(key), a.scoreLocked(key)) })
	}
	for _, e := range entries {
		targets = append(targets, e.target)
	}
	how = g.rules.explain(key)
	if g.rules.resolve > 0 && slices.ContainsFunc(entries, func(e *entry) bool { return e.target.name != "" }) {
		how += "; each address of a name is a server"
	}
	if o := g.rules.sticky; o != nil {
		how += "; with the cookie " + o.Cookie + " the one from before"
	}
	return targets, how
}

// explain says how a server is chosen for a client.
func (r *rules) explain(key string) string {
	switch {
	case r.balance == leastConnections:
		return "the one with the fewest sockets for its weight"
	case r.balance == randomTwo:
		return "of two at random the one with fewer sockets"
	case r.balance == hashing && key != "":
		return "the first that can take it, by the hash of " + r.hash.String()
	case r.balance == hashing:
		return "used in turn, as there is no " + r.hash.String()
	}
	return "used in turn"
}

// HasPath tells whether a server's URL has a path or query, which replaces the client's.
func HasPath(s string) bool {
	t, err := parse(s)
	return err == nil && t.fixed
}

// String is where the server is, without a path.
func (t *Target) String() string {
	if t.network == "unix" {
		return "unix:" + t.address
	}
	return t.scheme + "://" + t.address
}

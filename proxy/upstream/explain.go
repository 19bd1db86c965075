package upstream

import (
	"cmp"
	"slices"

	"bridgehead/policy"
)

// Targets are all servers of the group, in their order.
func (g *Group) Targets() []*Target {
	g.mu.Lock()
	defer g.mu.Unlock()
	var all []*Target
	for _, s := range g.servers {
		all = append(all, s.target)
	}
	return all
}

// Plan are the servers that a client may come to, and how one of them is chosen. It takes all for idle.
func (g *Group) Plan(f *policy.Facts) (targets []*Target, how string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	servers := slices.DeleteFunc(slices.Clone(g.servers), func(s *server) bool { return s.terms.drain })
	key, hashed := g.rules.hash.Of(f)
	if hashed {
		slices.SortStableFunc(servers, func(a, b *server) int { return cmp.Compare(b.score(key), a.score(key)) })
	}
	for _, s := range servers {
		targets = append(targets, s.target)
	}
	how = g.rules.explain(key)
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

package upstream

import (
	"cmp"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"
)

// What `balance` may say.
const (
	roundRobin       = "round_robin"
	leastConnections = "least_connections"
	randomTwo        = "random_two"
	hashing          = "hash"
)

// choose picks one of some servers, of which there is at least one, for a client whose hashed value is key. The group's mutex is
// held.
func (r *rules) choose(servers []*server, key string) *server {
	switch {
	case r.balance == leastConnections:
		return leastBusy(servers)
	case r.balance == randomTwo:
		first := draw(servers)
		others := slices.DeleteFunc(slices.Clone(servers), func(s *server) bool { return s == first })
		if len(others) == 0 {
			return first
		}
		return leastBusy([]*server{first, draw(others)})
	case r.balance == hashing && key != "":
		return byScore(servers, key)
	}
	return inTurn(servers)
}

// inTurn is the smooth weighted round robin: each gets its share, and the shares are interleaved. Every server is owed its weight
// each time; the one that is owed most is taken, and pays for all.
func inTurn(servers []*server) *server {
	total := 0.0
	for _, s := range servers {
		s.turn += s.weight
		total += s.weight
	}
	next := slices.MaxFunc(servers, func(a, b *server) int { return cmp.Compare(a.turn, b.turn) })
	next.turn -= total
	return next
}

// leastBusy is the one with the fewest sockets for its weight; of several, those take turns.
func leastBusy(servers []*server) *server {
	least := servers[0].loadLocked()
	for _, s := range servers {
		least = min(least, s.loadLocked())
	}
	return inTurn(slices.DeleteFunc(slices.Clone(servers), func(s *server) bool { return s.loadLocked() > least }))
}

// draw takes one at random, by weight.
func draw(servers []*server) *server {
	total := 0.0
	for _, s := range servers {
		total += s.weight
	}
	at := rand.Float64() * total
	for _, s := range servers {
		if at -= s.weight; at < 0 {
			return s
		}
	}
	return servers[len(servers)-1]
}

// byScore takes the entry with the highest score for a key and then its server with the highest, so that a name whose only server gets
// another address keeps its keys.
func byScore(servers []*server, key string) *server {
	of := slices.MaxFunc(servers, func(a, b *server) int { return cmp.Compare(a.entry.scoreLocked(key), b.entry.scoreLocked(key)) }).entry
	servers = slices.DeleteFunc(slices.Clone(servers), func(s *server) bool { return s.entry != of })
	return slices.MaxFunc(servers, func(a, b *server) int { return cmp.Compare(score(key, a.key, 1), score(key, b.key, 1)) })
}

// scoreLocked is that of all servers of the entry together.
func (e *entry) scoreLocked(key string) float64 {
	return score(key, e.key, e.terms.weight*float64(max(1, e.presentLocked())))
}

// score ranks what has names for one key by weighted rendezvous hashing: each draws its own number for the key, and the highest wins.
// A server that comes or goes moves only the keys that it wins, and every program that has the same URLs finds the same order.
func score(key, name string, weight float64) float64 {
	h := fnv.New64a()
	h.Write([]byte(key))
	h.Write([]byte{0})
	h.Write([]byte(name))
	const fraction = 53 // bits that a float64 holds
	unit := (float64(mix(h.Sum64())>>(64-fraction)) + 0.5) / (1 << fraction)
	return -weight / math.Log(unit)
}

// mix spreads what differs in few bits over all (the finalizer of MurmurHash3): FNV leaves the high bits of like texts alike.
func mix(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

package policy

import (
	"cmp"
	"net/netip"
	"slices"
)

// A roster is many networks, in which the one that holds an address is found in logarithmic time. It does not change.
type roster struct{ entries []entry } // sorted, and none within another

// An entry is a network, and which line or element of its list it was.
type entry struct {
	prefix netip.Prefix
	nth    int32
}

// newRoster keeps the entries, and sorts them in place. Those within others are left out: the wider ones decide anyhow.
func newRoster(entries []entry) *roster {
	slices.SortFunc(entries, func(a, b entry) int {
		return cmp.Or(a.prefix.Addr().Compare(b.prefix.Addr()), cmp.Compare(a.prefix.Bits(), b.prefix.Bits()), cmp.Compare(a.nth, b.nth))
	})
	kept := entries[:0]
	for _, e := range entries { // the network before it that could hold it is the last one kept
		if n := len(kept); n == 0 || !holds(kept[n-1].prefix, e.prefix) {
			kept = append(kept, e)
		}
	}
	return &roster{slices.Clip(slices.Clone(kept))}
}

func holds(wide, narrow netip.Prefix) bool {
	return wide.Bits() <= narrow.Bits() && wide.Contains(narrow.Addr())
}

// find gives the entry that holds an address; nil: none does.
func (r *roster) find(a netip.Addr) *entry {
	i, exact := slices.BinarySearchFunc(r.entries, a, func(e entry, a netip.Addr) int { return e.prefix.Addr().Compare(a) })
	if !exact {
		i--
	}
	if i < 0 || !r.entries[i].prefix.Contains(a) {
		return nil
	}
	return &r.entries[i]
}

// covers tells which entry holds a whole network; nil: none does.
func (r *roster) covers(p netip.Prefix) *entry {
	if e := r.find(p.Addr()); e != nil && holds(e.prefix, p) {
		return e
	}
	return nil
}

// rosterOf makes networks of the configuration ready.
func rosterOf(list Networks) *roster {
	var entries []entry
	for i, n := range list {
		for _, p := range n.prefixes {
			entries = append(entries, entry{p, int32(i)})
		}
	}
	return newRoster(entries)
}

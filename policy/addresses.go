package policy

import (
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"

	"bridgehead/internal/yamlpos"
)

// Addresses say where the clients of a route may come from. It is about the true client, whom trusted proxies and PROXY headers name.
type Addresses struct {
	// Who may come in: CIDRs, addresses, `private` (RFC 1918 and unique local IPv6), `loopback`. With this or `allow_files` nobody else
	// may. Default: everybody.
	Allow Networks `yaml:"allow"`
	// Who may not come in, whatever `allow` says. Default: nobody.
	Deny Networks `yaml:"deny"`
	// Files with more that may come in, an entry a line; `#` begins a comment. They are read again when they change, and hold 500,000
	// lines at most.
	AllowFiles []string `yaml:"allow_files"`
	// Files with more that may not come in.
	DenyFiles []string `yaml:"deny_files"`
}

// IsZero tells whether everybody may come in.
func (o *Addresses) IsZero() bool {
	return len(o.Allow) == 0 && len(o.Deny) == 0 && len(o.AllowFiles) == 0 && len(o.DenyFiles) == 0
}

// Files gives the places of all paths, to be made absolute.
func (o *Addresses) Files() (paths []*string) {
	for _, list := range [][]string{o.AllowFiles, o.DenyFiles} {
		for i := range list {
			paths = append(paths, &list[i])
		}
	}
	return paths
}

// Validate reports what cannot work. It does not look at the files: ReadAddresses does.
func (o *Addresses) Validate(at yamlpos.Path, p *yamlpos.Problems) {
	for _, list := range []struct {
		key   string
		paths []string
	}{{"allow_files", o.AllowFiles}, {"deny_files", o.DenyFiles}} {
		for i, path := range list.paths {
			if path == "" {
				p.Add(at.Key(list.key).Index(i), "must name a file")
			}
		}
	}
}

// Warn reports what works and may not have been meant: whoever is allowed and denied.
func (o *Addresses) Warn(at yamlpos.Path, p *yamlpos.Problems) {
	denied := rosterOf(o.Deny)
	for i, n := range o.Allow {
		var by *entry
		for _, prefix := range n.prefixes {
			if by = denied.covers(prefix); by == nil {
				break
			}
		}
		if by != nil {
			p.Add(at.Key("allow").Index(i), "%s lets nobody in: deny wins, and %s stands there; take one of the two out", n, o.Deny[by.nth])
		}
	}
}

// Barred says of an address that it may not come in, and how to let it in.
type Barred struct {
	Addr  netip.Addr
	Entry string // that denies it, with its place; "": it is not among those that are allowed
	Lists string // in which it would have to stand then
	Hint  string // a likely mistake in the configuration, or ""
}

// Error names the entry and the mend.
func (b *Barred) Error() string {
	text := fmt.Sprintf("%s is not in %s; to let it in, list it there", b.Addr, b.Lists)
	if b.Entry != "" {
		text = fmt.Sprintf("%s is denied by %s; to let it in, take that out", b.Addr, b.Entry)
	}
	if b.Hint != "" {
		text += "; " + b.Hint
	}
	return text
}

// Key is the same for all whom one entry denies.
func (b *Barred) Key() string {
	if b.Entry != "" {
		return b.Entry
	}
	return b.Addr.String()
}

// An AddressList is who may come in to a route, as its options and files say now. A nil AddressList lets everybody in. Its methods may be
// called from any goroutine.
type AddressList struct{ allow, deny []*register }

// A register is one list of addresses: one of the configuration, or a file.
type register struct {
	place   string   // as messages name it: `addresses.deny`, or a path
	own     Networks // as they are written; nil: it is a file
	current atomic.Pointer[roster]
}

func newRegister(place string, own Networks) *register {
	g := &register{place: place, own: own}
	g.current.Store(rosterOf(own))
	return g
}

// name tells which entry it is, and where to find it.
func (g *register) name(e *entry) string {
	if g.own != nil {
		return fmt.Sprintf("%s in %s", g.own[e.nth], g.place)
	}
	text := e.prefix.String()
	if e.prefix.IsSingleIP() {
		text = e.prefix.Addr().String()
	}
	return fmt.Sprintf("%s in %s:%d", text, g.place, e.nth)
}

// find gives the first of several registers that has an address, and its entry; nil: none has.
func find(all []*register, a netip.Addr) (*register, *entry) {
	for _, g := range all {
		if e := g.current.Load().find(a); e != nil {
			return g, e
		}
	}
	return nil, nil
}

// Check tells why a client may not come in; nil: it may. The error is a [*Barred]. An IPv4 address inside IPv6 counts as IPv4, and zones do
// not count.
func (l *AddressList) Check(f *Facts) error {
	if l == nil {
		return nil
	}
	a := plain(f.Client)
	if g, e := find(l.deny, a); e != nil {
		return &Barred{Addr: a, Entry: g.name(e)}
	}
	if len(l.allow) == 0 {
		return nil
	}
	if _, e := find(l.allow, a); e != nil {
		return nil
	}
	b := &Barred{Addr: a, Lists: places(l.allow)}
	if f.Request != nil {
		b.Hint = unlisted(f.Request)
	}
	return b
}

// Reason tells why a client may come in. The error is that of Check if it may not.
func (l *AddressList) Reason(f *Facts) (string, error) {
	if err := l.Check(f); err != nil {
		return "", err
	}
	a := plain(f.Client)
	var reasons []string
	if g, e := find(l.allow, a); e != nil {
		reasons = append(reasons, "allowed by "+g.name(e))
	}
	if len(l.deny) > 0 {
		reasons = append(reasons, "not in "+places(l.deny))
	}
	return fmt.Sprintf("%s is %s", a, strings.Join(reasons, ", and ")), nil
}

func places(all []*register) string {
	var names []string
	for _, g := range all {
		names = append(names, g.place)
	}
	return strings.Join(names, " or ")
}

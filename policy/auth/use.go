package auth

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"bridgehead/internal/yamlpos"
	"bridgehead/policy"
)

// none is how a file says that everybody may come in.
const none = "none"

// Use says which authenticators have to know a client. It is written as the name of one, as `none`, or as a mapping. The zero Use
// is `none`.
type Use struct {
	// Names of authenticators, of which one has to let the client in. They are asked in this order.
	Any []string `yaml:"any"`
	// Names of authenticators, all of which have to let the client in. The first says who it is.
	All []string `yaml:"all"`
}

// UnmarshalText reads the name of an authenticator, or `none`.
func (u *Use) UnmarshalText(text []byte) error {
	if name := string(text); name != none {
		u.Any = []string{name}
	}
	return nil
}

// MarshalText gives the name, or `none`. A Use of several names has no text that says all.
func (u Use) MarshalText() ([]byte, error) {
	switch names := u.Names(); {
	case len(names) == 0:
		return []byte(none), nil
	case len(names) == 1:
		return []byte(names[0]), nil
	case len(u.Any) > 0:
		return []byte("any of " + strings.Join(names, ", ")), nil
	default:
		return []byte(strings.Join(names, " and ")), nil
	}
}

// String is what MarshalText gives.
func (u Use) String() string {
	text, _ := u.MarshalText()
	return string(text)
}

// Names are the authenticators that are used.
func (u Use) Names() []string { return slices.Concat(u.Any, u.All) }

// IsNone tells whether everybody may come in.
func (u Use) IsNone() bool { return len(u.Any)+len(u.All) == 0 }

// Validate reports what cannot work. Whether there are such authenticators is for the file to tell.
func (u *Use) Validate(at yamlpos.Path, p *yamlpos.Problems) {
	switch {
	case len(u.Any) > 0 && len(u.All) > 0:
		p.Add(at, "has both any and all: give it one of them")
	case u.IsNone() && (u.Any != nil || u.All != nil):
		p.Add(at, "names nobody, and so lets nobody in: name authenticators or, to let everybody in, write none")
	}
	for _, list := range []struct {
		key   string
		names []string
	}{{"any", u.Any}, {"all", u.All}} {
		for i, name := range list.names {
			if name == none && len(u.Names()) > 1 {
				p.Add(at.Key(list.key).Index(i), "none lets everybody in, and stands alone: `auth: none`")
			}
		}
	}
}

// nameForm is how authenticators are called: they show in logs.
var nameForm = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]*$`)

// CheckName tells what is wrong with the name of an authenticator.
func CheckName(name string) error {
	switch {
	case name == none:
		return fmt.Errorf("none is no name: `auth: none` lets everybody in")
	case !nameForm.MatchString(name):
		return fmt.Errorf("%q cannot be the name of an authenticator: write letters, digits, - and _", name)
	}
	return nil
}

// A Requirement is what a route demands of those who have been let in: for values such as `claim.plan` or `user` the texts of which
// one has to be theirs.
type Requirement map[string][]string

// Validate reports what cannot work.
func (q Requirement) Validate(at yamlpos.Path, p *yamlpos.Problems) {
	for _, name := range slices.Sorted(maps.Keys(q)) {
		if v, err := policy.ParseValue(name); err != nil || !v.OfIdentity() {
			p.Add(at.Key(name), "%q is nothing to require: write user or claim.NAME", name)
		}
		if len(q[name]) == 0 {
			p.Add(at.Key(name), "allows no value, and so nobody: list those that may come in")
		}
		for i, text := range q[name] {
			if _, err := policy.ParseTemplate(text); err != nil {
				p.Add(at.Key(name).Index(i), "%v", err)
			}
		}
	}
}

// Captures are the captures of host and path in its texts.
func (q Requirement) Captures() (names []string) {
	for _, texts := range q {
		for _, text := range texts {
			if t, err := policy.ParseTemplate(text); err == nil {
				names = append(names, t.Captures()...)
			}
		}
	}
	return names
}

// A demand is one line of a Requirement made ready.
type demand struct {
	value policy.Value
	texts []policy.Template
}

func newDemands(q Requirement) (all []demand, err error) {
	for _, name := range slices.Sorted(maps.Keys(q)) {
		d := demand{}
		if d.value, err = policy.ParseValue(name); err != nil {
			return nil, err
		}
		for _, text := range q[name] {
			t, err := policy.ParseTemplate(text)
			if err != nil {
				return nil, err
			}
			d.texts = append(d.texts, t)
		}
		all = append(all, d)
	}
	return all, nil
}

// meets tells why a client that is known does not do. A list of claims meets what one of its elements meets; the empty text meets
// nothing, so that an empty capture lets nobody in.
func (d *demand) meets(f *policy.Facts) error {
	has := []string{f.User}
	if name := d.value.Claim(); name != "" {
		has = f.Claims.Texts(name)
	}
	var wanted []string
	for _, t := range d.texts {
		text, err := t.Expand(f, nil)
		if err != nil || text == "" {
			continue
		}
		if slices.Contains(has, text) {
			return nil
		}
		wanted = append(wanted, text)
	}
	return fmt.Errorf("%s is %.200q, and the route requires %.200q", d.value, has, wanted)
}

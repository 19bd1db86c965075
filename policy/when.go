package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"bridgehead/internal/yamlpos"
)

// A When narrows a rule to clients of some kind: for values such as `claim.plan` the texts of which one has to be theirs.
type When map[string][]string

// Validate reports what cannot work.
func (w When) Validate(at yamlpos.Path, p *yamlpos.Problems) {
	for _, name := range slices.Sorted(maps.Keys(w)) {
		switch _, err := ParseValue(name); {
		case err != nil:
			p.Add(at.Key(name), "%v", err)
		case name == "client.ip":
			p.Add(at.Key(name), "networks are told apart by except: list there those that the rule does not count")
		case name == "conn.id":
			p.Add(at.Key(name), "every connection has another id")
		}
		if len(w[name]) == 0 {
			p.Add(at.Key(name), "lists no value, and so nobody: list those of the clients that the rule counts")
		}
		for i, text := range w[name] {
			if text == "" {
				p.Add(at.Key(name).Index(i), "is the empty text, which nobody has")
			} else if strings.ContainsAny(text, "{}") {
				p.Add(at.Key(name).Index(i), "%q: braces have no meaning here: write the text itself", text)
			}
		}
	}
}

// String tells it to people: `claim.plan is free or trial`.
func (w When) String() string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(w)) {
		all = append(all, name+" is "+strings.Join(w[name], " or "))
	}
	return strings.Join(all, " and ")
}

// key is the same for those that mean the same.
func (w When) key() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(w)) {
		fmt.Fprintf(&b, "%s%q", name, slices.Sorted(slices.Values(w[name])))
	}
	return b.String()
}

// A condition is one line of a When made ready.
type condition struct {
	value Value
	texts []string
}

func newConditions(w When) (all []condition, err error) {
	for _, name := range slices.Sorted(maps.Keys(w)) {
		value, err := ParseValue(name)
		if err != nil {
			return nil, fmt.Errorf("when: %w", err)
		}
		all = append(all, condition{value, w[name]})
	}
	return all, nil
}

// holds tells whether the client is meant. A list of claims is meant by one of its elements.
func (c *condition) holds(f *Facts) bool {
	if name := c.value.Claim(); name != "" {
		return slices.ContainsFunc(f.Claims.Texts(name), func(has string) bool { return slices.Contains(c.texts, has) })
	}
	has, _ := c.value.Of(f)
	return slices.Contains(c.texts, has)
}

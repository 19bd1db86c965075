package policy

import (
	"fmt"
	"strings"
)

// A Template is a text with values of a handshake in it: `room-{room}`. `{{` stands for a brace.
type Template struct {
	parts []part
}

// A part is a literal text or, with a value, what the handshake says.
type part struct {
	literal string
	value   Value
}

// ParseTemplate reads a template.
func ParseTemplate(s string) (Template, error) {
	var t Template
	var literal strings.Builder
	for rest := s; rest != ""; {
		text, tail, found := strings.Cut(rest, "{")
		literal.WriteString(text)
		if !found {
			break
		}
		if after, ok := strings.CutPrefix(tail, "{"); ok {
			literal.WriteByte('{')
			rest = after
			continue
		}
		name, after, closed := strings.Cut(tail, "}")
		if !closed {
			return Template{}, fmt.Errorf("%q: a { is not closed; write {{ for a brace", s)
		}
		value, err := ParseValue(name)
		if err != nil {
			return Template{}, fmt.Errorf("%q: %w", s, err)
		}
		t.parts = append(t.parts, part{literal: literal.String()}, part{value: value})
		literal.Reset()
		rest = after
	}
	t.parts = append(t.parts, part{literal: literal.String()})
	return t, nil
}

// Expand puts in the values, each through escape unless that is nil; the literal text stays as it is. A value that the handshake
// does not have is an error that names it; only a capture may be empty, as `{rest...}` is at the end of its prefix.
func (t Template) Expand(f *Facts, escape func(string) string) (string, error) {
	var b strings.Builder
	for _, p := range t.parts {
		if p.value == (Value{}) {
			b.WriteString(p.literal)
			continue
		}
		s, ok := p.value.Of(f)
		if !ok && p.value.Capture() == "" {
			return "", fmt.Errorf("value %s is missing in this handshake", p.value)
		}
		if escape != nil {
			s = escape(s)
		}
		b.WriteString(s)
	}
	return b.String(), nil
}

// Captures are the names of the captures in it, in order.
func (t Template) Captures() []string {
	var names []string
	for _, p := range t.parts {
		if name := p.value.Capture(); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// Literal is the text of a template without values; false if there are any.
func (t Template) Literal() (string, bool) {
	if len(t.parts) > 1 {
		return "", false
	}
	if len(t.parts) == 0 {
		return "", true
	}
	return t.parts[0].literal, true
}

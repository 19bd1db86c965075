package yamlpos

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// A Problem is one mistake, and where it stands. It prints as `config.yaml:10:16: routes[2].webhook.timeout: must not be
// negative`; what is not known of its place is left out.
type Problem struct {
	File         string
	Line, Column int // from 1; 0 is not known
	Path         Path
	Message      string
	Allowed      []string // the words that may stand there instead, if there is a list of them
}

// Error is the problem in one line.
func (p Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.File)
	for _, n := range []int{p.Line, p.Column} {
		if n > 0 {
			fmt.Fprintf(&b, ":%d", n)
		}
	}
	if b.Len() > 0 {
		b.WriteString(": ")
	}
	if len(p.Path) > 0 {
		b.WriteString(p.Path.String() + ": ")
	}
	b.WriteString(p.Message)
	return b.String()
}

// String is the problem in one line.
func (p Problem) String() string { return p.Error() }

// maxProblems is how many are told: more are no help, and a file of something else may have millions.
const maxProblems = 100

// Problems collects mistakes. The zero value is ready, and knows no positions; those of a [Document] do. It is an error
// with one line per problem; return [Problems.Err]. Not safe for concurrent use.
type Problems struct {
	file    string
	tree    *tree           // nil: positions are not known
	found   []Problem       // maxProblems at most
	more    bool            // there may be more
	known   map[string]bool // what was found, by place and message
	broken  map[string]bool // paths of what could not be decoded: nothing is to be said of its value
	inherit map[string]Path // by section: where values come from that it does not give itself
}

// Add reports a problem with what stands at a path. It is dropped when that value, or one around it, could not be decoded:
// the reason was reported, and whatever else is wrong with it follows from that.
func (p *Problems) Add(at Path, format string, args ...any) {
	p.add(at, nil, fmt.Sprintf(format, args...))
}

func (p *Problems) add(at Path, allowed []string, message string) {
	n := &yaml.Node{}
	if p.tree != nil {
		at = p.origin(at)
		n, _ = p.tree.find(at)
	}
	if p.Broken(at) {
		return
	}
	p.report(Problem{p.file, n.Line, n.Column, at, message, allowed})
}

// OneOf reports a value that is none of the allowed ones.
func (p *Problems) OneOf(at Path, got string, allowed ...string) {
	if slices.Contains(allowed, got) {
		return
	}
	p.add(at, allowed, fmt.Sprintf("must be %s, not %q%s", or(allowed), got, DidYouMean(got, allowed)))
}

// Inherit says that values which are not given below a path are those of another: problems with them are reported there.
func (p *Problems) Inherit(to, from Path) {
	if p.inherit == nil {
		p.inherit = map[string]Path{}
	}
	p.inherit[to.String()] = from
}

// Given tells whether the file itself has a value at a path.
func (p *Problems) Given(at Path) bool {
	if p.tree == nil {
		return false
	}
	_, depth := p.tree.find(at)
	return depth == len(at)
}

// Broken tells whether the value at a path, or one around it, could not be decoded.
func (p *Problems) Broken(at Path) bool {
	for i := range len(at) + 1 {
		if p.broken[at[:i].String()] {
			return true
		}
	}
	return false
}

// Within tells whether there is a problem at or below a path.
func (p *Problems) Within(at Path) bool {
	return slices.ContainsFunc(p.found, func(f Problem) bool { return f.Path.startsWith(at) })
}

// Sorted are the problems in the order of the file.
func (p *Problems) Sorted() []Problem {
	sorted := slices.Clone(p.found)
	slices.SortStableFunc(sorted, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return sorted
}

// Error is one line per problem, in the order of the file.
func (p *Problems) Error() string {
	var lines []string
	for _, f := range p.Sorted() {
		lines = append(lines, f.Error())
	}
	if p.more {
		lines = append(lines, fmt.Sprintf("there may be more: these are the first %d found", len(lines)))
	}
	return strings.Join(lines, "\n")
}

// Err is p, or nil if there are no problems.
func (p *Problems) Err() error {
	if len(p.found) == 0 {
		return nil
	}
	return p
}

// fail reports why the value at a path could not be decoded.
func (p *Problems) fail(n *yaml.Node, at Path, format string, args ...any) {
	p.markBroken(at)
	p.tell(n, at, fmt.Sprintf(format, args...))
}

// tell reports a problem that a node has.
func (p *Problems) tell(n *yaml.Node, at Path, message string) {
	p.report(Problem{File: p.file, Line: n.Line, Column: n.Column, Path: at, Message: message})
}

func (p *Problems) markBroken(at Path) {
	if p.broken == nil {
		p.broken = map[string]bool{}
	}
	p.broken[at.String()] = true
}

// report keeps a problem unless it is known: what stands behind an alias, or in a section that others inherit, is looked at
// several times.
func (p *Problems) report(f Problem) {
	place := f.Path.String()
	if f.Line > 0 {
		place = fmt.Sprintf("%d:%d", f.Line, f.Column)
	}
	key := place + " " + f.Message
	if p.known[key] {
		return
	}
	if p.full() {
		return
	}
	if p.known == nil {
		p.known = map[string]bool{}
	}
	p.known[key] = true
	p.found = append(p.found, f)
}

// origin is the path under which the value at a path was given.
func (p *Problems) origin(at Path) Path {
	for i := range at {
		section, inherited := p.inherit[at[:i].String()]
		if !inherited {
			continue
		}
		from := append(section[:len(section):len(section)], at[i:]...)
		_, own := p.tree.find(at)
		_, theirs := p.tree.find(from)
		if own-i < theirs-len(section) {
			return from
		}
	}
	return at
}

// full tells whoever has more to say whether enough has been found to stop.
func (p *Problems) full() bool {
	p.more = p.more || len(p.found) >= maxProblems
	return p.more
}

// Len is the number of problems.
func (p *Problems) Len() int { return len(p.found) }

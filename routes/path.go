package routes

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// pathPattern matches paths: any, if it is not given.
type pathPattern struct {
	given    bool
	segments []part
	prefix   bool   // more segments may follow these
	rest     string // the name for those that follow; there is at least one, which may be empty
}

func parsePath(s string) (pathPattern, error) {
	if s == "" {
		return pathPattern{}, nil
	}
	tail, ok := strings.CutPrefix(s, "/")
	if !ok {
		return pathPattern{}, errors.New("a path begins with a slash; leave path out for any path")
	}
	if strings.ContainsAny(s, "?#") {
		return pathPattern{}, errors.New("a path has no query and no fragment")
	}
	p := pathPattern{given: true}
	texts := strings.Split(tail, "/")
	for i, text := range texts {
		last := i == len(texts)-1
		if text == "*" && last {
			p.prefix = true
			break
		}
		segment, err := parseSegment(text, last)
		if err != nil {
			return pathPattern{}, err
		}
		if name, ok := strings.CutSuffix(segment.name, "..."); ok {
			p.rest = name
			break
		}
		p.segments = append(p.segments, segment)
	}
	return p, nil
}

func parseSegment(s string, last bool) (part, error) {
	p, err := parsePart(s)
	if err != nil {
		return part{}, err
	}
	if p.literal, err = url.PathUnescape(p.literal); err != nil {
		return part{}, err
	}
	switch {
	case strings.HasSuffix(p.name, "...") && !last:
		return part{}, fmt.Errorf("%s stands at the end alone", s)
	case s == "" && !last:
		return part{}, errors.New("a segment between the slashes is empty")
	case strings.Contains(s, "*"):
		return part{}, errors.New("* stands alone at the end, as in /ws/*; {name} is one segment")
	case dotted(p.literal):
		return part{}, errors.New("dot segments match nothing")
	}
	return p, nil
}

// splitPath cuts an escaped path into decoded segments, appended to buf. A path with dot segments has none.
func splitPath(buf []string, escaped string) []string {
	tail, ok := strings.CutPrefix(escaped, "/")
	if !ok {
		return nil
	}
	for text := range strings.SplitSeq(tail, "/") {
		segment, err := url.PathUnescape(text)
		if err != nil || dotted(segment) {
			return nil
		}
		buf = append(buf, segment)
	}
	return buf
}

// dotted tells whether a backend may find a dot segment (RFC 3986, section 3.3) in a decoded segment: also behind an encoded slash,
// a backslash, or in front of parameters (`..;x`).
func dotted(segment string) bool {
	if !strings.Contains(segment, ".") {
		return false
	}
	for s := range strings.SplitSeq(strings.ReplaceAll(segment, `\`, "/"), "/") {
		if name, _, _ := strings.Cut(s, ";"); name == "." || name == ".." {
			return true
		}
	}
	return false
}

func (p pathPattern) match(segments []string) bool {
	if !p.given {
		return true
	}
	if len(segments) == 0 || len(segments) < len(p.segments) {
		return false
	}
	for i, s := range p.segments {
		if s.name == "" && s.literal != segments[i] || s.name != "" && segments[i] == "" {
			return false
		}
	}
	more := segments[len(p.segments):]
	switch {
	case p.prefix:
		return true
	case p.rest == "":
		return len(more) == 0
	}
	for _, s := range more {
		if strings.Contains(s, "/") {
			return false
		}
	}
	return len(more) > 0
}

func (p pathPattern) covers(q pathPattern) bool {
	if !p.given || !q.given {
		return !p.given
	}
	if len(q.segments) < len(p.segments) {
		return false
	}
	for i, s := range p.segments {
		if !s.covers(q.segments[i]) {
			return false
		}
	}
	more := q.segments[len(p.segments):]
	switch {
	case p.prefix:
		return true
	case p.rest == "":
		return len(more) == 0 && !q.prefix && q.rest == ""
	}
	for _, s := range more {
		if s.name != "" || strings.Contains(s.literal, "/") { // {name} may hold an encoded slash, {rest...} may not
			return false
		}
	}
	return !q.prefix && (len(more) > 0 || q.rest != "")
}

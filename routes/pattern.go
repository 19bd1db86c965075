package routes

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// A Pattern says which requests a route is for, by host and path. The zero Pattern matches every request.
type Pattern struct {
	host hostPattern
	path pathPattern
}

// A part is a label of a host or a segment of a path: a literal text or, with a name, a capture.
type part struct {
	literal, name string
}

// Parse reads a pattern.
//
// The host is exact (`chat.example.com`, an IP address), `*.example.com` for any names below a domain but not the domain itself,
// or has captures that stand for one label each (`{tenant}.app.example.com`); "" is any host. Case, port and a trailing dot do not
// count.
//
// The path is exact (`/ws`), a prefix (`/ws/*`, which matches `/ws` too), or has captures: `/rooms/{room}` for one segment that
// is not empty, `/files/{rest...}` for all that follows the slash; "" is any path. Segments are compared decoded, one by one: an
// encoded slash does not end a segment (and is refused by {rest...}, which could not tell it from a slash), no path is cleaned, a
// trailing slash counts. A path with dot segments, however encoded, is matched by "" alone: a backend might resolve it to a path
// that the pattern does not match.
func Parse(host, path string) (Pattern, error) {
	h, err := parseHost(host)
	if err != nil {
		return Pattern{}, fmt.Errorf("host %q: %w", host, err)
	}
	p, err := parsePath(path)
	if err != nil {
		return Pattern{}, fmt.Errorf("path %q: %w", path, err)
	}
	pattern := Pattern{h, p}
	names := slices.Sorted(slices.Values(pattern.Captures()))
	for i := 1; i < len(names); i++ {
		if names[i] == names[i-1] {
			return Pattern{}, fmt.Errorf("capture {%s} stands twice in host %q and path %q", names[i], host, path)
		}
	}
	return pattern, nil
}

// Captures are the names of the captures, those of the host first.
func (p Pattern) Captures() []string {
	var names []string
	for _, part := range slices.Concat(p.host.labels, p.path.segments) {
		if part.name != "" {
			names = append(names, part.name)
		}
	}
	if p.path.rest != "" {
		names = append(names, p.path.rest)
	}
	return names
}

// HasHost tells whether the pattern holds its requests to some domain: whether there is a literal label in its host.
func (p Pattern) HasHost() bool {
	return slices.ContainsFunc(p.host.labels, func(l part) bool { return l.name == "" })
}

// MatchesHost tells whether the pattern is for a host, as [Hostname] gives it.
func (p Pattern) MatchesHost(host string) bool {
	var labels [16]string
	return p.host.match(splitHost(labels[:0], host))
}

// Covers tells whether p surely matches every request that q matches.
func (p Pattern) Covers(q Pattern) bool { return p.host.covers(q.host) && p.path.covers(q.path) }

func (p Pattern) match(r *request) bool { return p.host.match(r.labels) && p.path.match(r.segments) }

// A Capture is a part of a request's host or path, decoded, that has a name in the pattern.
type Capture struct{ Name, Value string }

// capture takes the captures out of a request that matches.
func (p Pattern) capture(r *request) []Capture {
	var captures []Capture
	behind := len(r.labels) - len(p.host.labels)
	for i, l := range p.host.labels {
		if l.name != "" {
			captures = append(captures, Capture{l.name, r.labels[behind+i]})
		}
	}
	for i, s := range p.path.segments {
		if s.name != "" {
			captures = append(captures, Capture{s.name, r.segments[i]})
		}
	}
	if p.path.rest != "" {
		rest := strings.Join(r.segments[len(p.path.segments):], "/")
		captures = append(captures, Capture{p.path.rest, rest})
	}
	return captures
}

// A request is what patterns look at, taken apart once.
type request struct {
	host     string   // as Hostname gives it
	labels   []string // of the host; none if no pattern can match it but the one for any host
	segments []string // of the path, decoded; none if no pattern can match it but the one for any path
}

// split takes a request apart. Labels and segments are appended to the buffers, which the caller may have on its stack.
func split(host string, u *url.URL, labels, segments []string) request {
	host = Hostname(host)
	return request{host, splitHost(labels, host), splitPath(segments, u.EscapedPath())}
}

// parsePart reads a part; a literal comes back as it stands.
func parsePart(s string) (part, error) {
	if !strings.ContainsAny(s, "{}") {
		return part{literal: s}, nil
	}
	name, opened := strings.CutPrefix(s, "{")
	name, closed := strings.CutSuffix(name, "}")
	if !opened || !closed {
		return part{}, fmt.Errorf("%q: a capture stands alone between separators, as in {name}", s)
	}
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_"
	identifier := strings.TrimSuffix(name, "...")
	switch {
	case identifier == "" || !strings.Contains(letters, identifier[:1]) || strings.Trim(identifier, letters+"0123456789") != "":
		return part{}, fmt.Errorf("capture %s: a name is made of letters, digits and _", s)
	case identifier == "user" || identifier == "host": // values of every handshake
		return part{}, fmt.Errorf("capture %s would hide the value of that name: name it otherwise", s)
	}
	return part{name: name}, nil
}

// covers tells whether p stands for all that q stands for, where both are one part.
func (p part) covers(q part) bool {
	if p.name == "" {
		return q.name == "" && p.literal == q.literal
	}
	return q.name != "" || q.literal != ""
}

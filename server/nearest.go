package server

import (
	"cmp"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"

	"bridgehead/internal/yamlpos"
	"bridgehead/routes"
)

// mostNear is how many routes are told of that do not match.
const mostNear = 5

// A near is a route that almost matches.
type near struct {
	routes.Miss
	reason string
	rank   int // how far it is from matching
}

// explainMisses tells why no route matches, the nearest first.
func (x *explainer) explainMisses() {
	answer := record(http.HandlerFunc(routes.NotFound), x.request)
	text := fmt.Sprintf("none takes host %q with path %q", routes.Hostname(x.request.Host), x.request.URL.EscapedPath())
	if why := routes.Unmatchable(x.request); why != "" {
		text += ": " + why
	}
	x.add(Step{Subject: "route", Verdict: No, Status: answer.status, Text: text, body: answer.body.String()})
	misses := x.table.Misses(x.Listener, x.request)
	all := make([]near, len(misses))
	for i, m := range misses {
		all[i] = x.near(m)
	}
	slices.SortStableFunc(all, func(a, b near) int { return cmp.Compare(a.rank, b.rank) })
	for _, n := range all[:min(len(all), mostNear)] {
		r := &x.config.Routes[n.Index]
		x.tell("nearest", "", "%s (%s): %s", r.Name, x.place(yamlpos.Path{"routes", n.Index}), n.reason)
	}
	if more := len(all) - mostNear; more > 0 {
		x.tell("nearest", "", "%d more are farther away", more)
	}
}

// near finds the first thing that does not fit. What is almost right counts less.
func (x *explainer) near(m routes.Miss) near {
	n := near{Miss: m}
	r := &x.config.Routes[m.Index]
	host, path := routes.Hostname(x.request.Host), x.request.URL.EscapedPath()
	if !m.Listener {
		n.rank++
		n.reason = fmt.Sprintf("it is served by the listener %s, not by %s", strings.Join(r.Listeners, " or "), x.Listener)
	}
	if !m.Path {
		n.rank += 4
		n.reason = "its path is " + r.Path
		if alike(path, m.NearPath, "/") {
			n.rank -= 2
			n.reason += fmt.Sprintf("; did you mean %q?", m.NearPath)
		}
	}
	if !m.Host {
		n.rank += 16
		n.reason = "its host is " + r.Host
		if parent, below := strings.CutPrefix(r.Host, "*."); below && parent == host {
			n.rank -= 13
			n.reason += fmt.Sprintf(", which stands for the names below %s, not for itself", host)
		} else if alike(host, m.NearHost, ".") {
			n.rank -= 13
			n.reason += fmt.Sprintf("; did you mean %q?", m.NearHost)
		}
	}
	return n
}

// alike tells whether the parts in which two texts differ may be meant as the same.
func alike(got, fits, separator string) bool {
	a, b := strings.Split(got, separator), strings.Split(fits, separator)
	for len(a) > 0 && len(b) > 0 && a[0] == b[0] {
		a, b = a[1:], b[1:]
	}
	for len(a) > 0 && len(b) > 0 && a[len(a)-1] == b[len(b)-1] {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	got, rest := strings.Join(a, separator), strings.Join(b, separator)
	return len(a)+len(b) > 0 && (got == rest || yamlpos.Suggest(got, []string{rest}) != "")
}

// place is where something stands: its path in the configuration, and its line if that is known.
func (x *explainer) place(at yamlpos.Path) string {
	if x.document == nil {
		return at.String()
	}
	p := x.document.Problems()
	p.Add(at, "is asked for")
	return fmt.Sprintf("%s, %s:%d", at, x.config.File, p.Sorted()[0].Line)
}

// readAgain reads a file for the lines of what stands in it; nil if that cannot be done.
func readAgain(path string) *yamlpos.Document {
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() { // what came from a pipe is gone
		return nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	doc, err := yamlpos.Parse(path, data)
	if err != nil {
		return nil
	}
	return doc
}

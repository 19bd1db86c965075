package routes

import (
	"net/http"
	"slices"
	"strings"
)

// A Miss tells why a route does not take a request.
type Miss struct {
	Route                Route
	Index                int  // of the route, in the order given to New
	Listener, Host, Path bool // what fits

	// NearHost and NearPath are like the request's and fit: with its labels and segments where the pattern has captures.
	NearHost, NearPath string
}

// Misses tells of every route, in order, what of a request that came to a listener does not fit it. It is for people, and slow.
func (t *Table) Misses(listener string, r *http.Request) (misses []Miss) {
	req := split(r.Host, r.URL, nil, nil)
	for i, route := range t.routes {
		m := Miss{
			Route: route, Index: i, Listener: route.on(listener),
			Host: route.Pattern.host.match(req.labels), Path: route.Pattern.path.match(req.segments),
			NearHost: req.host, NearPath: r.URL.EscapedPath(),
		}
		if !m.Host {
			m.NearHost = route.Pattern.host.near(strings.Split(req.host, "."))
		}
		if !m.Path {
			m.NearPath = route.Pattern.path.near(strings.Split(strings.TrimPrefix(r.URL.EscapedPath(), "/"), "/"))
		}
		if !m.Listener || !m.Host || !m.Path {
			misses = append(misses, m)
		}
	}
	return misses
}

func (r *Route) on(listener string) bool {
	return len(r.Listeners) == 0 || slices.Contains(r.Listeners, listener)
}

// near is a host that matches, as like the one with these labels as can be. It is counted from the end, as domains are.
func (h hostPattern) near(labels []string) string {
	behind := len(labels) - len(h.labels)
	near := make([]string, len(h.labels))
	for i, l := range h.labels {
		near[i] = l.near(labels, behind+i)
	}
	host := strings.Join(near, ".")
	switch {
	case h.below && behind > 0:
		return strings.Join(labels[:behind], ".") + "." + host
	case h.below:
		return "*." + host
	}
	return host
}

// near is a path that matches, as like the one with these segments as can be; captures and literals stand encoded.
func (p pathPattern) near(segments []string) string {
	var near strings.Builder
	for i, s := range p.segments {
		near.WriteString("/" + s.near(segments, i))
	}
	more := ""
	if len(segments) > len(p.segments) {
		more = "/" + strings.Join(segments[len(p.segments):], "/")
	}
	switch {
	case p.rest != "" && more == "":
		return near.String() + "/"
	case p.rest != "": // which takes no encoded slashes
		return near.String() + strings.NewReplacer("%2F", "/", "%2f", "/").Replace(more)
	case p.prefix:
		return near.String() + more
	}
	return near.String()
}

// near is a text that the part stands for: the i-th of these, if it is a capture and there is one.
func (p part) near(texts []string, i int) string {
	switch {
	case p.name == "":
		return p.literal
	case i >= 0 && i < len(texts) && texts[i] != "":
		return texts[i]
	}
	return "{" + p.name + "}"
}

// Unmatchable tells why no pattern but that for any host or any path can match a request, or "".
func Unmatchable(r *http.Request) string {
	switch req := split(r.Host, r.URL, nil, nil); {
	case len(req.labels) == 0:
		return "the host is no name and no address"
	case len(req.segments) == 0:
		return "the path holds a dot segment, which no path of a route matches"
	}
	return ""
}

package routes

import (
	"net/http"
	"slices"
	"strings"
)

// A Route is one row of a Table.
type Route struct {
	Name      string
	Pattern   Pattern
	Listeners []string // names of the listeners it is served on; none: all
	Handler   http.Handler
}

// A Table finds the route of a request: the first one, in order, whose listener, host and path match. Hosts are indexed, so that ten
// thousand of them cost no more than one. It is made by New and never changes.
type Table struct {
	routes []Route
	exact  map[string][]int // by host: routes for one host, in order
	within map[string][]int // by domain: routes for hosts in it; under "" those for hosts anywhere
}

// New makes a table of the routes, in their order.
func New(routes []Route) *Table {
	t := &Table{routes: slices.Clone(routes), exact: map[string][]int{}, within: map[string][]int{}}
	for i, r := range t.routes {
		domain, exact := r.Pattern.host.suffix()
		index := t.within
		if exact {
			index = t.exact
		}
		index[domain] = append(index[domain], i)
	}
	return t
}

// A Match is the route of a request.
type Match struct {
	Route    Route
	Index    int // of the route, in the order given to New
	Captures []Capture
}

// Match finds the route of a request that came to a listener.
func (t *Table) Match(listener string, r *http.Request) (Match, bool) {
	var labels, segments [16]string // enough for most, so that nothing is allocated
	req := split(r.Host, r.URL, labels[:0], segments[:0])
	best, domain := len(t.routes), ""
	if len(req.labels) > 0 {
		best, domain = t.first(t.exact[req.host], best, listener, &req), req.host
	}
	for ; domain != ""; _, domain, _ = strings.Cut(domain, ".") {
		best = t.first(t.within[domain], best, listener, &req)
	}
	best = t.first(t.within[""], best, listener, &req)
	if best == len(t.routes) {
		return Match{}, false
	}
	route := t.routes[best]
	return Match{route, best, route.Pattern.capture(&req)}, true
}

// first is the first of the candidates that matches, if it comes before best; else best.
func (t *Table) first(candidates []int, best int, listener string, r *request) int {
	for _, i := range candidates {
		if i >= best {
			break
		}
		route := &t.routes[i]
		if route.Pattern.match(r) && (len(route.Listeners) == 0 || slices.Contains(route.Listeners, listener)) {
			return i
		}
	}
	return best
}

// ServeHTTP serves the request that was matched by its route, with the captures set as path values.
func (m Match) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	for _, c := range m.Captures {
		r.SetPathValue(c.Name, c.Value)
	}
	m.Route.Handler.ServeHTTP(w, r)
}

// NotFound answers 404. After a refused upgrade the connection is closed: what the client sends next may not be HTTP.
func NotFound(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") != "" {
		w.Header().Set("Connection", "close")
	}
	http.Error(w, "no route for this host and path", http.StatusNotFound)
}

package server

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"bridgehead/config"
	"bridgehead/internal/yamlpos"
	"bridgehead/proxy/upstream"
)

// A Diff says what one configuration changes of another.
type Diff struct {
	Generation int      `json:"generation"` // of the configuration that is in force afterwards
	Routes     []Change `json:"routes,omitempty"`
	Listeners  []Change `json:"listeners,omitempty"`
	Other      []string `json:"other,omitempty"` // keys outside routes and listeners
	Unchanged  int      `json:"unchanged_routes"`
	Notes      []string `json:"notes,omitempty"` // warnings, and what needs a restart
}

// What may happen to a route or a listener.
const (
	Added   = "added"
	Removed = "removed"
	Changed = "changed"
)

// A Change is what happens to one route or listener.
type Change struct {
	Name   string   `json:"name"`
	Change string   `json:"change"`         // Added, Removed or Changed
	Keys   []string `json:"keys,omitempty"` // that differ
	// Drains tells that the route's open sockets end with 1012, spread over the window. If not, they live on and follow what changed.
	Drains  bool `json:"drains,omitempty"`
	Sockets int  `json:"sockets,omitempty"` // open on the route when the configuration changed
	// Leaving are the servers that the route leads to no longer, or that are to drain: their sockets end as if all drained.
	Leaving  []string `json:"leaving_servers,omitempty"`
	Draining int      `json:"draining_sockets,omitempty"` // of Sockets, those at Leaving
}

// Empty tells whether nothing differs.
func (d *Diff) Empty() bool { return len(d.Routes)+len(d.Listeners)+len(d.Other) == 0 }

// String is the difference for people, a line for each part.
func (d *Diff) String() string {
	var b strings.Builder
	for _, c := range d.Routes {
		fmt.Fprintf(&b, "route %s: %s%s\n", c.Name, c.what(), c.sockets())
	}
	for _, c := range d.Listeners {
		fmt.Fprintf(&b, "listener %s: %s\n", c.Name, c.what())
	}
	for _, key := range d.Other {
		fmt.Fprintf(&b, "%s: changed\n", key)
	}
	if d.Empty() {
		b.WriteString("nothing has changed\n")
	} else {
		fmt.Fprintf(&b, "routes as they were: %d\n", d.Unchanged)
	}
	for _, note := range d.Notes {
		fmt.Fprintf(&b, "note: %s\n", note)
	}
	return b.String()
}

func (c *Change) what() string {
	if len(c.Keys) == 0 {
		return c.Change
	}
	return c.Change + " (" + strings.Join(c.Keys, ", ") + ")"
}

func (c *Change) sockets() string {
	switch {
	case c.Sockets == 0:
		return ""
	case c.Drains:
		return fmt.Sprintf("; open sockets that drain: %d", c.Sockets)
	}
	text := fmt.Sprintf("; open sockets that live on: %d", c.Sockets-c.Draining)
	if c.Draining > 0 {
		text += fmt.Sprintf(", that drain: %d, since their servers leave: %s", c.Draining, strings.Join(c.Leaving, ", "))
	}
	return text
}

// compare tells what next changes. It looks at nothing but the two configurations.
func compare(was, next *config.Config) *Diff {
	d := new(Diff)
	old := byName(was.Routes, func(r *config.Route) string { return r.Name })
	for i := range next.Routes {
		r := &next.Routes[i]
		if c := compareRoute(old[r.Name], r, was, next); c != nil {
			d.Routes = append(d.Routes, *c)
		} else {
			d.Unchanged++
		}
		delete(old, r.Name)
	}
	for _, r := range was.Routes {
		if old[r.Name] != nil {
			d.Routes = append(d.Routes, Change{Name: r.Name, Change: Removed, Drains: true})
		}
	}
	d.Listeners = compareListeners(was.Listeners, next.Listeners)
	for _, key := range yamlpos.Diff(was, next) {
		if key != "routes" && key != "listeners" && !strings.HasPrefix(key, "defaults.") { // which show in every route
			d.Other = append(d.Other, key)
		}
	}
	for _, key := range fixed {
		if slices.Contains(d.Other, key) {
			d.Notes = append(d.Notes, key+" is read at the start of the program alone: restart it for that")
		}
	}
	return d
}

// fixed are the keys that a reload does not put in force.
var fixed = []string{"log.format", "driver", "workers"}

// repointing are the keys whose change leaves open sockets at a place where the configuration would not lead them.
var repointing = []string{"host", "path", "websocket", "tcp", "webhook", "files"}

// admitting are the keys that let open sockets in, and might not do so now.
var admitting = []string{"auth", "require"}

func compareRoute(old, r *config.Route, was, next *config.Config) *Change {
	if old == nil {
		return &Change{Name: r.Name, Change: Added}
	}
	c := &Change{Name: r.Name, Change: Changed, Keys: yamlpos.Diff(old, r)}
	c.Drains = slices.ContainsFunc(c.Keys, func(key string) bool {
		section, _, _ := strings.Cut(key, ".")
		return slices.Contains(repointing, key) || slices.Contains(admitting, section)
	})
	name, named := r.Upstream()
	if before, _ := old.Upstream(); before != name { // another group, also when one of the two is the route's own
		c.Drains = true
	}
	before, now := was.Group(old), next.Group(r)
	if named {
		for _, key := range yamlpos.Diff(before, now) {
			c.Keys = append(c.Keys, "upstreams."+name+"."+key)
		}
	}
	for _, name := range r.Auth.Names() {
		for _, key := range yamlpos.Diff(was.Authenticators[name], next.Authenticators[name]) {
			c.Keys = append(c.Keys, "authenticators."+name+"."+key)
			c.Drains = true
		}
	}
	if !c.Drains {
		c.Leaving = upstream.Leaving(before, now)
	}
	if len(c.Keys) == 0 {
		return nil
	}
	return c
}

func compareListeners(was, next []config.Listener) (changes []Change) {
	name := func(l *config.Listener) string { return l.Name }
	old := byName(was, name)
	for i := range next {
		l := &next[i]
		switch before := old[l.Name]; {
		case before == nil:
			changes = append(changes, Change{Name: l.Name, Change: Added})
		case !reflect.DeepEqual(before, l):
			changes = append(changes, Change{Name: l.Name, Change: Changed, Keys: yamlpos.Diff(before, l)})
		}
		delete(old, l.Name)
	}
	for _, l := range was {
		if old[l.Name] != nil {
			changes = append(changes, Change{Name: l.Name, Change: Removed})
		}
	}
	return changes
}

func byName[T any](all []T, name func(*T) string) map[string]*T {
	found := make(map[string]*T, len(all))
	for i := range all {
		found[name(&all[i])] = &all[i]
	}
	return found
}

package routes

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
)

// Of every route that does not match it is told what fits, and what would.
func TestMisses(t *testing.T) {
	t.Parallel()
	all := table(t, "chat.example.com/rooms/{a}", "*.example.com/ws/*", "{a}.example.com/files/{b...}", "/any@inner", "chat.example.com")
	for _, c := range []struct{ host, target, want string }{
		{"chat.example.com", "/room/5", `
0 listener host /rooms/5
1 listener host /ws/5
2 listener host /files/5
3 host /any
`},
		{"a.b.example.com:443", "/rooms/x%2Fy", `
0 listener path chat.example.com
1 listener host /ws/x%2Fy
2 listener b.example.com /files/x/y
3 host /any
4 listener path chat.example.com
`},
		{"example.com", "/any", `
0 listener chat.example.com /rooms/{a}
1 listener *.example.com /ws
2 listener {a}.example.com /files/
3 host path
4 listener path chat.example.com
`},
		{"localhost", "/", `
0 listener chat.example.com /rooms/{a}
1 listener *.example.com /ws
2 listener {a}.example.com /files/
3 host /any
4 listener path chat.example.com
`},
	} {
		r := httptest.NewRequest("GET", c.target, nil)
		r.Host = c.host
		got := "\n"
		for _, m := range all.Misses("outer", r) {
			words := []string{fmt.Sprint(m.Index)}
			for _, w := range []struct {
				fits bool
				word string
			}{{m.Listener, "listener"}, {m.Host, "host"}, {m.Path, "path"}} {
				if w.fits {
					words = append(words, w.word)
				}
			}
			if !m.Host {
				words = append(words, m.NearHost)
			}
			if !m.Path {
				words = append(words, m.NearPath)
			}
			got += strings.Join(words, " ") + "\n"
		}
		if got != c.want {
			t.Errorf("%s%s misses%swant%s", c.host, c.target, got, c.want)
		}
		for _, m := range all.Misses("outer", r) { // what would fit does
			near := httptest.NewRequest("GET", strings.NewReplacer("{", "", "}", "").Replace(m.NearPath), nil)
			near.Host = strings.NewReplacer("{", "", "}", "", "*", "x").Replace(m.NearHost)
			if _, ok := New([]Route{m.Route}).Match("inner", near); len(m.Route.Listeners) > 0 && !ok {
				t.Errorf("%s would not fit %s", near.Host+near.URL.Path, m.Route.Name)
			}
			if _, ok := New([]Route{m.Route}).Match("outer", near); len(m.Route.Listeners) == 0 && !ok {
				t.Errorf("%s would not fit %s", near.Host+near.URL.Path, m.Route.Name)
			}
		}
	}
}

func TestUnmatchable(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ host, target, want string }{
		{"a.example", "/x", ""},
		{"a_b", "/", ""},
		{"[::1]:80", "/", ""},
		{"a..example", "/x", "the host is no name"},
		{"a.example", "/a/%2e%2E/b", "a dot segment"},
	} {
		r := httptest.NewRequest("GET", c.target, nil)
		r.Host = c.host
		if got := Unmatchable(r); !strings.Contains(got, c.want) || (got == "") != (c.want == "") {
			t.Errorf("%s%s: %q, want %q", c.host, c.target, got, c.want)
		}
	}
}

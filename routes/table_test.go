package routes

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// table makes routes named after their patterns. `pattern@a,b` is served on the listeners a and b.
func table(t testing.TB, patterns ...string) *Table {
	t.Helper()
	var routes []Route
	for _, s := range patterns {
		pattern, listeners, on := strings.Cut(s, "@")
		r := Route{Name: s, Pattern: parse(t, pattern), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, s+" "+r.PathValue("a")+" "+r.PathValue("b"))
		})}
		if on {
			r.Listeners = strings.Split(listeners, ",")
		}
		routes = append(routes, r)
	}
	return New(routes)
}

func TestFirstMatchWins(t *testing.T) {
	t.Parallel()
	tests := []struct {
		rule     string
		patterns []string
		host     string
		target   string
		want     int // -1: none
	}{
		{"order, not specificity", []string{"/*", "/ws"}, "a", "/ws", 0},
		{"order, not specificity", []string{"/ws", "/*"}, "a", "/ws", 0},
		{"any host before an exact one", []string{"/ws", "a.com/ws"}, "a.com", "/ws", 0},
		{"below a domain before an exact one", []string{"*.a.com", "b.a.com"}, "b.a.com", "/", 0},
		{"an exact one before below a domain", []string{"b.a.com", "*.a.com"}, "b.a.com", "/", 0},
		{"captures before below a domain", []string{"{x}.a.com", "*.com", "*.a.com"}, "b.a.com", "/", 0},
		{"a shorter domain before a longer one", []string{"*.com", "*.a.com"}, "b.a.com", "/", 0},
		{"the host matches, the path does not", []string{"b.a.com/x", "*.a.com/y", "/z"}, "b.a.com", "/z", 2},
		{"routes of one host", []string{"a.com/x", "b.com/y", "a.com/y"}, "a.com", "/y", 2},
		{"captures all over", []string{"b.com", "{a}.{b}"}, "x.y", "/", 1},
		{"an address", []string{"{a}.0.0.1", "127.0.0.1"}, "127.0.0.1:80", "/", 1},
		{"a host like none", []string{"a.com", "*.com", "{x}", ""}, "a b", "/", 3},
		{"no host", []string{"a.com", ""}, "", "/", 1},
		{"nothing", []string{"a.com", "*.com"}, "b.org", "/", -1},
	}
	for _, tt := range tests {
		m, ok := table(t, tt.patterns...).Match("", get(t, tt.host, tt.target))
		if got := m.Index; ok != (tt.want >= 0) || ok && got != tt.want {
			t.Errorf("%s: %q asked for %s%s gives %d, %t; want %d", tt.rule, tt.patterns, tt.host, tt.target, got, ok, tt.want)
		}
	}
}

func TestListeners(t *testing.T) {
	t.Parallel()
	routes := table(t, "/a@public", "/a@local,public", "/b")
	for _, tt := range []struct {
		listener, target string
		want             int
	}{{"public", "/a", 0}, {"local", "/a", 1}, {"other", "/a", -1}, {"other", "/b", 2}} {
		m, ok := routes.Match(tt.listener, get(t, "x", tt.target))
		if ok != (tt.want >= 0) || ok && m.Index != tt.want {
			t.Errorf("%s on %s: %d, %t; want %d", tt.target, tt.listener, m.Index, ok, tt.want)
		}
	}
}

func TestAMatchServesWithItsCaptures(t *testing.T) {
	t.Parallel()
	routes := table(t, "/other", "/{a}/{b...}")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if m, ok := routes.Match("public", r); ok {
			m.ServeHTTP(w, r)
		}
	}))
	defer server.Close()
	resp, err := http.Get(server.URL + "/x%2Fy/p/q")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	if got, want := string(body), "/{a}/{b...} x/y p/q"; got != want {
		t.Errorf("handler saw %q, want %q", got, want)
	}
}

func TestNotFound(t *testing.T) {
	t.Parallel()
	for upgrade, closed := range map[string]bool{"": false, "websocket": true} {
		r := get(t, "x", "/nowhere")
		if upgrade != "" {
			r.Header.Set("Upgrade", upgrade)
		}
		w := httptest.NewRecorder()
		NotFound(w, r)
		if w.Code != http.StatusNotFound || (w.Header().Get("Connection") == "close") != closed {
			t.Errorf("upgrade %q: %d, Connection %q; want 404 and close: %t", upgrade, w.Code, w.Header().Get("Connection"), closed)
		}
	}
}

func TestTenThousandHosts(t *testing.T) {
	t.Parallel()
	routes := manyHosts(t, 10_000)
	for _, i := range []int{0, 4999, 9999} {
		m, ok := routes.Match("", get(t, fmt.Sprintf("h%d.example.com", i), "/ws"))
		if !ok || m.Index != i {
			t.Errorf("host %d: %d, %t", i, m.Index, ok)
		}
		m, ok = routes.Match("", get(t, fmt.Sprintf("x.t%d.example.org", i), "/ws"))
		if !ok || m.Index != 10_000+i {
			t.Errorf("domain %d: %d, %t", i, m.Index, ok)
		}
	}
}

// manyHosts has n exact hosts and n domains.
func manyHosts(t testing.TB, n int) *Table {
	var patterns []string
	for i := range n {
		patterns = append(patterns, fmt.Sprintf("h%d.example.com/ws", i))
	}
	for i := range n {
		patterns = append(patterns, fmt.Sprintf("{a}.t%d.example.org/ws", i))
	}
	return table(t, patterns...)
}

func BenchmarkMatch(b *testing.B) {
	for _, n := range []int{1, 10_000} {
		routes := manyHosts(b, n)
		for kind, host := range map[string]string{"exact": fmt.Sprintf("h%d.example.com", n-1), "capture": fmt.Sprintf("x.t%d.example.org", n-1)} {
			b.Run(fmt.Sprintf("%s/%d", kind, n), func(b *testing.B) {
				r := get(b, host, "/ws")
				b.ReportAllocs()
				for b.Loop() {
					if _, ok := routes.Match("", r); !ok {
						b.Fatal("no match")
					}
				}
			})
		}
	}
}

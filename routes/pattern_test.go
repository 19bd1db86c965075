package routes

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// ask gives the captures as `name=value` joined by spaces, or "-" if the pattern does not match.
func ask(t testing.TB, host, path, hostHeader, target string) string {
	t.Helper()
	p, err := Parse(host, path)
	if err != nil {
		t.Fatal(err)
	}
	m, ok := New([]Route{{Pattern: p}}).Match("", get(t, hostHeader, target))
	if !ok {
		return "-"
	}
	var captures []string
	for _, c := range m.Captures {
		captures = append(captures, c.Name+"="+c.Value)
	}
	return strings.Join(captures, " ")
}

func get(t testing.TB, host, target string) *http.Request {
	t.Helper()
	u, err := url.ParseRequestURI(target)
	if err != nil {
		t.Fatal(err)
	}
	return &http.Request{Method: "GET", Host: host, URL: u, Header: http.Header{}}
}

func TestPaths(t *testing.T) {
	t.Parallel()
	tests := []struct{ rule, pattern, target, want string }{
		{"no path is any path", "", "/", ""},
		{"no path is any path", "", "/a/../b//c", ""},
		{"an exact path", "/ws", "/ws", ""},
		{"an exact path ignores the query", "/ws", "/ws?x=/y", ""},
		{"a trailing slash counts", "/ws", "/ws/", "-"},
		{"a trailing slash counts", "/ws/", "/ws", "-"},
		{"a trailing slash counts", "/ws/", "/ws/", ""},
		{"a path is more than its beginning", "/ws", "/wsx", "-"},
		{"case counts", "/ws", "/WS", "-"},
		{"the root", "/", "/", ""},
		{"the root is exact", "/", "/x", "-"},
		{"no cleaning", "/ws", "//ws", "-"},
		{"no cleaning", "/ws", "/./ws", "-"},
		{"no cleaning", "/ws", "/x/../ws", "-"},
		{"letters may be escaped", "/ws", "/%77s", ""},
		{"the pattern may be escaped", "/caf%C3%A9", "/café", ""},
		{"the pattern need not be escaped", "/café", "/caf%C3%A9", ""},
		{"an encoded slash does not end a segment", "/a/b", "/a%2Fb", "-"},
		{"an encoded slash does not end a segment", "/a%2fb", "/a%2Fb", ""},
		{"an encoded question mark is no query", "/a", "/a%3Fx", "-"},

		{"a prefix matches its directory", "/ws/*", "/ws", ""},
		{"a prefix matches its directory", "/ws/*", "/ws/", ""},
		{"a prefix matches below", "/ws/*", "/ws/a/b/", ""},
		{"a prefix ends at a slash", "/ws/*", "/wsx", "-"},
		{"a prefix ends at a slash", "/ws/*", "/ws%2Fa", "-"},
		{"a prefix may be all", "/*", "/", ""},
		{"a prefix may be all", "/*", "/a//b", ""},
		{"a prefix cannot be left by dots", "/ws/*", "/ws/../admin", "-"},
		{"a prefix cannot be left by dots", "/ws/*", "/ws/%2e%2E/admin", "-"},
		{"a prefix cannot be left by dots", "/ws/*", "/ws/.%2e/admin", "-"},
		{"a prefix cannot be left by dots", "/ws/*", "/ws/x%2f..%2f..%2fadmin", "-"},
		{"a prefix cannot be left by dots", "/ws/*", "/ws/..%5cadmin", "-"},
		{"a prefix cannot be left by dots", "/ws/*", "/ws/..;/admin", "-"},
		{"a prefix cannot be left by dots", "/ws/*", "/ws/./a", "-"},
		{"three dots are a name", "/ws/*", "/ws/.../a..b", ""},

		{"a capture is one segment", "/rooms/{room}", "/rooms/a", "room=a"},
		{"a capture is one segment", "/rooms/{room}", "/rooms/a/b", "-"},
		{"a capture is one segment", "/rooms/{room}", "/rooms/a/", "-"},
		{"a capture is not empty", "/rooms/{room}", "/rooms/", "-"},
		{"a capture is not empty", "/rooms/{room}", "/rooms", "-"},
		{"a capture is not empty", "/rooms/{room}/ws", "/rooms//ws", "-"},
		{"a capture comes decoded", "/rooms/{room}", "/rooms/a%20b+c", "room=a b+c"},
		{"an encoded slash stays in its capture", "/rooms/{room}", "/rooms/a%2Fb", "room=a/b"},
		{"a capture is decoded once", "/rooms/{room}", "/rooms/%252e%252e", "room=%2e%2e"},
		{"a capture is no dot segment", "/rooms/{room}", "/rooms/..", "-"},
		{"a capture is no dot segment", "/rooms/{room}", "/rooms/%2e%2e", "-"},
		{"a capture is no dot segment", "/rooms/{room}", "/rooms/%2e", "-"},
		{"a capture hides no dot segment", "/rooms/{room}", "/rooms/..%2f..%2fadmin", "-"},
		{"captures and literals", "/t/{a}/x/{b}", "/t/1/x/2", "a=1 b=2"},
		{"captures and a prefix", "/t/{a}/*", "/t/1/x/2", "a=1"},

		{"the rest is all that follows", "/f/{rest...}", "/f/a/b", "rest=a/b"},
		{"the rest may be empty", "/f/{rest...}", "/f/", "rest="},
		{"the rest stands behind a slash", "/f/{rest...}", "/f", "-"},
		{"the rest keeps a trailing slash", "/f/{rest...}", "/f/a/", "rest=a/"},
		{"the rest keeps empty segments", "/f/{rest...}", "/f//a", "rest=/a"},
		{"the rest has no encoded slash", "/f/{rest...}", "/f/a%2Fb", "-"},
		{"the rest has no dot segments", "/f/{rest...}", "/f/a/../../etc", "-"},
		{"the rest of the root", "/{rest...}", "/a/b", "rest=a/b"},
	}
	for _, tt := range tests {
		if got := ask(t, "", tt.pattern, "x", tt.target); got != tt.want {
			t.Errorf("%s: %q asked for %q gives %q, want %q", tt.rule, tt.pattern, tt.target, got, tt.want)
		}
	}
}

func TestHosts(t *testing.T) {
	t.Parallel()
	tests := []struct{ rule, pattern, host, want string }{
		{"no host is any host", "", "", ""},
		{"no host is any host", "", "a b@c:x", ""},
		{"an exact host", "chat.example.com", "chat.example.com", ""},
		{"case does not count", "Chat.Example.com", "cHAT.example.COM", ""},
		{"the port does not count", "chat.example.com", "chat.example.com:8443", ""},
		{"a trailing dot does not count", "chat.example.com", "chat.example.com.:80", ""},
		{"a trailing dot does not count", "chat.example.com.", "chat.example.com", ""},
		{"one trailing dot alone", "chat.example.com", "chat.example.com..", "-"},
		{"not below", "chat.example.com", "a.chat.example.com", "-"},
		{"not above", "chat.example.com", "example.com", "-"},
		{"no suffix trick", "example.com", "evilexample.com", "-"},
		{"no prefix trick", "example.com", "example.com.evil.com", "-"},
		{"userinfo is no host", "example.com", "x@example.com", "-"},
		{"a name in brackets is no name", "example.com", "[example.com]", "-"},

		{"below a domain", "*.example.com", "a.example.com", ""},
		{"far below a domain", "*.example.com", "A.b.c.example.com:1", ""},
		{"the domain itself is not below", "*.example.com", "example.com", "-"},
		{"an empty label is none", "*.example.com", ".example.com", "-"},
		{"an empty label is none", "*.example.com", "a..example.com", "-"},
		{"no suffix trick", "*.example.com", "a.evilexample.com", "-"},
		{"strange labels are none", "*.example.com", "a%2e.example.com", "-"},
		{"a name has an end", "*.example.com", strings.Repeat("a.", 200) + "example.com", "-"},

		{"a capture is a label", "{tenant}.app.example.com", "ACME.app.example.com:443", "tenant=acme"},
		{"a capture is one label", "{tenant}.app.example.com", "a.b.app.example.com", "-"},
		{"a capture is not empty", "{tenant}.app.example.com", "app.example.com", "-"},
		{"a capture is not empty", "{tenant}.app.example.com", ".app.example.com", "-"},
		{"captures in the middle", "a.{x}.{y}.com", "a.1.2.com", "x=1 y=2"},
		{"captures keep the case of their names", "{Tenant}.com", "A.com", "Tenant=a"},
		{"captures below", "*.{x}.com", "q.r.a.com", "x=a"},
		{"a capture alone", "{x}", "localhost", "x=localhost"},
		{"an address is no label", "{x}", "127.0.0.1", "-"},
		{"an address is no label", "{x}", "[::1]", "-"},
		{"an address has no labels", "{a}.{b}.{c}.{d}", "127.0.0.1", "-"},
		{"nothing is below an address", "*.0.0.1", "127.0.0.1", "-"},

		{"an IPv4 address", "127.0.0.1", "127.0.0.1:80", ""},
		{"an IPv6 address", "[::1]", "[::1]:80", ""},
		{"an IPv6 address", "::1", "[::1]", ""},
		{"an IPv6 address is canonical", "2001:DB8:0::1", "[2001:db8::0:1]", ""},
		{"another IPv6 address", "::1", "[::2]", "-"},
	}
	for _, tt := range tests {
		if got := ask(t, tt.pattern, "", tt.host, "/"); got != tt.want {
			t.Errorf("%s: %q asked for %q gives %q, want %q", tt.rule, tt.pattern, tt.host, got, tt.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct{ host, path, want string }{
		{"https://a.com", "", "without scheme"},
		{"a.com:443", "", "without scheme, port"},
		{"a.com/ws", "", "without scheme, port and path"},
		{"[::1]:443", "", "without scheme, port"},
		{"a..com", "", "empty"},
		{".", "", "empty"},
		{"*", "", "leave host out"},
		{"a.*.com", "", "* stands alone in front"},
		{"*a.com", "", "* stands alone in front"},
		{"bücher.example", "", "xn--"},
		{"a b.com", "", "letters"},
		{"{a}x.com", "", "stands alone"},
		{"{a", "", "stands alone"},
		{"{a...}.com", "", "one label"},
		{"{}.com", "", "a name is made of"},
		{"", "ws", "begins with a slash"},
		{"", "/a//b", "empty"},
		{"", "/a/../b", "dot segments"},
		{"", "/a/%2e%2e/b", "dot segments"},
		{"", "/a?b", "no query"},
		{"", "/a#b", "no fragment"},
		{"", "/a/*/b", "stands alone at the end"},
		{"", "/a*", "stands alone at the end"},
		{"", "/{a...}/b", "at the end alone"},
		{"", "/x{a}", "stands alone"},
		{"", "/{a}{b}", "a name is made of"},
		{"", "/{a-b}", "a name is made of"},
		{"", "/{1a}", "a name is made of"},
		{"", "/{...}", "a name is made of"},
		{"", "/{user}", "hide the value"},
		{"", "/%zz", "invalid URL escape"},
		{"{a}.com", "/{a}", "stands twice"},
		{"", "/{a}/{a...}", "stands twice"},
	}
	for _, tt := range tests {
		_, err := Parse(tt.host, tt.path)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Parse(%q, %q): %v, want it to say %q", tt.host, tt.path, err, tt.want)
		}
	}
}

func TestPatternTellsOfItself(t *testing.T) {
	t.Parallel()
	p, err := Parse("{tenant}.app.example.com", "/rooms/{room}/{rest...}")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := p.Captures(), []string{"tenant", "room", "rest"}; !slices.Equal(got, want) {
		t.Errorf("captures %q, want %q", got, want)
	}
	for host, want := range map[string]bool{"": false, "{a}": false, "{a}.{b}": false, "{a}.b": true, "*.b": true, "b": true, "::1": true} {
		p, err := Parse(host, "")
		if err != nil || p.HasHost() != want {
			t.Errorf("HasHost of %q is %t, want %t (%v)", host, p.HasHost(), want, err)
		}
	}
}

func TestCovers(t *testing.T) {
	t.Parallel()
	tests := []struct {
		p, q string // host and path
		want bool
	}{
		{"", "", true},
		{"", "a.com/ws", true},
		{"a.com/ws", "", false},
		{"a.com", "a.com/ws", true},
		{"a.com", "A.com./ws", true},
		{"a.com/ws", "a.com", false},
		{"a.com/ws", "a.com/ws", true},
		{"a.com/ws", "b.com/ws", false},
		{"/ws", "/ws/", false},
		{"/ws/*", "/ws", true},
		{"/ws/*", "/ws/a/{b}", true},
		{"/ws/*", "/ws/{rest...}", true},
		{"/ws/*", "/wsx", false},
		{"/*", "/ws/*", true},
		{"/*", "", false}, // paths with dot segments
		{"/ws/a/*", "/ws/*", false},
		{"/{a}", "/x", true},
		{"/{a}", "/{b}", true},
		{"/{a}", "/", false},
		{"/{a}", "/*", false},
		{"/x", "/{a}", false},
		{"/{a}/*", "/x/y", true},
		{"/{r...}", "/x/y", true},
		{"/{r...}", "/", true},
		{"/{r...}", "/{a}", false}, // an encoded slash
		{"/{r...}", "/a%2Fb", false},
		{"/{r...}", "/x/{q...}", true},
		{"/{r...}", "/x/*", false},
		{"/x/{r...}", "/x/*", false},
		{"*.a.com", "b.a.com", true},
		{"*.a.com", "a.com", false},
		{"*.a.com", "{t}.a.com", true},
		{"*.a.com", "*.b.a.com", true},
		{"*.b.a.com", "*.a.com", false},
		{"{t}.a.com", "b.a.com", true},
		{"{t}.a.com", "*.a.com", false},
		{"{t}.a.com", "{u}.a.com", true},
		{"b.a.com", "{t}.a.com", false},
		{"{t}", "127.0.0.1", false},
		{"{t}", "localhost", true},
	}
	for _, tt := range tests {
		if got := parse(t, tt.p).Covers(parse(t, tt.q)); got != tt.want {
			t.Errorf("%q covers %q: %t, want %t", tt.p, tt.q, got, tt.want)
		}
	}
}

// parse reads host and path written as one.
func parse(t testing.TB, s string) Pattern {
	t.Helper()
	host, path, slash := strings.Cut(s, "/")
	if slash {
		path = "/" + path
	}
	p, err := Parse(host, path)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A pattern matches without panic, and the captures put back into the pattern give the request again.
func FuzzMatch(f *testing.F) {
	f.Add("{tenant}.app.example.com", "/rooms/{room}/{rest...}", "a.app.example.com:80", "/rooms/x%2Fy/z//%41")
	f.Add("*.example.com", "/ws/*", "a.b.example.com.", "/ws/../%2e%2e;x")
	f.Add("[::1]", "/%2A/{a}", "[0::1]:443", "/*/%00")
	f.Fuzz(func(t *testing.T, host, path, hostHeader, target string) {
		p, err := Parse(host, path)
		if err != nil {
			return
		}
		if !p.Covers(p) {
			t.Errorf("%q %q does not cover itself", host, path)
		}
		u, err := url.ParseRequestURI(target)
		if err != nil {
			return
		}
		m, ok := New([]Route{{Pattern: p}}).Match("", &http.Request{Host: hostHeader, URL: u})
		if !ok || path == "" {
			return
		}
		want := split(hostHeader, u, nil, nil)
		again, prefix := fill(path, m.Captures)
		if len(again) > len(want.segments) || !prefix && len(again) < len(want.segments) ||
			!slices.Equal(again, want.segments[:len(again)]) {
			t.Errorf("%q asked for %q: captures %q give %q", path, target, m.Captures, again)
		}
	})
}

// fill puts captures into a pattern of a path, and tells whether more segments may follow.
func fill(pattern string, captures []Capture) (segments []string, prefix bool) {
	values := map[string]string{}
	for _, c := range captures {
		values[c.Name] = c.Value
	}
	for text := range strings.SplitSeq(pattern[1:], "/") {
		name, captured := strings.CutPrefix(strings.TrimSuffix(text, "}"), "{")
		rest, several := strings.CutSuffix(name, "...")
		literal, _ := url.PathUnescape(text)
		switch {
		case captured && several:
			segments = append(segments, strings.Split(values[rest], "/")...)
		case captured:
			segments = append(segments, values[name])
		case text == "*":
			prefix = true
		default:
			segments = append(segments, literal)
		}
	}
	return segments, prefix
}

// Whatever p is said to cover, p matches: all short patterns against all short requests.
func TestCoversIsNeverWrong(t *testing.T) {
	t.Parallel()
	paths := words([]string{"a", "{x}", "a%2Fb"}, "/", 2)
	for _, path := range words([]string{"a", "{x}"}, "/", 1) {
		paths = append(paths, path+"/", path+"/*", path+"/{r...}")
	}
	hosts := words([]string{"a", "{h}"}, ".", 2)
	for _, host := range words([]string{"a", "{h}"}, ".", 1) {
		hosts = append(hosts, "*."+host[1:])
	}
	var requests []request
	for _, host := range append(words([]string{"a", "b"}, ".", 3), ".127.0.0.1") {
		for _, path := range words([]string{"", "a", "b", "a%2Fb", ".."}, "/", 3) {
			r := get(t, strings.TrimPrefix(host, "."), path)
			requests = append(requests, split(r.Host, r.URL, nil, nil))
		}
	}
	var patterns []Pattern
	twice := strings.NewReplacer("{x}/{x}", "{x}/{y}", "{h}.{h}", "{h}.{i}")
	for _, host := range append(hosts, "") {
		for _, path := range append(paths, "", "/*", "/{r...}", "/") {
			patterns = append(patterns, parse(t, twice.Replace(strings.TrimPrefix(host, ".")+path)))
		}
	}
	for _, p := range patterns {
		for _, q := range patterns {
			if !p.Covers(q) {
				continue
			}
			for i := range requests {
				if q.match(&requests[i]) && !p.match(&requests[i]) {
					t.Fatalf("%+v is said to cover %+v, but does not match %q", p, q, requests[i])
				}
			}
		}
	}
}

// words are all sequences of up to n of the letters, each with the separator in front.
func words(letters []string, separator string, n int) []string {
	if n == 0 {
		return nil
	}
	var all []string
	for _, letter := range letters {
		all = append(all, separator+letter)
		for _, more := range words(letters, separator, n-1) {
			all = append(all, separator+letter+more)
		}
	}
	return all
}

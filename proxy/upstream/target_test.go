package upstream

import (
	"bufio"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"

	"bridgehead/internal/leak"
	"bridgehead/policy"
)

func TestMain(m *testing.M) { leak.Main(m) }

func TestParse(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		url, network, address, host, name string // name: of the certificate, "" without TLS
		captures                          string
	}{
		{"ws://chat.example", "tcp", "chat.example:80", "chat.example", "", ""},
		{"http://chat.example", "tcp", "chat.example:80", "chat.example", "", ""},
		{"wss://chat.example", "tcp", "chat.example:443", "chat.example", "chat.example", ""},
		{"https://chat.example:8443/", "tcp", "chat.example:8443", "chat.example:8443", "chat.example", ""},
		{"ws://10.0.0.7:9000", "tcp", "10.0.0.7:9000", "10.0.0.7:9000", "", ""},
		{"ws://[::1]", "tcp", "[::1]:80", "[::1]", "", ""},
		{"wss://[2001:db8::7]:9000", "tcp", "[2001:db8::7]:9000", "[2001:db8::7]:9000", "2001:db8::7", ""},
		{"tcp://[fe80::1%eth0]:7000", "tcp", "[fe80::1%eth0]:7000", "[fe80::1%eth0]:7000", "", ""},
		{"tcp://db_1.internal.:7000", "tcp", "db_1.internal.:7000", "db_1.internal.:7000", "", ""},
		{"localhost:7000", "tcp", "localhost:7000", "localhost:7000", "", ""},
		{"[::1]:7000", "tcp", "[::1]:7000", "[::1]:7000", "", ""},
		{"tls://db.internal:7000", "tcp", "db.internal:7000", "db.internal:7000", "db.internal", ""},
		{"unix:/run/app.sock", "unix", "/run/app.sock", "", "", ""},
		{"unix:///run/app.sock", "unix", "/run/app.sock", "", "", ""},
		{"unix:app.sock", "unix", "app.sock", "", "", ""},
		{"unix:@abstract", "unix", "@abstract", "", "", ""},
		{"ws://h/in/{room}?of={tenant}&room={room}", "tcp", "h:80", "h", "", "room tenant room"},
		{"ws://h/{tenant}/{rest...}", "tcp", "h:80", "h", "", "tenant rest"},
		{"ws://h?user={user}", "tcp", "h:80", "h", "", ""},
		{"ws://h/{claim.https://example.com/role}", "tcp", "h:80", "h", "", ""},
	} {
		target, err := parse(c.url)
		if err != nil {
			t.Errorf("%s: %v", c.url, err)
			continue
		}
		var name string
		if target.tls != nil {
			name = target.tls.ServerName
		}
		if target.network != c.network || target.Address() != c.address || target.Host() != c.host || name != c.name {
			t.Errorf("%s is %s %s, host %q, certificate for %q", c.url, target.network, target.Address(), target.Host(), name)
		}
		if got := strings.Join(target.Captures(), " "); got != c.captures {
			t.Errorf("%s takes the captures %q, want %q", c.url, got, c.captures)
		}
	}
}

// What is refused, and the words by which its writer finds the mistake.
var refused = []struct{ url, want string }{
	{"", "needs a host and a port"},
	{"chat", "needs a host and a port"},
	{"10.0.0.7", "needs a host and a port"},
	{"tcp://h", "needs a host and a port"},
	{"tcp://[::1]", "needs a host and a port"},
	{"ws://", "needs a host and a port"},
	{"ws://:80", "needs a host and a port"},
	{"ws://h:", "needs a host and a port"},
	{"http:/h/x", "needs a host and a port"},
	{"ws://h:0", `bad port "0"`},
	{"ws://h:65536", `bad port "65536"`},
	{"ws://h:+80", `bad port "+80"`},
	{"ws://h:-1", `bad port "-1"`},
	{"ws://h:ssh", `bad port "ssh"`},
	{"ws://a:b:80", `bad host "a:b:80"`},
	{"ws://::1", `bad host "::1"`},
	{"ws://[::1", `bad host "[::1"`},
	{"ws://[h]:80", `bad host "[h]:80"`},
	{"ws://[10.0.0.7]:80", `bad host`},
	{"ws://h,i/", `bad host "h,i"`},
	{"ws://h\\i/", `bad host`},
	{"ws://h%2Fi/", `bad host`},
	{"ws://bücher.example/", `bad host`},
	{"ftp://h", `unknown scheme "ftp"`},
	{"://h", `unknown scheme ""`},
	{"ws://h /", "white space"},
	{"ws://h/a b", "white space"},
	{"ws://h/\r\nX-Evil:1", "white space"},
	{"unix:/a\x00b", "white space"},
	{"ws://{tenant}.example/", "a client must not choose the server"},
	{"ws://h:{port}/", "a client must not choose the server"},
	{"unix:/run/{room}.sock", "a client must not choose the server"},
	{"ws://me:secret@h/", "user name"},
	{"ws://h/#top", "fragment"},
	{"ws://h/?a#top", "fragment"},
	{"tcp://h:1/x", "a stream does not know"},
	{"h:1/", "a stream does not know"},
	{"tls://h:1?x", "a stream does not know"},
	{"unix:", "names no socket"},
	{"unix://", "names no socket"},
	{"ws://h/{room", "not closed"},
	{"ws://h/?{a b}", "white space"},
	{"ws://h/?{a.b}", `"a.b" is unknown`},
	{"ws://h/{rest...}/x", `"rest..." is unknown`},
	{"ws://h/?x={rest...}", `"rest..." is unknown`},
	{"ws://h/{user...}", "no capture of a path"},
	{"ws://h/{1...}", "no capture of a path"},
	{"ws://h/100%", `invalid URL escape "%"`},
	{"ws://h/%{room}", `invalid URL escape "%{r"`},
	{"ws://h/a/../b", "dot segment"},
	{"ws://h/%2e%2E/{room}", "dot segment"},
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range refused {
		target, err := parse(c.url)
		if err == nil || target != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %+v, %v; want an error with %q", c.url, target, err, c.want)
		}
	}
}

func TestAPasswordInAURLIsNotRepeatedInTheError(t *testing.T) {
	t.Parallel()
	if _, err := parse("wss://me:secret@h/"); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("the error reads: %v", err)
	}
}

// asking is what is known of a client that asks for a request target as net/http reads it.
func asking(target string, captures map[string]string) (*policy.Facts, error) {
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET " + target + " HTTP/1.1\r\nHost: client.example\r\n\r\n")))
	if err != nil {
		return nil, err
	}
	for name, value := range captures {
		r.SetPathValue(name, value)
	}
	return &policy.Facts{Request: r, User: "ann", Client: netip.MustParseAddr("192.0.2.1")}, nil
}

func TestURL(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		rule, to, asked string
		capture         string // the value of {room}, {tenant} and {rest}
		want            string // the request target
	}{
		{"without a path the client's passes", "ws://h", "/chat?x=1", "", "/chat?x=1"},
		{"escapes pass as they are", "ws://h", "/a%2Fb/c%20d%25?x=%2F&y=%20+", "", "/a%2Fb/c%20d%25?x=%2F&y=%20+"},
		{"two slashes are no authority", "ws://h", "//evil.example/x", "", "//evil.example/x"},
		{"of the absolute form the path counts alone", "ws://h", "http://evil.example/x?y", "", "/x?y"},
		{"even an empty query passes", "ws://h", "/x?", "", "/x?"},
		{"bytes that no path holds are encoded", "ws://h", "/ü|x", "", "/%C3%BC%7Cx"},
		{"an asterisk is a path", "ws://h", "*", "", "/*"},

		{"a path replaces the client's, query and all", "ws://h/in", "/chat?x=1", "", "/in"},
		{"a slash is a path", "ws://h/", "/chat?x=1", "", "/"},
		{"a query alone replaces both", "ws://h?y=2", "/chat?x=1", "", "/?y=2"},
		{"values that are no captures", "ws://h/{user}/{client.ip}?{query.x}", "/?x=%26", "", "/ann/192.0.2.1?%26"},

		{"a capture in the path", "ws://h/in/{room}/out", "/", "lobby", "/in/lobby/out"},
		{"may be empty", "ws://h/in/{room}", "/", "", "/in/"},
		{"its slash is no slash", "ws://h/in/{room}", "/", "a/b", "/in/a%2Fb"},
		{"its percent sign is one", "ws://h/in/{room}", "/", "a%2Fb%", "/in/a%252Fb%25"},
		{"it begins no query", "ws://h/in/{room}", "/", "a?b=c&d", "/in/a%3Fb=c&d"},
		{"and no fragment", "ws://h/in/{room}", "/", "a#b", "/in/a%23b"},
		{"it ends no line", "ws://h/in/{room}", "/", "a\r\nX: y", "/in/a%0D%0AX:%20y"},
		{"unicode", "ws://h/in/{room}", "/", "Zoë 😀", "/in/Zo%C3%AB%20%F0%9F%98%80"},
		{"no UTF-8", "ws://h/in/{room}", "/", "\xff", "/in/%FF"},
		{"beside what no path holds", "ws://h/ü|{{/{room}", "/", "a/b", "/%C3%BC%7C%7B/a%2Fb"},
		{"beside escapes", "ws://h/a%2fb/{room}", "/", "c", "/a%2fb/c"},

		{"a capture in the query", "ws://h?room={room}", "/", "lobby", "/?room=lobby"},
		{"adds no parameter", "ws://h?room={room}", "/", "a&admin=1;x=y", "/?room=a%26admin%3D1%3Bx%3Dy"},
		{"its plus, space and percent are told apart", "ws://h?room={room}", "/", "a+b c%20", "/?room=a%2Bb+c%2520"},
		{"its slash, mark and hash", "ws://h?room={room}", "/", "/?#", "/?room=%2F%3F%23"},
		{"its line end", "ws://h?room={room}", "/", "a\r\nb", "/?room=a%0D%0Ab"},
		{"its unicode", "ws://h?room={room}", "/", "é", "/?room=%C3%A9"},
		{"dots are harmless there", "ws://h?room={room}", "/", "../x", "/?room=..%2Fx"},

		{"a rest keeps its slashes", "ws://h/in/{rest...}", "/", "a/b c/d", "/in/a/b%20c/d"},
		{"a rest may be empty", "ws://h/in/{rest...}", "/", "", "/in/"},
		{"a rest may begin and end with one", "ws://h/in/{rest...}", "/", "/a/", "/in//a/"},
		{"a rest is encoded otherwise", "ws://h/in/{rest...}", "/", "a%2F/?#\n", "/in/a%252F/%3F%23%0A"},
		{"a rest behind a capture", "ws://h/{room}/{rest...}?{rest}", "/", "a/b", "/a%2Fb/a/b?a%2Fb"},
	} {
		t.Run(c.rule, func(t *testing.T) {
			t.Parallel()
			target, err := parse(c.to)
			if err != nil {
				t.Fatal(err)
			}
			f, err := asking(c.asked, map[string]string{"room": c.capture, "rest": c.capture})
			if err != nil {
				t.Fatal(err)
			}
			u, err := target.URL(f)
			if err != nil {
				t.Fatal(err)
			}
			if u.RequestURI() != c.want || u.Host != "h" || u.Scheme != "ws" {
				t.Errorf("%s is %s at %s, want %s", c.to, u.RequestURI(), u.Host, c.want)
			}
		})
	}
}

// A server would resolve dot segments to a path that the route may not match (RFC 3986, section 5.2.4); many do it behind an
// encoded slash, a backslash or in front of parameters too.
func TestDotSegmentsAreRefused(t *testing.T) {
	t.Parallel()
	for _, path := range []string{
		"/..", "/.", "/a/../b", "/a/./b", "/a/%2e%2e/b", "/a/.%2E", "/%2E/", "/a%2F..%2Fb", "/a%2f%2e%2e", `/a\..\b`, "/a%5C..%5Cb",
		"/..;x/b", "/a/.;/b", "/a/%2e%2e%3Bx", "//../x",
	} {
		target, _ := parse("ws://h")
		f, err := asking(path, nil)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if u, err := target.URL(f); err != errDots {
			t.Errorf("%s: %v, %v; want it to be refused", path, u, err)
		}
	}
	for _, capture := range []string{"..", ".", "../x", "x/..", "x/./y", `..\x`, "..;x", ".;"} {
		for _, to := range []string{"ws://h/in/{room}", "ws://h/in/{rest...}"} {
			target, _ := parse(to)
			f, _ := asking("/", map[string]string{"room": capture, "rest": capture})
			if u, err := target.URL(f); err != errDots {
				t.Errorf("%s with %q: %v, %v; want it to be refused", to, capture, u, err)
			}
		}
	}
	target, _ := parse("ws://h/.{room}") // together they are one
	if f, _ := asking("/", map[string]string{"room": "."}); f != nil {
		if u, err := target.URL(f); err != errDots {
			t.Errorf("%v, %v; want it to be refused", u, err)
		}
	}
}

func TestDotsThatAreNoDotSegmentPass(t *testing.T) {
	t.Parallel()
	target, _ := parse("ws://h")
	for _, path := range []string{"/...", "/.well-known/x", "/a..b", "/a.", "/..a", "/a;..", "/?/../", "/%252e%252e"} {
		f, err := asking(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if u, err := target.URL(f); err != nil || u.RequestURI() != path {
			t.Errorf("%s: %v, %v", path, u, err)
		}
	}
}

func TestAMissingValueIsTheClientsFault(t *testing.T) {
	t.Parallel()
	for _, to := range []string{"ws://h/{header.x-room}", "ws://h?{header.x-room}"} {
		target, _ := parse(to)
		f, _ := asking("/", nil)
		if u, err := target.URL(f); err == nil || err.Error() != "value header.x-room is missing in this handshake" {
			t.Errorf("%s: %v, %v", to, u, err)
		}
	}
}

// Whatever a configuration and a client say, there is no panic, the server stays the configured one, the request line stays one,
// its path holds no dot segment, and a capture adds no slash.
func FuzzURL(f *testing.F) {
	for _, c := range refused {
		f.Add(c.url, "/", "x")
	}
	f.Add("ws://h", "//evil.example/%2e%2e/a%2Fb?x#y", "")
	f.Add("wss://[::1]:9000/ü/{room}/{rest...}?{room}", "http://evil.example/", "a/../b?c#d\r\ne")
	f.Add("unix:/run/x", "/", "")
	f.Fuzz(func(t *testing.T, to, asked, capture string) {
		target, err := parse(to)
		if err != nil {
			return
		}
		if host, port, err := net.SplitHostPort(target.address); target.network == "tcp" && (err != nil || host == "" || port == "") {
			t.Fatalf("%q leads to %q", to, target.address)
		}
		values := map[string]string{}
		for _, name := range target.Captures() {
			values[name] = capture
		}
		facts, err := asking(asked, values)
		if err != nil {
			return
		}
		u, err := target.URL(facts)
		if err != nil {
			return
		}
		checkURL(t, target, u)
		if len(target.rest.Captures()) > 0 || !target.fixed {
			return
		}
		for name := range values {
			facts.Request.SetPathValue(name, "x")
		}
		if plain, err := target.URL(facts); err == nil && strings.Count(u.EscapedPath(), "/") != strings.Count(plain.EscapedPath(), "/") {
			t.Errorf("%q: %q gives %s", to, capture, u.EscapedPath())
		}
	})
}

func checkURL(t *testing.T, target *Target, u *url.URL) {
	t.Helper()
	if u.Host != target.host || u.Scheme != target.scheme {
		t.Errorf("%s is not at %s", u, target.host)
	}
	line := u.RequestURI()
	if strings.ContainsFunc(line, func(r rune) bool { return r <= ' ' || r == 0x7F }) || !strings.HasPrefix(line, "/") {
		t.Fatalf("the request target is %q", line)
	}
	again, err := asking(line, nil)
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	if slices.Contains(strings.Split(again.Request.URL.Path, "/"), "..") {
		t.Errorf("%s holds a dot segment", line)
	}
}

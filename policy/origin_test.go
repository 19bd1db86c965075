package policy

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

func pageRequest(host string, origins ...string) *http.Request {
	r := &http.Request{Method: "GET", Host: host, URL: &url.URL{Path: "/"}, Header: http.Header{}}
	if len(origins) > 0 {
		r.Header["Origin"] = origins
	}
	return r
}

func TestListedOrigins(t *testing.T) {
	t.Parallel()
	const chat = "https://chat.example.com"
	tests := []struct {
		rule, listed, origin string
		want                 bool
	}{
		{"equal", chat, "https://chat.example.com", true},
		{"the default port may be given", chat, "https://chat.example.com:443", true},
		{"the default port may be listed", chat + ":443", "https://chat.example.com", true},
		{"the default port of http", "http://a.b:80", "http://a.b", true},
		{"another scheme's default port", chat, "https://chat.example.com:80", false},
		{"another port", chat, "https://chat.example.com:8443", false},
		{"a listed port", chat + ":8443", "https://chat.example.com", false},
		{"another scheme", chat, "http://chat.example.com", false},
		{"another scheme with the port", chat, "http://chat.example.com:443", false},
		{"case does not count", "HTTPS://Chat.example.com", "https://cHAT.EXAMPLE.com", true},

		{"suffix trick", "https://example.com", "https://evilexample.com", false},
		{"prefix trick", chat, "https://chat.example.com.evil.com", false},
		{"prefix trick without a dot", chat, "https://chat.example.comevil", false},
		{"below", chat, "https://a.chat.example.com", false},
		{"trailing dot", chat, "https://chat.example.com.", false},
		{"user", chat, "https://chat.example.com@evil.com", false},
		{"user of the listed host", chat, "https://evil@chat.example.com", false},
		{"user and password", chat, "https://chat.example.com:443@evil.com", false},
		{"path", chat, "https://chat.example.com/", false},
		{"path to another", chat, "https://evil.com/https://chat.example.com", false},
		{"query", chat, "https://chat.example.com?x", false},
		{"fragment", chat, "https://evil.com#https://chat.example.com", false},
		{"backslash", chat, `https://evil.com\.chat.example.com`, false},
		{"space in front", chat, " https://chat.example.com", false},
		{"space behind", chat, "https://chat.example.com ", false},
		{"two in one line", chat, "https://evil.com https://chat.example.com", false},
		{"two with a comma", chat, "https://chat.example.com, https://evil.com", false},
		{"line break", chat, "https://chat.example.com\n", false},
		{"zero byte", chat, "https://chat.example.com\x00.evil.com", false},
		{"full stop of other scripts", chat, "https://chat。example.com", false},
		{"letters of other scripts", chat, "https://сhat.example.com", false},
		{"escaped", chat, "https://chat%2Eexample.com", false},
		{"punycode is text", "https://xn--bcher-kva.example", "https://xn--bcher-kva.example", true},
		{"no punycode", "https://xn--bcher-kva.example", "https://bücher.example", false},
		{"port that is none", chat, "https://chat.example.com:", false},
		{"port with zeros", chat, "https://chat.example.com:0443", false},
		{"port with a sign", chat, "https://chat.example.com:+443", false},
		{"port beyond 16 bits", chat, "https://chat.example.com:65979", false},
		{"no scheme", chat, "chat.example.com", false},
		{"no scheme, slashes", chat, "//chat.example.com", false},
		{"empty", chat, "", false},

		{"IPv4", "http://127.0.0.1:8080", "http://127.0.0.1:8080", true},
		{"IPv4 otherwise", "http://127.0.0.1:8080", "http://127.1:8080", false},
		{"IPv6", "http://[::1]:8080", "http://[::1]:8080", true},
		{"IPv6 is canonical", "http://[0:0::1]", "http://[::1]:80", true},
		{"IPv6 without brackets", "http://[::1]", "http://::1", false},
		{"IPv6 with a zone", "http://[fe80::1]", "http://[fe80::1%25eth0]", false},

		{"below a domain", "https://*.a.b", "https://x.a.b", true},
		{"far below a domain", "https://*.a.b", "https://x.y.a.b:443", true},
		{"the domain itself", "https://*.a.b", "https://a.b", false},
		{"nothing below", "https://*.a.b", "https://.a.b", false},
		{"empty labels below", "https://*.a.b", "https://x..a.b", false},
		{"suffix trick below", "https://*.a.b", "https://xa.b", false},
		{"prefix trick below", "https://*.a.b", "https://x.a.b.evil.com", false},
		{"user below", "https://*.a.b", "https://evil.com@x.a.b", false},
		{"path below", "https://*.a.b", "https://evil.com/x.a.b", false},
		{"other scheme below", "https://*.a.b", "http://x.a.b", false},
		{"other port below", "https://*.a.b", "https://x.a.b:8443", false},
		{"port below", "https://*.a.b:8443", "https://x.a.b:8443", true},
		{"below an address", "http://*.0.0.1", "http://127.0.0.1", false},

		{"any port", "http://localhost:*", "http://localhost:5173", true},
		{"any port, none given", "http://localhost:*", "http://localhost", true},
		{"any port, other host", "http://localhost:*", "http://localhost.evil.com:80", false},
		{"any port, other scheme", "http://localhost:*", "https://localhost:5173", false},
		{"any port that is one", "http://localhost:*", "http://localhost:x", false},
		{"any port below", "https://*.a.b:*", "https://x.a.b:1", true},
		{"any port of an address", "http://[::1]:*", "http://[::1]:99", true},

		{"other schemes", "chrome-extension://abcdef", "chrome-extension://abcdef", true},
		{"pages from files", "file://", "file://", true},
		{"null", "null", "null", true},
		{"null must be listed", chat, "null", false},
		{"null is not a host", "https://null", "null", false},
		{"null alone", "null", "https://evil.com", false},
		{"every page", "*", "https://evil.com", true},
		{"every page, null too", "*", "null", true},
	}
	for _, tt := range tests {
		o, err := NewOrigins([]string{"https://other.test", tt.listed}, false, true)
		if err != nil {
			t.Errorf("%s: %v", tt.rule, err)
			continue
		}
		err = o.Check(pageRequest("chat.example.com", tt.origin))
		if (err == nil) != tt.want {
			t.Errorf("%s: origin %q where %q is listed: %v, want allowed %t", tt.rule, tt.origin, tt.listed, err, tt.want)
		}
	}
}

func TestOriginsOfTheSameHost(t *testing.T) {
	t.Parallel()
	tests := []struct {
		rule, host, origin string
		named, open        bool // allowed on a route with a host, on one without
	}{
		{"equal", "a.b", "https://a.b", true, false},
		{"the scheme does not count", "a.b", "http://a.b", true, false},
		{"the port is given in Host alone", "a.b:443", "https://a.b", true, false},
		{"the port is given in Origin alone", "a.b", "https://a.b:443", true, false},
		{"a port of the other scheme", "a.b:443", "http://a.b", false, false},
		{"an own port", "a.b:8443", "https://a.b:8443", true, false},
		{"an own port in Host alone", "a.b:8443", "https://a.b", false, false},
		{"an own port in Origin alone", "a.b", "https://a.b:8443", false, false},
		{"case does not count", "A.b", "https://a.B", true, false},
		{"another host", "a.b", "https://evil.com", false, false},
		{"a host below", "a.b", "https://x.a.b", false, false},
		{"a trailing dot in both", "a.b.", "https://a.b.", true, false},
		{"a trailing dot in one", "a.b", "https://a.b.", false, false},
		{"user", "a.b", "https://x@a.b", false, false},
		{"user in both", "x@a.b", "https://x@a.b", false, false},
		{"path", "a.b", "https://a.b/x", false, false},
		{"null", "null", "null", false, false},
		{"no host at all", "", "file://", false, false},
		{"rebound name", "evil.com:8080", "http://evil.com:8080", true, false},
		{"localhost", "localhost:8080", "http://localhost:8080", true, true},
		{"another port of localhost", "localhost:8080", "http://localhost:9090", false, false},
		{"a name that looks like localhost", "localhost.evil.com", "http://localhost.evil.com", true, false},
		{"IPv4", "192.168.1.7", "http://192.168.1.7", true, true},
		{"a name that looks like IPv4", "127.0.0.1.evil.com", "http://127.0.0.1.evil.com", true, false},
		{"IPv6", "[::1]:8080", "http://[::1]:8080", true, true},
		{"IPv6 written otherwise", "[0::1]:8080", "http://[::1]:8080", true, true},
	}
	for _, tt := range tests {
		for _, hasHost := range []bool{true, false} {
			want := tt.open
			if hasHost {
				want = tt.named
			}
			o, _ := NewOrigins(nil, false, hasHost)
			if err := o.Check(pageRequest(tt.host, tt.origin)); (err == nil) != want {
				t.Errorf("%s: origin %q at host %q, route has host %t: %v, want allowed %t", tt.rule, tt.origin, tt.host, hasHost, err, want)
			}
		}
	}
}

func TestOriginHeader(t *testing.T) {
	t.Parallel()
	for _, allow := range [][]string{nil, {"https://a.b"}, {"*"}} {
		o, _ := NewOrigins(allow, false, true)
		if err := o.Check(pageRequest("a.b")); err != nil {
			t.Errorf("%q: without Origin: %v, want allowed", allow, err)
		}
		if err := o.Check(pageRequest("a.b", "https://a.b", "https://a.b")); err == nil {
			t.Errorf("%q: two Origin headers are allowed", allow)
		}
		strict, _ := NewOrigins(allow, true, true)
		if err := strict.Check(pageRequest("a.b")); err == nil {
			t.Errorf("%q: without Origin, which is required: allowed", allow)
		}
		if err := strict.Check(pageRequest("a.b", "https://a.b")); err != nil {
			t.Errorf("%q: Origin is required and there: %v", allow, err)
		}
	}
}

// A list with `self` in it allows what an empty one does, beside what else it lists.
func TestSelfAmongListedOrigins(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		host, origin string
		named, open  bool // allowed on a route with a host, on one without
	}{
		{"a.b:8443", "https://a.b:8443", true, false},
		{"a.b", "http://a.b", true, false},
		{"localhost:8080", "http://localhost:8080", true, true},
		{"a.b", "https://listed.example", true, true},
		{"a.b", "http://localhost:5173", true, true},
		{"a.b", "https://self", false, false},
		{"a.b", "self", false, false},
		{"a.b", "https://other.example", false, false},
		{"a.b", "null", false, false},
	} {
		for hasHost, want := range map[bool]bool{true: tt.named, false: tt.open} {
			o, err := NewOrigins([]string{"https://listed.example", "self", "http://localhost:*"}, false, hasHost)
			if err != nil {
				t.Fatal(err)
			}
			if err := o.Check(pageRequest(tt.host, tt.origin)); (err == nil) != want {
				t.Errorf("origin %q at host %q, route has host %t: %v, want allowed %t", tt.origin, tt.host, hasHost, err, want)
			}
		}
	}
}

func TestARefusedOriginNamesTheMend(t *testing.T) {
	t.Parallel()
	listed := []string{"https://chat.example.com", "https://*.wide.example", "http://localhost:*", "https://own.example:8443"}
	const files = "; browsers send this for pages from files and in sandboxed frames, whosever they are: better serve the page by HTTP"
	for _, tt := range []struct {
		name   string
		allow  []string
		host   string
		origin string
		header string // that the request has too
		hint   string
	}{
		{"another host", nil, "a.b", "https://x", "", ""},
		{"another host, with a list", listed, "a.b", "https://x", "X-Forwarded-For", ""},
		{"null", nil, "a.b", "null", "", files},
		{"a file", listed, "a.b", "file://", "", files},
		{"another scheme", listed, "a.b", "http://chat.example.com", "", "; https://chat.example.com is listed, but the scheme differs"},
		{"another port", listed, "a.b", "https://chat.example.com:9", "", "; https://chat.example.com is listed, but the port differs"},
		{"no port", listed, "a.b", "https://own.example", "", "; https://own.example:8443 is listed, but the port differs"},
		{"another scheme, any port", listed, "a.b", "https://localhost:1", "", "; http://localhost:* is listed, but the scheme differs"},
		{"another scheme below", listed, "a.b", "http://x.wide.example", "", "; https://*.wide.example is listed, but the scheme differs"},
		{"not below", listed, "a.b", "https://wide.example", "",
			"; https://*.wide.example is listed, but stands for the names below this one, not for itself"},
		{"another port of the same host", nil, "a.b:9000", "http://a.b:3000", "",
			`; the page's port is not that of the Host header, "a.b:9000"`},
		{"a proxy that changed Host", nil, "127.0.0.1:9000", "https://app.example.com", "X-Forwarded-For",
			`; the Host header is "127.0.0.1:9000", but the request came through a proxy: ` +
				"if that changed the header, let it pass the client's (nginx: proxy_set_header Host $http_host)"},
		{"a proxy that dropped the port of Host", []string{"self"}, "a.b", "https://a.b:8443", "Forwarded",
			`; the Host header is "a.b", but the request came through a proxy: ` +
				"if that changed the header, let it pass the client's (nginx: proxy_set_header Host $http_host)"},
	} {
		o, err := NewOrigins(tt.allow, false, true)
		if err != nil {
			t.Fatal(err)
		}
		r := pageRequest(tt.host, tt.origin)
		if tt.header != "" {
			r.Header.Set(tt.header, "for=192.0.2.1")
		}
		want := fmt.Sprintf("origin %q is not allowed; to allow it, list %q under origins%s", tt.origin, tt.origin, tt.hint)
		if err := o.Check(r); err == nil || err.Error() != want {
			t.Errorf("%s:\n%v, want\n%s", tt.name, err, want)
		}
	}
}

func TestARefusedOriginOnARouteWithoutHost(t *testing.T) {
	t.Parallel()
	o, _ := NewOrigins(nil, false, false)
	err := o.Check(pageRequest("a.b", "http://a.b"))
	forbidden, ok := errors.AsType[*Forbidden](err)
	if !ok || !strings.Contains(err.Error(), "DNS rebinding") || !strings.HasSuffix(err.Error(), "give it a host") {
		t.Fatalf("%v", err)
	}
	forbidden.Route = "chat"
	const want = `origin "http://a.b" is not allowed; to allow it, list "http://a.b" under origins of route "chat"; `
	if !strings.HasPrefix(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
}

func TestAnOriginThatIsNone(t *testing.T) {
	t.Parallel()
	o, _ := NewOrigins(nil, false, true)
	err := o.Check(pageRequest("a.b", "https://x/\n"))
	const want = `origin "https://x/\n" is not allowed: there must be nothing but a host and a port behind the scheme`
	if err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
	for _, long := range []string{"https://" + strings.Repeat("a", 10000), "https://" + strings.Repeat("/", 10000)} {
		if err := o.Check(pageRequest("a.b", long)); err == nil || len(err.Error()) > 1000 {
			t.Errorf("a long origin makes an error of %d bytes", len(err.Error()))
		}
	}
}

func TestCheckOrigin(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"https://a.b", "https://*.a.b", "http://localhost:*", "https://*.a.b:*", "null", "self", "*", "file://", "http://[::1]:1"} {
		if err := CheckOrigin(s); err != nil {
			t.Errorf("%q: %v, want it to be good", s, err)
		}
	}
	bad := []string{
		"", "a.b", "https://", "https://a.b/", "https://a.b/x", "https://u@a.b", "https://*", "https://*a.b", "https://a.*.b", "https://*.",
		"*.a.b", "https://a.b:0", "https://a.b:x", "https://a.b:1:*", "https://a.b:99999", "https://bücher.example", "https://*.10.0.0.1",
		"https://::1", "https://[::1", "https://[a.b]", "https:///", "ht tp://a.b", "://a.b", "Self", "self:*", "https://a..b", "https://.a.b", "Null", "file://:80",
	}
	for _, s := range bad {
		if err := CheckOrigin(s); err == nil {
			t.Errorf("%q: taken, want an error", s)
		} else if !strings.Contains(err.Error(), `"`+s+`"`) {
			t.Errorf("%q: %v does not quote it", s, err)
		}
	}
}

// Whatever origin is let in where one domain is listed, a URL parser sees that domain in it.
func FuzzOrigin(f *testing.F) {
	f.Add("https://chat.example.com")
	f.Add("https://x.a.example:443")
	f.Add("https://[::1]:8080")
	f.Add("http://localhost:5173")
	f.Fuzz(func(t *testing.T, origin string) {
		o, _ := NewOrigins([]string{"https://chat.example.com", "https://*.a.example", "http://localhost:*"}, false, true)
		if o.Check(pageRequest("chat.example.com", origin)) != nil {
			return
		}
		u, err := url.Parse(strings.ToLower(origin))
		if err != nil {
			t.Fatalf("%q is let in, and is no URL: %v", origin, err)
		}
		host := u.Hostname()
		good := host == "chat.example.com" || host == "localhost" || strings.HasSuffix(host, ".a.example")
		if !good || u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.Opaque != "" {
			t.Errorf("%q is let in", origin)
		}
	})
}

package connect

import (
	"net/url"
	"strings"
	"testing"
)

func TestParseURL(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, want, address, err string }{
		{"wss://example.com/ws?a=b", "wss://example.com/ws?a=b", "example.com:443", ""},
		{"ws://example.com", "ws://example.com", "example.com:80", ""},
		{"https://example.com/", "wss://example.com/", "example.com:443", ""},
		{"HTTP://example.com:8080", "ws://example.com:8080", "example.com:8080", ""},
		{"example.com/ws", "wss://example.com/ws", "example.com:443", ""},
		{"example.com:8080", "wss://example.com:8080", "example.com:8080", ""},
		{"localhost/ws", "ws://localhost/ws", "localhost:80", ""},
		{"localhost:8443", "wss://localhost:8443", "localhost:8443", ""},
		{"127.0.0.2:443", "wss://127.0.0.2:443", "127.0.0.2:443", ""},
		{"127.0.0.2:4430", "ws://127.0.0.2:4430", "127.0.0.2:4430", ""},
		{"[::1]:8080/x", "ws://[::1]:8080/x", "[::1]:8080", ""},
		{"[2001:db8::1]", "wss://[2001:db8::1]", "[2001:db8::1]:443", ""},
		{":8080/x", "ws://localhost:8080/x", "localhost:8080", ""},
		{"example.com/to?next=https://x/", "wss://example.com/to?next=https://x/", "example.com:443", ""},
		{"ann:pass@example.com", "wss://ann:pass@example.com", "example.com:443", ""},
		{"", "", "", `URL "": it needs a host`},
		{"wss://", "", "", `URL "wss://": it needs a host`},
		{"/ws", "", "", "it needs a host"},
		{"ftp://example.com", "", "", "the scheme must be ws or wss"},
		{"wss://example.com/#room", "", "", "a # in its path or query is written %23"},
		{"wss://example.com:port", "", "", `URL "wss://example.com:port": invalid port ":port" after host`},
		{"wss://a b", "", "", `invalid character " " in host name`},
	} {
		u, err := ParseURL(c.text)
		wantError(t, err, c.err)
		if err == nil && (u.String() != c.want || hostPort(u) != c.address) {
			t.Errorf("%q leads to %s at %s, want %s at %s", c.text, u, hostPort(u), c.want, c.address)
		}
	}
}

// What is taken can be dialled, and is taken for the same when it is written out.
func FuzzParseURL(f *testing.F) {
	for _, text := range []string{"wss://example.com/ws?a=b", "localhost:8080", ":1", "a:b@c", "x?y=z://", "[::1%25eth0]:1"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		u, err := ParseURL(text)
		if err != nil {
			return
		}
		if u.Scheme != "ws" && u.Scheme != "wss" || u.Hostname() == "" || strings.Contains(u.String(), "#") {
			t.Errorf("%q leads to %s", text, u)
		}
		again, err := url.Parse(u.String())
		if err != nil || again.String() != u.String() || hostPort(again) != hostPort(u) {
			t.Errorf("%q leads to %s, and that to %v, %v", text, u, again, err)
		}
	})
}

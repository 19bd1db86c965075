package e2e

import (
	"encoding/base64"
	"net"
	"net/http"
	"strings"
	"testing"
)

// bearing is the header of a client that has a cookie.
func bearing(name, value string) http.Header { return http.Header{"Cookie": {name + "=" + value}} }

func TestSticky(t *testing.T) {
	behind(t, func(t *testing.T, kind string) {
		f := newFleet(t, kind, "a", "b")
		text := groups(kind,
			"g: "+f.servers("a", "b")+", sticky: {}",
			"other: "+f.servers("a", "b")+", sticky: {cookie: place, same_site: strict, ttl: 1h}")
		e, stranger := startGroups(t, text), startGroups(t, text)

		g := e.come(t, "/g", nil)
		wantCookie(t, g.cookie, http.Cookie{Name: "bridgehead_server", SameSite: http.SameSiteLaxMode})
		tellsNothing(t, g.cookie.Value, f)
		for range 4 { // in turn they would be at both
			if again := e.come(t, "/g", bearing(g.cookie.Name, g.cookie.Value)); again.at != g.at || again.cookie != nil {
				t.Errorf("who was at %s is at %s, and is given %v", g.at, again.at, again.cookie)
			}
		}
		o := e.come(t, "/other", nil)
		wantCookie(t, o.cookie, http.Cookie{Name: "place", SameSite: http.SameSiteStrictMode, MaxAge: 3600})
		for path, want := range map[string]http.Cookie{
			"/g":     {Name: "bridgehead_server", SameSite: http.SameSiteLaxMode, Secure: true},
			"/other": {Name: "place", SameSite: http.SameSiteStrictMode, MaxAge: 3600, Secure: true},
		} {
			conn, resp, err := e.dialer().Dial(e.url(path), nil)
			if err != nil {
				t.Fatal(err)
			}
			wantCookie(t, greeted(t, conn, resp).cookie, want)
			conn.Close()
		}

		elsewhere := stranger.come(t, "/g", nil)
		for why, value := range map[string]string{
			"nothing":                "",
			"another letter":         swapped(g.cookie.Value),
			"a part":                 g.cookie.Value[:8],
			"more":                   g.cookie.Value + "A",
			"the address":            f.at[g.at],
			"the URL, encoded":       base64.RawURLEncoding.EncodeToString([]byte(f.url(g.at))),
			"the name of the server": g.at,
			"another group's":        o.cookie.Value,
			"another program's":      elsewhere.cookie.Value,
			"much":                   strings.Repeat("A", 3000),
		} {
			seen := map[string]bool{}
			for range 2 { // it is as if there were none: they are served in turn
				came := e.come(t, "/g", bearing(g.cookie.Name, value))
				seen[came.at] = true
				if came.cookie == nil {
					t.Errorf("%s is taken for a cookie of %s", why, came.at)
				}
			}
			if len(seen) != 2 {
				t.Errorf("%s leads to %v", why, seen)
			}
		}
		movesOn(t, e, f, g)
	})
}

// movesOn has the server of a client go: it comes to another, and stays there.
func movesOn(t *testing.T, e *edge, f *fleet, g *guest) {
	t.Helper()
	f.kill(g.at)
	moved := e.come(t, "/g", bearing(g.cookie.Name, g.cookie.Value))
	if moved.at == g.at || moved.cookie == nil || moved.cookie.Value == g.cookie.Value {
		t.Fatalf("the server %s is gone; the client is at %s, and is given %v", g.at, moved.at, moved.cookie)
	}
	f.begin(g.at)
	for range 4 {
		if again := e.come(t, "/g", bearing(g.cookie.Name, moved.cookie.Value)); again.at != moved.at {
			t.Errorf("who was at %s is at %s", moved.at, again.at)
		}
	}
}

func wantCookie(t *testing.T, got *http.Cookie, want http.Cookie) {
	t.Helper()
	if got == nil {
		t.Fatal("no cookie is set")
	}
	if got.Name != want.Name || !got.HttpOnly || got.Secure != want.Secure || got.SameSite != want.SameSite || got.MaxAge != want.MaxAge ||
		got.Path != "/" || got.Domain != "" {
		t.Errorf("the cookie is %s", got.Raw)
	}
}

// tellsNothing looks for what a cookie could tell of the servers, in clear or encoded.
func tellsNothing(t *testing.T, value string, f *fleet) {
	t.Helper()
	decoded, err := base64.RawURLEncoding.DecodeString(value)
	if err != nil || len(decoded) < 16 {
		t.Errorf("the cookie %q is no signature: %v", value, err)
	}
	for name, address := range f.at {
		host, port, _ := net.SplitHostPort(address)
		for _, word := range []string{host, port, f.url(name)} {
			if strings.Contains(value, word) || strings.Contains(string(decoded), word) {
				t.Errorf("the cookie %q tells of %s", value, word)
			}
		}
	}
}

// swapped is a cookie with another first letter.
func swapped(value string) string {
	if value[0] == 'A' {
		return "B" + value[1:]
	}
	return "A" + value[1:]
}

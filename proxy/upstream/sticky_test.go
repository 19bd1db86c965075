package upstream

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"bridgehead/policy"
)

// sticking makes a group of servers that clients come back to. change may be nil.
func sticking(t *testing.T, key string, change func(*Options)) *Group {
	t.Helper()
	o := Options{Servers: []Server{{URL: "tcp://a:1"}, {URL: "tcp://b:1"}, {URL: "tcp://c:1"}}, Balance: roundRobin}
	sticky := DefaultSticky()
	o.Sticky = &sticky
	if change != nil {
		change(&o)
	}
	groups, err := NewGroups(map[string]Options{"chat": o}, Setup{Log: slog.New(slog.DiscardHandler), Key: []byte(key)})
	if err != nil {
		t.Fatal(err)
	}
	return groups["chat"]
}

// visit opens a socket for a client with a cookie, and gives the server and the cookie that is set.
func visit(t *testing.T, g *Group, c *http.Cookie, secure bool) (server string, set *http.Cookie) {
	t.Helper()
	f := &policy.Facts{Request: httptest.NewRequest("GET", "/", nil), TLS: secure}
	if c != nil {
		f.Request.AddCookie(c)
	}
	l, err := g.Open(t.Context(), f, opens)
	if err != nil {
		t.Fatal(err)
	}
	return l.Target().Address(), l.Cookie(f)
}

func TestAClientComesBackToItsServer(t *testing.T) {
	t.Parallel()
	g := sticking(t, "k", nil)
	visit(t, g, nil, false)
	first, cookie := visit(t, g, nil, true)
	if first != "b:1" || cookie == nil {
		t.Fatalf("%s, %v", first, cookie)
	}
	again := sticking(t, "k", nil) // after a restart, with the same key
	for _, g := range []*Group{g, again} {
		for range 5 {
			if server, set := visit(t, g, cookie, true); server != first || set != nil {
				t.Errorf("the client came back to %s, and was told %v", server, set)
			}
		}
	}
	// What is not from us, or from another key, leads nowhere, and is replaced.
	for _, bad := range []string{"", "b:1", strings.Repeat("A", len(cookie.Value))} {
		if _, set := visit(t, g, &http.Cookie{Name: cookie.Name, Value: bad}, true); set == nil {
			t.Errorf("the cookie %q stayed", bad)
		}
	}
	if _, set := visit(t, sticking(t, "other", nil), cookie, true); set == nil {
		t.Error("a cookie that another key has signed was taken")
	}
	// A server that takes nobody is left.
	g.Adopt(sticking(t, "k", func(o *Options) { o.Servers[1].Drain = true }))
	if server, set := visit(t, g, cookie, true); server == first || set == nil || set.Value == cookie.Value {
		t.Errorf("the client came to %s, and was told %v", server, set)
	}
}

func TestTheStickyCookie(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]struct {
		change func(*Sticky)
		secure bool
	}{
		"Path=/; HttpOnly; SameSite=Lax":                        {func(*Sticky) {}, false},
		"Path=/; HttpOnly; Secure; SameSite=Lax":                {func(*Sticky) {}, true},
		"Path=/; Max-Age=3600; HttpOnly; Secure; SameSite=None": {func(s *Sticky) { s.SameSite, s.TTL = "none", time.Hour }, true},
		"Path=/; HttpOnly; SameSite=Strict":                     {func(s *Sticky) { s.SameSite = "strict" }, false},
	} {
		g := sticking(t, "k", func(o *Options) { c.change(o.Sticky) })
		_, set := visit(t, g, nil, c.secure)
		name, attributes, _ := strings.Cut(set.String(), "; ")
		if attributes != want || !strings.HasPrefix(name, "bridgehead_server=") || len(name) != len("bridgehead_server=")+22 {
			t.Errorf("%s; want %s", set, want)
		}
	}
	if _, set := visit(t, sticking(t, "k", func(o *Options) { o.Sticky = nil }), nil, true); set != nil {
		t.Errorf("a cookie %s, though nobody asked for one", set)
	}
}

func TestTheKeyIsMadeOnce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sticky.key")
	first, err := LoadKey(path)
	if err != nil || len(first) != keySize {
		t.Fatalf("%d bytes, %v", len(first), err)
	}
	if again, err := LoadKey(path); err != nil || string(again) != string(first) {
		t.Errorf("another key, %v", err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := os.WriteFile(path, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadKey(path); err == nil || !strings.Contains(err.Error(), "remove it") {
		t.Errorf("error %v", err)
	}
}

// A server that joins gets a tenth of its share, and more by and by; one that was there from the beginning has it at once.
func TestSlowStart(t *testing.T) {
	t.Parallel()
	for _, balance := range []string{roundRobin, leastConnections, randomTwo} {
		synctest.Test(t, func(t *testing.T) {
			slow := func(servers ...Server) *Group {
				g, err := New(Options{Servers: servers, Balance: balance, SlowStart: time.Minute})
				if err != nil {
					t.Fatal(err)
				}
				return g
			}
			a, b := Server{URL: "tcp://a:1"}, Server{URL: "tcp://b:1"}
			g := slow(a)
			fill(t, g, 1000)
			g.Adopt(slow(a, b))
			share := func() float64 { // of b, in sockets that end at once for round_robin, or of all
				open, leases := fill(t, g, 2000)
				total := len(g.servers[1].leases)
				n := len(g.servers[0].leases)
				for _, l := range leases {
					l.Release()
				}
				if balance == roundRobin {
					return float64(open["b:1"]) / 2000
				}
				return float64(total) / float64(total+n)
			}
			early := share()
			time.Sleep(30 * time.Second)
			half := share()
			time.Sleep(30 * time.Second)
			full := share()
			t.Logf("%s: the newcomer has %.2f of the sockets at first, %.2f after half of the time, %.2f then", balance, early, half, full)
			if early > 0.3 || half < early+0.05 || half > 0.45 || full < 0.45 || full > 0.7 {
				t.Errorf("%s: %.2f, %.2f, %.2f", balance, early, half, full)
			}
		})
	}
}

// A client that comes back to a server that fails it is not sent there for ever, even if nothing else leaves that server alone.
func TestAClientIsNotLedBackToAServerThatFails(t *testing.T) {
	t.Parallel()
	g := sticking(t, "k", func(o *Options) { o.Retries = 0 })
	_, cookie := visit(t, g, nil, false)
	f := &policy.Facts{Request: httptest.NewRequest("GET", "/", nil)}
	f.Request.AddCookie(cookie)
	_, err := g.Open(t.Context(), f, func(context.Context, *Target) error { return errTest })
	unstuck, ok := errors.AsType[*Unstuck](err)
	if !ok || !errors.Is(err, errTest) || unstuck.Error() != errTest.Error() {
		t.Fatalf("error %v", err)
	}
	if got := unstuck.Cookie().String(); got != "bridgehead_server=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax" {
		t.Errorf("the client is told %s", got)
	}
	// What the server itself decided is no reason to leave it, and neither is a moment in which all are busy.
	_, err = g.Open(t.Context(), f, func(context.Context, *Target) error { return &Answer{errTest} })
	if _, ok := errors.AsType[*Unstuck](err); ok || !errors.Is(err, errTest) {
		t.Errorf("error %v", err)
	}
	g.Adopt(sticking(t, "k", func(o *Options) {
		for i := range o.Servers {
			o.Servers[i].Drain = true
		}
	}))
	_, err = g.Open(t.Context(), f, opens)
	if _, ok := errors.AsType[*Unavailable](err); !ok {
		t.Errorf("error %v", err)
	}
	if _, ok := errors.AsType[*Unstuck](err); ok {
		t.Errorf("error %v", err)
	}
	// A full server is passed by, and the client belongs to the other one from then on.
	full := sticking(t, "k", func(o *Options) { o.Servers[0].MaxConnections = 1 })
	first, cookie := visit(t, full, nil, false)
	if server, set := visit(t, full, cookie, false); server == first || set == nil {
		t.Errorf("the client came to %s, and was told %v", server, set)
	}
	// Without a cookie there is none to take away.
	_, err = g.Open(t.Context(), new(policy.Facts), func(context.Context, *Target) error { return errTest })
	if _, ok := errors.AsType[*Unstuck](err); ok {
		t.Errorf("error %v", err)
	}
}

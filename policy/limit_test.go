package policy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bridgehead/internal/unit"
	"bridgehead/internal/yamlpos"
)

func rateOf(t testing.TB, s string) unit.Rate {
	t.Helper()
	r, err := unit.ParseRate(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func limiter(t testing.TB, s *Store, rules ...Rule) *Limiter {
	t.Helper()
	l, err := s.Limiter("chat", rules)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func from(addr string) *Facts {
	r := &http.Request{
		Method: "GET", URL: &url.URL{Path: "/", RawQuery: "k=v"}, Header: http.Header{},
		RemoteAddr: netip.AddrPortFrom(netip.MustParseAddr(addr), 1).String(),
	}
	return &Facts{Request: r, Client: netip.MustParseAddr(addr)}
}

// enter asks all rules: those of the address, and then those of who the client is.
func enter(l *Limiter, f *Facts) (*Grant, error) {
	g, err := l.Admit(f, time.Now())
	if err != nil {
		return nil, err
	}
	if err := l.Identify(g, f, time.Now()); err != nil {
		g.Release()
		return nil, err
	}
	return g, nil
}

// admit puts the rules in force, and wants the client to be admitted.
func admit(t testing.TB, l *Limiter, f *Facts) *Grant {
	t.Helper()
	l.Apply()
	g, err := enter(l, f)
	if err != nil {
		t.Fatalf("%s: %v, want it to be admitted", f.Client, err)
	}
	return g
}

// refuse wants the client to be refused, for this key of the rule.
func refuse(t testing.TB, l *Limiter, f *Facts, what string) *Exceeded {
	t.Helper()
	g, err := enter(l, f)
	e, ok := errors.AsType[*Exceeded](err)
	if !ok || g != nil || e.What != what {
		t.Fatalf("%s: %v, %v; want it to be refused for %s", f.Client, g, err, what)
	}
	return e
}

func TestConnectionsAreCounted(t *testing.T) {
	t.Parallel()
	l := limiter(t, NewStore(100), Rule{Per: []string{"client.ip"}, Connections: 2})
	first := admit(t, l, from("192.0.2.1"))
	admit(t, l, from("192.0.2.1"))
	e := refuse(t, l, from("192.0.2.1"), "connections")
	if want := "limit per client.ip: connections is at 2 open; to allow more, raise it under limits"; e.Error() != want || e.RetryAfter != 0 {
		t.Errorf("%q, retry after %s; want %q, 0", e, e.RetryAfter, want)
	}
	admit(t, l, from("192.0.2.2"))
	first.Release()
	first.Release() // idempotent
	admit(t, l, from("192.0.2.1"))
	refuse(t, l, from("192.0.2.1"), "connections")
}

func TestHandshakesAreCounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := limiter(t, NewStore(100), Rule{Per: []string{"client.ip"}, ConnectRate: rateOf(t, "6/m")})
		for range 6 {
			admit(t, l, from("192.0.2.1")).Release()
		}
		for range 100 { // asking in vain costs nothing
			if e := refuse(t, l, from("192.0.2.1"), "connect_rate"); e.RetryAfter.Round(time.Millisecond) != 10*time.Second {
				t.Fatalf("retry after %s, want 10s", e.RetryAfter)
			}
		}
		time.Sleep(9 * time.Second)
		refuse(t, l, from("192.0.2.1"), "connect_rate")
		time.Sleep(time.Second + time.Millisecond)
		admit(t, l, from("192.0.2.1"))
		refuse(t, l, from("192.0.2.1"), "connect_rate")
	})
}

func TestAllRulesOrNone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := limiter(t, NewStore(100),
			Rule{Per: []string{"header.x-user"}, ConnectRate: rateOf(t, "2/h"), Connections: 2},
			Rule{Per: []string{"client.ip"}, Connections: 1})
		ann := from("192.0.2.1")
		ann.Request.Header.Set("X-User", "ann")
		g := admit(t, l, ann)
		for range 5 { // none of these counts for the user
			refuse(t, l, ann, "connections")
		}
		g.Release()
		admit(t, l, ann).Release()
		if e := refuse(t, l, ann, "connect_rate"); e.Rule != "per header.x-user" {
			t.Errorf("exceeded %s, want per header.x-user", e.Rule)
		}
	})
}

func TestWhatRulesCountBy(t *testing.T) {
	t.Parallel()
	with := func(f *Facts, set func(*Facts)) *Facts {
		set(f)
		return f
	}
	header := func(value string) *Facts {
		return with(from("192.0.2.1"), func(f *Facts) { f.Request.Header = http.Header{"X-Key": {value}} })
	}
	long := strings.Repeat("k", 5000)
	tests := []struct {
		rule, per string
		a, b      *Facts
		same      bool
	}{
		{"one address", "client.ip", from("192.0.2.1"), from("192.0.2.1"), true},
		{"IPv4 in IPv6", "client.ip", from("192.0.2.1"), from("::ffff:192.0.2.1"), true},
		{"neighbours of IPv4", "client.ip", from("192.0.2.1"), from("192.0.2.2"), false},
		{"IPv6 by /64", "client.ip", from("2001:db8::1"), from("2001:db8::ffff:0:0:1"), true},
		{"another /64", "client.ip", from("2001:db8::1"), from("2001:db8:0:1::1"), false},
		{"one value of a header", "header.x-key", header("k"), header("k"), true},
		{"other values of a header", "header.x-key", header("k"), header("l"), false},
		{"long keys", "header.x-key", header(long), header(long), true},
		{"long keys that differ at the end", "header.x-key", header(long), header(long + "l"), false},
		{"no value, no rule", "header.x-key", from("192.0.2.1"), from("192.0.2.1"), false},
		{"no user, no rule", "user", from("192.0.2.1"), from("192.0.2.1"), false},
		{"query", "query.k", from("192.0.2.1"), from("192.0.2.2"), true},
		{"capture", "room",
			with(from("192.0.2.1"), func(f *Facts) { f.Request.SetPathValue("room", "a") }),
			with(from("192.0.2.2"), func(f *Facts) { f.Request.SetPathValue("room", "a") }), true},
		{"excepted network", "client.ip", from("127.0.0.1"), from("127.0.0.1"), false},
	}
	for _, tt := range tests {
		l := limiter(t, NewStore(100), Rule{Per: []string{tt.per}, Connections: 1, Except: Networks{Loopback()}})
		admit(t, l, tt.a)
		for id := range l.store.accounts {
			if len(id.key) > longestKey {
				t.Errorf("%s: the store keeps a key of %d bytes, want at most %d", tt.rule, len(id.key), longestKey)
			}
		}
		if tt.same {
			refuse(t, l, tt.b, "connections")
		} else {
			admit(t, l, tt.b)
		}
	}
}

func TestDefaultRules(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := limiter(t, NewStore(1000), DefaultRules()...)
		for range 256 {
			admit(t, l, from("192.0.2.1"))
		}
		refuse(t, l, from("192.0.2.1"), "connections")
		for range 600 {
			admit(t, l, from("192.0.2.2")).Release()
		}
		if e := refuse(t, l, from("192.0.2.2"), "connect_rate"); e.Limit != "600/m" {
			t.Errorf("limit %s, want 600/m", e.Limit)
		}
		for range 1000 {
			admit(t, l, from("127.0.0.1"))
			admit(t, l, from("::1"))
		}
	})
}

// Take is Charge of whole messages.
func (g *Grant) Take(messages, bytes int, now time.Time) (time.Duration, error) {
	return g.Charge(Traffic{Messages: messages, Bytes: bytes}, now)
}

func TestTakeThrottlesByDebt(t *testing.T) {
	t.Parallel()
	tests := []struct {
		rule            string
		limit           Rule
		messages, bytes int
		want            time.Duration
	}{
		{"within the burst", Rule{Messages: rateOf(t, "10/s")}, 10, 1 << 30, 0},
		{"one beyond", Rule{Messages: rateOf(t, "10/s")}, 11, 0, 100 * time.Millisecond},
		{"bytes", Rule{Bytes: rateOf(t, "1KiB/s")}, 1000, 3 << 10, 2 * time.Second},
		{"the longest pause counts", Rule{Messages: rateOf(t, "1/s"), Bytes: rateOf(t, "1KiB/s")}, 4, 3 << 10, 3 * time.Second},
		{"far beyond the burst", Rule{Bytes: rateOf(t, "1MiB/s")}, 1, 1 << 30, 1023 * time.Second},
		{"a burst of one", Rule{Messages: unit.Rate{Rate: 2, Burst: 1}}, 1_000_001, 0, 500_000 * time.Second},
		{"an own burst", Rule{Messages: unit.Rate{Rate: 1, Burst: 100}}, 100, 0, 0},
		{"nothing limited", Rule{Connections: 1}, 1 << 30, 1 << 30, 0},
		{"nothing taken", Rule{Messages: rateOf(t, "1/s")}, 0, 0, 0},
	}
	for _, tt := range tests {
		synctest.Test(t, func(t *testing.T) {
			tt.limit.Per = []string{"client.ip"}
			g := admit(t, limiter(t, NewStore(10), tt.limit), from("192.0.2.1"))
			pause, err := g.Take(tt.messages, tt.bytes, time.Now())
			if err != nil || pause.Round(time.Microsecond) != tt.want {
				t.Errorf("%s: pause %s, %v; want %s", tt.rule, pause, err, tt.want)
			}
			time.Sleep(pause)
			if pause, _ = g.Take(1, 0, time.Now()); tt.want > 0 && tt.limit.Messages.IsOff() && pause != 0 {
				t.Errorf("%s: after the pause still %s in debt", tt.rule, pause)
			}
		})
	}
}

func TestThroughputIsTheRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := admit(t, limiter(t, NewStore(10), Rule{Per: []string{"client.ip"}, Bytes: rateOf(t, "64KiB/s")}), from("192.0.2.1"))
		began := time.Now()
		for range 1000 {
			pause, _ := g.Take(1, 100<<10, time.Now()) // each read is more than the burst
			time.Sleep(pause)
		}
		want := (1000*100<<10 - 64<<10) / (64 << 10) * time.Second
		if took := time.Since(began); took < want || took > want+time.Second {
			t.Errorf("1000 reads of 100 KiB took %s, want %s", took, want)
		}
	})
}

func TestClientsOfOneKeyShareARate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := limiter(t, NewStore(10), Rule{Per: []string{"client.ip"}, Messages: rateOf(t, "10/s")})
		a, b, other := admit(t, l, from("192.0.2.1")), admit(t, l, from("192.0.2.1")), admit(t, l, from("192.0.2.2"))
		a.Take(20, 0, time.Now())
		if pause, _ := b.Take(1, 0, time.Now()); pause.Round(time.Millisecond) != 1100*time.Millisecond {
			t.Errorf("the other socket of the key pauses %s, want 1.1s", pause)
		}
		if pause, _ := other.Take(1, 0, time.Now()); pause != 0 {
			t.Errorf("another key pauses %s, want 0", pause)
		}
	})
}

func TestTakeCloses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := limiter(t, NewStore(10),
			Rule{Per: []string{"client.ip"}, Bytes: rateOf(t, "1KiB/s")},
			Rule{Per: []string{"client.ip"}, Messages: rateOf(t, "5/s"), OnExceed: Close})
		g := admit(t, l, from("192.0.2.1"))
		if pause, err := g.Take(5, 2<<10, time.Now()); pause != time.Second || err != nil {
			t.Errorf("within messages, beyond bytes: %s, %v; want 1s", pause, err)
		}
		_, err := g.Take(1, 0, time.Now())
		want := "limit per client.ip: messages is at 5/s; to allow more, raise it under limits"
		if e, ok := errors.AsType[*Exceeded](err); !ok || e.What != "messages" || e.Error() != want {
			t.Errorf("beyond messages: %v, want %s", err, want)
		}
	})
}

func TestNothingLimitsNothing(t *testing.T) {
	t.Parallel()
	var none *Limiter
	for _, l := range []*Limiter{none, limiter(t, NewStore(10))} {
		l.Apply()
		g, err := l.Admit(from("192.0.2.1"), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if pause, err := g.Take(1<<30, 1<<40, time.Now()); pause != 0 || err != nil {
			t.Errorf("%s, %v", pause, err)
		}
		g.Release()
	}
}

func TestTimeThatRunsBackwards(t *testing.T) {
	t.Parallel()
	l := limiter(t, NewStore(10), Rule{Per: []string{"client.ip"}, Messages: rateOf(t, "10/s")})
	g := admit(t, l, from("192.0.2.1"))
	now := time.Now()
	g.Take(10, 0, now)
	for range 10 {
		g.Take(0, 1, now.Add(-time.Second))
		g.Take(1, 0, now.Add(-time.Second))
	}
	if pause, _ := g.Take(1, 0, now); pause.Round(time.Millisecond) != 1100*time.Millisecond {
		t.Errorf("pause %s, want 1.1s: the same second must not be given twice", pause)
	}
}

func TestReload(t *testing.T) {
	t.Parallel()
	tight := Rule{Per: []string{"client.ip"}, Connections: 1, ConnectRate: rateOf(t, "10/h"), Messages: rateOf(t, "1/s")}
	wide := Rule{Per: []string{"client.ip"}, Connections: 2, ConnectRate: rateOf(t, "20/h"), Messages: rateOf(t, "100/s")}
	user := Rule{Per: []string{"user"}, Connections: 9}

	t.Run("counts live on, whatever rules come in front", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewStore(10)
			old := admit(t, limiter(t, s, tight), from("192.0.2.1"))
			next := limiter(t, s, user, wide)
			admit(t, next, from("192.0.2.1"))
			refuse(t, next, from("192.0.2.1"), "connections")
			old.Release()
			admit(t, next, from("192.0.2.1"))
		})
	})
	t.Run("open sockets follow the numbers, once they are applied", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewStore(10)
			g := admit(t, limiter(t, s, tight), from("192.0.2.1"))
			next := limiter(t, s, wide)
			if pause, _ := g.Take(2, 0, time.Now()); pause != time.Second {
				t.Errorf("a limiter that is not applied changes the pause to %s, want 1s", pause)
			}
			next.Apply()
			time.Sleep(time.Second) // out of debt
			if pause, _ := g.Take(10, 0, time.Now()); pause.Round(time.Millisecond) != 100*time.Millisecond {
				t.Errorf("pause %s, want 10 messages at 100/s", pause)
			}
		})
	})
	t.Run("a rule that is gone limits nothing", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewStore(10)
			g := admit(t, limiter(t, s, tight), from("192.0.2.1"))
			limiter(t, s, user).Apply()
			if pause, err := g.Take(1000, 0, time.Now()); pause != 0 || err != nil {
				t.Errorf("pause %s, %v", pause, err)
			}
		})
	})
	t.Run("open sockets are counted by rules that come later", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewStore(10)
			f := from("192.0.2.1")
			g := admit(t, limiter(t, s), f)
			f.Request = nil // as once the socket is open
			next := limiter(t, s, tight, Rule{Per: []string{"header.x-tenant"}, Connections: 1})
			next.Hold(g, f, time.Now())
			refuse(t, next, from("192.0.2.1"), "connections")
			next.Apply()
			if pause, _ := g.Take(2, 0, time.Now()); pause != time.Second {
				t.Errorf("pause %s, want 1s", pause)
			}
			g.Release()
			next.Hold(g, f, time.Now()) // comes late
			admit(t, next, from("192.0.2.1"))
		})
	})
	t.Run("open sockets leave rules that are gone, or spare them", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewStore(10)
			first := limiter(t, s, tight)
			g := admit(t, first, from("192.0.2.1"))
			spared := tight
			var here Network
			if err := here.UnmarshalText([]byte("192.0.2.0/24")); err != nil {
				t.Fatal(err)
			}
			spared.Except = Networks{here}
			for _, next := range []*Limiter{limiter(t, s, user), limiter(t, s, spared)} {
				next.Hold(g, from("192.0.2.1"), time.Now())
				admit(t, first, from("192.0.2.1")).Release() // the place is free
				if pause, _ := g.Take(100, 0, time.Now()); pause != 0 {
					t.Errorf("pause %s", pause)
				}
				first.Hold(g, from("192.0.2.1"), time.Now())
			}
		})
	})
	t.Run("a debt is paid at the rate of now", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewStore(10)
			g := admit(t, limiter(t, s, tight), from("192.0.2.1"))
			g.Take(101, 0, time.Now())
			if debt := g.Debt(time.Now()); debt != 100*time.Second {
				t.Errorf("debt %s, want 100s", debt)
			}
			limiter(t, s, wide).Apply()
			if debt := g.Debt(time.Now()); debt != time.Second {
				t.Errorf("debt %s, want 1s", debt)
			}
			closes := tight
			closes.OnExceed = Close
			limiter(t, s, closes).Apply()
			if debt := g.Debt(time.Now()); debt != 0 {
				t.Errorf("a rule that closes pauses for %s", debt)
			}
		})
	})
	t.Run("a debt of handshakes lives on", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewStore(10)
			for range 10 {
				admit(t, limiter(t, s, tight), from("192.0.2.1")).Release()
			}
			refuse(t, limiter(t, s, wide), from("192.0.2.1"), "connect_rate")
		})
	})
	t.Run("routes do not mix", func(t *testing.T) {
		s := NewStore(10)
		admit(t, limiter(t, s, tight), from("192.0.2.1"))
		other, _ := s.Limiter("other", []Rule{tight})
		admit(t, other, from("192.0.2.1"))
	})
	t.Run("equal rules do not mix", func(t *testing.T) {
		l := limiter(t, NewStore(10), tight, Rule{Per: []string{"client.ip"}, Connections: 5})
		admit(t, l, from("192.0.2.1")).Release()
	})
}

func TestLimiterRefusesUnknownValues(t *testing.T) {
	t.Parallel()
	_, err := NewStore(10).Limiter("chat", []Rule{{Per: []string{"client.port"}}})
	if err == nil || !strings.HasPrefix(err.Error(), `route chat: limits[0]: per: value "client.port" is unknown`) {
		t.Errorf("%v", err)
	}
}

func TestHintAtTrustedProxies(t *testing.T) {
	t.Parallel()
	l := limiter(t, NewStore(10), Rule{Per: []string{"client.ip"}, Connections: 1})
	f := from("192.0.2.1")
	f.Request.Header.Set("X-Forwarded-For", "198.51.100.7")
	f.Request.RemoteAddr = "192.0.2.1:4711"
	f.Request, _ = new(Proxies).Meet(f.Request)
	admit(t, l, f)
	want := "192.0.2.1 sends X-Forwarded-For: if it is a proxy of yours, list it under trusted_proxies"
	if e := refuse(t, l, f, "connections"); e.Hint != want || !strings.HasSuffix(e.Error(), want) {
		t.Errorf("hint %q in %q, want %q", e.Hint, e, want)
	}
	believed := from("198.51.100.8")
	believed.Request.Header.Set("X-Forwarded-For", "198.51.100.8")
	admit(t, l, believed)
	if e := refuse(t, l, believed, "connections"); e.Hint != "" {
		t.Errorf("hint %q for a proxy that is believed", e.Hint)
	}
}

// flood opens and closes one socket for each of n keys, as far as it is let in, and tells how many were not.
func flood(t testing.TB, l *Limiter, n int) (refused int) {
	t.Helper()
	l.Apply()
	for i := range n {
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], 10<<24|uint32(i))
		f := from(netip.AddrFrom4(a).String())
		f.Request.Header.Set("X-Key", fmt.Sprint(i, strings.Repeat("x", i%100)))
		if g, err := enter(l, f); err == nil {
			g.Release()
		} else {
			refused++
		}
	}
	return refused
}

func TestFloodPushesOutItself(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const most = 1000
		s := NewStore(most)
		l := limiter(t, s,
			Rule{Per: []string{"client.ip"}, Connections: 2, ConnectRate: rateOf(t, "5/m"), Messages: rateOf(t, "10/s")},
			Rule{Per: []string{"header.x-key"}, ConnectRate: rateOf(t, "5/m")})
		open := admit(t, l, from("192.0.2.1"))
		open.Take(20, 0, time.Now())
		for range 5 {
			admit(t, l, from("192.0.2.2")).Release()
		}
		for range 4 {
			admit(t, l, from("192.0.2.3")).Release()
		}
		flood(t, l, 50_000) // fifty times as many as there is room for
		if n := s.Len(); n > most+1 {
			t.Errorf("%d accounts, want at most %d and that of the open socket", n, most)
		}
		if pause, _ := open.Take(1, 0, time.Now()); pause.Round(time.Millisecond) != 1100*time.Millisecond {
			t.Errorf("an open socket owes %s, want 1.1s", pause)
		}
		refuse(t, l, from("192.0.2.2"), "connect_rate")
		admit(t, l, from("192.0.2.1"))
		refuse(t, l, from("192.0.2.1"), "connections")
		admit(t, l, from("192.0.2.3"))
		refuse(t, l, from("192.0.2.3"), "connect_rate")
	})
}

func TestOpenSocketsAreNeverForgotten(t *testing.T) {
	t.Parallel()
	s := NewStore(10)
	l := limiter(t, s, Rule{Per: []string{"client.ip"}, Connections: 1})
	var grants []*Grant
	for i := range 100 {
		grants = append(grants, admit(t, l, from(fmt.Sprintf("192.0.2.%d", i))))
	}
	for i := range 100 {
		refuse(t, l, from(fmt.Sprintf("192.0.2.%d", i)), "connections")
	}
	for _, g := range grants {
		g.Release()
	}
	admit(t, l, from("192.0.2.0")).Release()
	flood(t, l, 20)
	if n := s.Len(); n > 10 {
		t.Errorf("%d accounts after all sockets were closed, want at most 10", n)
	}
}

func TestIdleKeysExpire(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := NewStore(1000)
		l := limiter(t, s, Rule{Per: []string{"client.ip"}, ConnectRate: rateOf(t, "60/m"), Bytes: rateOf(t, "1KiB/s")})
		spender := admit(t, l, from("192.0.2.1"))
		spender.Take(1, 61<<10, time.Now())
		spender.Release() // full again after 61 s
		for i := range 100 {
			admit(t, l, from(fmt.Sprintf("198.51.100.%d", i))).Release() // after 1 s
		}
		if n := s.Len(); n != 101 {
			t.Fatalf("%d accounts, want 101", n)
		}
		time.Sleep(2 * time.Second)
		for range 10 {
			admit(t, l, from("203.0.113.1")).Release()
		}
		if n := s.Len(); n != 2 {
			t.Errorf("%d accounts after 2 s, want the debtor and the client at hand", n)
		}
		time.Sleep(time.Minute)
		admit(t, l, from("203.0.113.1"))
		if n := s.Len(); n != 1 {
			t.Errorf("%d accounts after the debt was worked off, want 1", n)
		}
	})
}

func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	s := NewStore(10)
	rules := []Rule{{Per: []string{"client.ip"}, Connections: 8, Messages: rateOf(t, "1000/s")}, {Per: []string{"query.k"}, Bytes: rateOf(t, "1MiB/s")}}
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 200 {
				l, _ := s.Limiter("chat", rules)
				g, err := l.Admit(from(fmt.Sprintf("192.0.2.%d", (w+i)%20)), time.Now())
				if err != nil {
					t.Error(err)
				}
				g.Take(3, 1<<10, time.Now())
				wg.Go(g.Release)
				g.Release()
			}
		})
	}
	wg.Wait()
	for _, a := range s.accounts {
		if a.open != 0 {
			t.Errorf("account %q holds %d sockets after all were closed", a.key, a.open)
		}
	}
	if s.idle != len(s.accounts) {
		t.Errorf("%d of %d accounts are idle", s.idle, len(s.accounts))
	}
}

func TestRuleValidate(t *testing.T) {
	t.Parallel()
	tests := []struct {
		rule Rule
		want string // "" is good
	}{
		{DefaultRules()[0], ""},
		{Rule{Per: []string{"room"}, Connections: 1, OnExceed: Close}, ""},
		{Rule{Connections: 1}, "limits[0].per: is missing: say what is counted by, such as client.ip"},
		{Rule{Per: []string{"client.port"}, Connections: 1}, `limits[0].per: value "client.port" is unknown`},
		{Rule{Per: []string{"user"}, Connections: -1}, "limits[0].connections: must not be negative"},
		{Rule{Per: []string{"user"}}, "limits[0]: limits nothing"},
		{Rule{Per: []string{"user"}, Connections: 1, OnExceed: "clos"}, `limits[0].on_exceed: must be throttle or close, not "clos"`},
	}
	for _, tt := range tests {
		var p yamlpos.Problems
		tt.rule.Validate(yamlpos.Path{"limits", 0}, &p)
		got := ""
		if err := p.Err(); err != nil {
			got = err.Error()
		}
		if (got == "") != (tt.want == "") || !strings.HasPrefix(got, tt.want) || strings.Contains(got, "\n") {
			t.Errorf("%+v: %q, want %q", tt.rule, got, tt.want)
		}
	}
}

func TestCapacity(t *testing.T) {
	t.Parallel()
	c := NewCapacity(2)
	for i, want := range []bool{true, true, false} {
		if c.Acquire() != want {
			t.Errorf("place %d: %t, want %t", i, !want, want)
		}
	}
	c.SetMax(3)
	if !c.Acquire() || c.Acquire() || c.Len() != 3 {
		t.Errorf("%d places taken after the limit was raised to 3", c.Len())
	}
	c.SetMax(1) // those beyond stay
	c.Release()
	if c.Acquire() || c.Len() != 2 {
		t.Errorf("%d places taken after the limit was lowered to 1, want 2", c.Len())
	}
	var none *Capacity
	for _, c := range []*Capacity{none, NewCapacity(0)} {
		for range 100 {
			if !c.Acquire() {
				t.Error("no limit, and no place")
			}
		}
		c.Release()
	}
}

func BenchmarkTake(b *testing.B) {
	l := limiter(b, NewStore(10),
		Rule{Per: []string{"client.ip"}, Messages: rateOf(b, "1000/s"), Bytes: rateOf(b, "4MiB/s")},
		Rule{Per: []string{"query.k"}, Messages: rateOf(b, "1000/s")},
		Rule{Per: []string{"client.ip"}, Bytes: rateOf(b, "64KiB/s")})
	g := admit(b, l, from("192.0.2.1"))
	for _, size := range []int{1 << 10, 1 << 30} {
		b.Run(unit.Size(size).String(), func(b *testing.B) {
			now := time.Now()
			b.ReportAllocs()
			for b.Loop() {
				now = now.Add(time.Millisecond)
				g.Take(1, size, now)
			}
		})
	}
}

func BenchmarkAdmit(b *testing.B) {
	l := limiter(b, NewStore(1<<16), DefaultRules()...)
	f := from("192.0.2.1")
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(time.Second)
		g, err := l.Admit(f, now)
		if err != nil {
			b.Fatal(err)
		}
		g.Release()
	}
}

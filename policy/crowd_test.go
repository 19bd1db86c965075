package policy

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// subnet64 is an address in the i-th /64 of 2001:db8::/48.
func subnet64(i int) string {
	a := netip.MustParseAddr("2001:db8::1").As16()
	binary.BigEndian.PutUint16(a[6:], uint16(i))
	return netip.AddrFrom16(a).String()
}

// spend has a client begin handshakes until it is refused, and tells how many passed.
func spend(t testing.TB, l *Limiter, f *Facts, atMost int) (passed int) {
	t.Helper()
	for ; passed < atMost; passed++ {
		g, err := enter(l, f)
		if err != nil {
			return passed
		}
		g.Release()
	}
	return passed
}

// checkStore wants all that a Store knows to agree.
func checkStore(t testing.TB, s *Store) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	idle, of, commons := 0, map[*subnet]int{}, 0
	for id, a := range s.accounts {
		if id != (accountID{a.ledger, a.key}) || s.subnets[a.subnet.id] != a.subnet {
			t.Fatalf("the account %q is filed as %q, and its subnet %v as %v", a.key, id.key, a.subnet, s.subnets[a.subnet.id])
		}
		of[a.subnet]++
		if a.open == 0 {
			idle++
		}
	}
	for _, n := range s.subnets {
		if n.common != nil {
			commons++
			of[n]++
			if n.common.open == 0 {
				idle++
			}
		}
		for i, a := range n.idle {
			if a.place != i || a.open != 0 || a.subnet != n || i > 0 && a.before(n.idle[(i-1)/2]) {
				t.Fatalf("the account %q is out of place at %d", a.key, i)
			}
		}
		if of[n] != n.accounts || n.accounts == 0 {
			t.Fatalf("%v counts %d accounts, and has %d", n.id.prefix, n.accounts, of[n])
		}
		_, crowd := s.crowds[n]
		if crowd != (len(n.idle) > max(leastCrowd, s.max/crowdShare)) {
			t.Fatalf("%v has %d idle accounts and is a crowd: %t", n.id.prefix, len(n.idle), crowd)
		}
		if len(n.idle) > 0 && (n.place >= len(s.soonest) || s.soonest[n.place] != n || n.place > 0 && n.before(s.soonest[(n.place-1)/2])) {
			t.Fatalf("%v is out of place at %d", n.id.prefix, n.place)
		}
	}
	if idle != s.idle || commons != s.commons || idle > s.max {
		t.Fatalf("%d accounts are idle and %d common; counted are %d and %d; there is room for %d", idle, commons, s.idle, s.commons, s.max)
	}
}

// The attacker fills the room several times with debts that are deeper than its neighbour's.
func TestANetworkInDebtPushesOutItself(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := NewStore(10_000)
		l := limiter(t, s, Rule{Per: []string{"client.ip"}, ConnectRate: rateOf(t, "4/h")})
		l.Apply()
		good := []*Facts{from("2001:db8:1::1"), from("198.51.100.7"), from("2001:db8:0:8000::1")}
		for _, f := range good[:2] {
			if n := spend(t, l, f, 3); n != 3 {
				t.Fatalf("%d handshakes passed", n)
			}
		}
		passed := 0
		for i := range 1 << 16 {
			passed += spend(t, l, from(subnet64(i)), 4)
		}
		for i := range 1 << 10 { // those that were forgotten first come again
			passed += spend(t, l, from(subnet64(i)), 4)
		}
		if n := s.Len(); n > 10_000 {
			t.Errorf("%d accounts", n)
		}
		if most := 4 * 10_100; passed > most { // those who had an account of their own, and the common one
			t.Errorf("%d handshakes of the attacker passed, want %d at most", passed, most)
		}
		checkStore(t, s)
		for _, f := range good[:2] { // they owe what they owed, and no more
			if n := spend(t, l, f, 100); n != 1 {
				t.Errorf("%s: %d handshakes passed, want 1", f.Client, n)
			}
		}
		if n := spend(t, l, from("2001:db8:2::1"), 100); n != 4 {
			t.Errorf("one who comes anew from elsewhere: %d handshakes passed, want 4", n)
		}
		e := refuse(t, l, good[2], "connect_rate")
		if want := "2001:db8::/48 counts as one client for a while, since there are too many of it to be told apart"; e.Hint != want {
			t.Errorf("hint %q, want %q", e.Hint, want)
		}
		time.Sleep(time.Hour)
		for _, f := range append(good, from(subnet64(1))) {
			if n := spend(t, l, f, 100); n != 4 {
				t.Errorf("%s an hour later: %d handshakes passed, want 4", f.Client, n)
			}
		}
		time.Sleep(time.Hour)
		for range 1000 { // each call forgets a few
			_ = l.Spare(from("192.0.2.1"), time.Now())
			admit(t, l, from("192.0.2.1")).Release()
			time.Sleep(time.Hour)
		}
		checkStore(t, s)
		if n := s.Len(); n > 1 {
			t.Errorf("%d accounts are left", n)
		}
	})
}

// A penalty is no way out either, and keys that are no addresses are those of whoever sends them.
func TestNobodyGetsRidOfAPenaltyByACrowd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := NewStore(100)
		r := guarded(t)
		r.Per = []string{"header.x-key"}
		l := limiter(t, s, r)
		with := func(addr, key string) *Facts {
			f := from(addr)
			f.Request.Header.Set("X-Key", key)
			return f
		}
		fails(l, with("192.0.2.1", "mine"), 4)
		for i := range 1000 {
			fails(l, with(fmt.Sprintf("198.51.100.%d", i%256), fmt.Sprint("crowd", i)), 4)
		}
		wantPenalty(t, l, with("192.0.2.1", "mine"), 10*time.Second)
		wantPenalty(t, l, with("192.0.2.1", "other"), 0)
		wantPenalty(t, l, with("198.51.100.1", "crowd1"), 10*time.Second)  // forgotten, and yet
		wantPenalty(t, l, with("198.51.100.255", "fresh"), 10*time.Second) // its neighbour
		wantPenalty(t, l, with("198.51.101.255", "elsewhere"), 0)          // not of that /24
		time.Sleep(10 * time.Second)
		wantPenalty(t, l, with("198.51.100.1", "crowd1"), 0)
		checkStore(t, s)
	})
}

// From as many networks as clients, each recovers before it could push out anybody.
func TestAFloodFromEverywhere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const most = 1000
		s := NewStore(most)
		l := limiter(t, s, Rule{Per: []string{"client.ip"}, ConnectRate: rateOf(t, "10/h")})
		l.Apply()
		if n := spend(t, l, from("192.0.2.1"), 9); n != 9 {
			t.Fatalf("%d handshakes passed", n)
		}
		random := rand.New(rand.NewPCG(1, 2))
		for range 20_000 {
			a := netip.AddrFrom4([4]byte{byte(random.Uint32() % 190), byte(random.Uint32()), byte(random.Uint32()), byte(random.Uint32())})
			if n := spend(t, l, from(a.String()), 1); n != 1 {
				t.Fatalf("%s is refused", a)
			}
		}
		if n := s.Len(); n > most {
			t.Errorf("%d accounts, want at most %d", n, most)
		}
		if n := spend(t, l, from("192.0.2.1"), 100); n != 1 {
			t.Errorf("%d handshakes passed, want 1: the debt was forgotten", n)
		}
		if n := spend(t, l, from("192.0.2.2"), 100); n != 10 {
			t.Errorf("one who comes anew: %d handshakes passed, want 10", n)
		}
		checkStore(t, s)
	})
}

// What a common account has open counts, and it goes when its last socket does.
func TestTheCommonAccountHasSockets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := NewStore(32)
		l := limiter(t, s, Rule{Per: []string{"client.ip"}, Connections: 2, ConnectRate: rateOf(t, "100/h"), Messages: rateOf(t, "1/s")})
		for i := range 50 {
			g := admit(t, l, from(subnet64(i)))
			g.Take(1000+i, 0, time.Now())
			g.Release()
		}
		a, b := admit(t, l, from(subnet64(1000))), admit(t, l, from(subnet64(1001)))
		refuse(t, l, from(subnet64(1002)), "connections")
		if pause, _ := a.Take(1, 0, time.Now()); pause < 1000*time.Second {
			t.Errorf("the common account owes %s", pause)
		}
		for i := range 50 { // while it is open it takes over further debts
			g := admit(t, l, from(fmt.Sprintf("2001:db8:1:%x::1", i)))
			g.Take(5000, 0, time.Now())
			g.Release()
		}
		checkStore(t, s)
		time.Sleep(24 * time.Hour)
		admit(t, l, from(subnet64(1003))) // by its own account, now
		admit(t, l, from(subnet64(1003)))
		refuse(t, l, from(subnet64(1003)), "connections")
		a.Release()
		b.Release()
		time.Sleep(24 * time.Hour)
		for range 10 {
			admit(t, l, from("192.0.2.1")).Release()
		}
		checkStore(t, s)
		if s.commons != 0 {
			t.Errorf("%d common accounts are left", s.commons)
		}
	})
}

// Whatever happens in whatever order, the Store agrees with itself and keeps to its room.
func FuzzStore(f *testing.F) {
	f.Add([]byte("0123456789abcdefghijklmnopqrstuvwxyz"))
	f.Add([]byte(strings.Repeat("\x00\x41\x82\xc3", 200)))
	random := make([]byte, 4000)
	for i := range random {
		random[i] = byte(rand.N(256))
	}
	f.Add(random)
	f.Fuzz(func(t *testing.T, script []byte) {
		s := NewStore(24)
		l, err := s.Limiter("chat", []Rule{
			{Per: []string{"client.ip"}, Connections: 3, ConnectRate: rateOf(t, "20/m"), Messages: rateOf(t, "5/s"),
				Failures: rateOf(t, "3/m"), Penalty: time.Second, MaxPenalty: time.Minute},
			{Per: []string{"client.ip", "query.k"}, ConnectRate: rateOf(t, "20/m")},
		})
		if err != nil {
			t.Fatal(err)
		}
		l.Apply()
		now := time.Unix(1e9, 0)
		var open []*Grant
		for i := 0; i+1 < len(script); i += 2 {
			f := from(subnet64(int(script[i+1] & 0x3f)))
			if script[i+1]&0xc0 == 0 {
				f = from(fmt.Sprintf("%d.0.0.1", 1+script[i+1]))
			}
			switch script[i] % 6 {
			case 0, 1:
				if g, err := l.Admit(f, now); err == nil {
					g.Take(int(script[i]), 0, now)
					open = append(open, g)
				}
			case 2, 3:
				if len(open) > 0 {
					s.release(open[0], now)
					open = open[1:]
				}
			case 4:
				l.Fail(f, now)
			case 5:
				now = now.Add(time.Duration(script[i]) * 50 * time.Millisecond)
			}
			checkStore(t, s)
		}
		for _, g := range open {
			s.release(g, now)
		}
		checkStore(t, s)
	})
}

func BenchmarkAdmitInAFullStore(b *testing.B) {
	const most = 100_000
	l := limiter(b, NewStore(most), Rule{Per: []string{"client.ip"}, ConnectRate: rateOf(b, "10/h")})
	now, clients := time.Now(), make([]*Facts, 1<<18)
	for i := range clients {
		clients[i] = from(netip.AddrFrom4([4]byte{byte(i), byte(i >> 8), byte(i >> 16), 1}).String())
		if g, err := l.Admit(clients[i], now); err == nil {
			l.store.release(g, now)
		}
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if g, err := l.Admit(clients[i&(1<<18-1)], now); err == nil {
			l.store.release(g, now)
		}
		i++
	}
}

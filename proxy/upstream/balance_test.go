package upstream

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"bridgehead/hub"
	"bridgehead/policy"
	"bridgehead/ws"
)

// group makes a group of servers; those without a weight have 1.
func group(t testing.TB, balance string, servers ...Server) *Group {
	t.Helper()
	g, err := New(Options{Servers: servers, Balance: balance, Retries: 3})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

var errTest = errors.New("test")

func opens(context.Context, *Target) error { return nil }

// fill opens n sockets and tells how many each server has got. They stay open.
func fill(t testing.TB, g *Group, n int) (open map[string]int, leases []*Lease) {
	t.Helper()
	open = map[string]int{}
	for range n {
		l, err := g.Open(t.Context(), new(policy.Facts), opens)
		if err != nil {
			t.Fatal(err)
		}
		leases = append(leases, l)
		open[l.Target().Address()]++
	}
	return open, leases
}

func TestServersTakeTurnsByWeight(t *testing.T) {
	t.Parallel()
	g := group(t, roundRobin, Server{URL: "tcp://a:1", Weight: 3}, Server{URL: "tcp://b:1"}, Server{URL: "tcp://c:1"})
	_, leases := fill(t, g, 10)
	var order string
	for _, l := range leases {
		order += l.Target().Address()[:1]
	}
	if order != "abacaabaca" { // smooth: nobody gets all of its share at once
		t.Errorf("the turn went %s", order)
	}
}

func TestManyTakeTurnsAtOnce(t *testing.T) {
	t.Parallel()
	g := group(t, roundRobin, Server{URL: "tcp://a:1"}, Server{URL: "tcp://b:1"}, Server{URL: "tcp://c:1"})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { fill(t, g, 300) })
	}
	wg.Wait()
	for _, s := range g.servers {
		if len(s.leases) != 800 {
			t.Errorf("%s has %d sockets, want 800", s.key, len(s.leases))
		}
	}
}

func TestLeastConnectionsFillsANewcomer(t *testing.T) {
	t.Parallel()
	g := group(t, leastConnections, Server{URL: "tcp://a:1", Weight: 2}, Server{URL: "tcp://b:1"})
	if open, _ := fill(t, g, 30); open["a:1"] != 20 || open["b:1"] != 10 {
		t.Errorf("%v, want 20 and 10", open)
	}
	g.Adopt(group(t, leastConnections, Server{URL: "tcp://a:1", Weight: 2}, Server{URL: "tcp://b:1"}, Server{URL: "tcp://c:1"}))
	if open, _ := fill(t, g, 10); open["c:1"] != 10 {
		t.Errorf("%v, want all 10 at the newcomer", open)
	}
	open, leases := fill(t, g, 4)
	if open["a:1"] != 2 || open["b:1"] != 1 || open["c:1"] != 1 {
		t.Errorf("%v, want 2, 1 and 1", open)
	}
	for _, l := range leases {
		if l.Target().Address() == "b:1" {
			l.Release()
			l.Release() // gives nothing back twice
		}
	}
	if open, _ := fill(t, g, 1); open["b:1"] != 1 {
		t.Errorf("%v, want the place that is free", open)
	}
}

// Two at random are close to the best of all: the fullest has little more than the mean.
func TestRandomTwoIsEven(t *testing.T) {
	t.Parallel()
	var servers []Server
	for i := range 10 {
		servers = append(servers, Server{URL: fmt.Sprintf("tcp://s%d:1", i)})
	}
	open, _ := fill(t, group(t, randomTwo, servers...), 2000)
	for address, n := range open {
		if n < 190 || n > 210 {
			t.Errorf("%s has %d of 2000 sockets, want about 200", address, n)
		}
	}
	if open, _ := fill(t, group(t, randomTwo, servers[0]), 3); open["s0:1"] != 3 {
		t.Errorf("a lone server has %v", open)
	}
}

// hashed makes a group of n servers that goes by a client's address.
func hashed(t testing.TB, n int, change func([]Server)) *Group {
	t.Helper()
	o := Options{Balance: hashing, Hash: "client.ip", Retries: 3}
	for i := range n {
		o.Servers = append(o.Servers, Server{URL: fmt.Sprintf("ws://10.0.0.%d:9000", i+1), Weight: 1})
	}
	if change != nil {
		change(o.Servers)
	}
	g, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// places are the servers that clients come to.
func places(t testing.TB, g *Group, clients int) (at []string) {
	t.Helper()
	for i := range clients {
		f := &policy.Facts{Client: netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)})}
		l, err := g.Open(t.Context(), f, opens)
		if err != nil {
			t.Fatal(err)
		}
		l.Release()
		at = append(at, l.Target().Address())
	}
	return at
}

// When 1 of 10 servers leaves, its clients move and no others; when it comes back, so do they.
func TestHashMovesFew(t *testing.T) {
	t.Parallel()
	const clients = 50_000
	ten := hashed(t, 10, nil)
	before := places(t, ten, clients)
	ten.Adopt(hashed(t, 9, nil))
	without := places(t, ten, clients)
	ten.Adopt(hashed(t, 10, nil))
	after := places(t, ten, clients)
	moved, loads := 0, map[string]int{}
	for i := range clients {
		loads[before[i]]++
		switch {
		case before[i] != after[i]:
			t.Fatalf("client %d was at %s and came back to %s", i, before[i], after[i])
		case before[i] != without[i]:
			moved++
			if before[i] != "10.0.0.10:9000" {
				t.Fatalf("client %d moved from %s, which stays", i, before[i])
			}
		}
	}
	share := float64(moved) / clients
	t.Logf("moved %.4f of the clients; the ideal is 0.1000", share)
	if math.Abs(share-0.1) > 0.01 {
		t.Errorf("moved %.4f of the clients, want about 0.1", share)
	}
	for address, n := range loads {
		if math.Abs(float64(n)/clients-0.1) > 0.01 {
			t.Errorf("%s has %d of %d clients, want about a tenth", address, n, clients)
		}
	}
}

func TestHashKeepsToWeights(t *testing.T) {
	t.Parallel()
	loads := map[string]int{}
	for _, address := range places(t, hashed(t, 4, func(s []Server) { s[0].Weight = 7 }), 20_000) {
		loads[address]++
	}
	if got := float64(loads["10.0.0.1:9000"]) / 20_000; math.Abs(got-0.7) > 0.02 {
		t.Errorf("a server with 7 of 10 shares has %.3f of the clients", got)
	}
}

func TestClientsWithoutTheHashedValueTakeTurns(t *testing.T) {
	t.Parallel()
	if open, _ := fill(t, hashed(t, 2, nil), 4); open["10.0.0.1:9000"] != 2 || open["10.0.0.2:9000"] != 2 {
		t.Errorf("%v, want 2 each", open)
	}
}

func TestFullAndDrainingServersGetNothing(t *testing.T) {
	t.Parallel()
	g := group(t, roundRobin, Server{URL: "tcp://a:1", MaxConnections: 2}, Server{URL: "tcp://b:1", Drain: true}, Server{URL: "tcp://c:1", MaxConnections: 3})
	if open, _ := fill(t, g, 5); open["a:1"] != 2 || open["c:1"] != 3 {
		t.Errorf("%v, want 2 and 3", open)
	}
	_, err := g.Open(t.Context(), new(policy.Facts), opens)
	none, ok := errors.AsType[*Unavailable](err)
	if !ok || none.RetryAfter() <= 0 || none.Error() != "no server of the route can take a socket now: 1 draining, 2 full" {
		t.Errorf("error %v", err)
	}
}

func TestOpenMovesOn(t *testing.T) {
	t.Parallel()
	servers := []Server{{URL: "tcp://a:1"}, {URL: "tcp://b:1"}, {URL: "tcp://c:1"}, {URL: "tcp://d:1"}, {URL: "tcp://e:1"}}
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		fails func(n int) error // the nth try
		want  string            // the servers tried
		err   error
	}{
		"at once":                {func(int) error { return nil }, "a", nil},
		"to the second":          {func(n int) error { return map[int]error{1: broken}[n] }, "ab", nil},
		"as often as it may":     {func(int) error { return broken }, "abcd", broken},
		"not after an answer":    {func(int) error { return &Answer{broken} }, "a", broken},
		"as far as to an answer": {func(n int) error { return map[int]error{1: broken, 2: &Answer{context.Canceled}}[n] }, "ab", context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g, tried := group(t, roundRobin, servers...), ""
			lease, err := g.Open(t.Context(), new(policy.Facts), func(_ context.Context, target *Target) error {
				tried += target.Address()[:1]
				return c.fails(len(tried))
			})
			if tried != c.want || err != c.err || (lease == nil) != (err != nil) {
				t.Errorf("tried %s: %v; want %s: %v", tried, err, c.want, c.err)
			}
			held := 0
			for _, s := range g.servers {
				held += len(s.leases)
			}
			if want := map[bool]int{true: 1}[err == nil]; held != want {
				t.Errorf("%d places are held, want %d", held, want)
			}
		})
	}
}

// A server that says nothing leaves time for the others, and the last has all that is left.
func TestOpenSharesItsTime(t *testing.T) {
	t.Parallel()
	g := group(t, roundRobin, Server{URL: "tcp://a:1"}, Server{URL: "tcp://b:1"}, Server{URL: "tcp://c:1"})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var left []time.Duration
	g.Open(ctx, new(policy.Facts), func(ctx context.Context, _ *Target) error {
		by, _ := ctx.Deadline()
		left = append(left, time.Until(by).Round(time.Second))
		return context.DeadlineExceeded
	})
	if fmt.Sprint(left) != "[30s 30s 1m0s]" { // no time passes here
		t.Errorf("the servers had %v", left)
	}
}

func TestAClientThatLeavesIsNotTakenToTheNext(t *testing.T) {
	t.Parallel()
	g := group(t, roundRobin, Server{URL: "tcp://a:1"}, Server{URL: "tcp://b:1"})
	ctx, cancel := context.WithCancel(t.Context())
	tried := 0
	_, err := g.Open(ctx, new(policy.Facts), func(ctx context.Context, _ *Target) error { tried++; cancel(); return ctx.Err() })
	if tried != 1 || !errors.Is(err, context.Canceled) {
		t.Errorf("%d tried, %v", tried, err)
	}
}

func TestAPanicHoldsNoPlace(t *testing.T) {
	t.Parallel()
	g := group(t, roundRobin, Server{URL: "tcp://a:1"})
	func() {
		defer func() { _ = recover() }()
		g.Open(t.Context(), new(policy.Facts), func(context.Context, *Target) error { panic("test") })
	}()
	if n := len(g.servers[0].leases); n != 0 {
		t.Errorf("%d places are held", n)
	}
}

// A conn is a socket that is told to end.
type conn struct {
	hub.Conn
	ended chan ws.Cause
}

func (c conn) End(cause ws.Cause) { c.ended <- cause }

func TestAdoptGivesTheSocketsOfServersThatLeave(t *testing.T) {
	t.Parallel()
	a, b, c := Server{URL: "tcp://a:1"}, Server{URL: "tcp://b:1"}, Server{URL: "tcp://c:1"}
	g := group(t, roundRobin, a, b, c)
	_, leases := fill(t, g, 6)
	for _, l := range leases[:5] {
		l.Carry(conn{ended: make(chan ws.Cause, 1)})
	}
	b.Drain = true
	leaving := g.Adopt(group(t, leastConnections, b, a))
	if len(leaving) != 3 { // b's two and the first of c
		t.Errorf("%d sockets leave, want 3", len(leaving))
	}
	late := conn{ended: make(chan ws.Cause, 1)}
	leases[5].Carry(late) // its handshake with c was under way
	if code, _ := (<-late.ended).Client(); code != 1012 {
		t.Errorf("the socket ends with %d", code)
	}
	if again := g.Adopt(group(t, leastConnections, b, a)); len(again) != 0 {
		t.Errorf("%d sockets are to end twice", len(again))
	}
	if open, _ := fill(t, g, 3); open["a:1"] != 3 || len(g.servers[1].leases) != 5 {
		t.Errorf("%v; a counts %d sockets, want those from before too", open, len(g.servers[1].leases))
	}
}

func TestALeaseMoves(t *testing.T) {
	t.Parallel()
	g := group(t, roundRobin, Server{URL: "tcp://a:1"}, Server{URL: "tcp://b:1"}, Server{URL: "tcp://c:1", Drain: true})
	_, leases := fill(t, g, 1)
	l, tried := leases[0], new(Tried)
	if !l.Move(tried, errTest) || l.Target().Address() != "b:1" || len(g.servers[0].leases) != 0 || len(g.servers[1].leases) != 1 {
		t.Errorf("the lease is at %s", l.Target())
	}
	if l.Move(tried, errTest) || l.Target().Address() != "b:1" {
		t.Errorf("there was no other server, and the lease is at %s", l.Target())
	}
	l.Release()
	if !l.Move(new(Tried), errTest) || len(g.servers[0].leases) != 0 {
		t.Error("a lease that was given back counts again")
	}
}

func TestPlanTellsOfTheChoice(t *testing.T) {
	t.Parallel()
	f := &policy.Facts{Client: netip.MustParseAddr("192.0.2.7"), Request: httptest.NewRequest("GET", "/", nil)}
	for balance, want := range map[string]string{
		roundRobin: "used in turn", leastConnections: "fewest sockets", randomTwo: "of two at random", hashing: "by the hash of client.ip",
	} {
		o := Options{Balance: balance, Servers: []Server{{URL: "tcp://a:1"}, {URL: "tcp://b:1"}, {URL: "tcp://c:1", Drain: true}}}
		if balance == hashing {
			o.Hash = "client.ip"
		}
		g, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		targets, how := g.Plan(f)
		if len(targets) != 2 || !strings.Contains(how, want) {
			t.Errorf("%s: %v, %s", balance, targets, how)
		}
		lease, err := g.Open(t.Context(), f, opens)
		if err != nil || balance == hashing && lease.Target().Key() != targets[0].Key() {
			t.Errorf("%s: the client came to %s, %v; planned was %s", balance, lease.Target(), err, targets)
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, balance := range []string{roundRobin, leastConnections, randomTwo, hashing} {
		b.Run(balance, func(b *testing.B) {
			g := hashed(b, 10, nil)
			g.rules.balance = balance
			f := &policy.Facts{Client: netip.MustParseAddr("192.0.2.7")}
			b.ReportAllocs()
			for b.Loop() {
				l, err := g.Open(b.Context(), f, opens)
				if err != nil {
					b.Fatal(err)
				}
				l.Release()
			}
		})
	}
}

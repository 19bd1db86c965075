package policy

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bridgehead/internal/unit"
)

func TestFramesAreCharged(t *testing.T) {
	t.Parallel()
	tests := []struct {
		rule  string
		limit Rule
		sent  Traffic
		want  time.Duration
		close string // the key that an error names
	}{
		{"pings alone", Rule{Frames: rateOf(t, "10/s")}, Traffic{Frames: 15}, 500 * time.Millisecond, ""},
		{"within", Rule{Frames: rateOf(t, "10/s")}, Traffic{Frames: 10, Messages: 10, Bytes: 99}, 0, ""},
		{"the longest pause is that of frames", Rule{Frames: rateOf(t, "1/s"), Messages: rateOf(t, "1/s")},
			Traffic{Frames: 5, Messages: 2}, 4 * time.Second, ""},
		{"the longest pause is that of messages", Rule{Frames: rateOf(t, "5/s"), Messages: rateOf(t, "1/s")},
			Traffic{Frames: 5, Messages: 4}, 3 * time.Second, ""},
		{"frames close", Rule{Frames: rateOf(t, "10/s"), OnExceed: Close}, Traffic{Frames: 11}, 0, "frames"},
		{"bytes close", Rule{Frames: rateOf(t, "10/s"), Bytes: rateOf(t, "10/s"), OnExceed: Close}, Traffic{Frames: 11, Bytes: 99}, 0, "bytes"},
		{"no frame", Rule{Frames: rateOf(t, "1/s")}, Traffic{Bytes: 1 << 20}, 0, ""},
	}
	for _, tt := range tests {
		synctest.Test(t, func(t *testing.T) {
			tt.limit.Per = []string{"client.ip"}
			g := admit(t, limiter(t, NewStore(10), tt.limit), from("192.0.2.1"))
			pause, err := g.Charge(tt.sent, time.Now())
			what := ""
			if e, ok := errors.AsType[*Exceeded](err); ok {
				what = e.What
			}
			if pause.Round(time.Microsecond) != tt.want || what != tt.close {
				t.Errorf("%s: pause %s, %v; want %s, an error for %q", tt.rule, pause, err, tt.want, tt.close)
			}
			if debt := g.Debt(time.Now()); debt.Round(time.Microsecond) != tt.want {
				t.Errorf("%s: debt %s, want %s", tt.rule, debt, tt.want)
			}
		})
	}
}

func TestTheLeastBoundHolds(t *testing.T) {
	t.Parallel()
	s := NewStore(10)
	ours := Bounds{MessageSize: 1000}
	g := admit(t, limiter(t, s,
		Rule{Per: []string{"client.ip"}, MessageSize: 500, Fragments: 9},
		Rule{Per: []string{"query.k"}, MessageSize: 600, Fragments: 3},
		Rule{Per: []string{"user"}, MessageSize: 1}), from("192.0.2.1"))
	ann := from("192.0.2.1")
	ann.User = "ann"
	for _, tt := range []struct {
		rule  string
		rules []Rule
		f     *Facts
		want  Bounds
	}{
		{"the least of all rules", nil, from("192.0.2.1"), Bounds{500, 3}},
		{"raised beyond the socket's", []Rule{{Per: []string{"client.ip"}, MessageSize: 5000, Fragments: 7}}, from("192.0.2.1"), Bounds{1000, 7}},
		{"off", []Rule{{Per: []string{"client.ip"}, Connections: 5}}, from("192.0.2.1"), ours},
		{"a rule that is new", []Rule{{Per: []string{"client.ip"}, Connections: 5}, {Per: []string{"user"}, MessageSize: 20, Fragments: 1}}, ann, Bounds{20, 1}},
		{"gone", []Rule{}, ann, ours},
	} {
		if tt.rules != nil {
			next := limiter(t, s, tt.rules...)
			next.Apply()
			next.Hold(g, tt.f, time.Now())
		}
		if got := g.Bounds(ours); got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.rule, got, tt.want)
		}
	}
	if got := (*Grant)(nil).Bounds(ours); got != ours {
		t.Errorf("no grant: %+v, want %+v", got, ours)
	}
	if got := g.Bounds(Bounds{}); got != (Bounds{}) {
		t.Errorf("no bound at all: %+v", got)
	}
}

// Rules of the user bound a socket before it opens.
func TestIdentityBoundsMessages(t *testing.T) {
	t.Parallel()
	l := limiter(t, NewStore(10), Rule{Per: []string{"client.ip"}, Fragments: 9}, Rule{Per: []string{"user"}, MessageSize: 10, Frames: rateOf(t, "1/s")})
	l.Apply()
	ann := from("192.0.2.1")
	g, err := l.Admit(ann, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	ann.User = "ann"
	if err := l.Identify(g, ann, time.Now()); err != nil {
		t.Fatal(err)
	}
	if got, want := g.Bounds(Bounds{MessageSize: 1000}), (Bounds{10, 9}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if pause, _ := g.Charge(Traffic{Frames: 3}, time.Now()); pause == 0 {
		t.Error("the user's frames are not counted")
	}
}

// A meter draws ahead, so that most charges need no lock. Whatever sockets share a key, they send no less than the rule says, and a
// portion more at most.
func TestDrawingAheadIsBounded(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"10/s", "16/s", "100/s", "1000/s", "4MiB/s"} {
		for _, sockets := range []int{1, 7} {
			synctest.Test(t, func(t *testing.T) {
				r := rateOf(t, text)
				l := limiter(t, NewStore(10), Rule{Per: []string{"client.ip"}, Bytes: r})
				var grants []*Grant
				for range sockets {
					grants = append(grants, admit(t, l, from("192.0.2.1")))
				}
				step := max(1, r.Burst/1000)
				most := r.Burst + r.Burst/portion
				spend := func() (sent int) {
					for i := 0; ; i++ {
						sent += step
						if pause, _ := grants[i%sockets].Charge(Traffic{Bytes: step}, time.Now()); pause > 0 {
							return sent
						}
					}
				}
				for i := range 5 {
					if sent := spend(); sent < r.Burst || sent > most+step {
						t.Errorf("%s, %d sockets, pause %d: %d passed at once, want %d to %d", text, sockets, i, sent, r.Burst, most)
					}
					time.Sleep(2 * time.Second) // it is full again
				}
				spend()
				time.Sleep(grants[0].Debt(time.Now()))
				began, sent := time.Now(), 0
				for time.Since(began) < 20*time.Second {
					for i := range grants {
						sent += step
						pause, _ := grants[i].Charge(Traffic{Bytes: step}, time.Now())
						time.Sleep(pause)
					}
				}
				want := int(r.Rate * time.Since(began).Seconds())
				if sent < want-2*step-r.Burst/portion || sent > want+most/portion+2*step {
					t.Errorf("%s, %d sockets: %d passed in %s, want %d", text, sockets, sent, time.Since(began), want)
				}
			})
		}
	}
}

// What was drawn under a wide rule is no allowance under a tight one.
func TestReloadForfeitsWhatWasDrawn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := NewStore(10)
		g := admit(t, limiter(t, s, Rule{Per: []string{"client.ip"}, Frames: rateOf(t, "100000/s")}), from("192.0.2.1"))
		g.Charge(Traffic{Frames: 1}, time.Now())
		limiter(t, s, Rule{Per: []string{"client.ip"}, Frames: rateOf(t, "10/s")}).Apply()
		if pause, _ := g.Charge(Traffic{Frames: 21}, time.Now()); pause.Round(time.Millisecond) != 1100*time.Millisecond {
			t.Errorf("pause %s, want 1.1s", pause)
		}
	})
}

// Sockets that charge at once lose none of it, and win none.
func TestConcurrentCharges(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const sockets, charges, burst = 8, 5000, 20_000
		l := limiter(t, NewStore(10), Rule{Per: []string{"client.ip"}, Messages: unit.Rate{Rate: 1, Burst: burst}})
		var wg sync.WaitGroup
		for range sockets {
			g := admit(t, l, from("192.0.2.1"))
			wg.Go(func() {
				for range charges {
					g.Charge(Traffic{Messages: 1}, time.Now())
				}
			})
		}
		wg.Wait()
		g := admit(t, l, from("192.0.2.1"))
		if debt, want := g.Debt(time.Now()), (sockets*charges-burst)*time.Second; debt != want {
			t.Errorf("debt %s, want %s", debt, want)
		}
	})
}

func TestChargeAllocatesNothing(t *testing.T) {
	l := limiter(t, NewStore(10), everyRule(t)...)
	g := admit(t, l, from("192.0.2.1"))
	now := time.Now()
	got := testing.AllocsPerRun(1000, func() {
		now = now.Add(time.Millisecond)
		g.Charge(Traffic{1, 1, 64}, now)
		g.Bounds(Bounds{})
	})
	if got != 0 {
		t.Errorf("%v allocations for a charge", got)
	}
}

// everyRule limits all there is, per address and per something else, beyond what a benchmark sends.
func everyRule(t testing.TB) []Rule {
	rule := Rule{
		Connections: 1000, ConnectRate: rateOf(t, "1000/s"), Messages: rateOf(t, "100000000/s"), Bytes: rateOf(t, "100GiB/s"),
		Frames: rateOf(t, "200000000/s"), Fragments: 100, MessageSize: 64 * unit.KiB,
	}
	first, second := rule, rule
	first.Per, second.Per = []string{"client.ip"}, []string{"query.k"}
	return []Rule{first, second}
}

// BenchmarkCharge is what all limits together add to a read: alone, and with all processors charging the same account.
func BenchmarkCharge(b *testing.B) {
	for _, c := range []struct {
		name  string
		rules []Rule
	}{{"every limit", everyRule(b)}, {"connections alone", DefaultRules()}} {
		b.Run(c.name, func(b *testing.B) {
			l := limiter(b, NewStore(10), c.rules...)
			g := admit(b, l, from("192.0.2.1"))
			now := time.Now()
			b.ReportAllocs()
			for b.Loop() {
				now = now.Add(20 * time.Microsecond)
				g.Bounds(Bounds{MessageSize: 1 << 20})
				g.Charge(Traffic{1, 1, 64}, now)
			}
		})
	}
	b.Run("every limit, shared", func(b *testing.B) {
		l := limiter(b, NewStore(10), everyRule(b)...)
		b.RunParallel(func(pb *testing.PB) {
			g := admit(b, l, from("192.0.2.1"))
			for pb.Next() {
				g.Charge(Traffic{1, 1, 64}, time.Now())
			}
		})
	})
}

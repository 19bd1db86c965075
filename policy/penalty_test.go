package policy

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bridgehead/internal/yamlpos"
)

// guarded allows three failures at once, and one each second.
func guarded(t testing.TB) Rule {
	r := DefaultRule()
	r.Per, r.Failures, r.MaxPenalty = []string{"client.ip"}, rateOf(t, "1/s"), time.Minute
	r.Failures.Burst = 3
	return r
}

// fails has a client fail so often.
func fails(l *Limiter, f *Facts, n int) {
	for range n {
		l.Fail(f, time.Now())
	}
}

// wantPenalty wants a client to be refused for so long, for handshakes and for requests; 0 is not at all.
func wantPenalty(t *testing.T, l *Limiter, f *Facts, want time.Duration) {
	t.Helper()
	if want == 0 {
		admit(t, l, f).Release()
		if err := l.Spare(f, time.Now()); err != nil {
			t.Fatalf("a request: %v", err)
		}
		return
	}
	refused := refuse(t, l, f, "failures")
	spared, ok := errors.AsType[*Exceeded](l.Spare(f, time.Now()))
	if refused.RetryAfter != want || !ok || *spared != *refused {
		t.Fatalf("refused for %s, and a request for %+v; want %s", refused.RetryAfter, spared, want)
	}
}

func TestPenaltiesGrowAndExpire(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := limiter(t, NewStore(100), guarded(t))
		bad, good := from("192.0.2.1"), from("192.0.2.2")
		fails(l, bad, 3)
		wantPenalty(t, l, bad, 0)
		for _, want := range []time.Duration{10 * time.Second, 20 * time.Second, 40 * time.Second, time.Minute, time.Minute} {
			fails(l, bad, 1)
			wantPenalty(t, l, bad, want)
			fails(l, bad, 50) // handshakes that were under way
			time.Sleep(want - time.Millisecond)
			wantPenalty(t, l, bad, time.Millisecond)
			wantPenalty(t, l, good, 0)
			time.Sleep(time.Millisecond)
			wantPenalty(t, l, bad, 0)
			fails(l, bad, 3) // as many as it may
			wantPenalty(t, l, bad, 0)
		}
		time.Sleep(time.Minute) // as long as the last penalty
		fails(l, bad, 4)
		wantPenalty(t, l, bad, 10*time.Second)
		time.Sleep(20*time.Second - time.Millisecond) // it is not forgotten yet
		fails(l, bad, 4)
		wantPenalty(t, l, bad, 20*time.Second)
		time.Sleep(time.Hour)
		admit(t, l, good).Release()
		if n := l.store.Len(); n != 1 {
			t.Errorf("%d accounts, want the one of a moment ago", n)
		}
	})
}

func TestFailuresWithinTheRateAreForgiven(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := limiter(t, NewStore(100), guarded(t))
		for range 1000 {
			fails(l, from("192.0.2.1"), 1)
			time.Sleep(time.Second)
		}
		wantPenalty(t, l, from("192.0.2.1"), 0)
	})
}

func TestWhatAPenaltyIsFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := NewStore(100)
		room := guarded(t)
		room.Per, room.When = []string{"query.k"}, When{"query.x": {"y"}}
		plain := Rule{Per: []string{"client.ip"}, Connections: 1}
		l := limiter(t, s, plain, guarded(t), room)
		bad := from("192.0.2.1")
		fails(l, bad, 4)
		wantPenalty(t, l, bad, 10*time.Second)
		wantPenalty(t, l, from("192.0.2.2"), 0) // with the same k, which that rule does not count
		e := refuse(t, l, bad, "failures")
		if want := "limit per client.ip: failures were more than 1/s: refused for 10s"; e.Error() != want {
			t.Errorf("%q, want %q", e, want)
		}
		spared := guarded(t)
		spared.Except = Networks{network(t, "192.0.2.0/24")}
		late := guarded(t)
		late.When = When{"claim.plan": {"free"}}
		off := guarded(t)
		off.Failures = rateOf(t, "off")
		for _, next := range []*Limiter{nil, limiter(t, s), limiter(t, s, off), limiter(t, s, spared), limiter(t, s, late)} {
			fails(next, bad, 100)
			if next != nil {
				wantPenalty(t, next, bad, 0)
			}
		}
		wantPenalty(t, limiter(t, s, plain, guarded(t)), bad, 10*time.Second) // a reload forgets nothing
	})
}

func TestPenaltiesOfManyAtOnce(t *testing.T) {
	t.Parallel()
	l := limiter(t, NewStore(10), guarded(t))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			f := from("192.0.2.1")
			for range 200 {
				l.Fail(f, time.Now())
				_ = l.Spare(f, time.Now())
				if g, err := l.Admit(from("192.0.2."+string(rune('2'+i))), time.Now()); err != nil {
					t.Error(err)
				} else {
					g.Release()
				}
			}
		})
	}
	wg.Wait()
	if err := l.Spare(from("192.0.2.1"), time.Now()); err == nil {
		t.Error("1600 failures led to no penalty")
	}
	checkStore(t, l.store)
}

func TestValidateFailures(t *testing.T) {
	t.Parallel()
	tests := []struct {
		change func(*Rule)
		want   string // "" is good
	}{
		{func(*Rule) {}, ""},
		{func(r *Rule) { r.Per = []string{"user"} }, "r.failures: counts nobody: of one who fails user is not known; give it a rule of its own per client.ip"},
		{func(r *Rule) { r.When = When{"claim.plan": {"free"}} }, "r.failures: counts nobody: of one who fails claim.plan is not known"},
		{func(r *Rule) { r.Penalty = 0 }, "r.penalty: must be positive"},
		{func(r *Rule) { r.MaxPenalty = time.Second }, "r.max_penalty: must not be shorter than penalty"},
		{func(r *Rule) { r.Failures.Burst = 0 }, "r.failures.burst: must be 1 at least"},
		{func(r *Rule) { r.Failures.Rate = 0; r.Penalty = 0; r.Connections = 1 }, ""},
	}
	for i, tt := range tests {
		r := guarded(t)
		tt.change(&r)
		var p yamlpos.Problems
		r.Validate(yamlpos.Path{"r"}, &p)
		got := ""
		if err := p.Err(); err != nil {
			got = err.Error()
		}
		if (got == "") != (tt.want == "") || !strings.HasPrefix(got, tt.want) {
			t.Errorf("rule %d: %q, want %q", i, got, tt.want)
		}
	}
}

// The common account of a network owes the worst of what was forgotten: of failures that have led to no penalty yet, too.
func TestFailuresThatAreForgottenAddUpToTheWorst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := guarded(t)
		few, many, punished := new(penalty), new(penalty), new(penalty)
		few.fail(&r, time.Now())
		for range 3 {
			many.fail(&r, time.Now())
		}
		for range 4 {
			punished.fail(&r, time.Now())
		}
		time.Sleep(2 * time.Second) // punished owes fewer failures than recent
		recent := new(penalty)
		for range 3 {
			recent.fail(&r, time.Now())
		}
		for _, test := range []struct {
			of       []*penalty
			failures time.Duration // until they are forgotten
			wait     time.Duration
		}{
			{[]*penalty{few, many}, time.Second, 0}, {[]*penalty{punished, recent}, 3 * time.Second, 8 * time.Second}, {[]*penalty{recent, punished}, 3 * time.Second, 8 * time.Second},
		} {
			var all account
			for _, p := range test.of {
				copied := *p
				all.absorb(&account{penalty: &copied}, time.Now())
			}
			if failures, wait := all.penalty.failures.full(time.Now()), all.penalty.wait(time.Now()); failures != test.failures || wait != test.wait {
				t.Errorf("forgotten in %s, refused for %s; want %s and %s", failures, wait, test.failures, test.wait)
			}
		}
	})
}

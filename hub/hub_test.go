package hub

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bridgehead/internal/leak"
	"bridgehead/ws"
)

func TestMain(m *testing.M) { leak.Main(m) }

// A fake connection notes when it was ended and by what. It leaves its hub by itself if it has one.
type fake struct {
	id  string
	hub *Hub

	mu     sync.Mutex // guards the following
	causes []ws.Cause
	ended  time.Time
}

func (f *fake) ID() string            { return f.id }
func (f *fake) Info() Info            { return Info{ID: f.id} }
func (f *fake) Send(ws.Message) error { return nil }

func (f *fake) End(c ws.Cause) {
	f.mu.Lock()
	f.causes = append(f.causes, c)
	if f.ended.IsZero() {
		f.ended = time.Now()
	}
	f.mu.Unlock()
	if f.hub != nil {
		remove(f.hub, f)
	}
}

func (f *fake) end() (causes []ws.Cause, at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.causes), f.ended
}

var shutdown = ws.Cause{Kind: ws.ShuttingDown}

func TestRegister(t *testing.T) {
	t.Parallel()
	h := New()
	b, a, c := &fake{id: "c_b"}, &fake{id: "c_a"}, &fake{id: "c_c"}
	for _, f := range []*fake{b, a, c} {
		h.Add(f, 0)
	}
	if got, ok := h.Get("c_a"); !ok || got != Conn(a) {
		t.Errorf("Get(c_a) = %v, %v", got, ok)
	}
	if got := h.All(); !slices.Equal(got, []Conn{a, b, c}) {
		t.Errorf("All() = %v, want them in the order of their ids", got)
	}
	remove(h, b)
	remove(h, b) // it may come again
	if got, ok := h.Get("c_b"); ok {
		t.Errorf("Get of a removed connection = %v", got)
	}
	if got := h.All(); h.Len() != 2 || !slices.Equal(got, []Conn{a, c}) {
		t.Errorf("after Retire: Len() = %d, All() = %v", h.Len(), got)
	}
	for _, f := range []*fake{a, b, c} {
		if causes, _ := f.end(); causes != nil {
			t.Errorf("%s was ended by %v without a drain", f.id, causes)
		}
	}
}

// The window is the smaller of what is allowed and a second for 200 sockets.
func TestDrainSpreads(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		conns          int
		window, within time.Duration
	}{
		{0, time.Minute, 0},
		{1, time.Minute, 5 * time.Millisecond},
		{1000, 8 * time.Second, 5 * time.Second},
		{1000, time.Second, time.Second},
		{100, 0, 0},
	} {
		t.Run(fmt.Sprintf("%d in %v", test.conns, test.window), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h, fakes := full(test.conns)
				begin := time.Now()
				if err := h.Drain(t.Context(), test.window, shutdown); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(begin); took > test.within {
					t.Errorf("took %v, want at most %v", took, test.within)
				}
				checkSpread(t, fakes, begin, test.within)
			})
		})
	}
}

func full(n int) (*Hub, []*fake) {
	h := New()
	var fakes []*fake
	for i := range n {
		f := &fake{id: fmt.Sprintf("c_%04d", i), hub: h}
		h.Add(f, 0)
		fakes = append(fakes, f)
	}
	return h, fakes
}

// checkSpread looks at the fifths of the window, and that the moments do not follow the ids.
func checkSpread(t *testing.T, fakes []*fake, begin time.Time, window time.Duration) {
	t.Helper()
	var fifths [5]int
	inOrder := true
	var before time.Time
	for _, f := range fakes {
		causes, at := f.end()
		if !slices.Equal(causes, []ws.Cause{shutdown}) {
			t.Fatalf("%s was ended by %v", f.id, causes)
		}
		if window > 0 {
			fifths[min(4, at.Sub(begin)*5/window)]++
		}
		inOrder = inOrder && !at.Before(before)
		before = at
	}
	if len(fakes) < 1000 {
		return
	}
	if slices.Min(fifths[:]) < 130 || slices.Max(fifths[:]) > 270 {
		t.Errorf("ended by fifths of the window: %v, want about 200 each", fifths)
	}
	if inOrder {
		t.Error("the moments follow the ids")
	}
}

// A spread ends the given connections alone, and stops with its context.
func TestSpread(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, fakes := full(400)
		begin := time.Now()
		Spread(t.Context(), h.All(), time.Minute, ws.Cause{Kind: ws.RouteRemoved})
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("400 connections took %s, want 2s at most", took)
		}
		for _, f := range fakes {
			if causes, _ := f.end(); len(causes) != 1 || causes[0].Kind != ws.RouteRemoved {
				t.Fatalf("%s was ended by %v", f.id, causes)
			}
		}
		if _, ok := h.Enter(); !ok {
			t.Error("nobody is let in any more")
		}
		h.Leave()

		_, others := full(400)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		conns := make([]Conn, len(others))
		for i, f := range others {
			conns[i] = f
		}
		Spread(ctx, conns, time.Minute, ws.Cause{Kind: ws.RouteRemoved})
		ended := 0
		for _, f := range others {
			if causes, _ := f.end(); len(causes) > 0 {
				ended++
			}
		}
		if ended < 100 || ended > 300 {
			t.Errorf("%d of 400 were ended in half of the time", ended)
		}
	})
}

func TestDrainEndsNewcomersAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := New()
		old := &fake{id: "c_old"}
		h.Add(old, 0)
		done := make(chan error)
		go func() { done <- h.Drain(t.Context(), time.Second, shutdown) }()
		time.Sleep(time.Minute) // of the bubble: the window is over, old does not go
		late := &fake{id: "c_late"}
		h.Add(late, 0)
		if causes, _ := late.end(); !slices.Equal(causes, []ws.Cause{shutdown}) {
			t.Errorf("the newcomer was ended by %v, want the cause of the drain", causes)
		}
		remove(h, old)
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatalf("Drain returned %v before the newcomer had gone", err)
		default:
		}
		remove(h, late)
		if err := <-done; err != nil {
			t.Error(err)
		}
		h.Add(late, 0) // even after the drain, and it may not close a channel twice
		remove(h, late)
		if causes, _ := late.end(); len(causes) != 2 {
			t.Errorf("a connection added after the drain was ended by %v", causes)
		}
	})
}

// The rest of the window is not waited for.
func TestDrainReturnsWithTheLast(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, fakes := full(20_000)
		begin := time.Now()
		go func() {
			time.Sleep(time.Second)
			for _, f := range fakes {
				remove(h, f)
			}
		}()
		if err := h.Drain(t.Context(), time.Hour, shutdown); err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("took %v, though the last connection went after 1s", took)
		}
	})
}

func TestDrainEndsWithItsContext(t *testing.T) {
	t.Parallel()
	for name, window := range map[string]time.Duration{
		"between two moments":         time.Hour,
		"waiting for the last to end": 0,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h := New()
				for i := range 10_000 { // nobody leaves
					h.Add(&fake{id: fmt.Sprint(i)}, 0)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				defer cancel()
				begin := time.Now()
				err := h.Drain(ctx, window, shutdown)
				if !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != 3*time.Second {
					t.Errorf("Drain returned %v after %v", err, time.Since(begin))
				}
			})
		})
	}
}

// Connections come, go and are looked at from everywhere while a drain goes on; each that came is ended, and all go.
func TestRace(t *testing.T) {
	t.Parallel()
	h := New()
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := range 200 {
				f := &fake{id: fmt.Sprintf("c_%d_%d", worker, i)}
				h.Add(f, 0)
				h.Get(f.id)
				h.Len()
				if i%50 == 0 {
					h.All()
				}
				remove(h, f)
			}
		})
	}
	left := make([]*fake, 100)
	wg.Go(func() {
		for i := range left {
			left[i] = &fake{id: fmt.Sprintf("c_left_%d", i), hub: h}
			h.Add(left[i], 0)
		}
	})
	for range 2 { // a second drain joins the first
		wg.Go(func() {
			if err := h.Drain(t.Context(), 10*time.Millisecond, shutdown); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := h.Len(); n != 0 {
		t.Errorf("%d connections are left", n)
	}
	for _, f := range left {
		if causes, _ := f.end(); len(causes) == 0 {
			t.Errorf("%s was never ended", f.id)
		}
	}
}

func TestADrainWaitsForHandshakesUnderWay(t *testing.T) {
	t.Parallel()
	h := New()
	if _, ok := h.Enter(); !ok {
		t.Fatal("a handshake was refused before the drain")
	}
	drained := make(chan error, 1)
	go func() { drained <- h.Drain(t.Context(), 0, ws.Cause{Kind: ws.ShuttingDown}) }()
	for _, ok := h.Enter(); ok; _, ok = h.Enter() { // until the drain has begun
		h.Leave()
		runtime.Gosched()
	}
	select {
	case err := <-drained:
		t.Fatalf("it did not wait: %v", err)
	default:
	}
	h.Leave()
	if err := <-drained; err != nil {
		t.Fatal(err)
	}
}

// remove takes a connection out whose end nobody has to be told of.
func remove(h *Hub, c Conn) {
	h.Retire(c)
	h.Leave()
}

func of(id string) func(Info) bool { return func(i Info) bool { return i.ID == id } }

var revoked = ws.Cause{Kind: ws.Kicked, Code: 4401, Reason: "revoked"}

// A connection ends by what was called for while its handshake was under way, and by nothing before.
func TestEndsReachHandshakesUnderWay(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		calls int // that mean somebody else, between the call and the connection
		id    string
		want  []ws.Cause
	}{
		"it is meant":                   {0, "ann", []ws.Cause{revoked}},
		"it is not":                     {0, "bob", nil},
		"others are called for since":   {mostCalls - 1, "ann", []ws.Cause{revoked}},
		"not it, by all there is":       {mostCalls - 1, "bob", nil},
		"more than anybody remembers":   {mostCalls, "ann", []ws.Cause{tryAgain}},
		"many more, and it is not told": {3 * mostCalls, "bob", []ws.Cause{tryAgain}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := New()
			_, _ = h.Enter() // another's, so that there is something to remember for
			h.EndAll(of(c.id), ws.Cause{Kind: ws.Kicked, Reason: "before its handshake"})
			since, _ := h.Enter()
			if ended := h.EndAll(of("ann"), revoked); ended != 0 {
				t.Errorf("%d were there to end", ended)
			}
			for range c.calls {
				h.EndAll(of("somebody"), shutdown)
			}
			f := &fake{id: c.id}
			h.Add(f, since)
			h.Leave()
			if causes, _ := f.end(); !slices.Equal(causes, c.want) {
				t.Errorf("ended by %v, want %v", causes, c.want)
			}
			if len(h.recent) > mostCalls || len(h.recent) == 0 {
				t.Errorf("%d calls are remembered", len(h.recent))
			}
			h.Leave()
			if h.recent != nil {
				t.Errorf("%d calls are remembered for nobody", len(h.recent))
			}
			late := &fake{id: "ann"}
			since, _ = h.Enter()
			h.Add(late, since)
			if causes, _ := late.end(); causes != nil {
				t.Errorf("who comes back is ended by %v", causes)
			}
		})
	}
}

// However a call and the end of a handshake fall together, the connection ends.
func TestNobodySlipsThroughACall(t *testing.T) {
	t.Parallel()
	h := New()
	for range 2000 {
		f := &fake{id: "ann"}
		since, _ := h.Enter()
		called := make(chan struct{})
		go func() {
			defer close(called)
			h.EndAll(of("ann"), revoked)
		}()
		h.Add(f, since)
		h.Leave()
		<-called
		if causes, _ := f.end(); len(causes) == 0 || causes[0] != revoked {
			t.Fatalf("ended by %v", causes)
		}
		remove(h, f)
	}
}

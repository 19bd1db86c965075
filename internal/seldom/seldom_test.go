package seldom

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func TestAnEventIsToldOncePerInterval(t *testing.T) {
	t.Parallel()
	l := New()
	for _, step := range []struct {
		after        time.Duration
		kind, detail string
		want         string
	}{
		{0, "origin", "a", "told after 0 and 0"},
		{0, "origin", "a", "swallowed"},
		{0, "origin", "b", "told after 0 and 0"}, // another detail
		{0, "limit", "a", "told after 0 and 0"},  // another kind
		{Interval - 1, "origin", "a", "swallowed"},
		{Interval, "origin", "a", "told after 2 and 0"},
		{Interval, "origin", "a", "swallowed"},
		{2*Interval - 1, "origin", "a", "swallowed"},
		{2 * Interval, "origin", "a", "told after 2 and 0"},
		{9 * Interval, "origin", "a", "told after 0 and 0"},
		{9 * Interval, "origin", "", "told after 0 and 0"}, // an empty detail is one as well
		{9 * Interval, "origin", "", "swallowed"},
	} {
		if got := say(l, step.kind, step.detail, step.after); got != step.want {
			t.Errorf("%s %q after %v: %s, want %s", step.kind, step.detail, step.after, got, step.want)
		}
	}
}

func say(l *Log, kind, detail string, after time.Duration) string {
	before, ok := l.Tell(Event{kind, detail}, start.Add(after))
	if !ok {
		return "swallowed"
	}
	return fmt.Sprintf("told after %d and %d", before.Same, before.Others)
}

func TestAFloodOfDetailsIsBounded(t *testing.T) {
	t.Parallel()
	l := New()
	told, n := 0, 0
	flood := func(after time.Duration) {
		for range 1000 {
			n++
			if _, ok := l.Tell(Event{"origin", fmt.Sprint(n)}, start.Add(after)); ok {
				told++
			}
		}
	}
	flood(0)
	flood(Interval - 1)
	if told != PerKind {
		t.Errorf("%d details were told in an interval, want %d", told, PerKind)
	}
	if got := say(l, "backend", "refused", Interval-1); got != "told after 0 and 0" {
		t.Errorf("another kind during the flood: %s", got)
	}
	if got, want := say(l, "origin", "after", Interval), fmt.Sprintf("told after 0 and %d", n-PerKind); got != want {
		t.Errorf("the first after the flood: %s, want %s", got, want)
	}
	flood(Interval)
	if told != 2*PerKind-1 {
		t.Errorf("%d details were told in two intervals, want %d with the one in between", told+1, 2*PerKind)
	}
}

// What was swallowed of an event is not forgotten when another one takes its place.
func TestTheCountOfAnEventThatIsForgottenIsKept(t *testing.T) {
	t.Parallel()
	l := New()
	for i := range PerKind {
		say(l, "origin", fmt.Sprint(i), 0)
		say(l, "origin", fmt.Sprint(i), 0)
	}
	others := 0
	for i := range PerKind {
		before, ok := l.Tell(Event{"origin", fmt.Sprint("new", i)}, start.Add(Interval))
		if !ok {
			t.Errorf("event %d found no place", i)
		}
		others += before.Others
	}
	if others != PerKind {
		t.Errorf("%d others, want %d", others, PerKind)
	}
}

func TestTheNumberOfKindsIsBounded(t *testing.T) {
	t.Parallel()
	l := New()
	told := 0
	for i := range 10 * maxKinds {
		if _, ok := l.Tell(Event{Kind: fmt.Sprint(i)}, start); ok {
			told++
		}
	}
	if len(l.kinds) != maxKinds || told != maxKinds+1 { // those without a place are one kind, of one detail here
		t.Errorf("%d kinds are kept and %d were told", len(l.kinds), told)
	}
	if got := say(l, "late", "", Interval); got != "told after 0 and 0" {
		t.Errorf("a kind that comes when the others are old: %s", got)
	}
	if len(l.kinds) != 1 {
		t.Errorf("%d kinds are kept, want the last one", len(l.kinds))
	}
}

func TestANilLogSwallowsNothing(t *testing.T) {
	t.Parallel()
	for range 2 {
		if got := say(nil, "k", "d", 0); got != "told after 0 and 0" {
			t.Error(got)
		}
	}
}

// However many tell it at once, one of them does, and each of the others is counted.
func TestManyTellAtOnce(t *testing.T) {
	t.Parallel()
	l := New()
	var wg sync.WaitGroup
	var told atomic.Int64
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				if _, ok := l.Tell(Event{"k", "d"}, start); ok {
					told.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if got := say(l, "k", "d", Interval); told.Load() != 1 || got != "told after 7999 and 0" {
		t.Errorf("told %d times, then %s", told.Load(), got)
	}
}

func BenchmarkTell(b *testing.B) {
	l := New()
	for b.Loop() {
		l.Tell(Event{"chat origin", "https://app.example.com"}, start)
	}
}

func TestALineSaysHowManyItStandsFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}}))
		l := New()
		say := func(level slog.Level, detail string) { l.Log(log, level, Event{"refused", detail}, "no", "d", detail) }
		say(slog.LevelWarn, "a")
		say(slog.LevelWarn, "a")
		for i := range PerKind {
			say(slog.LevelInfo, fmt.Sprint(i)) // one more than there is room for
		}
		time.Sleep(Interval)
		say(slog.LevelWarn, "a")
		say(slog.LevelWarn, "b")
		l = nil
		say(slog.LevelInfo, "c")
		say(slog.LevelInfo, "c")
		want := "level=WARN msg=no d=a times=1\nlevel=DEBUG msg=no d=a\n"
		for i := range PerKind - 1 {
			want += fmt.Sprintf("level=INFO msg=no d=%d times=1\n", i)
		}
		want += fmt.Sprintf("level=DEBUG msg=no d=%d\nlevel=WARN msg=no d=a times=2 others=1\nlevel=WARN msg=no d=b times=1\n", PerKind-1) +
			"level=INFO msg=no d=c times=1\nlevel=INFO msg=no d=c times=1\n"
		if out.String() != want {
			t.Errorf("log:\n%s\nwant:\n%s", &out, want)
		}
	})
}

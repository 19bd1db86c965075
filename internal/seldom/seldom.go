// Package seldom decides which of many like events are told, so that a log shows the first of each sort at once and none of them
// can flood it.
package seldom

import (
	"context"
	"hash/maphash"
	"log/slog"
	"sync"
	"time"
)

const (
	// Interval is how long the events like one that was told are swallowed.
	Interval = time.Minute
	// PerKind is how many different events of one kind are told in an interval.
	PerKind = 8
	// maxKinds bounds the memory. Kinds beyond it count as one.
	maxKinds = 1024
)

// A Log remembers what was told lately. One serves a whole program: its memory is bounded, whatever happens, and nothing runs in
// the background. A nil Log swallows nothing. Its methods may be called from any goroutine.
type Log struct {
	seed maphash.Seed

	mu    sync.Mutex // guards the following
	kinds map[string]*kind
	swept time.Time
	rest  kind // all kinds for which there is no room
}

// A kind is what is remembered of the events of one kind.
type kind struct {
	told   [PerKind]memory
	others int // swallowed, without a place in told
}

// A memory is of one event, with its detail as a hash, since that may be long. The zero value is a free place.
type memory struct {
	detail    uint64
	at        time.Time
	swallowed int // since
}

// Swallowed counts the events since the last that was told.
type Swallowed struct {
	Same   int // of the same kind and detail
	Others int // of the same kind, with other details than those that were told
}

// New returns a Log that has told nothing.
func New() *Log { return &Log{seed: maphash.MakeSeed(), kinds: make(map[string]*kind)} }

// An Event is told once per Interval. Its kind is one of a bounded number, such as a route with a reason. The detail may be what
// a stranger sends: of one kind no more than PerKind details are told in an interval, and the others are counted.
type Event struct{ Kind, Detail string }

// Log writes a line about an event at its level, or at the level debug if the event is swallowed. A line that is heard says how many
// events it stands for: `times` are those like it since it was heard last, itself too, and `others` those of its kind that had
// other details and were not heard.
func (l *Log) Log(log *slog.Logger, level slog.Level, e Event, message string, args ...any) {
	before, ok := l.Tell(e, time.Now())
	if !ok {
		level = slog.LevelDebug
	} else if args = append(args, "times", before.Same+1); before.Others > 0 {
		args = append(args, "others", before.Others)
	}
	log.Log(context.Background(), level, message, args...)
}

// Tell reports whether to tell an event that happens now, and what was swallowed before it.
func (l *Log) Tell(e Event, now time.Time) (before Swallowed, ok bool) {
	if l == nil {
		return Swallowed{}, true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.kindLocked(e.Kind, now).tell(maphash.String(l.seed, e.Detail), now)
}

// kindLocked finds a kind, or makes room for it.
func (l *Log) kindLocked(name string, now time.Time) *kind {
	if k, ok := l.kinds[name]; ok {
		return k
	}
	if len(l.kinds) >= maxKinds && now.Sub(l.swept) >= Interval {
		l.swept = now
		for name, k := range l.kinds {
			if k.idle(now) {
				delete(l.kinds, name)
			}
		}
	}
	if len(l.kinds) >= maxKinds {
		return &l.rest
	}
	k := new(kind)
	l.kinds[name] = k
	return k
}

// tell looks for the detail's place, or else for one that is free.
func (k *kind) tell(detail uint64, now time.Time) (before Swallowed, ok bool) {
	var place *memory
	for i := range k.told {
		m := &k.told[i]
		if m.detail == detail && !m.at.IsZero() {
			place = m
			break
		}
		if place == nil && m.over(now) {
			place = m
		}
	}
	switch {
	case place == nil:
		k.others++
		return Swallowed{}, false
	case place.detail != detail:
		k.others += place.swallowed
		place.swallowed = 0
	case !place.over(now):
		place.swallowed++
		return Swallowed{}, false
	}
	before = Swallowed{place.swallowed, k.others}
	k.others = 0
	*place = memory{detail: detail, at: now}
	return before, true
}

// idle tells whether each event of the kind may be told again.
func (k *kind) idle(now time.Time) bool {
	for i := range k.told {
		if !k.told[i].over(now) {
			return false
		}
	}
	return true
}

// over tells whether the place is free, or its event may be told again.
func (m *memory) over(now time.Time) bool { return m.at.IsZero() || now.Sub(m.at) >= Interval }

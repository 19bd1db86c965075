package upstream

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// maxAsking bounds how many servers of a group are asked at once.
const maxAsking = 16

// firstAsk is the time over which the first questions to servers are spread.
const firstAsk = time.Second

// Watch asks the servers of the group whether they are well, and looks up their names, as its options say, until ctx ends. No other
// call of it is under way then.
func (g *Group) Watch(ctx context.Context) { g.watch(ctx, ask) }

// Watched tells whether there is something for Watch to do.
func (g *Group) Watched() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.rules.health != nil || slices.ContainsFunc(g.entries, func(e *entry) bool { return e.named })
}

// watch is Watch with another way to ask.
func (g *Group) watch(ctx context.Context, ask func(context.Context, *Health, *Target) error) {
	var asking sync.WaitGroup
	defer asking.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-g.wake:
		}
		names, soon := g.lookUpsDue(time.Now())
		for _, e := range names {
			asking.Go(func() { g.lookUp(ctx, e) })
		}
		due, health, next := g.due(time.Now())
		for _, s := range due {
			asking.Go(func() {
				began := time.Now()
				err := ask(ctx, health, s.target)
				if ctx.Err() == nil {
					g.observe(s.server, began, err)
				}
			})
		}
		timer.Reset(min(soon, next))
	}
}

// A question is to be put to a server.
type question struct {
	server *server
	target *Target
}

// due are the servers to ask now; next is when others are.
func (g *Group) due(now time.Time) (due []question, h *Health, next time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	next = time.Hour
	if h = g.rules.health; h == nil {
		return nil, nil, next
	}
	asking := 0
	for _, s := range g.servers {
		if s.asking {
			asking++
		}
	}
	for _, s := range g.servers {
		switch {
		case s.asking, s.gone, s.entry.pendingLocked():
		case s.askAgain.IsZero():
			s.askAgain = now.Add(rand.N(min(firstAsk, h.Interval)))
			next = min(next, s.askAgain.Sub(now))
		case s.askAgain.After(now):
			next = min(next, s.askAgain.Sub(now))
		case asking < maxAsking: // whoever has been asked wakes us for the others
			asking++
			s.asking = true
			due = append(due, question{s, s.target})
		}
	}
	return due, h, next
}

// wakeUp makes the watcher look again.
func (g *Group) wakeUp() {
	select {
	case g.wake <- struct{}{}:
	default: // it will
	}
}

// jitter is an interval, up to a tenth more or less, so that questions do not fall into step.
func jitter(d time.Duration) time.Duration { return d - d/10 + rand.N(d/5) }

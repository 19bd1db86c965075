package auth

import (
	"crypto/sha256"
	"sync"
	"time"
)

// mostCached bounds the memory of a cache.
const mostCached = 10_000

// A cache remembers for a while who was let in. A nil cache remembers nobody.
type cache struct {
	goodFor time.Duration

	mu    sync.Mutex // guards the following
	known map[[sha256.Size]byte]cached
}

type cached struct {
	id    *Identity
	until time.Time
}

// newCache is nil if it would remember for no time.
func newCache(goodFor time.Duration) *cache {
	if goodFor <= 0 {
		return nil
	}
	return &cache{goodFor: goodFor, known: make(map[[sha256.Size]byte]cached)}
}

func (c *cache) get(sum [sha256.Size]byte, now time.Time) *Identity {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	found, ok := c.known[sum]
	if !ok || !now.Before(found.until) {
		delete(c.known, sum)
		return nil
	}
	return found.id
}

// put remembers. If there is no room, others are forgotten: those whose time is over and, if there are none, whoever comes first.
func (c *cache) put(sum [sha256.Size]byte, id *Identity, now time.Time) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.known) >= mostCached {
		c.forgetLocked(now)
	}
	c.known[sum] = cached{id, now.Add(c.goodFor)}
}

// forgetLocked looks at a few only, so that no client waits for it.
func (c *cache) forgetLocked(now time.Time) {
	looked, forgotten := 0, 0
	for sum, entry := range c.known {
		if !now.Before(entry.until) || looked == 0 && forgotten == 0 {
			delete(c.known, sum)
			forgotten++
		}
		if looked++; looked == 16 {
			return
		}
	}
}

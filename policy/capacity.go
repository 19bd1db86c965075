package policy

import "sync/atomic"

// A Capacity counts open sockets against a greatest number. A nil Capacity has room for all. Its methods may be called from any
// goroutine.
type Capacity struct {
	max, open atomic.Int64
}

// NewCapacity has room for so many sockets; 0 is no limit.
func NewCapacity(limit int) *Capacity {
	c := new(Capacity)
	c.SetMax(limit)
	return c
}

// SetMax changes the greatest number. Sockets beyond it stay open.
func (c *Capacity) SetMax(limit int) { c.max.Store(int64(limit)) }

// Acquire takes a place, and tells whether there was one. Whoever got one gives it back by Release.
func (c *Capacity) Acquire() bool {
	if c == nil {
		return true
	}
	open, limit := c.open.Add(1), c.max.Load()
	if limit > 0 && open > limit {
		c.open.Add(-1)
		return false
	}
	return true
}

// Release gives a place back.
func (c *Capacity) Release() {
	if c != nil {
		c.open.Add(-1)
	}
}

// Len is the number of places taken.
func (c *Capacity) Len() int {
	if c == nil {
		return 0
	}
	return int(c.open.Load())
}

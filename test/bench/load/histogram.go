//go:build linux

package load

import (
	"math/bits"
	"time"
)

// A Histogram counts durations in buckets whose width is at most 1/64 of what they hold. The zero value is empty.
type Histogram struct {
	counts [64 * subBuckets]int
	total  int
}

const (
	subBits    = 6
	subBuckets = 1 << subBits // per power of two
)

// Add counts a duration; one below zero counts as zero.
func (h *Histogram) Add(d time.Duration) {
	h.counts[bucket(uint64(max(0, d)))]++
	h.total++
}

// Quantile is the least duration, to a bucket's width, that the share q of all does not exceed; 0 if there are none.
func (h *Histogram) Quantile(q float64) time.Duration {
	var seen int
	for i, n := range h.counts {
		seen += n
		if n > 0 && float64(seen) >= q*float64(h.total) {
			return time.Duration(floor(i))
		}
	}
	return 0
}

// bucket is where n is counted: the place of its highest bit, and the subBits bits behind that.
func bucket(n uint64) int {
	shift := max(0, bits.Len64(n)-1-subBits)
	return shift<<subBits + int(n>>shift)
}

// floor is the least number that bucket i holds.
func floor(i int) uint64 {
	shift := max(0, i>>subBits-1)
	return uint64(i-shift<<subBits) << shift
}

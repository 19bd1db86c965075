package policy

import (
	"sync/atomic"
	"time"

	"bridgehead/internal/unit"
)

// portion is which part of its burst a meter draws ahead. So much more than its burst may come at once; over time its rate holds.
const portion = 16

// A meter is a bucket that many sockets draw on, most of the time without a lock: it draws a portion of its tokens ahead, from which
// whoever finds enough there takes them. The portion belongs to all sockets of the account, so that their sum is that of the bucket.
type meter struct {
	bucket // its user locks

	ahead atomic.Int64 // tokens that were drawn and not used; none while the bucket is in debt
}

// spend takes n tokens of those that were drawn ahead: all, or none. It gives how many are left to charge.
func (m *meter) spend(r unit.Rate, n int) (left int) {
	if n <= 0 || r.IsOff() {
		return 0
	}
	for {
		ahead := m.ahead.Load()
		if ahead < int64(n) {
			return n
		}
		if m.ahead.CompareAndSwap(ahead, ahead-int64(n)) {
			return 0
		}
	}
}

// charge takes n tokens, into debt if need be, and tells how long it takes to come out of debt.
func (m *meter) charge(r unit.Rate, n int, now time.Time) time.Duration {
	if r.IsOff() || n <= 0 {
		return 0
	}
	if ahead := int(m.ahead.Swap(0)); ahead < n {
		n -= ahead
	} else { // somebody has drawn meanwhile
		m.ahead.Add(int64(ahead - n))
		return 0
	}
	pause := m.bucket.charge(r, n, now)
	if more := burst(r) / portion; more > 0 && m.at(r, now).AllowN(now, more) {
		m.ahead.Add(int64(more))
	}
	return pause
}

package policy

import (
	"time"

	"golang.org/x/time/rate"

	"bridgehead/internal/unit"
)

// A bucket holds the tokens of one rate for one key. It is full when first used, and follows changes of its rate. Its user locks.
type bucket struct {
	limiter *rate.Limiter
	rate    unit.Rate // what the limiter is set to
}

// at is the limiter, set to r.
func (b *bucket) at(r unit.Rate, now time.Time) *rate.Limiter {
	if b.limiter == nil {
		b.limiter = rate.NewLimiter(rate.Limit(r.Rate), burst(r))
	} else if b.rate != r {
		b.limiter.SetLimitAt(now, rate.Limit(r.Rate))
		b.limiter.SetBurstAt(now, burst(r))
	}
	b.rate = r
	return b.limiter
}

// charge takes n tokens, into debt if need be, and tells how long it takes to come out of debt. The limiter refuses more than its
// burst at once, so the burst is raised for the moment; no time passes meanwhile, hence no token is won by it.
func (b *bucket) charge(r unit.Rate, n int, now time.Time) time.Duration {
	limiter := b.at(r, now)
	if n > burst(r) {
		limiter.SetBurstAt(now, n)
		defer limiter.SetBurstAt(now, burst(r))
	}
	return limiter.ReserveN(now, n).DelayFrom(now)
}

// debt is how long it takes to come out of debt.
func (b *bucket) debt(r unit.Rate, now time.Time) time.Duration {
	if r.IsOff() || b.limiter == nil {
		return 0
	}
	return seconds(max(0, -b.at(r, now).TokensAt(now)) / r.Rate)
}

// wait is how long it takes until there is a token.
func (b *bucket) wait(r unit.Rate, now time.Time) time.Duration {
	reservation := b.at(r, now).ReserveN(now, 1)
	defer reservation.CancelAt(now)
	return reservation.DelayFrom(now)
}

// full is how long it takes until the bucket is full: from then on it is as good as new.
func (b *bucket) full(now time.Time) time.Duration {
	if b.limiter == nil || b.rate.IsOff() {
		return 0
	}
	missing := float64(b.limiter.Burst()) - b.limiter.TokensAt(now)
	return seconds(missing / b.rate.Rate)
}

// absorb takes over the other bucket if it is longer until that one is full. Nobody uses that one any more.
func (b *bucket) absorb(other *bucket, now time.Time) {
	if other.full(now) > b.full(now) {
		*b = *other
	}
}

// seconds is a duration, cut to what can be added to any time of these centuries.
func seconds(s float64) time.Duration {
	const longest = 100 * 365 * 24 * time.Hour
	return time.Duration(min(s, longest.Seconds()) * float64(time.Second))
}

func burst(r unit.Rate) int { return max(1, r.Burst) }

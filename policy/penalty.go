package policy

import "time"

// A penalty is what the failures of one key have led to. It is guarded by the Store's lock. A nil penalty is none.
type penalty struct {
	failures bucket
	last     time.Duration // of the latest penalty; 0: there was none
	until    time.Time     // its end
	over     time.Time     // when it is forgotten: as long after its end as it was
}

// wait is how long the key is refused.
func (p *penalty) wait(now time.Time) time.Duration {
	if p == nil {
		return 0
	}
	return max(0, p.until.Sub(now))
}

// fail counts one failure. One that is more than the rule allows begins a penalty, twice as long as the one before. Those of handshakes
// that were under way when it began are no further offence.
func (p *penalty) fail(r *Rule, now time.Time) {
	if p.wait(now) > 0 {
		return
	}
	if p.failures.wait(r.Failures, now) == 0 {
		p.failures.charge(r.Failures, 1, now)
		return
	}
	switch {
	case !now.Before(p.over):
		p.last = min(r.Penalty, r.MaxPenalty)
	case p.last > r.MaxPenalty/2:
		p.last = r.MaxPenalty
	default:
		p.last *= 2
	}
	p.until = now.Add(p.last)
	p.over = p.until.Add(p.last)
}

// forgotten is how long it takes until nothing is left of it.
func (p *penalty) forgotten(now time.Time) time.Duration {
	if p == nil {
		return 0
	}
	return max(p.failures.full(now), p.over.Sub(now))
}

// absorb takes over what is worse of the other penalty, which nobody uses any more, and gives the two as one.
func (p *penalty) absorb(q *penalty, now time.Time) *penalty {
	switch {
	case p == nil:
		return q
	case q == nil:
		return p
	}
	p.failures.absorb(&q.failures, now)
	if q.over.After(p.over) {
		p.last, p.until, p.over = q.last, q.until, q.over
	}
	return p
}

// punishing are what the rules with failures count f by. Who it is plays no part: nobody knows that of one who fails.
func (l *Limiter) punishing(f *Facts) (claims []claim) {
	for i := range l.rules {
		if rule := &l.rules[i]; !rule.Failures.IsOff() && !rule.late {
			if key, ok := rule.key(f); ok {
				claims = append(claims, claim{rule, key, f.Client})
			}
		}
	}
	return claims
}

// Spare tells why a client may not even try to authenticate: it is in a penalty, or another of its key. The error is an [*Exceeded].
// It counts nothing; Admit asks the same of handshakes.
func (l *Limiter) Spare(f *Facts, now time.Time) error {
	if l == nil {
		return nil
	}
	if claims := l.punishing(f); len(claims) > 0 {
		if exceeded := l.store.penalty(claims, now); exceeded != nil {
			exceeded.hint(f)
			return exceeded
		}
	}
	return nil
}

// Fail counts an attempt that failed.
func (l *Limiter) Fail(f *Facts, now time.Time) {
	if l == nil {
		return
	}
	if claims := l.punishing(f); len(claims) > 0 {
		l.store.fail(claims, now)
	}
}

func (s *Store) penalty(claims []claim, now time.Time) *Exceeded {
	s.mu.Lock()
	defer s.mu.Unlock()
	now = s.tickLocked(now)
	for _, c := range claims {
		if a := s.findLocked(c, now); a != nil {
			if exceeded := a.punished(&c.rule.Rule, now); exceeded != nil {
				return exceeded
			}
		}
	}
	return nil
}

func (s *Store) fail(claims []claim, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now = s.tickLocked(now)
	for _, c := range claims {
		a := s.openLocked(c, now)
		if a.penalty == nil {
			a.penalty = new(penalty)
		}
		a.penalty.fail(&c.rule.Rule, now)
		s.closeLocked(a, now)
	}
}

// punished tells whether the key is refused for what failed.
func (a *account) punished(r *Rule, now time.Time) *Exceeded {
	if r.Failures.IsOff() {
		return nil
	}
	wait := a.penalty.wait(now)
	if wait == 0 {
		return nil
	}
	e := a.exceeds(r, "failures", r.Failures.String())
	e.RetryAfter = wait
	return e
}

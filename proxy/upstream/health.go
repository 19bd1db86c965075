package upstream

import (
	"time"
)

// lastResort is how long a server is left alone when there is no other: clients are answered at once meanwhile, and one that is
// back is soon found.
const lastResort = time.Second

// health is what is known of how a server is. The group's mutex guards it.
type health struct {
	since    time.Time // of the last change between up and down, or into an ejection
	risen    time.Time // when it joined its group or was back; zero: it was there from the beginning
	down     bool      // by what it answered when it was asked
	streak   int       // of good answers since it is down, of bad ones since it is up
	asked    Observation
	asking   bool
	askAgain time.Time

	failures int       // in a row, that clients met
	failure  Failure   // the last of them
	until    time.Time // it is left alone, then one client tries; zero: it is not
	period   time.Duration
	trial    *Lease // of the client that tries
}

// An Observation is what came of asking a server.
type Observation struct {
	At    time.Time `json:"at"`
	Took  float64   `json:"took_ms"`
	Error string    `json:"error,omitempty"` // "" if it is well
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// A Failure is what a client met at a server.
type Failure struct {
	At    time.Time `json:"at"`
	Error string    `json:"error"`
}

// ejectedLocked tells whether the server is left alone.
func (s *server) ejectedLocked(now time.Time) bool {
	return !s.until.IsZero() && (now.Before(s.until) || s.trial != nil)
}

// takeLocked gives a lease a place. The first client after an ejection tries for all.
func (s *server) takeLocked(l *Lease) {
	if l.request {
		s.requests++
	} else {
		s.leases[l] = struct{}{}
		s.opened++
	}
	if l.trial = !s.until.IsZero(); l.trial {
		s.trial = l
	}
}

// letGoLocked is takeLocked's counterpart. When who tried has left without an answer, the next one tries.
func (s *server) letGoLocked(l *Lease) {
	delete(s.leases, l)
	if s.trial == l {
		s.trial = nil
	}
}

// succeed takes note of a server that has answered a client.
func (g *Group) succeed(l *Lease) {
	g.mu.Lock()
	s := l.server
	s.failures = 0
	back := !s.until.IsZero() && l.trial
	if back {
		s.readmitLocked()
	}
	g.mu.Unlock()
	if back {
		g.log.Info("server is back", s.attrs()...)
	}
}

// readmitLocked ends an ejection. The period is kept for a while: see ejectLocked.
func (s *server) readmitLocked() {
	s.until, s.trial, s.failures, s.since = time.Time{}, nil, 0, time.Now()
	s.risen = s.since
}

// fail takes note of a server that has failed a client.
func (g *Group) fail(l *Lease, err error) {
	now := time.Now()
	g.mu.Lock()
	s := l.server
	s.failed++
	s.failures++
	s.failure = Failure{now.UTC(), err.Error()}
	trial := l.trial && !s.until.IsZero()
	ejected := trial || s.until.IsZero() && g.rules.eject.Failures > 0 && s.failures >= g.rules.eject.Failures
	if ejected = ejected && g.presentLocked() > 1; ejected {
		s.ejectLocked(&g.rules.eject, now, g.lastLocked(s, now))
	}
	period := s.until.Sub(now)
	g.lookAgainLocked(s.entry, now)
	g.mu.Unlock()
	switch {
	case ejected && !trial:
		g.log.Warn("server is left alone: it fails again and again", s.attrs("time", period.String(), "error", err)...)
	case ejected:
		g.log.Debug("server still fails", s.attrs("time", period.String(), "error", err)...)
	}
}

// ejectLocked leaves the server alone, for twice as long as the last time if that is not long ago.
func (s *server) ejectLocked(o *Eject, now time.Time, last bool) {
	if !s.until.IsZero() || now.Sub(s.since) < o.MaxTime {
		s.period = min(max(2*s.period, o.Time), o.MaxTime)
	} else {
		s.period = o.Time
	}
	period := s.period
	if last {
		period = min(period, lastResort)
	}
	if s.until.IsZero() {
		s.since = now
	}
	s.until, s.trial, s.failures = now.Add(period), nil, 0
	s.ejections++
}

// lastLocked tells whether all other servers are out of service.
func (g *Group) lastLocked(s *server, now time.Time) bool {
	for _, other := range g.servers {
		if other != s && !other.entry.terms.drain && !other.gone && !other.down && !other.ejectedLocked(now) {
			return false
		}
	}
	return true
}

// observe takes note of what came of asking a server; err is nil if it is well. A good answer ends an ejection that began before
// the question.
func (g *Group) observe(s *server, began time.Time, err error) {
	now := time.Now()
	g.mu.Lock()
	s.asking, s.probed = false, s.probed+1
	s.asked = Observation{At: began.UTC(), Took: milliseconds(now.Sub(began))}
	if err != nil {
		s.asked.Error = err.Error()
		s.probesFailed++
	}
	h := g.rules.health
	if h == nil { // nobody wants to know any more
		g.mu.Unlock()
		return
	}
	s.askAgain = began.Add(jitter(h.Interval))
	back := err == nil && !s.until.IsZero() && s.since.Before(began)
	if back {
		s.readmitLocked()
	}
	turned := s.turnLocked(h, now, err == nil)
	if err != nil {
		g.lookAgainLocked(s.entry, now)
	}
	g.mu.Unlock()
	g.wakeUp()
	switch {
	case turned && err != nil:
		g.log.Warn("server is down", s.attrs("error", err)...)
	case turned, back:
		g.log.Info("server is back", s.attrs()...)
	}
}

// turnLocked counts an answer, and tells whether it takes the server down or brings it back.
func (s *server) turnLocked(h *Health, now time.Time, well bool) bool {
	if well != s.down {
		s.streak = 0
		return false
	}
	s.streak++
	if s.down && s.streak < h.Healthy || !s.down && s.streak < h.Unhealthy {
		return false
	}
	s.down, s.streak, s.since = !well, 0, now
	if well {
		s.risen = now
	}
	return true
}

package policy

import (
	"time"

	"bridgehead/internal/unit"
)

// Traffic is what a client has sent.
type Traffic struct {
	Frames   int // of every kind
	Messages int // that are whole
	Bytes    int // of their payload, on the wire
}

// Charge counts what one read has brought. It is paid by debt: what came passes, and pause says how long not to read on. The error is
// an [*Exceeded] if a rule says close.
func (g *Grant) Charge(t Traffic, now time.Time) (pause time.Duration, err error) {
	if g == nil {
		return 0, nil
	}
	for _, a := range *g.accounts.Load() {
		p, exceeded := a.charge(t, now)
		if exceeded != nil {
			err = exceeded
		}
		pause = max(pause, p)
	}
	return pause, err
}

// Debt is how long it takes, by the rules as they are now, until all that was sent by the clients of the same keys is paid.
func (g *Grant) Debt(now time.Time) (pause time.Duration) {
	if g == nil {
		return 0
	}
	for _, a := range *g.accounts.Load() {
		pause = max(pause, a.debt(now))
	}
	return pause
}

// Bounds are what one message of a client may be. Zero bounds nothing.
type Bounds struct {
	MessageSize int64 // bytes of payload, on the wire
	Fragments   int
}

// Bounds are the least of b and of what the rules that count the client say now.
func (g *Grant) Bounds(b Bounds) Bounds {
	if g == nil {
		return b
	}
	for _, a := range *g.accounts.Load() {
		rule := a.ledger.rule.Load()
		b.MessageSize = least(b.MessageSize, int64(rule.MessageSize))
		b.Fragments = least(b.Fragments, rule.Fragments)
	}
	return b
}

// least is the lesser of two bounds, of which zero bounds nothing.
func least[N int | int64](a, b N) N {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// The meters of an account measure what its clients send, each at the rate that a rule has for it.
type meters struct{ frames, messages, bytes meter }

// spend takes what needs no lock, and gives what is left to charge.
func (m *meters) spend(r *Rule, t Traffic) Traffic {
	return Traffic{m.frames.spend(r.Frames, t.Frames), m.messages.spend(r.Messages, t.Messages), m.bytes.spend(r.Bytes, t.Bytes)}
}

// charge gives the longest pause until one of them is out of debt, and which that is.
func (m *meters) charge(r *Rule, t Traffic, now time.Time) (pause time.Duration, what string, rate unit.Rate) {
	pause, what, rate = m.messages.charge(r.Messages, t.Messages, now), "messages", r.Messages
	if p := m.bytes.charge(r.Bytes, t.Bytes, now); p > pause {
		pause, what, rate = p, "bytes", r.Bytes
	}
	if p := m.frames.charge(r.Frames, t.Frames, now); p > pause {
		pause, what, rate = p, "frames", r.Frames
	}
	return pause, what, rate
}

func (m *meters) debt(r *Rule, now time.Time) time.Duration {
	return max(m.frames.debt(r.Frames, now), m.messages.debt(r.Messages, now), m.bytes.debt(r.Bytes, now))
}

// full is how long it takes until all are as good as new.
func (m *meters) full(now time.Time) time.Duration {
	return max(m.frames.full(now), m.messages.full(now), m.bytes.full(now))
}

// forfeit gives up what was drawn ahead.
func (m *meters) forfeit() {
	for _, one := range []*meter{&m.frames, &m.messages, &m.bytes} {
		one.ahead.Store(0)
	}
}

// absorb takes over what is worse of the other meters, which nobody uses any more.
func (m *meters) absorb(other *meters, now time.Time) {
	m.frames.absorb(&other.frames.bucket, now)
	m.messages.absorb(&other.messages.bucket, now)
	m.bytes.absorb(&other.bytes.bucket, now)
	m.forfeit() // what was drawn of a bucket is not of another
}

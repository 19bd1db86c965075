package ws

import (
	"crypto/rand"
	"time"
)

// A Beat is what is due.
type Beat int

// What Advance may find due.
const (
	Rest     Beat = iota // nothing
	SendPing             // a ping with Payload
	Dead                 // the peer gave no sign of life: end the socket
)

// A Patience says how long a peer may be silent.
type Patience struct {
	Interval time.Duration // a ping is due when nothing came for so long; 0: no pings
	Timeout  time.Duration // the peer is dead when nothing came for so long after a ping; 0: never
}

// A Keepalive is the clock of one side of a WebSocket: when to ping it and when to give it up. It does nothing by itself: its
// owner asks Advance when a timer fires, and guards it by a lock of its own.
type Keepalive struct {
	last    time.Time // when something came or a ping went, whichever was later
	waiting bool      // a ping went and nothing came since
	pending bool      // payload was not answered yet: the next ping repeats it, so that the answer to either is known
	payload [8]byte   // of the last ping; zero: there was none
}

// Seen says that bytes came, of whatever kind: the peer lives. While its owner does not read a side, whose pongs cannot be seen
// then, it says so too.
func (k *Keepalive) Seen(now time.Time) {
	k.last = now
	k.waiting = false
}

// Advance says what is due now, and when to ask again; zero is never. The clock starts with the first call.
// Asking early or often changes nothing.
func (k *Keepalive) Advance(now time.Time, p Patience) (Beat, time.Time) {
	if p.Interval <= 0 {
		return Rest, time.Time{}
	}
	if k.last.IsZero() {
		k.last = now
	}
	due := k.due(p)
	switch {
	case now.Before(due):
		return Rest, due
	case k.waiting && p.Timeout > 0:
		return Dead, time.Time{}
	}
	k.ping(now)
	// The answer may come at once: then the next ping is due before the time for the answer is over.
	return SendPing, now.Add(min(p.Interval, k.due(p).Sub(now)))
}

// due is when the next ping is to go, or the last one was to be answered.
func (k *Keepalive) due(p Patience) time.Time {
	if k.waiting && p.Timeout > 0 {
		return k.last.Add(p.Timeout)
	}
	return k.last.Add(p.Interval)
}

func (k *Keepalive) ping(now time.Time) {
	k.last = now
	k.waiting = true
	if !k.pending {
		rand.Read(k.payload[:])
		k.pending = true
	}
}

// Payload is what the ping carries that Advance asked for: random bytes, the same until they are answered.
func (k *Keepalive) Payload() [8]byte { return k.payload }

// Answers reports whether a pong with this payload answers our ping, and so is not the peer's to pass on.
func (k *Keepalive) Answers(payload []byte) bool {
	if k.payload == [8]byte{} || string(payload) != string(k.payload[:]) {
		return false
	}
	k.pending = false
	return true
}

package pump

import (
	"math/rand/v2"
	"time"

	"bridgehead/ws"
)

// A side is one of the two ends of a bridge.
type side int

const (
	client side = iota
	backend
	sides
)

// Clocks tell the time of one socket: pings to each side that speaks WebSocket, idle, lifetime, and the time a closing handshake may
// take. They do nothing by themselves: time is an argument, and their owner guards them.
type clocks struct {
	beat    [sides]ws.Keepalive
	start   time.Time
	share   float64 // how much of the lifetime this socket lives, so that sockets do not end together
	active  time.Time
	closing *closing // the closing handshake; nil: none is under way
}

// A closing is a closing handshake that has a time to be over.
type closing struct {
	by    time.Time
	cause ws.Cause // to end with then
}

// begin starts the clocks.
func (c *clocks) begin(now time.Time) {
	c.share = 1 - rand.Float64()/10
	c.start, c.active = now, now
	for i := range c.beat {
		c.beat[i].Seen(now)
	}
}

// came notes that bytes came from a side, which therefore lives, and whether they completed a message, so that the socket is
// not idle.
func (c *clocks) came(from side, message bool, now time.Time) {
	c.beat[from].Seen(now)
	if message {
		c.active = now
	}
}

// closeAt starts the clock of a closing handshake that a side began, and reports false if one is under way; when it runs out the
// socket is to end with cause.
func (c *clocks) closeAt(by time.Time, cause ws.Cause) bool {
	if c.closing != nil {
		return false
	}
	c.closing = &closing{by, cause}
	return true
}

// closeBy is when the closing handshake that is under way is to be over; zero if there is none.
func (c *clocks) closeBy() time.Time {
	if c.closing == nil {
		return time.Time{}
	}
	return c.closing.by
}

// An aspect says what the clocks need to know of a side.
type aspect struct {
	pinged bool // it is pinged at all
	busy   bool // we choose not to read from it: its pongs cannot be seen then, so it is not pinged
}

// Due is what Advance found.
type due struct {
	cause ws.Cause    // to end with, if any
	ping  [sides]bool // send a ping with the payload of the side's beat
	next  time.Time   // when to ask again; zero: never
}

// advance says what is due. Asking early or often changes nothing.
func (c *clocks) advance(now time.Time, o *Options, of [sides]aspect) (d due) {
	d.cause, d.next = c.deadlines(now, o)
	for side := range sides {
		if !of[side].pinged {
			continue
		}
		k := &c.beat[side]
		if of[side].busy {
			k.Seen(now)
		}
		beat, at := k.Advance(now, ws.Patience{Interval: o.Ping, Timeout: o.Pong})
		d.ping[side] = beat == ws.SendPing
		if beat == ws.Dead {
			d.cause = cmpOr(d.cause, ws.Cause{Kind: [...]ws.Kind{ws.ClientDead, ws.BackendDead}[side]})
		}
		d.next = sooner(d.next, at)
	}
	return d
}

// deadlines gives the cause to end with now, if any, and the soonest deadline that lies ahead.
func (c *clocks) deadlines(now time.Time, o *Options) (cause ws.Cause, next time.Time) {
	deadline := func(at time.Time, then ws.Cause) {
		if now.Before(at) {
			next = sooner(next, at)
			return
		}
		cause = cmpOr(cause, then)
	}
	if c.closing != nil { // the socket is ending, and by this cause
		deadline(c.closing.by, c.closing.cause)
		return cause, next
	}
	if o.Idle > 0 {
		deadline(c.active.Add(o.Idle), ws.Cause{Kind: ws.IdleTimeout})
	}
	if o.Lifetime > 0 {
		deadline(c.start.Add(time.Duration(c.share*float64(o.Lifetime))), ws.Cause{Kind: ws.LifetimeReached})
	}
	return cause, next
}

// cmpOr is the first cause that is one.
func cmpOr(a, b ws.Cause) ws.Cause {
	if a.Kind != 0 {
		return a
	}
	return b
}

// sooner is the earlier of two moments, of which a zero one is never.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}

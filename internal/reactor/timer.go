//go:build linux && (amd64 || arm64)

package reactor

import "time"

// A Timer calls its handler's Expired once each time it was armed. It is made part of a larger struct; its zero value is at rest.
type Timer struct {
	handler Handler
	when    time.Time
	place   int // in the heap, from 1; 0: not armed
}

// When is the time for which t is armed; zero: it is not.
func (t *Timer) When() time.Time {
	if t.place == 0 {
		return time.Time{}
	}
	return t.when
}

// Arm sets t, which may be armed already, to expire at a time. It is never early.
func (l *Loop) Arm(t *Timer, at time.Time, h Handler) {
	t.handler, t.when = h, at
	if t.place == 0 {
		l.timers = append(l.timers, t)
		t.place = len(l.timers)
	}
	l.timers.down(l.timers.up(t.place - 1))
}

// Disarm lets t rest.
func (l *Loop) Disarm(t *Timer) {
	if t.place > 0 {
		l.timers.remove(t.place - 1)
	}
}

// timers are a binary heap with the next to expire first. Clocks that are reset by each message are not armed anew: they look, when
// they expire, whether it is time; so the heap moves seldom.
type timers []*Timer

// due removes and gives a timer whose time has come.
func (h *timers) due(now time.Time) *Timer {
	if len(*h) == 0 || now.Before((*h)[0].when) {
		return nil
	}
	t := (*h)[0]
	h.remove(0)
	return t
}

// next is when the next expires; zero: there is none.
func (h timers) next() time.Time {
	if len(h) == 0 {
		return time.Time{}
	}
	return h[0].when
}

func (h *timers) remove(i int) {
	last := len(*h) - 1
	(*h)[i].place = 0
	if i < last {
		h.put(i, (*h)[last])
	}
	(*h)[last] = nil
	*h = (*h)[:last]
	if i < last {
		h.down(h.up(i))
	}
}

func (h timers) put(i int, t *Timer) { h[i], t.place = t, i+1 }

// up moves the timer at i toward the front as far as it belongs there, and gives its place.
func (h timers) up(i int) int {
	for t := h[i]; i > 0; {
		parent := (i - 1) / 2
		if !t.when.Before(h[parent].when) {
			break
		}
		h.put(i, h[parent])
		h.put(parent, t)
		i = parent
	}
	return i
}

// down moves it toward the end.
func (h timers) down(i int) {
	for {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(h); child++ {
			if h[child].when.Before(h[least].when) {
				least = child
			}
		}
		if least == i {
			return
		}
		a, b := h[i], h[least]
		h.put(i, b)
		h.put(least, a)
		i = least
	}
}

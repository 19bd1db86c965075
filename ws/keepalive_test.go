package ws

import (
	"testing"
	"time"
)

func TestKeepalive(t *testing.T) {
	t.Parallel()
	const never = -1
	type step struct {
		at   int    // seconds
		do   string // seen; "": nothing
		beat Beat   // what Advance says then
		next int    // seconds
	}
	for _, c := range []struct {
		rule  string
		p     Patience
		steps []step
	}{
		{"a silent peer is pinged, then given up", Patience{Interval: 30 * time.Second, Timeout: 20 * time.Second}, []step{
			{0, "", Rest, 30}, {10, "", Rest, 30}, {30, "", SendPing, 50}, {49, "", Rest, 50}, {50, "", Dead, never},
		}},
		{"whatever comes is life", Patience{Interval: 30 * time.Second, Timeout: 20 * time.Second}, []step{
			{0, "", Rest, 30}, {20, "seen", Rest, 50}, {50, "", SendPing, 70}, {69, "seen", Rest, 99}, {99, "", SendPing, 119},
		}},
		{"an answer is followed by the next ping in its time", Patience{Interval: 2 * time.Second, Timeout: 20 * time.Second}, []step{
			{0, "", Rest, 2}, {2, "", SendPing, 4}, {3, "seen", Rest, 5}, {5, "", SendPing, 7}, {7, "", Rest, 25}, {25, "", Dead, never},
		}},
		{"asking late pings once", Patience{Interval: 30 * time.Second, Timeout: 20 * time.Second}, []step{
			{0, "", Rest, 30}, {100, "", SendPing, 120}, {100, "", Rest, 120},
		}},
		{"no interval, no pings", Patience{Timeout: 20 * time.Second}, []step{
			{0, "", Rest, never}, {1000, "", Rest, never},
		}},
		{"no timeout, pings without end", Patience{Interval: 30 * time.Second}, []step{
			{0, "", Rest, 30}, {30, "", SendPing, 60}, {60, "", SendPing, 90}, {90, "", SendPing, 120},
		}},
	} {
		t.Run(c.rule, func(t *testing.T) {
			t.Parallel()
			var k Keepalive
			start := time.Now()
			for _, s := range c.steps {
				now := start.Add(time.Duration(s.at) * time.Second)
				if s.do == "seen" {
					k.Seen(now)
				}
				want := start.Add(time.Duration(s.next) * time.Second)
				if s.next == never {
					want = time.Time{}
				}
				if beat, next := k.Advance(now, c.p); beat != s.beat || !next.Equal(want) {
					t.Fatalf("at %d s after %q: beat %d, next in %v; want %d, %d", s.at, s.do, beat, next.Sub(start), s.beat, s.next)
				}
			}
		})
	}
}

// RFC 6455, section 5.5.3: a pong carries what the ping carried; a peer may answer the last of several pings alone.
func TestKeepaliveAnswers(t *testing.T) {
	t.Parallel()
	var k Keepalive
	now := time.Now()
	ping := func() [8]byte {
		t.Helper()
		k.Seen(now)
		now = now.Add(time.Second)
		if beat, _ := k.Advance(now, Patience{Interval: time.Second, Timeout: time.Minute}); beat != SendPing {
			t.Fatalf("beat %d", beat)
		}
		return k.Payload()
	}
	if k.Answers(make([]byte, 8)) || k.Answers(nil) {
		t.Error("a pong answers a ping that never went")
	}
	first := ping()
	if k.Answers([]byte("foreign!")) || k.Answers(first[:7]) || k.Answers(nil) {
		t.Error("a foreign pong counts as an answer")
	}
	if ping() != first {
		t.Error("a ping goes with new bytes although the last was not answered: its pong would pass for the peer's own")
	}
	for range 2 {
		if !k.Answers(first[:]) {
			t.Error("the pongs to both pings are not known")
		}
	}
	if ping() == first {
		t.Error("bytes that were answered are used again")
	}
}

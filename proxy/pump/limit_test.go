package pump

import (
	"net/http/httptest"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"bridgehead/internal/unit"
	"bridgehead/policy"
	"bridgehead/ws"
)

// admit gives a grant under one rule for messages: one at once, then one in so long.
func admit(t *testing.T, each time.Duration, onExceed string) *policy.Grant {
	t.Helper()
	return admitUnder(t, policy.Rule{Messages: one(each), OnExceed: onExceed})
}

// one is a rate: one at once, then one in so long.
func one(each time.Duration) unit.Rate { return unit.Rate{Rate: 1 / each.Seconds(), Burst: 1} }

// admitUnder gives a grant under one rule.
func admitUnder(t *testing.T, rule policy.Rule) *policy.Grant {
	t.Helper()
	rule.Per = []string{"client.ip"}
	limiter, err := policy.NewStore(10).Limiter("test", []policy.Rule{rule})
	if err != nil {
		t.Fatal(err)
	}
	limiter.Apply()
	facts := &policy.Facts{Request: httptest.NewRequest("GET", "/", nil), Client: netip.MustParseAddr("192.0.2.1")}
	grant, err := limiter.Admit(facts, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return grant
}

// throttled runs a test on both drivers; seen is told the messages that passed.
func throttled(t *testing.T, o Options, onExceed string, test func(t *testing.T, r *rig, seen <-chan string)) {
	t.Parallel()
	t.Run("Link", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			r := newLinkRig(t, o, pipe, pipe, Backend{})
			r.socket.Grant = admit(t, 100*time.Second, onExceed)
			r.link.Start()
			seen := make(chan string, 10)
			go func() {
				for f, err := readFrame(r.backend.r); err == nil; f, err = readFrame(r.backend.r) {
					if f.op == ws.Ping {
						r.backend.Write(r.backend.frame(true, ws.Pong, f.payload).append(nil))
						continue
					}
					seen <- f.payload
				}
			}()
			test(t, r, seen)
		})
	})
	t.Run("Messages", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			seen := make(chan string, 10)
			r := newRig(t, o, pipe)
			r.socket.Grant = admit(t, 100*time.Second, onExceed)
			r.msgs = NewMessages(r.socket)
			close(r.driven)
			go func() {
				r.socket.End(r.msgs.Serve(func(m ws.Message) error { seen <- string(m.Data); return nil }))
			}()
			test(t, r, seen)
		})
	})
}

// A client that sends too fast is not read for a while. It is not pinged meanwhile, and the end does not wait for it.
func TestThrottle(t *testing.T) {
	o := pinging()
	throttled(t, o, "throttle", func(t *testing.T, r *rig, seen <-chan string) {
		start := time.Now()
		go func() {
			for _, text := range []string{"one", "two", "three"} {
				r.client.Write(r.client.frame(true, ws.Text, text).append(nil))
			}
		}()
		go func() {
			for f, err := readFrame(r.client.r); err == nil; f, err = readFrame(r.client.r) {
				if f.op == ws.Ping {
					t.Errorf("pinged after %v", time.Since(start))
				}
			}
		}()
		if <-seen != "one" || <-seen != "two" {
			t.Error("what came passes")
		}
		wantAfter(t, start, 0, "two passed, by debt,")
		if <-seen != "three" {
			t.Error("three is lost")
		}
		wantAfter(t, start, 100*time.Second, "three passed")
		time.Sleep(30 * time.Second)
		r.socket.End(ws.Cause{Kind: ws.Kicked})
		r.client.Close()
		if r.backend != nil {
			r.backend.Close()
		}
		r.wantCause(ws.Kicked)
		wantAfter(t, start, 130*time.Second, "ended")
	})
}

func TestRateThatCloses(t *testing.T) {
	throttled(t, quiet(), "close", func(t *testing.T, r *rig, seen <-chan string) {
		go func() {
			r.client.Write(r.client.frame(true, ws.Text, "one").append(nil))
			r.client.Write(r.client.frame(true, ws.Text, "two").append(nil))
		}()
		r.client.wantClose(1008, "rate limit exceeded")
		r.client.Close()
		if r.backend != nil {
			r.backend.Close()
		}
		r.wantCause(ws.ClientRate)
	})
}

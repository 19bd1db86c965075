package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"bridgehead/policy"
	"bridgehead/policy/auth"
	"bridgehead/ws"
)

// askedBy is a checker of an endpoint that answers so.
func askedBy(t *testing.T, change func(*auth.Forward), answer http.HandlerFunc) *auth.Checker {
	t.Helper()
	endpoint := httptest.NewServer(answer)
	t.Cleanup(endpoint.Close)
	f := auth.DefaultForward()
	f.URL, f.User = endpoint.URL, "X-User"
	if change != nil {
		change(&f)
	}
	set, err := auth.NewSet(map[string]auth.Options{"sso": {Forward: &f, CloseCode: 4403}}, nil, auth.Setup{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { set.Release(nil) })
	c, err := set.Checker(auth.Use{Any: []string{"sso"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// letIn says yes to everybody, by the name that the header says.
func letIn(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-User", r.Header.Get("Authorization"))
}

func TestNobodyComesInUnknown(t *testing.T) {
	t.Parallel()
	s := newStage(t, func(p *parts, _ *fakeBridge) {
		p.Auth = askedBy(t, nil, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "who are you?", http.StatusUnauthorized) })
		p.Options.Limits = []policy.Rule{{Per: []string{"client.ip"}, Connections: 1}}
	})
	for range 3 { // each gives back its place
		if resp, body := s.refused(); resp.StatusCode != http.StatusUnauthorized || body != "who are you?\n" {
			t.Errorf("%s %q", resp.Status, body)
		}
	}
	if s.bridge.opened.Load() != 0 {
		t.Error("the backend was asked")
	}
	s.counted(`refusals_total{reason="authentication refused",route="chat"} 3`, `handshakes_total{outcome="refused",route="chat"} 3`)
}

// A user who has too many sockets holds nothing of the limits of its address.
func TestLimitsOfUsersComeLast(t *testing.T) {
	t.Parallel()
	s := newStage(t, func(p *parts, _ *fakeBridge) {
		p.Auth = askedBy(t, nil, letIn)
		p.Options.Limits = []policy.Rule{{Per: []string{"user"}, Connections: 1}, {Per: []string{"client.ip"}, Connections: 2}}
	})
	ann, _, _ := s.accepted("Authorization: ann")
	for range 3 {
		if resp, _, _ := s.ask("Authorization: ann"); resp.StatusCode != http.StatusTooManyRequests {
			t.Errorf("ann again: %s", resp.Status)
		}
	}
	bob, _, _ := s.accepted("Authorization: bob")
	if ann.User() != "ann" || bob.Info().User != "bob" || ann.Facts().User != "ann" {
		t.Errorf("%q %q", ann.User(), bob.Info().User)
	}
	if resp, _, _ := s.ask("Authorization: cy"); resp.StatusCode != http.StatusTooManyRequests {
		t.Errorf("a third of the address: %s", resp.Status)
	}
	ann.End(ws.Cause{Kind: ws.Kicked})
	await(t, ann.Done())
	s.accepted("Authorization: ann")
}

func TestAClientThatIsNotWantedAnyMore(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	s := newStage(t, func(p *parts, _ *fakeBridge) {
		p.Auth = askedBy(t, func(f *auth.Forward) { f.Recheck = time.Second }, func(w http.ResponseWriter, _ *http.Request) {
			if asked.Add(1) > 2 { // let in, and once more
				w.WriteHeader(http.StatusForbidden)
			}
		})
	})
	c, _, _ := s.accepted()
	cause := await(t, s.bridge.causes)
	await(t, c.Done())
	if code, reason := cause.Client(); cause.Kind != ws.Unauthorized || code != 4403 || reason != "authentication withdrawn" || asked.Load() != 3 {
		t.Errorf("ended by %v with %d %q, asked %d times", cause, code, reason, asked.Load())
	}
	s.isFree()
}

// What watches over a socket ends with it, and does nothing before its time.
func TestVigils(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	c, _, _ := s.accepted()
	var never *vigil
	never.end()
	if v := c.keepVigil(&auth.Identity{User: "ann"}); v != nil || c.keepVigil(nil) != nil {
		t.Errorf("%+v watches over who may stay for ever", v)
	}
	synctest.Test(t, func(t *testing.T) {
		c := &Client{facts: policy.Facts{ConnID: "c_1"}}
		cause := func() ws.Kind {
			synctest.Wait()
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.cause == nil {
				return 0
			}
			return c.cause.Kind
		}
		var asked int
		id := &auth.Identity{Expires: time.Now().Add(time.Hour), Code: 4401, Rechecks: []auth.Recheck{{Every: time.Minute, Ask: func(ctx context.Context) error {
			if asked++; asked == 70 {
				return errors.New("no")
			}
			return ctx.Err()
		}}}}
		v := c.keepVigil(id)
		time.Sleep(time.Hour - time.Second)
		if cause() != 0 || asked < 58 || asked > 66 {
			t.Errorf("%v after an hour, asked %d times", cause(), asked)
		}
		time.Sleep(time.Second)
		if cause() != ws.TokenExpired {
			t.Errorf("ended by %v", cause())
		}
		v.end()
		before := asked
		time.Sleep(time.Hour)
		if asked != before || v.ctx.Err() == nil {
			t.Errorf("asked %d times after the end", asked-before)
		}
	})
}

package proxy

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"bridgehead/internal/unit"
	"bridgehead/policy"
	"bridgehead/proxy/pump"
	"bridgehead/ws"
)

// prepare makes changed terms ready.
func (s *stage) prepare(change func(*Terms)) *Prepared {
	s.t.Helper()
	t := s.proxy.terms.Load().Terms
	change(&t)
	next, err := s.proxy.Prepare(t)
	if err != nil {
		s.t.Fatal(err)
	}
	return next
}

func TestOpenSocketsObeyNewTerms(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	c, _, _ := s.accepted()
	woken := make(chan struct{}, 1)
	c.Attach(&wakeable{woken})
	next := s.prepare(func(t *Terms) {
		t.Options.Socket.MessageSize = 7
		t.Options.Limits = []policy.Rule{{Per: []string{"client.ip"}, Connections: 1, Messages: unit.Rate{Rate: 1, Burst: 1}, OnExceed: policy.Throttle}}
		t.Options.MaxConnections = 1
		t.Options.Origins = []string{"https://new.example"}
	})
	if size := c.Options().MessageSize; size != pump.DefaultOptions().MessageSize {
		t.Errorf("terms that are only prepared make the message size %s", size)
	}
	if open := s.proxy.Apply(next); open != 1 {
		t.Errorf("%d sockets are open, want 1", open)
	}
	await(t, woken)
	if size := c.Options().MessageSize; size != 7 {
		t.Errorf("the message size is %s, want 7", size)
	}
	if pause, err := c.Grant.Charge(policy.Traffic{Messages: 3}, time.Now()); pause < time.Second || err != nil {
		t.Errorf("a rule that came later pauses the socket for %s, %v", pause, err)
	}
	if resp, _, _ := s.ask(); resp.StatusCode != 429 { // the open socket is counted
		t.Errorf("status %s, want 429", resp.Status)
	}
	if resp, _, _ := s.ask("Origin: https://old.example"); resp.StatusCode != 403 {
		t.Errorf("status %s, want 403", resp.Status)
	}
	if c.gone.Given() {
		t.Error("the socket was ended")
	}
}

type wakeable struct{ woken chan struct{} }

func (*wakeable) Flush()  {}
func (w *wakeable) Wake() { w.woken <- struct{}{} }

func TestTermsThatCannotWorkChangeNothing(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	before := s.proxy.terms.Load()
	broken := before.Terms
	broken.Options.Origins = []string{"x"}
	if _, err := s.proxy.Prepare(broken); err == nil || !strings.Contains(err.Error(), `origin "x"`) {
		t.Errorf("error %v", err)
	}
	if s.proxy.terms.Load() != before {
		t.Error("the terms have changed")
	}
}

func TestReplaceGivesTheSocketsThatHaveToEnd(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	old, _, _ := s.accepted()
	open := s.proxy.Replace(s.prepare(func(*Terms) {}), ws.Cause{Kind: ws.RouteRemoved})
	if len(open) != 1 || open[0] != old {
		t.Fatalf("%v, want the one that is open", open)
	}
	if old.gone.Given() {
		t.Error("it was ended, which is for the caller to do")
	}
	young, _, _ := s.accepted()
	s.proxy.Apply(s.prepare(func(*Terms) {}))
	for _, c := range s.proxy.Retire(ws.Cause{Kind: ws.RouteRemoved}) {
		if c != old && c != young {
			t.Errorf("%s is unknown", c.ID())
		}
	}
	old.End(ws.Cause{Kind: ws.RouteRemoved})
	await(t, s.bridge.causes)
	if cause := young.cause; cause != nil {
		t.Errorf("the young socket ended by %s", cause.Kind)
	}
}

// A handshake that began before a reload may end after it.
func TestAHandshakeUnderWayObeysWhatCameMeanwhile(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		reload func(s *stage)
		ends   bool
		size   unit.Size
	}{
		"changed":  {func(s *stage) { s.proxy.Apply(s.prepare(smaller)) }, false, 7},
		"replaced": {func(s *stage) { s.proxy.Replace(s.prepare(smaller), ws.Cause{Kind: ws.RouteRemoved}) }, true, 7},
		"retired":  {func(s *stage) { s.proxy.Retire(ws.Cause{Kind: ws.RouteRemoved}) }, true, pump.DefaultOptions().MessageSize},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			opening, reloaded := make(chan struct{}), make(chan struct{})
			s := newStage(t, func(_ *parts, b *fakeBridge) {
				b.open = func(context.Context, *Handshake) error {
					close(opening)
					<-reloaded
					return nil
				}
			})
			go func() {
				<-opening
				c.reload(s)
				close(reloaded)
			}()
			client, _, _ := s.accepted()
			if size := client.Options().MessageSize; size != c.size {
				t.Errorf("the message size is %s, want %s", size, c.size)
			}
			if c.ends {
				if cause := await(t, s.bridge.causes); cause.Kind != ws.RouteRemoved {
					t.Errorf("ended by %s", cause.Kind)
				}
			} else if client.cause != nil {
				t.Errorf("ended by %s", client.cause.Kind)
			}
		})
	}
}

func smaller(t *Terms) { t.Options.Socket.MessageSize = 7 }

func TestARouteForgetsItsSockets(t *testing.T) {
	t.Parallel()
	s := newStage(t, func(_ *parts, b *fakeBridge) {
		b.open = func(context.Context, *Handshake) error {
			if b.opened.Load() == 1 {
				return errors.New("no backend")
			}
			return nil
		}
	})
	s.refused()
	c, _, _ := s.accepted()
	c.End(ws.Cause{Kind: ws.Kicked})
	await(t, c.Done())
	if open := s.proxy.Retire(ws.Cause{Kind: ws.RouteRemoved}); len(open) > 0 {
		t.Errorf("%d sockets are known that are gone", len(open))
	}
}

package proxy

import (
	"context"
	"errors"
	"strings"
	"testing"

	"bridgehead/internal/unit"
	"bridgehead/policy"
	"bridgehead/ws"
)

func networks(t *testing.T, list ...string) policy.Networks {
	t.Helper()
	n := make(policy.Networks, len(list))
	for i, text := range list {
		if err := n[i].UnmarshalText([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// denying is a list that lets nobody in from these networks.
func denying(t *testing.T, list ...string) *policy.AddressList {
	t.Helper()
	o := policy.Addresses{Deny: networks(t, list...)}
	read, err := policy.ReadAddresses([]policy.Addresses{o})
	if err != nil {
		t.Fatal(err)
	}
	return read.List(o)
}

// Whoever is denied learns nothing of what else would be asked, and counts nowhere.
func TestAddressesComeFirst(t *testing.T) {
	t.Parallel()
	s := newStage(t, func(c *parts, _ *fakeBridge) {
		c.Proxies.Networks = networks(t, "loopback")
		c.Addresses = denying(t, "198.51.100.0/24")
		c.Options.Limits = []policy.Rule{{Per: []string{"host"}, ConnectRate: unit.Rate{Rate: 1. / 3600, Burst: 1}}}
	})
	for range 3 {
		resp, body := s.refused("X-Forwarded-For: 198.51.100.7", "Origin: https://evil.example")
		if resp.StatusCode != 403 || body != "clients may not come here from this address\n" {
			t.Errorf("%s %q", resp.Status, body)
		}
	}
	s.counted(`refusals_total{reason="address",route="chat"} 3`, `handshakes_total{outcome="refused",route="chat"} 3`)
	s.accepted("X-Forwarded-For: 198.51.101.7") // the one handshake that the limit lets through
	if n := s.bridge.opened.Load(); n != 1 {
		t.Errorf("the bridge was asked %d times", n)
	}
	s.log.mu.Lock()
	line := s.log.lines[0]
	s.log.mu.Unlock()
	const want = "198.51.100.7 is denied by 198.51.100.0/24 in addresses.deny; to let it in, take that out"
	if line["error"] != want || line["reason"] != "address" || line["level"] != "INFO" || line["client"] != "198.51.100.7" {
		t.Errorf("logged as %v", line)
	}
}

// Who is denied punishes nobody who is counted with it, as the neighbours of an IPv6 address are.
func TestDeniedAddressesFailForNobody(t *testing.T) {
	t.Parallel()
	s := newStage(t, func(c *parts, _ *fakeBridge) {
		c.Proxies.Networks = networks(t, "loopback")
		c.Addresses = denying(t, "2001:db8::bad")
		c.Options.Limits = []policy.Rule{twice()}
	})
	for range 5 {
		s.refused("X-Forwarded-For: 2001:db8::bad", "Sec-WebSocket-Key: again")
	}
	s.accepted("X-Forwarded-For: 2001:db8::900d")
}

// A client that is denied while its handshake is under way ends as soon as it is open.
func TestAddressesThatChangeDuringAHandshake(t *testing.T) {
	t.Parallel()
	var s *stage
	s = newStage(t, func(_ *parts, b *fakeBridge) {
		b.open = func(context.Context, *Handshake) error {
			s.proxy.Apply(s.prepare(func(t *Terms) { t.Addresses = denying(s.t, "loopback") }))
			return nil
		}
	})
	s.ask()
	cause := await(t, s.bridge.causes)
	if code, reason := cause.Client(); cause.Kind != ws.ClientBarred || code != 1008 || reason != "address not allowed" {
		t.Errorf("it ended by %v", cause)
	}
	if _, ok := errors.AsType[*policy.Barred](cause.Err); !ok {
		t.Errorf("for the log it ended by %v", cause.Err)
	}
}

func TestUnwelcome(t *testing.T) {
	t.Parallel()
	unproven := errors.New("no certificate")
	s := newStage(t, func(c *parts, _ *fakeBridge) {
		c.Proxies.Networks = networks(t, "loopback")
		c.Admits = func(f *policy.Facts) error {
			if f.Client.String() == "203.0.113.2" {
				return unproven
			}
			return nil
		}
	})
	s.accepted("X-Forwarded-For: 203.0.113.1")
	barred, _, _ := s.accepted("X-Forwarded-For: 198.51.100.1")
	if left := s.proxy.Unwelcome(); len(left) != 0 {
		t.Errorf("%v are to leave", left)
	}
	s.proxy.Apply(s.prepare(func(terms *Terms) { terms.Addresses = denying(t, "198.51.100.0/24") }))
	left := s.proxy.Unwelcome()
	if len(left) != 1 || len(left[ws.ClientBarred]) != 1 || left[ws.ClientBarred][0] != barred {
		t.Errorf("%v are to leave, want %v", left, barred)
	}
	s.ask("X-Forwarded-For: 203.0.113.2") // its certificate stopped to count meanwhile
	if cause := await(t, s.bridge.causes); cause.Kind != ws.ClientUnproven || !errors.Is(cause.Err, unproven) {
		t.Errorf("it ended by %v", cause)
	}
}

// A trusted proxy that says nonsense is told of once, and its clients count as itself.
func TestDoubtfulProxies(t *testing.T) {
	t.Parallel()
	s := newStage(t, func(c *parts, _ *fakeBridge) {
		c.Proxies = policy.Proxies{Networks: networks(t, "loopback"), Header: "CF-Connecting-IP"}
	})
	for _, lines := range [][]string{{"CF-Connecting-IP: 6.6.6.6", "CF-Connecting-IP: 203.0.113.1"}, {"CF-Connecting-IP: 6.6.6.6, 203.0.113.1"}, {"X-Forwarded-For: 6.6.6.6"}} {
		if c, _, _ := s.accepted(lines...); c.Facts().Client.String() != "127.0.0.1" {
			t.Errorf("%q: the client is %s", lines, c.Facts().Client)
		}
	}
	var doubts []string
	s.log.mu.Lock()
	for _, line := range s.log.lines {
		if line["msg"] == "client header not believed" && line["level"] == "WARN" {
			doubts = append(doubts, line["error"].(string))
		}
	}
	s.log.mu.Unlock()
	if len(doubts) != 2 || !strings.Contains(doubts[0], "came 2 times") || !strings.Contains(doubts[1], "is not one address") {
		t.Errorf("%q", doubts)
	}
}

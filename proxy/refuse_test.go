package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"bridgehead/internal/seldom"
	"bridgehead/internal/unit"
	"bridgehead/policy"
)

// heard are the errors of the refusals that an operator at level info or warn reads.
func (j *journal) heard(level string) (errors []string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, line := range j.lines {
		if line["msg"] == "refused" && line["level"] == level {
			errors = append(errors, line["error"].(string))
		}
	}
	return errors
}

// throttled is a stage whose log is not flooded.
func throttled(t *testing.T, change func(*parts, *fakeBridge)) *stage {
	t.Helper()
	return newStage(t, func(c *parts, b *fakeBridge) {
		c.Mends = seldom.New()
		if change != nil {
			change(c, b)
		}
	})
}

func TestARefusalIsHeardOnceAndNamesTheMend(t *testing.T) {
	t.Parallel()
	s := throttled(t, nil)
	for range 3 {
		s.refused("Origin: https://app.example.com")
		s.refused("Origin: https://other.example.com")
	}
	const want = `origin %q is not allowed; to allow it, list %q under origins of route "chat"`
	heard := s.log.heard("INFO")
	if len(heard) != 2 || heard[0] != fmt.Sprintf(want, "https://app.example.com", "https://app.example.com") {
		t.Errorf("heard %q", heard)
	}
	silent := s.log.heard("DEBUG")
	if len(silent) != 4 || silent[0] != heard[0] {
		t.Errorf("%d refusals are there for whoever debugs: %q", len(silent), silent)
	}
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	for _, line := range s.log.lines {
		if line["route"] != "chat" || line["reason"] != "origin" || line["client"] != "127.0.0.1" || line["conn"] == "" {
			t.Errorf("a line without its client: %v", line)
		}
		if (line["times"] == 1.) != (line["level"] == "INFO") {
			t.Errorf("how often it stands for is missing: %v", line)
		}
	}
}

func TestAFloodOfOriginsIsNotHeard(t *testing.T) {
	t.Parallel()
	s := throttled(t, nil)
	for i := range 3 * seldom.PerKind {
		s.refused(fmt.Sprintf("Origin: https://%d.evil.example", i))
	}
	s.refused("Sec-WebSocket-Version: 8") // another reason
	heard := s.log.heard("INFO")
	if len(heard) != seldom.PerKind+1 || !strings.Contains(heard[seldom.PerKind], "Sec-WebSocket-Version") {
		t.Errorf("heard %q", heard)
	}
}

// An error on the way to a backend is known by the backend and its kind: its text has the port of each attempt.
func TestTroubleWithABackendIsHeardOnce(t *testing.T) {
	t.Parallel()
	var attempts atomic.Int64
	s := throttled(t, func(_ *parts, b *fakeBridge) {
		b.open = func(context.Context, *Handshake) error { return fmt.Errorf("dial: %w", fault(attempts.Add(1))) }
	})
	for range 3 {
		s.refused()
	}
	if heard := s.log.heard("WARN"); len(heard) != 1 || heard[0] != "dial: fault 1" {
		t.Errorf("heard %q", heard)
	}
}

// A fault is an error that has a key.
type fault int

func (f fault) Error() string { return fmt.Sprintf("fault %d", f) }
func (f fault) Key() string   { return "127.0.0.1:9000 reset" }

// Clients behind a proxy that is not trusted share its address and its limit: that is told once per proxy.
func TestAProxyThatIsNotTrustedIsToldOnce(t *testing.T) {
	t.Parallel()
	s := throttled(t, func(c *parts, _ *fakeBridge) {
		c.Options.Limits = []policy.Rule{{Per: []string{"client.ip"}, ConnectRate: unit.Rate{Rate: 1. / 90, Burst: 1}}}
	})
	s.accepted()
	for i := range 3 {
		s.ask(fmt.Sprintf("X-Forwarded-For: 192.0.2.%d", i))
	}
	s.ask()
	heard := s.log.heard("INFO")
	const hint = "; 127.0.0.1 sends X-Forwarded-For: if it is a proxy of yours, list it under trusted_proxies"
	if len(heard) != 2 || !strings.HasSuffix(heard[0], hint) || strings.HasSuffix(heard[1], hint) {
		t.Errorf("heard %q", heard)
	}
}

// A page that gets through a proxy which changes the Host header has an origin that nobody listed, and needs none.
func TestAProxyThatChangesTheHost(t *testing.T) {
	t.Parallel()
	s := throttled(t, nil)
	s.refused("Origin: https://app.example.com", "X-Forwarded-For: 192.0.2.1")
	heard := s.log.heard("INFO")
	if len(heard) != 1 || !strings.Contains(heard[0], `the Host header is "127.0.0.1"`) || !strings.Contains(heard[0], "proxy_set_header Host") {
		t.Errorf("heard %q", heard)
	}
}

// What the log knows of a backend is not for strangers.
func TestAnAnswerTellsNothingOfTheBackend(t *testing.T) {
	t.Parallel()
	s := throttled(t, failing(errors.New("dial tcp 10.0.0.7:9000: connection refused; does the server run?")))
	if resp, body := s.refused(); resp.StatusCode != 502 || body != "the backend cannot be reached\n" {
		t.Errorf("%s %q", resp.Status, body)
	}
}

// A parting is the error of a client that loses a cookie.
type parting struct{ error }

func (p parting) Cookie() *http.Cookie { return &http.Cookie{Name: "server", MaxAge: -1} }

func (p parting) Unwrap() error { return p.error }

// The error of a bridge may set a cookie, whatever the answer is.
func TestARefusalTakesACookieAway(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err    error
		status int
	}{
		{errors.New("no way"), 502},
		{context.DeadlineExceeded, 504},
		{&Refusal{Status: 503, Header: http.Header{"Set-Cookie": {"theirs=1"}}}, 503},
	} {
		s := throttled(t, failing(fmt.Errorf("chat: %w", parting{c.err})))
		resp, _ := s.refused()
		cookies := resp.Header["Set-Cookie"]
		if resp.StatusCode != c.status || !slices.Contains(cookies, "server=; Max-Age=0") || c.status == 503 && len(cookies) != 2 {
			t.Errorf("%v: %s %q", c.err, resp.Status, cookies)
		}
	}
}

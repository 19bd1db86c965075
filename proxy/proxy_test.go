package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"bridgehead/hub"
	"bridgehead/internal/unit"
	"bridgehead/internal/yamlpos"
	"bridgehead/policy"
	"bridgehead/ws"
)

// oneEach is a limit of one socket per client address, which tells whether a grant was given back.
func oneEach(c *parts, _ *fakeBridge) {
	c.Options.Limits = []policy.Rule{{Per: []string{"client.ip"}, Connections: 1}}
}

// failing makes the bridge fail.
func failing(err error) func(*parts, *fakeBridge) {
	return func(_ *parts, b *fakeBridge) { b.open = func(context.Context, *Handshake) error { return err } }
}

// timeout is an error of the network's kind that says timeout.
type timeout struct{ error }

func (timeout) Timeout() bool   { return true }
func (timeout) Temporary() bool { return true }

// Each refusal has its status and reason, ends the connection, keeps nothing, and is logged as loudly as it deserves.
func TestRefusals(t *testing.T) {
	t.Parallel()
	full := (*stage).hold
	again := func(s *stage) { // the first attempt passes
		c, _, _ := s.accepted()
		c.End(ws.Cause{Kind: ws.Kicked})
		await(s.t, c.Done())
		s.bridge.opened.Store(0)
	}
	for _, c := range []struct {
		name    string
		change  func(*parts, *fakeBridge)
		prepare func(*stage)
		line    string // of the handshake
		status  int
		reason  string
		level   string
		retry   string // Retry-After
		body    string // a part of it
		asked   int64  // how often the bridge was
	}{
		{"no handshake", nil, nil, "Sec-WebSocket-Version: 8", 400, "handshake", "INFO", "", "2 Sec-WebSocket-Version headers", 0},
		{"a page of another host", nil, nil, "Origin: https://evil.example", 403, "origin", "INFO", "", "this page may not", 0},
		{"no page where one is needed", func(c *parts, _ *fakeBridge) { c.Options.RequireOrigin = true },
			nil, "", 403, "origin", "INFO", "", "this page may not", 0},
		{"too many attempts", func(c *parts, _ *fakeBridge) {
			c.Options.Limits = []policy.Rule{{Per: []string{"client.ip"}, ConnectRate: unit.Rate{Rate: 1. / 90, Burst: 1}}}
		}, again, "", 429, "limit", "INFO", "90", "too many connections or attempts", 0},
		{"the route is full", func(c *parts, _ *fakeBridge) { c.Options.MaxConnections = 1 },
			full, "", 503, "capacity", "WARN", "5", "no room", 0},
		{"the program is full", func(c *parts, _ *fakeBridge) { c.Capacity = policy.NewCapacity(1) },
			full, "", 503, "capacity", "WARN", "5", "no room", 0},
		{"the program ends", func(c *parts, _ *fakeBridge) { drain(c.Hub) },
			nil, "", 503, "draining", "WARN", "5", "no room", 0},
		{"the backend is dead", failing(errors.New("connection refused")), nil, "", 502, "backend", "WARN", "", "cannot be reached", 1},
		{"the backend is slow", failing(fmt.Errorf("dial: %w", timeout{errors.New("i/o timeout")})),
			nil, "", 504, "backend timeout", "WARN", "", "in time", 1},
		{"the bridge's time is over", failing(fmt.Errorf("x: %w", context.DeadlineExceeded)),
			nil, "", 504, "backend timeout", "WARN", "", "in time", 1},
		{"the bridge refuses", failing(fmt.Errorf("x: %w", &Refusal{Status: 401, Reason: "upstream", Header: http.Header{
			"Www-Authenticate": {"Basic"}, "Content-Type": {"text/html"}, "Retry-After": {"7"},
		}, Body: []byte("<b>who?")})), nil, "", 401, "upstream", "INFO", "7", "<b>who?", 1},
		{"the bridge panics", func(_ *parts, b *fakeBridge) {
			b.open = func(context.Context, *Handshake) error { panic("oh no") }
		}, nil, "", 500, "internal", "WARN", "", "", 1},
		{"the client has left", failing(fmt.Errorf("dial: %w", context.Canceled)), nil, "", 499, "client gone", "DEBUG", "", "", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, c.change)
			if c.prepare != nil {
				c.prepare(s)
			}
			resp, body := s.refused(strings.Fields("X-A:1 " + strings.ReplaceAll(c.line, ": ", ":"))...)
			if resp.StatusCode != c.status || resp.Header.Get("Retry-After") != c.retry || !strings.Contains(body, c.body) {
				t.Errorf("%s, %v, %q", resp.Status, resp.Header, body)
			}
			kind := "text/plain; charset=utf-8"
			if c.reason == "upstream" {
				kind = "text/html"
			}
			if resp.Header.Get("X-Content-Type-Options") != "nosniff" || resp.Header.Get("Content-Type") != kind {
				t.Errorf("a browser may guess what it is: %v, want %s", resp.Header, kind)
			}
			line := s.log.line(t, "refused")
			if line["level"] != c.level || line["status"] != float64(c.status) || line["reason"] != c.reason || line["error"] == "" {
				t.Errorf("logged as %v", line)
			}
			if asked := s.bridge.opened.Load(); asked != c.asked {
				t.Errorf("the bridge was asked %d times, want %d", asked, c.asked)
			}
			outcome := "refused"
			if c.status >= 500 && c.status != 503 {
				outcome = "failed" // not the client's doing
			}
			s.counted(`refusals_total{reason="`+c.reason+`",route="chat"} 1`, `handshakes_total{outcome="`+outcome+`",route="chat"} 1`)
			if c.asked > 0 {
				s.counted(`backend_total{op="open",outcome="error",route="chat"} 1`)
			}
		})
	}
}

// The cheap questions come first, the bridge last, and whatever an earlier one gave is taken back when a later one refuses.
func TestTheOrderOfPolicies(t *testing.T) {
	t.Parallel()
	s := newStage(t, func(c *parts, b *fakeBridge) {
		oneEach(c, b)
		failing(errors.New("dead"))(c, b)
		c.Options.MaxConnections = 1
		c.Capacity = policy.NewCapacity(1)
	})
	open := s.proxy.Hub
	s.proxy.Hub = hub.New()
	drain(s.proxy.Hub)
	grant, err := s.proxy.terms.Load().limiter.Admit(&policy.Facts{Request: new(http.Request), Client: policy.Peer(&http.Request{RemoteAddr: "127.0.0.1:1"})}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	s.hold()
	evil := "Origin: https://evil.example"
	for _, step := range []struct {
		rule   string
		mend   func() // what was wrong before
		lines  []string
		status int
	}{
		{"the form of the handshake", func() {}, []string{evil, "Sec-WebSocket-Key: x"}, 400},
		{"draining", func() {}, []string{evil}, 503},
		{"origin", func() { s.proxy.Hub = open }, []string{evil}, 403},
		{"limits", func() {}, nil, 429},
		{"capacity of the route", grant.Release, nil, 503},
		{"its place in the limits was given back", func() {}, nil, 503},
		{"capacity of the program", func() { s.proxy.room.SetMax(0) }, nil, 503},
		{"the bridge", func() { s.proxy.Capacity.SetMax(0) }, nil, 502},
		{"all places were given back", func() { s.proxy.room.SetMax(2); s.proxy.Capacity.SetMax(2) }, nil, 502},
	} {
		step.mend()
		s.bridge.opened.Store(0)
		resp, body := s.refused(step.lines...)
		if resp.StatusCode != step.status || s.bridge.opened.Load() > 0 != (step.status == 502) {
			t.Errorf("%s: %s %q, the bridge was asked %d times; want %d", step.rule, resp.Status, body, s.bridge.opened.Load(), step.status)
		}
	}
}

func TestARequestThatIsNoUpgradeKeepsItsConnection(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	resp, err := s.server.Client().Get(s.server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusUpgradeRequired || resp.Close || resp.Header.Get("Sec-WebSocket-Version") != "13" {
		t.Errorf("%s, %v", resp.Status, resp.Header)
	}
}

// A client that leaves while the bridge opens ends that by the context of its request.
func TestAClientThatLeavesWhileTheBridgeOpens(t *testing.T) {
	t.Parallel()
	asked, left := make(chan struct{}), make(chan error, 1)
	s := newStage(t, func(c *parts, b *fakeBridge) {
		oneEach(c, b)
		b.open = func(ctx context.Context, _ *Handshake) error {
			close(asked)
			<-ctx.Done()
			left <- ctx.Err()
			return ctx.Err()
		}
	})
	conn := s.dial()
	conn.Write([]byte(handshake()))
	await(t, asked)
	conn.Close()
	if err := await(t, left); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	s.server.Close() // waits for the handler
	s.isFree()
	if line := s.log.line(t, "refused"); line["reason"] != "client gone" || line["level"] != "DEBUG" {
		t.Errorf("logged as %v: anybody can cause this", line)
	}
}

func TestIDs(t *testing.T) {
	t.Parallel()
	p := &Proxy{Config: Config{Node: "n1"}}
	form := regexp.MustCompile(`^c_n1_[a-z0-9]{20,}$`) // at least 100 bits in base 32
	seen := map[string]bool{}
	for range 10_000 {
		id := p.newID()
		if !form.MatchString(id) || seen[id] {
			t.Fatalf("id %q", id)
		}
		seen[id] = true
	}
}

func TestNewReportsWhatCannotWork(t *testing.T) {
	t.Parallel()
	for want, o := range map[string]Options{
		`origin "x"`:     {Origins: []string{"x"}},
		"limits[0]: per": {Limits: []policy.Rule{{Per: []string{"a b"}}}},
	} {
		if _, err := New(Config{Limits: policy.NewStore(1)}, Terms{Options: o}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(*Options){
		"":                                func(*Options) {},
		`route.origins[1]: origin "x"`:    func(o *Options) { o.Origins = []string{"*", "x"} },
		"route.limits[1].per: is missing": func(o *Options) { o.Limits = append(o.Limits, policy.Rule{Connections: 1}) },
		"route.max_connections: must not": func(o *Options) { o.MaxConnections = -1 },
		"route.socket.idle: must not":     func(o *Options) { o.Socket.Idle = -1 },
	} {
		o := DefaultOptions()
		change(&o)
		var p yamlpos.Problems
		o.Validate(yamlpos.Path{"route"}, &p)
		if got := p.Error(); !strings.Contains(got, want) || p.Len() > 1 || (p.Len() == 0) != (want == "") {
			t.Errorf("got %q, want one problem like %q", got, want)
		}
	}
}

func TestARefusalIsAnError(t *testing.T) {
	t.Parallel()
	cause := errors.New("the backend says no")
	if r := (&Refusal{Status: 403, Err: cause}); r.Error() != "the backend says no" || !errors.Is(r, cause) {
		t.Error(r)
	}
	if r := (&Refusal{Status: 403}); r.Error() != "Forbidden" || errors.Unwrap(r) != nil {
		t.Error(r)
	}
	if e := (&policy.Exceeded{RetryAfter: 1500 * time.Millisecond}); refusal(e).Header.Get("Retry-After") != "2" { // whole seconds, never too soon
		t.Error(refusal(e).Header)
	}
	if e := new(policy.Exceeded); refusal(e).Header.Get("Retry-After") != "1" { // nobody knows when a place is free
		t.Error(refusal(e).Header)
	}
}

var _ hub.Conn = (*Client)(nil)

// drain makes a hub without connections refuse everybody from now on.
func drain(h *hub.Hub) { h.Drain(context.Background(), 0, ws.Cause{Kind: ws.ShuttingDown}) }

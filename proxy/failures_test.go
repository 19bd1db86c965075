package proxy

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"bridgehead/internal/seldom"
	"bridgehead/internal/unit"
	"bridgehead/policy"
	"bridgehead/policy/auth"
)

// twice is a rule that allows two failures of an address, and then none for ten minutes.
func twice() policy.Rule {
	r := policy.DefaultRule()
	r.Per, r.Failures = []string{"client.ip"}, unit.Rate{Rate: 1e-9, Burst: 2}
	r.Penalty = 10 * time.Minute
	return r
}

// byName lets in ann alone.
func byName(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "ann" {
		w.WriteHeader(http.StatusForbidden)
	}
}

func TestWhoFailsTooOftenIsNotAskedAnyMore(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	s := newStage(t, func(p *parts, _ *fakeBridge) {
		p.Proxies.Networks = policy.Networks{policy.Loopback()}
		p.Auth = askedBy(t, nil, func(w http.ResponseWriter, r *http.Request) { asked.Add(1); byName(w, r) })
		p.Options.Limits = []policy.Rule{twice()}
	})
	s.accepted("Authorization: ann")
	for i := range 5 {
		want := http.StatusForbidden
		if i > 2 { // the third failure is one too many, and is answered as one
			want = http.StatusTooManyRequests
		}
		if resp, _, _ := s.ask("Authorization: eve"); resp.StatusCode != want {
			t.Fatalf("attempt %d: %s, want %d", i, resp.Status, want)
		}
	}
	resp, _, _ := s.ask("Authorization: ann") // who shares the address shares the penalty
	if after := resp.Header.Get("Retry-After"); resp.StatusCode != http.StatusTooManyRequests || after != "600" && after != "599" {
		t.Errorf("%s, Retry-After %q", resp.Status, after)
	}
	if n := asked.Load(); n != 4 {
		t.Errorf("the endpoint was asked %d times, want 4", n)
	}
	s.accepted("Authorization: ann", "X-Forwarded-For: 203.0.113.1")
	s.counted(`refusals_total{reason="penalty",route="chat"} 3`, `refusals_total{reason="authentication refused",route="chat"} 3`)
}

// A token that is right tells nothing if it came among too many that are wrong.
func TestGuessesAtOnceTellNoMoreThanOneAfterTheOther(t *testing.T) {
	t.Parallel()
	here, on := make(chan bool), make(chan bool)
	s := newStage(t, func(p *parts, _ *fakeBridge) {
		p.Auth = askedBy(t, nil, func(w http.ResponseWriter, r *http.Request) {
			if byName(w, r); r.Header.Get("Authorization") == "ann" {
				here <- true
				<-on
			}
		})
		p.Options.Limits = []policy.Rule{twice()}
	})
	status := make(chan int, 1)
	go func() {
		r, _ := http.NewRequest("GET", s.server.URL+"/chat", nil)
		r.Header = http.Header{"Upgrade": {"websocket"}, "Connection": {"Upgrade"}, "Sec-Websocket-Version": {"13"},
			"Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}, "Authorization": {"ann"}}
		resp, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Error(err)
			status <- 0
			return
		}
		resp.Body.Close()
		status <- resp.StatusCode
	}()
	await(t, here)
	for range 3 {
		s.ask("Authorization: eve")
	}
	close(on)
	if got := await(t, status); got != http.StatusTooManyRequests {
		t.Errorf("the right one among the wrong ones: %d", got)
	}
	s.isFree()
}

func TestWhatIsAFailure(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		answer int // of the endpoint; 0: there is none
		lines  []string
		status int
		counts bool
	}{
		{"refused", http.StatusUnauthorized, nil, http.StatusUnauthorized, true},
		{"sent to log in", http.StatusFound, nil, http.StatusFound, false},
		{"let in", http.StatusOK, nil, http.StatusSwitchingProtocols, false},
		{"the endpoint fails", http.StatusInternalServerError, nil, http.StatusBadGateway, false},
		{"malformed", 0, []string{"Sec-WebSocket-Key: again"}, http.StatusBadRequest, true},
		{"an old version", 0, []string{"Sec-WebSocket-Version: 8"}, 0, true},
		{"another page", 0, []string{"Origin: https://evil.example"}, http.StatusForbidden, false},
	} {
		s := newStage(t, func(p *parts, _ *fakeBridge) {
			if tt.answer > 0 {
				p.Auth = askedBy(t, nil, func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Location", "https://sso.example.com/")
					w.WriteHeader(tt.answer)
				})
			}
			p.Options.Limits = []policy.Rule{twice()}
		})
		for range 3 {
			if resp, _, _ := s.ask(tt.lines...); tt.status != 0 && resp.StatusCode != tt.status {
				t.Errorf("%s: %s, want %d", tt.name, resp.Status, tt.status)
			}
		}
		f := &policy.Facts{Request: new(http.Request), Client: policy.Peer(&http.Request{RemoteAddr: "127.0.0.1:1"})}
		if err := s.proxy.terms.Load().limiter.Spare(f, time.Now()); (err != nil) != tt.counts {
			t.Errorf("%s: after three times: %v", tt.name, err)
		}
	}
}

// A page that leads to the route by mistake, or a probe, tries nothing.
func TestAPageIsNoFailure(t *testing.T) {
	t.Parallel()
	s := newStage(t, func(p *parts, _ *fakeBridge) { p.Options.Limits = []policy.Rule{twice()} })
	for range 5 {
		resp, err := http.Get(s.server.URL + "/chat")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	s.accepted()
}

// gateOf is a gate of basic authentication, in which ann has the password "secret".
func gateOf(t *testing.T, limits *policy.Limiter, mends *seldom.Log) *Gate {
	t.Helper()
	g, err := NewGate(Gate{
		Route: "pages", Auth: askedBy(t, func(f *auth.Forward) { f.Cache = 0 }, byName), Limits: limits, Mends: mends,
		Log: newStage(t, nil).proxy.Log, Next: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "page") }),
	}, DefaultOptions(), false)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// A password can be guessed by a request for a page too, and who fails there is refused there.
func TestAGatePunishesFailures(t *testing.T) {
	t.Parallel()
	store := policy.NewStore(100)
	limits, err := store.Limiter("pages", []policy.Rule{twice()})
	if err != nil {
		t.Fatal(err)
	}
	g := gateOf(t, limits, nil)
	ask := func(name, addr string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("GET", "/page", nil)
		r.Header.Set("Authorization", name)
		r.RemoteAddr = addr + ":1234"
		w := httptest.NewRecorder()
		g.ServeHTTP(w, r)
		return w
	}
	for i, want := range []int{403, 403, 403, 429, 429} {
		if got := ask("eve", "192.0.2.1"); got.Code != want {
			t.Errorf("attempt %d: %d, want %d", i, got.Code, want)
		}
	}
	if got := ask("ann", "192.0.2.1"); got.Code != 429 || got.Header().Get("Retry-After") == "" {
		t.Errorf("%d %v", got.Code, got.Header())
	}
	if got := ask("ann", "192.0.2.2"); got.Code != 200 || got.Body.String() != "page" {
		t.Errorf("%d %q", got.Code, got.Body)
	}
	var told []string
	for _, v := range g.Explain(httptest.NewRequest("GET", "/page", nil)) {
		told = append(told, v.Subject+": "+v.Text)
	}
	const want = "limit: per client.ip = 192.0.2.1: at most "
	if len(told) != 2 || !strings.HasPrefix(told[0], want) || !strings.Contains(told[0], "(beyond them refused for 10m, twice as long each time, up to 1h)") {
		t.Errorf("%q", told)
	}
}

func TestRequestsBesideTheSocketsCountTogetherWithThem(t *testing.T) {
	t.Parallel()
	s := newStage(t, func(p *parts, b *fakeBridge) {
		p.Auth = askedBy(t, nil, byName)
		p.Options.Limits = []policy.Rule{twice()}
		p.Bridge = pagesToo{b}
	})
	get := func(name string) int {
		r, _ := http.NewRequest("GET", s.server.URL+"/page", nil)
		r.Header.Set("Authorization", name)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	if got := get("ann"); got != http.StatusOK {
		t.Fatalf("a page for ann: %d", got)
	}
	s.ask("Authorization: eve")
	for i, want := range []int{403, 403, 429} {
		if got := get("eve"); got != want {
			t.Errorf("page %d: %d, want %d", i, got, want)
		}
	}
	if resp, _, _ := s.ask("Authorization: ann"); resp.StatusCode != http.StatusTooManyRequests {
		t.Errorf("a socket: %s", resp.Status)
	}
}

// pagesToo serves pages beside the sockets.
type pagesToo struct{ *fakeBridge }

func (p pagesToo) Requests() Requests { return p }
func (pagesToo) CORS() bool           { return false }

func (pagesToo) Serve(w http.ResponseWriter, _ *Handshake) error {
	w.WriteHeader(http.StatusOK)
	return nil
}

// Whoever exceeds a limit is heard once in an interval, and nobody's line hides another's, up to a bound.
func TestRefusalsAreHeardOncePerKey(t *testing.T) {
	t.Parallel()
	s := throttled(t, func(p *parts, _ *fakeBridge) {
		p.Proxies.Networks = policy.Networks{policy.Loopback()}
		never := unit.Rate{Rate: 1e-9, Burst: 1}
		p.Options.Limits = []policy.Rule{{Per: []string{"client.ip"}, ConnectRate: never}, {Per: []string{"header.x-key"}, ConnectRate: never}}
	})
	key := func(i int) string { return fmt.Sprintf("X-Forwarded-For: 192.0.2.%d", i) }
	for i := range 40 {
		s.accepted(key(i))
	}
	s.accepted("X-Forwarded-For: 198.51.100.1", "X-Key: k")
	for range 3 {
		for i := range 40 {
			s.ask(key(i))
		}
	}
	heard := len(s.log.heard("INFO"))
	if heard != seldom.PerKind {
		t.Errorf("%d lines for 120 refusals of 40 addresses, want %d", heard, seldom.PerKind)
	}
	s.ask("X-Forwarded-For: 198.51.100.2", "X-Key: k")
	if lines := s.log.heard("INFO"); len(lines) != heard+1 || !strings.HasPrefix(lines[heard], "limit per header.x-key: ") {
		t.Errorf("heard of another limit: %q", lines[heard:])
	}
}

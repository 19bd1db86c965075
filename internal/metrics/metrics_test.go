package metrics

import (
	"flag"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"bridgehead/internal/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

var update = flag.Bool("update", false, "write the golden files anew")

func TestNamesLabelsAndHelpAreThoseOfTheGoldenFile(t *testing.T) {
	t.Parallel()
	const golden = "testdata/exposition.txt"
	s := New("1.2.3")
	r := s.Route("chat")
	r.Handshake(Accepted, 3*time.Millisecond)
	r.Handshake(Refused, time.Millisecond)
	r.Refused("origin")
	r.Dismissed(4403)
	r.Opened()
	r.Opened()
	r.In(2, 300)
	r.In(0, 50)
	r.Out(1, 7)
	r.Throttled()
	r.Backend("connect", "ok", 20*time.Millisecond)
	r.Backend("message", "timeout", 30*time.Second)
	r.Closed("idle", "gateway", 90*time.Second)
	s.Unrouted("host")
	s.Issued("obtained", "ok", 3*time.Second)
	s.OnDemand("refused")
	s.Certificates(func() []Certificate {
		return []Certificate{
			{Subject: "chat.example.com", Source: "automatic", Until: time.Unix(1_900_000_000, 0)},
			{Subject: "chat.example.com", Source: "automatic"}, // the first counts
			{Subject: "new.example.com", Source: "automatic", Failing: true},
			{Subject: "tenant.example.com", Source: "on_demand", Until: time.Unix(1_900_000_000, 0)},
		}
	})
	public := s.Listener("public")
	public.Open(3, 1)
	public.Refused("full")

	got := strings.ReplaceAll(exposition(t, s, "bridgehead_"), runtime.Version(), "GOVERSION")
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the exposition differs from %s (-update writes it anew):\n%s", golden, got)
	}
}

func TestConfigured(t *testing.T) {
	t.Parallel()
	s := New("1.2.3")
	s.Configured(1, true)
	s.Configured(2, true)
	s.Configured(2, false)
	(*Set)(nil).Configured(1, true)
	got := exposition(t, s, "bridgehead_config_")
	for _, line := range []string{
		"generation 2", "last_reload_successful 0", `reloads_total{outcome="ok"} 2`, `reloads_total{outcome="failed"} 1`,
	} {
		if !strings.Contains(got, "bridgehead_config_"+line+"\n") {
			t.Errorf("no %q in:\n%s", line, got)
		}
	}
	if strings.Contains(got, "last_success_timestamp_seconds 0\n") {
		t.Error("the time of the last success is not told")
	}
}

func TestTheProcessAndTheRuntimeAreShown(t *testing.T) {
	t.Parallel()
	got := exposition(t, New("x"), "go_")
	if !strings.Contains(got, "\ngo_goroutines ") {
		t.Errorf("no go_goroutines in:\n%s", got)
	}
}

func TestTheSameNameGivesTheSameInstruments(t *testing.T) {
	t.Parallel()
	s := New("x")
	if first := s.Route("a"); first != s.Route("a") {
		t.Error("a second *Route for the same name: counts would be lost or registered twice after a reload")
	}
	if s.Route("a") == s.Route("b") {
		t.Error("two names share a *Route")
	}
}

func TestTwoSetsShareNothing(t *testing.T) {
	t.Parallel()
	a, b := New("x"), New("x")
	a.Route("chat").In(5, 5)
	b.Route("chat")
	if got := exposition(t, b, "bridgehead_"); !strings.Contains(got, `bridgehead_messages_total{direction="in",route="chat"} 0`) {
		t.Errorf("not zero:\n%s", got)
	}
}

func TestNilCountsNothing(t *testing.T) {
	t.Parallel()
	var s *Set
	s.Unrouted("host")
	s.Issued("obtained", "ok", time.Second)
	s.OnDemand("refused")
	s.Certificates(nil)
	r := s.Route("chat")
	if r != nil {
		t.Fatal("a nil Set gave a Route")
	}
	r.Opened()
	r.Closed("idle", "gateway", time.Second)
	r.Handshake(Accepted, time.Second)
	r.Refused("origin")
	r.Dismissed(4403)
	r.In(1, 1)
	r.Out(1, 1)
	r.Backend("connect", "ok", time.Second)
	r.Throttled()
	s.Listener("public").Open(1, 1)
	s.Listener("public").Refused("full")
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 404 {
		t.Errorf("status %d, want 404", w.Code)
	}
}

func TestLabelValuesAreBounded(t *testing.T) {
	t.Parallel()
	s := New("x")
	r := s.Route("chat")
	for i := range 10 * maxWords {
		r.Refused("reason " + strings.Repeat("x", i%maxWordLen) + string(rune('A'+i/maxWordLen)))
	}
	r.Refused(strings.Repeat("y", maxWordLen+1))
	r.Refused("not UTF-8: \xff")
	series := strings.Count(exposition(t, s, "bridgehead_refusals_total{"), "\n")
	if series != maxWords+1 { // and "other"
		t.Errorf("%d series, want %d", series, maxWords+1)
	}
}

func TestLabelsHaveVocabulariesOfTheirOwn(t *testing.T) {
	t.Parallel()
	s := New("x")
	r := s.Route("chat")
	for i := range maxWords {
		r.Refused(strings.Repeat("x", i))
	}
	r.Closed("idle", "gateway", time.Second)
	if got := exposition(t, s, "bridgehead_connections_closed_total{"); !strings.Contains(got, `cause="idle"`) {
		t.Errorf("a full label crowded out another: %s", got)
	}
}

func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	s := New("x")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				r := s.Route("chat")
				r.Opened()
				r.In(1, 10)
				r.Refused("origin")
				r.Closed("idle", "gateway", time.Second)
			}
		})
	}
	wg.Wait()
	got := exposition(t, s, "bridgehead_")
	for _, line := range []string{
		`bridgehead_connections{route="chat"} 0`, `bridgehead_bytes_total{direction="in",route="chat"} 8000`,
		`bridgehead_refusals_total{reason="origin",route="chat"} 800`,
	} {
		if !strings.Contains(got, line+"\n") {
			t.Errorf("no %q in:\n%s", line, got)
		}
	}
}

func TestTheHotPathAllocatesNothing(t *testing.T) {
	r := New("x").Route("chat")
	if n := testing.AllocsPerRun(100, func() { r.In(1, 4096); r.Out(0, 4096) }); n != 0 {
		t.Errorf("%v allocations for each chunk", n)
	}
}

func BenchmarkIn(b *testing.B) {
	r := New("x").Route("chat")
	for b.Loop() {
		r.In(1, 4096)
	}
}

// exposition returns what a scrape shows, cut down to the lines of the metrics whose names begin with prefix.
func exposition(t *testing.T, s *Set, prefix string) string {
	t.Helper()
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	var lines strings.Builder
	for line := range strings.Lines(w.Body.String()) {
		name := strings.TrimPrefix(strings.TrimPrefix(line, "# HELP "), "# TYPE ")
		if strings.HasPrefix(name, prefix) {
			lines.WriteString(line)
		}
	}
	return lines.String()
}

package webhook

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"bridgehead/internal/unit"
	"bridgehead/proxy/upstream"
)

// newBridge leads to one URL; change may be nil.
func newBridge(t testing.TB, to string, change func(*Options)) *Bridge {
	t.Helper()
	o := DefaultOptions()
	o.To = upstream.To{to}
	if change != nil {
		change(&o)
	}
	group, err := upstream.New(o.To.Own())
	if err != nil {
		t.Fatal(err)
	}
	b, err := New(o, Config{Route: "chat", Group: group})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// toApp is the way to an application whose transport is the test's.
func toApp(t *testing.T) way {
	t.Helper()
	group, err := upstream.New(upstream.To{"http://app"}.Own())
	if err != nil {
		t.Fatal(err)
	}
	return way{group.Targets()[0], &url.URL{Scheme: "http", Host: "app"}}
}

// An attempt is what the application saw of one.
type attempt struct {
	at     time.Duration // since the first
	number string
	id     string
	body   string
}

// insistOn posts a request to an application that gives these answers in turn (0 is a network error), and tells what it saw.
// Every attempt is verified.
func insistOn(t *testing.T, op string, header http.Header, statuses ...int) (attempts []attempt, resp response, err error) {
	t.Helper()
	began := time.Now()
	keys, err := newSigner([]unit.Secret{newKey, oldKey})
	if err != nil {
		t.Fatal(err)
	}
	transport := roundTripper(func(r *http.Request) (*http.Response, error) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		if err := verifier(t, oldKey).Verify(body, r.Header); err != nil {
			t.Errorf("attempt %d: %v", len(attempts)+1, err)
		}
		attempts = append(attempts, attempt{
			time.Since(began), r.Header.Get("Bridgehead-Attempt"), r.Header.Get("webhook-id"), string(body),
		})
		status := statuses[min(len(attempts), len(statuses))-1]
		if status == 0 {
			return nil, errRefused
		}
		return answer(status, header, ""), nil
	})
	a := &application{transport: transport, keys: keys, inFlight: make(chan struct{}, 1), retries: 4}
	r := &request{op: op, id: "c_1-7", to: toApp(t), body: []byte(`{"seq":7}`), timeout: time.Second}
	resp, err = a.insist(t.Context(), slog.New(slog.DiscardHandler), r)
	return attempts, resp, err
}

// What each status means for a message, and for the end of a connection (attempts, and whether the answer is final).
func TestStatuses(t *testing.T) {
	t.Parallel()
	const all = 5
	for _, row := range []struct {
		status          int
		verdict         verdict
		attempts        int
		attemptsOfClose int
	}{
		{200, done, 1, 1}, {201, done, 1, 1}, {204, done, 1, 1}, {299, done, 1, 1},
		{410, disowned, 1, 1},
		{400, refused, 1, all}, {401, refused, 1, all}, {404, refused, 1, all}, {422, refused, 1, all},
		{408, again, all, all}, {425, again, all, all}, {429, again, all, all},
		{500, again, all, all}, {502, again, all, all}, {503, again, all, all}, {599, again, all, all}, {0, again, all, all},
		{301, failed, 1, all}, {304, failed, 1, all}, {307, failed, 1, all}, {101, failed, 1, all}, {600, failed, 1, all},
	} {
		synctest.Test(t, func(t *testing.T) {
			for op, want := range map[string]int{typeMessage: row.attempts, typeClose: row.attemptsOfClose} {
				attempts, resp, err := insistOn(t, op, nil, row.status)
				if len(attempts) != want {
					t.Errorf("%s answered %d: %d attempts, want %d", op, row.status, len(attempts), want)
				}
				if (want == all) != (err != nil) {
					t.Errorf("%s answered %d: error %v", op, row.status, err)
				}
				if err == nil && judge(resp.status) != row.verdict {
					t.Errorf("%s answered %d: verdict %d, want %d", op, row.status, judge(resp.status), row.verdict)
				}
			}
		})
	}
}

// All attempts have the same id and bytes and a number; all are signed at their own moment, even when that is more than the
// verifier's five minutes after the first; the pauses grow, and all of them last about ten seconds.
func TestRetries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		attempts, _, err := insistOn(t, typeMessage, nil, 500, 0, 503, 429, 204)
		if err != nil {
			t.Fatal(err)
		}
		for i, a := range attempts {
			if a.id != "c_1-7" || a.body != `{"seq":7}` || a.number != string(rune('1'+i)) {
				t.Errorf("attempt %d: %+v", i+1, a)
			}
			if i > 1 {
				if last, pause := attempts[i-1].at-attempts[i-2].at, a.at-attempts[i-1].at; pause < last {
					t.Errorf("pause %v after %v", pause, last)
				}
			}
		}
		if total := attempts[4].at; total < 6*time.Second || total > 12*time.Second {
			t.Errorf("the retries lasted %v", total)
		}
	})
}

// Pauses differ, so that the sockets of an application that failed do not come back together.
func TestJitter(t *testing.T) {
	t.Parallel()
	for attempt, want := range map[int]time.Duration{1: 600 * time.Millisecond, 4: 4800 * time.Millisecond, 5: 9600 * time.Millisecond, 6: maxPause, 1000: maxPause} {
		seen := map[time.Duration]bool{}
		for range 100 {
			got := pause(attempt)
			seen[got] = true
			if got < want*3/4 || got > want*5/4 {
				t.Errorf("pause(%d) is %v, not about %v", attempt, got, want)
			}
		}
		if len(seen) < 50 {
			t.Errorf("pause(%d) takes %d values", attempt, len(seen))
		}
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 20, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"": 0, "soon": 0, "0": 0, "-5": 0, "7": 7 * time.Second, "86400": maxPause, "9999999999999": maxPause,
		"Tue, 20 Jan 2026 12:00:03 GMT": 3 * time.Second, "Wed, 20 Jan 2027 12:00:03 GMT": maxPause,
	} {
		r := response{header: http.Header{"Retry-After": {text}}}
		if got := r.retryAfter(now); got != want {
			t.Errorf("Retry-After %q is %v, want %v", text, got, want)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		attempts, _, err := insistOn(t, typeMessage, http.Header{"Retry-After": {"9"}}, 503, 204)
		if err != nil || attempts[1].at != 9*time.Second {
			t.Errorf("%v, %+v: want the second attempt after 9s", err, attempts)
		}
	})
}

// An attempt that is not answered in time counts as failed; one that finds no place waits no longer than that.
func TestTimeouts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := &application{
			transport: roundTripper(func(r *http.Request) (*http.Response, error) {
				<-r.Context().Done()
				return nil, r.Context().Err()
			}),
			inFlight: make(chan struct{}, 1), retries: 1,
		}
		r := &request{op: typeMessage, id: "c_1-7", to: toApp(t), timeout: 3 * time.Second}
		began := time.Now()
		_, err := a.post(t.Context(), r, 1)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != r.timeout {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		if want := "post message to app"; !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}

		a.inFlight <- struct{}{}
		began = time.Now()
		if _, err := a.post(t.Context(), r, 1); !errors.Is(err, errBusy) || time.Since(began) != r.timeout {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		<-a.inFlight
		if len(a.inFlight) != 0 {
			t.Error("a place is still held")
		}

		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		defer cancel()
		began = time.Now()
		if _, err := a.insist(ctx, slog.New(slog.DiscardHandler), r); err == nil || time.Since(began) != 4*time.Second {
			t.Errorf("%v after %v: want an interruption after 4s", err, time.Since(began))
		}
	})
}

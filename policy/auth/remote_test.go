package auth

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// A fakeProvider counts how often its keys are fetched.
type fakeProvider struct {
	mu      sync.Mutex
	keys    []key
	err     error
	takes   time.Duration
	fetches []time.Time
}

func (p *fakeProvider) fetch(ctx context.Context) ([]key, error) {
	p.mu.Lock()
	p.fetches = append(p.fetches, time.Now())
	keys, err, takes := p.keys, p.err, p.takes
	p.mu.Unlock()
	select {
	case <-time.After(takes):
		return keys, err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *fakeProvider) set(err error, ids ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err, p.keys = err, nil
	for _, id := range ids {
		p.keys = append(p.keys, key{id: id})
	}
}

func (p *fakeProvider) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.fetches)
}

// has looks for a key by its id.
func has(ctx context.Context, r *remote, id string) error {
	return r.find(ctx, func(keys []key) bool {
		for _, k := range keys {
			if k.id == id {
				return true
			}
		}
		return false
	})
}

// inBubble runs with the keys of a fake provider, in a time of its own.
func inBubble(t *testing.T, run func(t *testing.T, p *fakeProvider, r *remote)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := &fakeProvider{takes: 100 * time.Millisecond}
		p.set(nil, "a")
		r := newRemote(p.fetch, 15*time.Minute, 5*time.Second, Setup{Log: new(book).logger()})
		defer r.close()
		run(t, p, r)
	})
}

func TestKeysAreFetchedWhenTheyAreUnknown(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, p *fakeProvider, r *remote) {
		for range 3 {
			if err := has(t.Context(), r, "a"); err != nil {
				t.Fatal(err)
			}
		}
		if p.count() != 1 {
			t.Errorf("%d fetches, want 1", p.count())
		}
		p.set(nil, "b") // the provider changes its keys
		var wg sync.WaitGroup
		for range 500 {
			wg.Go(func() {
				if err := has(t.Context(), r, "b"); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if p.count() != 2 {
			t.Errorf("%d fetches, want 2", p.count())
		}
		if err := has(t.Context(), r, "a"); err != errNoKey {
			t.Errorf("the old key: %v", err)
		}
	})
}

// Made-up keys cost the provider a fetch every 2 seconds at most, and who comes with a new one meanwhile is not refused.
func TestUnknownKeysAreFetchedSeldom(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, p *fakeProvider, r *remote) {
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				for ctx.Err() == nil {
					if err := has(ctx, r, fmt.Sprint("made up ", i)); err == nil {
						t.Error("a made-up key was found")
					}
				}
			})
		}
		time.Sleep(time.Minute + time.Second)
		p.set(nil, "a", "new")
		if err := has(t.Context(), r, "new"); err != nil {
			t.Errorf("a new key: %v", err)
		}
		if err := has(t.Context(), r, "a"); err != nil {
			t.Errorf("an old key: %v", err)
		}
		cancel()
		wg.Wait()
		if n := p.count(); n < 20 || n > 35 {
			t.Errorf("%d fetches in a minute, want one in 2 s", n)
		}
		for i := 1; i < len(p.fetches); i++ {
			if pause := p.fetches[i].Sub(p.fetches[i-1]); pause < betweenFetches {
				t.Fatalf("two fetches within %s", pause)
			}
		}
	})
}

func TestAProviderThatFails(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, p *fakeProvider, r *remote) {
		p.set(errors.New("broken"))
		for range 100 { // clients come all the time
			d, ok := errors.AsType[*Denied](has(t.Context(), r, "a"))
			if !ok || d.Status != http.StatusServiceUnavailable || !strings.Contains(d.Error(), "broken") {
				t.Fatalf("without keys: %v", d)
			}
			time.Sleep(time.Second)
		}
		if n := p.count(); n > 8 {
			t.Errorf("%d fetches in 100 s, want pauses that grow to 30 s", n)
		}
		p.set(nil, "a")
		time.Sleep(longestPause)
		if err := has(t.Context(), r, "a"); err != nil {
			t.Fatalf("when it is well again: %v", err)
		}
		p.set(errors.New("broken again"))
		time.Sleep(16 * time.Minute)
		for range 10 { // old keys serve on
			if err := has(t.Context(), r, "a"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour)
		}
		time.Sleep(24 * time.Hour)
		if err := has(t.Context(), r, "a"); err == nil {
			t.Error("keys are believed that nobody has confirmed for more than a day")
		}
	})
}

func TestKeysAreRefreshedBehindTheScenes(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, p *fakeProvider, r *remote) {
		if err := has(t.Context(), r, "a"); err != nil {
			t.Fatal(err)
		}
		p.set(nil, "b") // "a" was withdrawn
		p.takes = time.Second
		time.Sleep(16 * time.Minute)
		began := time.Now()
		if err := has(t.Context(), r, "a"); err != nil || time.Since(began) > 0 {
			t.Errorf("the old key serves until the new ones are there: %v after %s", err, time.Since(began))
		}
		time.Sleep(3 * time.Second)
		if err := has(t.Context(), r, "a"); err != errNoKey {
			t.Errorf("a withdrawn key: %v", err)
		}
	})
}

func TestWaitingForKeysIsBounded(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, p *fakeProvider, r *remote) {
		p.takes = time.Hour // until the timeout
		var busy, failed atomic.Int64
		var wg sync.WaitGroup
		for range mostWaiting + 50 {
			wg.Go(func() {
				switch d, ok := errors.AsType[*Denied](has(t.Context(), r, "a")); {
				case ok && strings.Contains(d.Error(), "wait for the keys already"):
					busy.Add(1)
				case ok && strings.Contains(d.Error(), "deadline"):
					failed.Add(1)
				}
			})
		}
		wg.Wait()
		if busy.Load() != 50 || failed.Load() != mostWaiting {
			t.Errorf("%d were told that too many wait, and %d that the fetch failed", busy.Load(), failed.Load())
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		time.Sleep(time.Minute)
		if err := has(ctx, r, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a client that leaves: %v", err)
		}
	})
}

func TestCloseEndsWhoWaits(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, p *fakeProvider, r *remote) {
		p.takes = time.Second
		done := make(chan error)
		go func() { done <- has(t.Context(), r, "a") }()
		synctest.Wait()
		r.close()
		if d, ok := errors.AsType[*Denied](<-done); !ok || d.Status != http.StatusServiceUnavailable {
			t.Errorf("%v", d)
		}
	})
}

// A provider that changes its keys again and again while clients come by hundreds: nobody with a genuine token is refused.
func TestRotationUnderLoad(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var current ed25519.PrivateKey
	generation := 0
	rotate := func() {
		_, k, err := ed25519.GenerateKey(rand.Reader)
		mu.Lock()
		defer mu.Unlock()
		current, generation = must(k, err), generation+1
	}
	rotate()
	var fetches atomic.Int64
	provider := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fetches.Add(1)
		mu.Lock()
		defer mu.Unlock()
		_, _ = w.Write([]byte(keySet(map[string]crypto.PublicKey{fmt.Sprint(generation): current.Public()})))
	}))
	t.Cleanup(provider.Close)
	o := DefaultJWT()
	o.JWKSURL = provider.URL
	c := only(t, Options{JWT: &o})
	token := func() string {
		mu.Lock()
		defer mu.Unlock()
		return sign(t, jose.EdDSA, current, map[jose.HeaderKey]any{"kid": fmt.Sprint(generation)}, with(nil))
	}
	for range 3 {
		rotate()
		var wg sync.WaitGroup
		for range 100 {
			fresh := token()
			wg.Go(func() {
				for range 5 {
					if _, err := c.Admit(t.Context(), bearer(fresh), nil); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
	}
	if n := fetches.Load(); n < 3 || n > 8 {
		t.Errorf("%d fetches for 3 rotations and 300 clients", n)
	}
}

func TestAnswersThatAreNoKeys(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://elsewhere.example/keys", http.StatusFound)
		},
			`redirected to "https://elsewhere.example/keys": set jwks_url`},
		"missing": {http.NotFound, "answered 404"},
		"a page":  {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) }, "no JSON Web Key Set"},
		"endless": {func(w http.ResponseWriter, r *http.Request) {
			for chunk := make([]byte, 64<<10); r.Context().Err() == nil; {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		}, "larger than 1MiB"},
		"silent": {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "deadline"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			provider := httptest.NewServer(c.answer)
			defer provider.Close()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			if name == "silent" {
				ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
			}
			defer cancel()
			transport := must(newTransport("", 1, Setup{Log: new(book).logger()}))
			defer transport.close()
			if keys, err := fetchKeys(ctx, transport, provider.URL); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%d keys, %v; want %q", len(keys), err, c.want)
			}
		})
	}
}

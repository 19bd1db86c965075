package auth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"
)

const (
	// betweenFetches is the least pause between two fetches of keys, however many tokens come with unknown ones.
	betweenFetches = 2 * time.Second
	// longestPause is how long it becomes while the provider fails.
	longestPause = 30 * time.Second
	// mostWaiting bounds the clients that wait for a fetch.
	mostWaiting = 1000
	// goodFor is how long keys are believed that cannot be fetched again.
	goodFor = 24 * time.Hour
	// largestSet is the largest answer that is read, in bytes.
	largestSet = 1 << 20
)

// remote are keys that an identity provider publishes. Old ones serve while newer ones are fetched; a token whose key is not there
// waits for one fetch that begins after it came, so that nobody is refused because the provider has just changed its keys.
type remote struct {
	fetch   func(ctx context.Context) ([]key, error)
	refresh time.Duration
	timeout time.Duration
	still   bool
	log     *slog.Logger
	url     string
	free    func()

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex // guards the following
	keys    []key
	fetched time.Time     // when the fetch began that brought them
	began   time.Time     // the last fetch
	ended   time.Time     // the last fetch
	failed  int           // fetches since the last that brought keys
	err     error         // of the last fetch
	flight  chan struct{} // closed when the fetch under way has ended; nil: there is none
	waiting int
	closed  bool
}

func openRemote(o *JWT, with Setup) (*remote, error) {
	transport, err := newTransport(o.CA, 1, with)
	if err != nil {
		return nil, err
	}
	r := newRemote(func(ctx context.Context) ([]key, error) { return fetchKeys(ctx, transport, o.JWKSURL) }, o.Refresh, o.Timeout, with)
	r.url, r.free = o.JWKSURL, transport.close
	if !with.Still {
		r.mu.Lock()
		r.startLocked(time.Now()) // so that the first client need not wait
		r.mu.Unlock()
	}
	return r, nil
}

func newRemote(fetch func(context.Context) ([]key, error), refresh, timeout time.Duration, with Setup) *remote {
	r := &remote{fetch: fetch, refresh: refresh, timeout: timeout, still: with.Still, log: with.Log, free: func() {}}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

func (r *remote) known() bool { return !r.still }

func (r *remote) close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.cancel()
	r.wg.Wait()
	r.free()
}

// find is keySource's.
func (r *remote) find(ctx context.Context, try func([]key) bool) error {
	came := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		now, keys := time.Now(), r.keys
		if now.Sub(r.fetched) > goodFor {
			keys = nil
		}
		if now.Sub(r.fetched) > r.refresh && r.pauseLocked(now) <= 0 {
			r.startLocked(now)
		}
		if r.tryLocked(keys, try) {
			return nil
		}
		switch {
		case r.closed:
			return unavailable(http.StatusServiceUnavailable, "the authenticator was replaced by a reload")
		case r.flight == nil && !r.began.Before(came) && r.err == nil:
			return errNoKey
		case r.flight == nil && r.err != nil && r.pauseLocked(now) > 0:
			return unavailable(http.StatusServiceUnavailable, "the keys cannot be fetched: %w", r.err)
		case r.waiting >= mostWaiting:
			return unavailable(http.StatusServiceUnavailable, "%d clients wait for the keys already", mostWaiting)
		}
		if err := r.waitLocked(ctx, now); err != nil {
			return err
		}
	}
}

// tryLocked looks for the key without the lock: that takes many times as long as all else.
func (r *remote) tryLocked(keys []key, try func([]key) bool) bool {
	r.mu.Unlock()
	defer r.mu.Lock()
	return len(keys) > 0 && try(keys)
}

// pauseLocked is how long it takes until keys may be fetched again.
func (r *remote) pauseLocked(now time.Time) time.Duration {
	if r.ended.IsZero() {
		return 0
	}
	pause := min(betweenFetches<<min(r.failed, 10), longestPause)
	return r.ended.Add(pause).Sub(now)
}

// startLocked begins a fetch, unless one is under way.
func (r *remote) startLocked(now time.Time) {
	if r.flight != nil || r.closed {
		return
	}
	flight := make(chan struct{})
	r.flight, r.began = flight, now
	r.wg.Go(func() {
		ctx, cancel := context.WithTimeout(r.ctx, r.timeout)
		defer cancel()
		keys, err := r.fetch(ctx)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.flight, r.ended, r.err = nil, time.Now(), err
		if err != nil {
			r.failed++
			if r.ctx.Err() == nil {
				r.log.Warn("the keys cannot be fetched", "url", r.url, "error", err, "failures", r.failed)
			}
		} else {
			r.keys, r.fetched, r.failed = keys, now, 0
			r.log.Debug("keys fetched", "url", r.url, "keys", len(keys))
		}
		close(flight)
	})
}

// waitLocked waits for the fetch under way, or until one may begin, and begins it.
func (r *remote) waitLocked(ctx context.Context, now time.Time) error {
	flight, pause := r.flight, r.pauseLocked(now)
	if flight == nil && pause <= 0 {
		r.startLocked(now)
		return nil
	}
	r.waiting++
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		r.waiting--
	}()
	var over <-chan time.Time
	if flight == nil {
		timer := time.NewTimer(pause)
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-flight:
	case <-over:
	case <-r.ctx.Done():
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// fetchKeys asks for a key set once.
func fetchKeys(ctx context.Context, transport http.RoundTripper, from string) ([]key, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "bridgehead")
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if to := resp.Header.Get("Location"); resp.StatusCode/100 == 3 && to != "" {
		return nil, fmt.Errorf("redirected to %.200q: set jwks_url to where the keys really are", to)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("answered %d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, largestSet+1))
	if err != nil {
		return nil, fmt.Errorf("read the keys: %w", err)
	}
	if len(data) > largestSet {
		return nil, errors.New("the key set is larger than 1MiB")
	}
	return parseKeySet(data)
}

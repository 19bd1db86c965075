package webhook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

const (
	firstPause = 600 * time.Millisecond // before the first retry; then twice the last
	maxPause   = 10 * time.Second       // also of what a Retry-After may ask for
)

// insist posts a request until the answer is final, or the retries are used up; its error is then what the last attempt met.
func (a *application) insist(ctx context.Context, log *slog.Logger, r *request) (response, error) {
	for attempt := 1; ; attempt++ {
		resp, err := a.post(ctx, r, attempt)
		for err != nil && r.moves(err) {
			log.Debug("server not reached, trying the next", "request", r.id, "next", r.to.server.Address(), "error", err)
			resp, err = a.post(ctx, r, attempt)
		}
		if err == nil && r.final(judge(resp.status)) {
			return resp, nil
		}
		if err == nil {
			err = resp.err()
		}
		if attempt > a.retries {
			return response{}, fmt.Errorf("given up after %d attempts: %w", attempt, err)
		}
		wait := max(pause(attempt), resp.retryAfter(time.Now()))
		log.Debug("request failed", "request", r.id, "attempt", attempt, "again_in", wait.String(), "error", err)
		if !sleep(ctx, wait) {
			return response{}, fmt.Errorf("interrupted after %d attempts: %w", attempt, err)
		}
	}
}

// moves leads a request that has not reached its server to another one, if there is one that was not tried.
func (r *request) moves(err error) bool {
	if _, ok := errors.AsType[*unreached](err); !ok || r.elsewhere == nil {
		return false
	}
	to, ok := r.elsewhere(err)
	if ok {
		r.to = to
	}
	return ok
}

// final tells whether a verdict ends a request. The end of a connection is told until it is taken: nobody waits for it, and
// nothing comes after it.
func (r *request) final(v verdict) bool {
	if r.op == typeClose {
		return v == done || v == disowned
	}
	return v != again
}

// pause is how long to wait after the nth attempt: twice as long each time, up to a quarter more or less, so that sockets
// whose application failed do not come back together.
func pause(attempt int) time.Duration {
	d := maxPause
	if attempt < 6 {
		d = min(d, firstPause<<(attempt-1))
	}
	return d - d/4 + rand.N(d/2)
}

// retryAfter is what the answer asks for (RFC 9110, section 10.2.3), bounded.
func (r *response) retryAfter(now time.Time) time.Duration {
	text := r.header.Get("Retry-After")
	if seconds, err := strconv.Atoi(text); err == nil {
		return time.Duration(min(max(seconds, 0), int(maxPause/time.Second))) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return min(at.Sub(now), maxPause)
	}
	return 0
}

// sleep waits, and tells whether it could to the end.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

package proxy

import (
	"context"
	"errors"
	"net/http"
	"time"

	"bridgehead/policy"
	"bridgehead/policy/auth"
	"bridgehead/ws"
)

// failed tells whether a client has tried something in vain: credentials that are wrong, or a handshake that is none of a WebSocket. Pages
// that lead here by mistake, and who comes without credentials, have not tried.
func failed(r *http.Request, err error) bool {
	if denied, ok := errors.AsType[*auth.Denied](err); ok {
		return denied.Failed()
	}
	_, malformed := errors.AsType[*ws.HandshakeError](err)
	return malformed && ws.IsAttempt(r)
}

// try authenticates a client, and counts it if it fails.
func (t *terms) try(ctx context.Context, h *Handshake, vouch func(*http.Request) error) error {
	before := h.Facts // with the tokens, as rules have seen them
	return judge(t.limiter, &before, t.authenticate(ctx, h, vouch))
}

// judge counts a client that has failed. If its key has come into a penalty meanwhile it hears of that alone, whatever it has brought: many
// guesses at once tell no more than one after the other.
func judge(l *policy.Limiter, f *policy.Facts, err error) error {
	if err != nil && !failed(f.Request, err) {
		return err
	}
	now := time.Now()
	if punished := l.Spare(f, now); punished != nil {
		return punished
	}
	if err != nil {
		l.Fail(f, now)
	}
	return err
}

// limitReason is the word for metrics and the log.
func limitReason(e *policy.Exceeded) string {
	if e.What == "failures" {
		return "penalty"
	}
	return "limit"
}

// kind is what the log counts as the same: a flood against one limit does not hide who exceeds another.
func (r *Refusal) kind() string {
	if e, ok := errors.AsType[*policy.Exceeded](r); ok {
		return r.Reason + " " + e.Kind()
	}
	return r.Reason
}

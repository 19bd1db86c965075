package auth

import (
	"fmt"
	"net/http"
)

// The reasons of a Denied: a bounded set of words for metrics and the log.
const (
	reasonMissing   = "no token"
	reasonInvalid   = "token invalid"
	reasonExpired   = "token expired"
	reasonAmbiguous = "token ambiguous"
	reasonForbidden = "not authorized"
	reasonRefused   = "authentication refused"
	reasonEndpoint  = "authentication endpoint"
)

// A Denied says why a client is not let in, and how to answer it. Its error holds no token.
type Denied struct {
	Status int
	Header http.Header
	Body   []byte
	Reason string // one of a few words
	Err    error  // for the log, with the mend if there is one
}

// Error is for the log.
func (d *Denied) Error() string { return d.Err.Error() }

// Unwrap gives the error behind it.
func (d *Denied) Unwrap() error { return d.Err }

// answers are what clients read: never why a token was refused, which helps whoever makes up tokens.
var answers = map[string]struct {
	status int
	body   string
}{
	reasonMissing:   {http.StatusUnauthorized, "authentication is needed\n"},
	reasonInvalid:   {http.StatusUnauthorized, "the credentials are not accepted\n"},
	reasonExpired:   {http.StatusUnauthorized, "the credentials have expired\n"},
	reasonAmbiguous: {http.StatusBadRequest, "the request has different credentials in several places: send one\n"},
	reasonForbidden: {http.StatusForbidden, "this is not for you\n"},
	reasonEndpoint:  {http.StatusBadGateway, "authentication is not possible now\n"},
}

func deny(reason, format string, args ...any) *Denied {
	answer := answers[reason]
	return &Denied{Status: answer.status, Body: []byte(answer.body), Reason: reason, Err: fmt.Errorf(format, args...)}
}

// unavailable is met by a client whose credentials nobody can judge now.
func unavailable(status int, format string, args ...any) *Denied {
	d := deny(reasonEndpoint, format, args...)
	d.Status = status
	if status == http.StatusServiceUnavailable {
		d.Header = http.Header{"Retry-After": {"5"}}
	}
	return d
}

// Failed tells whether the client brought what was judged and found wrong. One that brought nothing has not tried.
func (d *Denied) Failed() bool {
	switch d.Status {
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden:
		return d.Reason != reasonMissing
	}
	return false
}

// undecided tells whether nobody has judged the client at all.
func (d *Denied) undecided() bool { return d.Status >= http.StatusInternalServerError }

package admin

import (
	"errors"
	"net/http"
	"slices"
	"strings"
)

// ErrNoCertificate says that a host has no automatic certificate.
var ErrNoCertificate = errors.New("no automatic certificate")

// reasons are why a certificate may be revoked.
var reasons = []string{"unspecified", "key_compromise", "superseded", "cessation"}

// certificates serves GET /v1/certificates.
func (a *API) certificates(w http.ResponseWriter, r *http.Request, _ *caller) error {
	if _, err := readQuery(r); err != nil {
		return err
	}
	return answer(w, http.StatusOK, map[string]any{"certificates": a.Certificates()})
}

// renew serves POST /v1/certificates/{subject}/renew. It answers when the authority has.
func (a *API) renew(w http.ResponseWriter, r *http.Request, _ *caller) error {
	if _, err := readQuery(r); err != nil {
		return err
	}
	return a.changeCertificate(w, r, "")
}

// revoke serves POST /v1/certificates/{subject}/revoke. It answers when there is another.
func (a *API) revoke(w http.ResponseWriter, r *http.Request, _ *caller) error {
	query, err := readQuery(r, "reason")
	if err != nil {
		return err
	}
	reason := query.Get("reason")
	if !query.Has("reason") {
		reason = reasons[0]
	}
	if !slices.Contains(reasons, reason) {
		return refuse(http.StatusBadRequest, "reason is %q: write one of %s", reason, strings.Join(reasons, ", "))
	}
	return a.changeCertificate(w, r, reason)
}

func (a *API) changeCertificate(w http.ResponseWriter, r *http.Request, reason string) error {
	subject := r.PathValue("subject")
	switch err := a.ChangeCertificate(r.Context(), subject, reason); {
	case errors.Is(err, ErrNoCertificate):
		return refuse(http.StatusNotFound, "%v; GET /v1/certificates lists those that there are", err)
	case err != nil:
		return refuse(http.StatusBadGateway, "%s: %v", subject, err)
	}
	return answer(w, http.StatusOK, map[string]string{"subject": subject})
}

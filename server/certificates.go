package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"bridgehead/admin"
	"bridgehead/internal/metrics"
	certs "bridgehead/tls"
)

// A Certificate is what is known of one that listeners serve.
type Certificate = certs.Status

// certificateStates are those that are known now.
func (s *Server) certificateStates() []certs.Status {
	if now := s.certs(); now != nil {
		return now.List()
	}
	return nil
}

// certificateSamples are the figures of the certificates for the metrics.
func (s *Server) certificateSamples() (all []metrics.Certificate) {
	for _, st := range s.certificateStates() {
		all = append(all, metrics.Certificate{Subject: st.Subject, Source: st.Source, Until: st.Until, Failing: st.Error != ""})
	}
	return all
}

// certificates is what is known of them now, for the API of the operators.
func (s *Server) certificates() any {
	all := s.certificateStates()
	if now := s.certs(); now != nil {
		now.Schedule(all)
	}
	if all == nil {
		all = []certs.Status{}
	}
	return all
}

// maxLacking is how many hosts readiness names.
const maxLacking = 20

// lacking are the hosts without a certificate that clients take, and why. No authority is asked: the answer never waits.
func (s *Server) lacking() (notes []string) {
	more := 0
	defer func() {
		if more > 0 {
			notes = append(notes, fmt.Sprintf("and %d more hosts, which bridgehead certs lists", more))
		}
	}()
	for _, st := range s.certificateStates() {
		if !st.Missing() || st.Source == "on_demand" {
			continue
		}
		if len(notes) == maxLacking {
			more++
			continue
		}
		what := "no certificate yet"
		if !st.Until.IsZero() {
			what = "its certificate has expired"
		}
		if st.Error != "" {
			what += ": " + st.Error
		}
		notes = append(notes, fmt.Sprintf("%s: %s", st.Subject, what))
	}
	return notes
}

// changeCertificate renews the certificate of a subject or, with a reason, revokes and replaces it.
func (s *Server) changeCertificate(ctx context.Context, subject, reason string) (err error) {
	now := s.certs()
	switch {
	case now == nil:
		err = certs.ErrUnknown
	case reason == "":
		err = now.Renew(ctx, subject)
	default:
		err = now.Revoke(ctx, subject, reason)
	}
	if errors.Is(err, certs.ErrUnknown) {
		return fmt.Errorf("%s: %w", subject, admin.ErrNoCertificate)
	}
	return err
}

// challenged answers authorities that ask whether a host is ours, before any route does.
func (s *Server) challenged(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.certs().Challenge(w, r) {
			next(w, r)
		}
	})
}

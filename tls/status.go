package tls

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
)

// A Status is what is known of one certificate.
type Status struct {
	Subject string    `json:"subject"`          // the host, wildcard or address that it is for; of a file the first
	Source  string    `json:"source"`           // automatic, on_demand or file
	Names   []string  `json:"names,omitempty"`  // that it holds
	Issuer  string    `json:"issuer,omitempty"` // the common name of who signed it
	File    string    `json:"file,omitempty"`
	Until   time.Time `json:"not_after,omitzero"`
	Renewal time.Time `json:"renewal,omitzero"`  // when it is due
	Error   string    `json:"error,omitempty"`   // of the last attempt to get, renew or read it
	Tried   time.Time `json:"tried,omitzero"`    // when that was
	Next    time.Time `json:"next_try,omitzero"` // when the first one is tried to be got again
}

// Missing tells whether there is no certificate that clients take.
func (s *Status) Missing() bool { return s.Until.IsZero() || time.Now().After(s.Until) }

// List tells what is known of the certificates: those of files, and those that are got from authorities. Those of the local authority
// live for a day, and are made by the handshakes that need them.
func (c *Certs) List() []Status {
	var all []Status
	if c.pairs != nil {
		all = c.pairs.list()
	}
	if c.auto != nil {
		all = append(all, c.auto.list()...)
	}
	return all
}

// ErrUnknown says that a host has no automatic certificate of its own.
var ErrUnknown = errors.New("there is no automatic certificate for it")

// Renew gets another certificate in the place of an automatic one, or tries again to get the first. It returns when that is done.
func (c *Certs) Renew(ctx context.Context, subject string) error {
	if c.auto == nil {
		return ErrUnknown
	}
	return c.auto.renew(ctx, strings.ToLower(subject))
}

// Reasons are why a certificate may be revoked (RFC 5280, section 5.3.1), as a subscriber may say.
var Reasons = map[string]int{
	"unspecified": acme.ReasonUnspecified, "key_compromise": acme.ReasonKeyCompromise, "superseded": acme.ReasonSuperseded,
	"cessation": acme.ReasonCessationOfOperation,
}

// Revoke has an automatic certificate declared invalid, and gets another with another key. The reason is one of [Reasons].
func (c *Certs) Revoke(ctx context.Context, subject, reason string) error {
	if c.auto == nil {
		return ErrUnknown
	}
	return c.auto.revoke(ctx, strings.ToLower(subject), Reasons[reason])
}

// list is what is known of the pairs.
func (p *pairs) list() (all []Status) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, pair := range p.all {
		s := Status{Source: "file", File: pair.Cert}
		if pair.err != nil {
			s.Error = pair.err.Error()
		}
		if pair.cert != nil {
			s.describe(pair.cert.Leaf)
			s.Subject = s.Names[0]
		}
		all = append(all, s)
	}
	return all
}

// describe takes over what a certificate says.
func (s *Status) describe(leaf *x509.Certificate) {
	s.Names, s.Until = names(leaf), leaf.NotAfter
	s.Issuer = cmp.Or(leaf.Issuer.CommonName, leaf.Issuer.String())
}

// list is what is known of the subjects, in their order.
func (a *automatic) list() []Status {
	a.mu.Lock()
	subjects := make([]*subject, 0, len(a.subjects))
	for _, s := range a.subjects {
		subjects = append(subjects, s)
	}
	a.mu.Unlock()
	slices.SortFunc(subjects, func(x, y *subject) int { return strings.Compare(x.name, y.name) })
	all := make([]Status, len(subjects))
	for i, s := range subjects {
		all[i] = a.status(s)
	}
	return all
}

// status is what is known of a subject, but for when it is renewed.
func (a *automatic) status(s *subject) Status {
	st := Status{Subject: s.name, Source: "automatic"}
	if s.demanded {
		st.Source = "on_demand"
	}
	if cert := a.own(s.name); !cert.Empty() {
		st.describe(cert.Leaf)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st.Tried, st.Next = s.tried, s.next
	if s.err != nil {
		st.Error = s.err.Error()
	}
	return st
}

// own is the certificate that is served for a subject; empty if there is none.
func (a *automatic) own(name string) certmagic.Certificate {
	for _, cert := range a.cache.AllMatchingCertificates(name) {
		if cert.Names[0] == name {
			return cert
		}
	}
	return certmagic.Certificate{}
}

// Schedule fills in when certificates are due, which is kept beside them: it reads a file for each.
func (c *Certs) Schedule(all []Status) {
	for i := range all {
		if all[i].Source != "file" && !all[i].Until.IsZero() && c.auto != nil {
			all[i].Renewal = c.auto.renewal(all[i].Subject)
		}
	}
}

// renewal is when a certificate is due: when the authority says (RFC 9773), or when a third of its life is left.
func (a *automatic) renewal(name string) time.Time {
	cert, config := a.own(name), a.configOf(name)
	if cert.Empty() || config == nil {
		return time.Time{}
	}
	due := cert.Leaf.NotAfter.Add(-time.Duration(float64(cert.Lifetime()) * config.RenewalWindowRatio))
	kept, err := a.kept(config, name)
	if err != nil {
		return due
	}
	var data struct {
		IssuerData acme.Certificate `json:"issuer_data"`
	}
	if json.Unmarshal(kept.meta, &data) == nil && data.IssuerData.RenewalInfo != nil && !data.IssuerData.RenewalInfo.SelectedTime.IsZero() {
		if told := data.IssuerData.RenewalInfo.SelectedTime; told.Before(due) {
			return told
		}
	}
	return due
}

// A keeping is a certificate as it is kept.
type keeping struct {
	issuer    certmagic.Issuer
	pem, meta []byte
}

// kept finds the certificate of a subject that lives the longest among those of its issuers.
func (a *automatic) kept(config *certmagic.Config, name string) (found keeping, err error) {
	var until time.Time
	for _, issuer := range config.Issuers {
		text, err := a.storage.Load(a.ctx, certmagic.StorageKeys.SiteCert(issuer.IssuerKey(), name))
		if err != nil {
			continue
		}
		block, _ := pem.Decode(text)
		if block == nil {
			continue
		}
		leaf, err := x509.ParseCertificate(block.Bytes)
		if err != nil || !leaf.NotAfter.After(until) {
			continue
		}
		meta, err := a.storage.Load(a.ctx, certmagic.StorageKeys.SiteMeta(issuer.IssuerKey(), name))
		if err != nil {
			continue
		}
		found, until = keeping{issuer, text, meta}, leaf.NotAfter
	}
	if until.IsZero() {
		return found, errNone
	}
	return found, nil
}

func (a *automatic) find(name string) (*subject, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if s := a.subjects[name]; s != nil {
		return s, nil
	}
	return nil, ErrUnknown
}

// renew is [Certs.Renew].
func (a *automatic) renew(ctx context.Context, name string) error {
	s, err := a.find(name)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, obtainTimeout)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	s.used.Store(true) // somebody wants it
	if !a.own(name).Empty() {
		err = a.replace(ctx, s)
	} else if err = a.get(ctx, s, 0); err == nil {
		select {
		case s.poke <- struct{}{}: // whoever waits for the next attempt finds it
		default:
		}
	}
	if err != nil {
		s.renewalFailed(err)
	}
	return err
}

// revoke is [Certs.Revoke].
func (a *automatic) revoke(ctx context.Context, name string, reason int) error {
	s, err := a.find(name)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, obtainTimeout)
	defer cancel()
	config := s.configured()
	kept, err := a.kept(config, name)
	if err != nil {
		return err
	}
	revoker, ok := kept.issuer.(certmagic.Revoker)
	if !ok {
		return errors.New("its authority cannot revoke")
	}
	if err := revoker.Revoke(ctx, certmagic.CertificateResource{CertificatePEM: kept.pem}, reason); err != nil {
		return err
	}
	a.log.Warn("certificate revoked", "host", name, "reason", reason)
	return a.replace(ctx, s)
}

package tls

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"
)

// Listening is where the listeners are that answer authorities: an address of one without TLS and of one with TLS, or "".
type Listening struct{ Plain, Secure string }

// sources are what the configuration says of authorities, with its files read.
type sources struct {
	options Options
	issuers []Issuer
	roots   []*x509.CertPool // of the issuers' directories
	dns     []acmez.Solver   // of the entries of `dns`
}

func newSources(o Options, logger *zap.Logger) (*sources, error) {
	s := &sources{options: o, issuers: o.issuers()}
	for i := range s.issuers {
		roots, err := s.issuers[i].roots()
		if err != nil {
			return nil, fmt.Errorf("acme[%d].ca: %w", i, err)
		}
		s.roots = append(s.roots, roots)
	}
	for i := range o.DNS {
		s.dns = append(s.dns, o.DNS[i].solver(logger))
	}
	return s, nil
}

// A policy says for what certificates are got, and how. It does not change once it is in force, but for the configurations, which are
// made when they are needed.
type policy struct {
	*sources
	hosts    *hosts
	at       Listening
	subjects map[string]bool // that are got as soon as they are served
	address  string          // the first of them that is an IP address, or ""

	configs map[string]*certmagic.Config // by what differs; guarded by automatic.mu
}

// policy is for these hosts. Those that a file has are left to it.
func (s *sources) policy(names []string, at Listening, filed func(name string) bool) (*policy, []string) {
	p := &policy{
		sources: s, hosts: newHosts(names), at: at, subjects: make(map[string]bool), configs: make(map[string]*certmagic.Config),
	}
	wildcards := make(map[string]bool)
	for _, name := range names {
		if a := s.options.assign(name); strings.HasPrefix(a.subject, "*.") && !filed(a.subject) {
			wildcards[a.subject] = true
		}
	}
	var all []string
	for _, name := range names {
		subject := s.options.assign(name).subject
		_, parent, _ := strings.Cut(subject, ".")
		covered := !strings.HasPrefix(subject, "*.") && wildcards["*."+parent]
		if subject == "" || p.subjects[subject] || covered || filed(subject) {
			continue
		}
		p.subjects[subject] = true
		all = append(all, subject)
		if _, err := netip.ParseAddr(subject); err == nil && p.address == "" {
			p.address = subject
		}
	}
	return p, all
}

// subject is the one whose certificate a client wants, of those that are got as soon as they are served; "": none.
func (p *policy) subject(q asked) string {
	name := q.name
	if name == "" {
		name = q.addr.String()
	}
	_, parent, _ := strings.Cut(name, ".")
	for _, subject := range []string{name, "*." + parent} {
		if p.subjects[subject] {
			return subject
		}
	}
	return ""
}

// demands tells whether a client asks for a host that gets its certificate on demand. Those that surely get none are left to the local
// authority, if there is one.
func (p *policy) demands(q asked) bool {
	o := p.options.OnDemand
	if o == nil || q.name == "" || !p.hosts.serve(q.name) || p.subject(q) != "" {
		return false
	}
	return !p.options.Internal || p.certifies(q.name) && matchesHost(o.Allow, q.name)
}

// certifies tells whether some authority may be asked for a host's certificate.
func (p *policy) certifies(subject string) bool {
	return slices.ContainsFunc(p.issuers, func(i Issuer) bool { return i.certifies(subject) })
}

// config is how the certificate of a subject is got. Subjects that differ in nothing share one, and with it the connections to the
// authority. a.mu is held.
func (p *policy) config(a *automatic, subject string) *certmagic.Config {
	provider := p.options.provider(subject)
	var chosen []int
	for i := range p.issuers {
		if p.issuers[i].certifies(subject) {
			chosen = append(chosen, i)
		}
	}
	key := fmt.Sprint(provider, chosen)
	if config := p.configs[key]; config != nil {
		return config
	}
	template := certmagic.Config{
		Storage: a.storage, Logger: a.zap, OnEvent: a.onEvent,
		KeySource:      certmagic.StandardKeyGenerator{KeyType: certmagic.KeyType(p.options.KeyType)},
		OCSP:           certmagic.OCSPConfig{DisableStapling: true}, // no start and no handshake waits for a responder
		ShouldEmitFunc: func(event string) bool { return event != "tls_get_certificate" },
	}
	base := certmagic.New(a.cache, template)
	for _, i := range chosen {
		template.Issuers = append(template.Issuers, certmagic.NewACMEIssuer(base, p.issuer(i, provider, a.zap)))
	}
	config := certmagic.New(a.cache, template)
	p.configs[key] = config
	return config
}

// issuer is one of the authorities as certmagic wants it.
func (p *policy) issuer(i, provider int, logger *zap.Logger) certmagic.ACMEIssuer {
	o := p.issuers[i]
	issuer := certmagic.ACMEIssuer{
		CA: o.Directory, Agreed: true, Profile: o.Profile, TrustedRoots: p.roots[i], Logger: logger,
		Email: o.Email, DisableDistributedSolvers: true, // answers come from this process alone
	}
	if issuer.Email == "" {
		issuer.Email = " " // certmagic trims it; of an empty one it would ask on the terminal
	}
	if o.EAB != nil {
		issuer.ExternalAccount = &acme.EAB{KeyID: o.EAB.KeyID, MACKey: strings.TrimRight(o.EAB.HMAC.Reveal(), "=")}
	}
	if o.PreferredChain != "" {
		issuer.PreferredChains.AnyCommonName = []string{o.PreferredChain}
	}
	if provider >= 0 {
		issuer.DNS01Solver = p.dns[provider]
		return issuer
	}
	// certmagic opens these ports if nobody listens there. We do, on those that the authority's way leads to.
	host, port := splitAddress(p.at.Plain)
	issuer.AltHTTPPort, issuer.DisableHTTPChallenge = port, port == 0 || !slices.Contains(p.options.Challenges, http01)
	issuer.ListenHost = host
	if host, port = splitAddress(p.at.Secure); port != 0 {
		issuer.ListenHost = host
	}
	issuer.AltTLSALPNPort, issuer.DisableTLSALPNChallenge = port, port == 0 || !slices.Contains(p.options.Challenges, tlsALPN01)
	return issuer
}

func splitAddress(address string) (host string, port int) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0
	}
	port, _ = strconv.Atoi(text)
	return host, port
}

// plain is an error of certmagic's without what the log line around it says already.
func plain(err error) error {
	text := err.Error()
	if _, rest, ok := strings.Cut(text, "] Obtain: "); ok {
		text = rest
	}
	if _, rest, ok := strings.Cut(text, "] Renew: "); ok {
		text = rest
	}
	return &issueError{text: strings.TrimSpace(text), err: err}
}

// An issueError is what an authority, or the way to it, had against a certificate.
type issueError struct {
	text string
	err  error
}

func (e *issueError) Error() string { return e.text }
func (e *issueError) Unwrap() error { return e.err }

// config is the configuration that is in force for a host, for what has no certificate to be found by.
func (a *automatic) configOf(name string) *certmagic.Config {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.policy == nil {
		return nil
	}
	if s := a.subjects[name]; s != nil {
		return s.configured()
	}
	return a.policy.config(a, name)
}

// onEvent is certmagic's report of what becomes of a certificate. An error of ours ends what it is about to do.
func (a *automatic) onEvent(ctx context.Context, event string, data map[string]any) error {
	name, _ := data["identifier"].(string)
	a.mu.Lock()
	s, p := a.subjects[name], a.policy
	a.mu.Unlock()
	if s == nil || p == nil {
		return nil
	}
	renewal, _ := data["renewal"].(bool)
	switch event {
	case "cert_obtaining":
		if renewal && s.demanded {
			if err := a.mayRenew(ctx, s, p.options.OnDemand); err != nil {
				a.log.Info("certificate not renewed", "host", name, "reason", err)
				a.drop(s)
				return err
			}
		}
		s.begin()
	case "cert_obtained":
		took := s.took()
		s.succeeded()
		a.metrics.Issued(operation(renewal), "ok", took)
		issuer, _ := data["issuer"].(string)
		a.log.Info("certificate "+operation(renewal), "host", name, "issuer", issuer, "took", took.String())
	case "cert_failed":
		a.metrics.Issued(operation(renewal), "failed", s.took())
		if err, ok := data["error"].(error); ok && renewal {
			err = plain(err)
			s.renewalFailed(err)
			a.log.Error("certificate not renewed: it is tried again", "host", name, "error", err, "remaining", fmt.Sprint(data["remaining"]))
		}
	}
	return nil
}

func operation(renewal bool) string {
	if renewal {
		return "renewed"
	}
	return "obtained"
}

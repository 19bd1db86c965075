package tls

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	"golang.org/x/net/publicsuffix"
	"golang.org/x/time/rate"

	"bridgehead/internal/unit"
	"bridgehead/internal/yamlpos"
)

// OnDemand says for which hosts a certificate is got when the first client asks for one: of those that routes with captures, with
// `*` or for every host serve. Somebody has to decide, or strangers could have certificates made without end: `ask`, `allow` or
// both, which then must agree.
type OnDemand struct {
	// A URL that gets a GET with `?domain=` and the host. 2xx allows it, anything else refuses. Redirects are not followed.
	Ask string `yaml:"ask"`
	// How long it may take.
	AskTimeout time.Duration `yaml:"ask_timeout"`
	// The hosts that may have one: `*.example.com`, for every name below, or `shop.example.org`.
	Allow []string `yaml:"allow"`
	// How many new certificates are asked for, over all.
	Rate unit.Rate `yaml:"rate"`
	// How many for the hosts of one domain, as it is registered: `example.co.uk`.
	DomainRate unit.Rate `yaml:"domain_rate"`
	// How many hosts are decided about, or get their certificate, at once; clients that ask for further ones are refused.
	InFlight int `yaml:"in_flight"`
	// How long a refusal is remembered, and a failure to get a certificate.
	Remember time.Duration `yaml:"remember"`
}

// DefaultOnDemand are the values of keys that are not given.
func DefaultOnDemand() OnDemand {
	return OnDemand{
		AskTimeout: 5 * time.Second, InFlight: 32, Remember: 5 * time.Minute,
		Rate: unit.Rate{Rate: 20. / 60, Burst: 20}, DomainRate: unit.Rate{Rate: 20. / 3600, Burst: 20},
	}
}

func (o *OnDemand) validate(at yamlpos.Path, p *yamlpos.Problems) {
	if o.Ask == "" && len(o.Allow) == 0 {
		p.Add(at, "needs somebody to decide which hosts may have a certificate: give ask, allow or both")
	}
	if o.Ask != "" {
		validateHTTP(at.Key("ask"), p, o.Ask)
	}
	validatePatterns(at.Key("allow"), p, o.Allow)
	if o.AskTimeout <= 0 {
		p.Add(at.Key("ask_timeout"), "must not be off: clients wait for the answer")
	}
	if o.InFlight < 1 {
		p.Add(at.Key("in_flight"), "must be 1 or more")
	}
	if o.Remember < 0 {
		p.Add(at.Key("remember"), "must not be negative")
	}
}

// Why a host gets no certificate on demand, as metrics count it.
const (
	demandRefused = "refused" // by allow or ask
	demandLimited = "limited" // by a rate, or too many at once
	demandFailed  = "failed"  // nobody could be asked, or the authority gave none
)

// A denial tells why a host gets no certificate on demand.
type denial struct {
	outcome string
	text    string
}

func (d *denial) Error() string { return d.text }

// decide asks whether a host may have a certificate. An error is a [denial].
func (o *OnDemand) decide(ctx context.Context, name string) error {
	if len(o.Allow) > 0 && !matchesHost(o.Allow, name) {
		return &denial{demandRefused, "certificates.on_demand.allow does not have it"}
	}
	if o.Ask == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, o.AskTimeout)
	defer cancel()
	to, err := url.Parse(o.Ask)
	if err != nil {
		return &denial{demandFailed, err.Error()}
	}
	query := to.Query()
	query.Set("domain", name)
	to.RawQuery = query.Encode()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, to.String(), nil)
	if err != nil {
		return &denial{demandFailed, err.Error()}
	}
	err = fetch(r)
	if answered, ok := errors.AsType[*answerError](err); ok {
		return &denial{demandRefused, "certificates.on_demand.ask refuses it: " + answered.Error()}
	}
	if err != nil {
		return &denial{demandFailed, "certificates.on_demand.ask: " + err.Error()}
	}
	return nil
}

// maxDenials and maxDomains bound what is remembered of strangers' wishes.
const (
	maxDenials = 10_000
	maxDomains = 10_000
)

// demands remembers who was denied a certificate, and how many were got lately. Its methods may be called from any goroutine.
type demands struct {
	mu       sync.Mutex // guards the following
	denied   map[string]denied
	inFlight int
	rate     unit.Rate
	all      *rate.Limiter
	domains  map[string]*rate.Limiter
}

type denied struct {
	until time.Time
	err   error
}

func newDemands() *demands {
	return &demands{denied: make(map[string]denied), domains: make(map[string]*rate.Limiter)}
}

// denial is why a host was denied a certificate lately; nil if it was not.
func (d *demands) denial(name string, now time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	was, ok := d.denied[name]
	if ok && now.Before(was.until) {
		return was.err
	}
	delete(d.denied, name)
	return nil
}

// deny remembers a denial. Where there is no room some other is forgotten: strangers choose the names.
func (d *demands) deny(name string, err error, until time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.denied) >= maxDenials {
		for other := range d.denied {
			delete(d.denied, other)
			break
		}
	}
	d.denied[name] = denied{until, err}
}

// forget lets everybody ask again.
func (d *demands) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.denied)
}

// enter takes one of the places for hosts that are decided about, or get their certificate. leave gives it back.
func (d *demands) enter(limit int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.inFlight >= limit {
		return &denial{demandLimited, "too many hosts get their first certificate at once (certificates.on_demand.in_flight)"}
	}
	d.inFlight++
	return nil
}

func (d *demands) leave() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.inFlight--
}

// take counts a certificate that is to be got now against the rates.
func (d *demands) take(o *OnDemand, name string, now time.Time) error {
	domain, err := publicsuffix.EffectiveTLDPlusOne(name)
	if err != nil {
		domain = name // it is a public suffix itself
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.all == nil || d.rate != o.Rate {
		d.rate, d.all = o.Rate, newLimiter(o.Rate)
	}
	own := d.domains[domain]
	if own == nil {
		own = newLimiter(o.DomainRate)
		d.sweepLocked(now)
		d.domains[domain] = own
	}
	own.SetLimitAt(now, limitOf(o.DomainRate))
	own.SetBurstAt(now, o.DomainRate.Burst)
	if own.TokensAt(now) < 1 && !o.DomainRate.IsOff() {
		return &denial{demandLimited, fmt.Sprintf("too many new certificates for %s (certificates.on_demand.domain_rate)", domain)}
	}
	if !d.all.AllowN(now, 1) {
		return &denial{demandLimited, "too many new certificates (certificates.on_demand.rate)"}
	}
	own.AllowN(now, 1)
	return nil
}

// sweepLocked makes room for a domain: those that could have all at once again need not be remembered.
func (d *demands) sweepLocked(now time.Time) {
	if len(d.domains) < maxDomains {
		return
	}
	for domain, l := range d.domains {
		if l.TokensAt(now) >= float64(l.Burst()) {
			delete(d.domains, domain)
		}
	}
	for domain := range d.domains {
		if len(d.domains) < maxDomains {
			break
		}
		delete(d.domains, domain)
	}
}

func limitOf(r unit.Rate) rate.Limit {
	if r.IsOff() {
		return rate.Inf
	}
	return rate.Limit(r.Rate)
}

func newLimiter(r unit.Rate) *rate.Limiter { return rate.NewLimiter(limitOf(r), r.Burst) }

// demandPatience is the longest that a handshake waits for its certificate. It is got all the same.
const demandPatience = 30 * time.Second

// demanded is the certificate for a host that gets one on demand. It waits for it as long as the client does.
func (a *automatic) demanded(q asked) (*tls.Certificate, error) {
	s, err := a.summon(q.name)
	if err != nil {
		return nil, err
	}
	s.used.Store(true)
	if cert := a.cached(q.name); cert != nil {
		return cert, nil
	}
	patience := time.NewTimer(demandPatience)
	defer patience.Stop()
	select {
	case <-s.settled:
	case <-patience.C:
	case <-q.hello.Context().Done():
		return nil, q.hello.Context().Err()
	case <-a.ctx.Done():
		return nil, a.ctx.Err()
	}
	if cert := a.cached(q.name); cert != nil {
		return cert, nil
	}
	return nil, a.denial(q.name)
}

// denial is why a host has no certificate.
func (a *automatic) denial(name string) error {
	if err := a.demands.denial(name, time.Now()); err != nil {
		return err
	}
	return &denial{demandFailed, "it has no certificate yet"}
}

// summon is the subject of a host that gets its certificate on demand, which begins to get one if it has none.
func (a *automatic) summon(name string) (*subject, error) {
	if err := a.demands.denial(name, time.Now()); err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if s := a.subjects[name]; s != nil {
		return s, nil
	}
	o := a.policy.options.OnDemand
	if o == nil || a.ctx.Err() != nil {
		return nil, &denial{demandRefused, "certificates.on_demand is not set"}
	}
	if !a.policy.certifies(name) {
		return nil, &denial{demandRefused, "no authority under certificates certifies it"}
	}
	if err := a.demands.enter(o.InFlight); err != nil {
		a.count(err)
		return nil, err
	}
	s := a.newSubjectLocked(name, true)
	a.wg.Go(func() {
		defer a.demands.leave()
		a.keepDemanded(s, o)
	})
	return s, nil
}

// keepDemanded gets the first certificate of a subject, once. If it fails the subject is forgotten, and the next client may try when
// the failure is forgotten too.
func (a *automatic) keepDemanded(s *subject, o *OnDemand) {
	defer close(s.settled)
	err := o.decide(s.ctx, s.name)
	if err == nil {
		err = a.load(s)
	}
	if errors.Is(err, errNone) {
		if err = a.demands.take(o, s.name, time.Now()); err == nil {
			err = a.obtain(s)
		}
	}
	if err == nil {
		a.metrics.OnDemand("issued")
		return
	}
	if s.ctx.Err() == nil {
		a.count(err)
		a.demands.deny(s.name, err, time.Now().Add(o.Remember))
	}
	a.drop(s)
}

// count counts a denial.
func (a *automatic) count(err error) {
	outcome := demandFailed
	if d, ok := errors.AsType[*denial](err); ok {
		outcome = d.outcome
	}
	a.metrics.OnDemand(outcome)
}

// mayRenew decides whether the certificate of a host that got it on demand is renewed: if clients have asked for it since the last
// time, and it is still allowed.
func (a *automatic) mayRenew(ctx context.Context, s *subject, o *OnDemand) error {
	if o == nil {
		return errors.New("certificates.on_demand is not set any more")
	}
	if !s.used.Swap(false) {
		return errors.New("no client has asked for it since it was got")
	}
	return o.decide(ctx, s.name)
}

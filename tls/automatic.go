package tls

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"bridgehead/internal/metrics"
	"bridgehead/internal/seldom"
)

// stateDir is where certificates, keys and accounts lie below the state directory.
const stateDir = "acme"

// maxObtaining is how many certificates are loaded or got at once.
const maxObtaining = 32

// obtainTimeout bounds one attempt to get a certificate. Records in the DNS may take long.
const obtainTimeout = 15 * time.Minute

// errNone says that no certificate is kept for a subject.
var errNone = errors.New("no certificate is kept")

// automatic gets certificates from authorities and renews them. It outlives reloads: what changes with them is its policy. The
// first certificate of a subject is got by a goroutine of its own, that tries until it has it; certmagic's maintenance renews it.
type automatic struct {
	log     *slog.Logger
	zap     *zap.Logger
	told    *seldom.Log
	metrics *metrics.Set
	path    string
	storage *vault
	cache   *certmagic.Cache
	demands *demands
	slots   chan struct{} // one for each subject that is loaded or got

	ctx  context.Context // ends with it
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu       sync.Mutex // guards the following
	held     int        // how many [Certs] have it
	policy   *policy    // nil: nothing is served yet
	subjects map[string]*subject
	interval time.Duration // between looks for what is due
	tending  context.CancelFunc
}

// A subject is a host, a wildcard or an address that has a certificate of its own.
type subject struct {
	name     string
	demanded bool
	ctx      context.Context // ends when the subject is no longer served
	drop     context.CancelFunc
	poke     chan struct{} // try again now
	settled  chan struct{} // closed after the first attempt, if demanded
	used     atomic.Bool   // since it was renewed, if demanded

	mu      sync.Mutex // guards the following
	config  *certmagic.Config
	issuers []string // their keys
	err     error    // of the last attempt to get or renew it
	tried   time.Time
	began   time.Time // the attempt that is under way, or was the last
	next    time.Time // when it is tried again; zero: not known
}

// newAutomatic has no subjects yet. What it keeps lies below the state directory.
func newAutomatic(state string, interval time.Duration, log *slog.Logger, told *seldom.Log, m *metrics.Set) (*automatic, error) {
	if state == "" {
		return nil, errors.New("automatic certificates need a directory to be kept in: set `state`")
	}
	a := &automatic{
		log: log, zap: newZap(log), told: told, metrics: m, path: statePath(state), demands: newDemands(),
		slots: make(chan struct{}, maxObtaining), subjects: make(map[string]*subject), interval: interval, tending: func() {},
	}
	a.storage = newVault(&certmagic.FileStorage{Path: a.path})
	a.ctx, a.stop = context.WithCancel(context.Background())
	a.cache = certmagic.NewCache(a.cacheOptions(interval))
	a.wg.Go(a.tidy)
	return a, nil
}

// statePath is where certificates and keys are kept, below the state directory.
func statePath(state string) string { return filepath.Join(state, stateDir) }

func (a *automatic) cacheOptions(interval time.Duration) certmagic.CacheOptions {
	return certmagic.CacheOptions{GetConfigForCert: a.configFor, RenewCheckInterval: interval, Logger: a.zap}
}

// hold counts who has it; release ends it with the last.
func (a *automatic) hold() *automatic {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.held++
	return a
}

// closePatience is how long the end waits for what authorities are asked for.
const closePatience = 5 * time.Second

func (a *automatic) release() {
	a.mu.Lock()
	a.held--
	last := a.held == 0
	a.mu.Unlock()
	if !last {
		return
	}
	a.stop()
	a.cache.Stop()
	ended := make(chan struct{})
	go func() { a.wg.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(closePatience): // somebody who takes records out of the DNS is slow
	}
	a.storage.settle(closePatience) // renewals, which certmagic runs
}

// How often, and from when on after its end, a certificate is taken away that nothing has renewed.
const (
	tidyInterval = 24 * time.Hour
	tidyGrace    = 30 * 24 * time.Hour
)

// tidy takes away what is of no use any more: certificates of hosts that are gone, or that nobody asks for.
func (a *automatic) tidy() {
	ticker := time.NewTicker(time.Hour)
	defer ticker.Stop()
	for {
		select {
		case <-a.ctx.Done():
			return
		case <-ticker.C:
		}
		err := certmagic.CleanStorage(a.ctx, a.storage, certmagic.CleanStorageOptions{
			Logger: a.zap, Interval: tidyInterval, ExpiredCerts: true, ExpiredCertGracePeriod: tidyGrace,
		})
		if err != nil && a.ctx.Err() == nil {
			a.log.Warn("old certificates are not taken away", "error", err)
		}
	}
}

// manage puts a policy in force for these subjects: the others are dropped, and what is new is got in the background.
func (a *automatic) manage(p *policy, subjects []string) {
	a.mu.Lock()
	dropped := a.manageLocked(p, subjects)
	a.mu.Unlock()
	a.forget(dropped...)
}

func (a *automatic) manageLocked(p *policy, subjects []string) (dropped []*subject) {
	a.paceLocked(p.options.CheckInterval)
	a.policy = p
	a.demands.forget()
	wanted := make(map[string]bool, len(subjects))
	var loads sync.WaitGroup
	for _, name := range subjects {
		wanted[name] = true
		s := a.subjects[name]
		switch {
		case s == nil:
			s = a.newSubjectLocked(name, false)
		case s.demanded, !s.configure(a):
			continue
		}
		loads.Add(1)
		a.wg.Go(func() { a.keep(s, sync.OnceFunc(loads.Done)) })
	}
	for name, s := range a.subjects {
		switch {
		case s.demanded && p.options.OnDemand != nil && p.hosts.serve(name):
			s.configure(a)
		case !wanted[name]:
			a.dropLocked(s)
			dropped = append(dropped, s)
		}
	}
	a.wg.Go(func() {
		loads.Wait()
		a.renewDue(a.ctx) // what was loaded; the next look is an interval away
	})
	return dropped
}

// renewDue begins to renew what is due, and asks the authorities when that will be.
func (a *automatic) renewDue(ctx context.Context) {
	if err := a.cache.RenewManagedCertificates(ctx); err != nil && ctx.Err() == nil {
		a.log.Error("certificates cannot be renewed", "error", err)
	}
}

// paceLocked looks at this interval whether certificates are due. The cache itself keeps to the interval that it was made with.
func (a *automatic) paceLocked(interval time.Duration) {
	if a.interval == interval {
		return
	}
	a.interval = interval
	a.cache.SetOptions(a.cacheOptions(interval))
	a.tending()
	ctx, stop := context.WithCancel(a.ctx)
	a.tending = stop
	a.wg.Go(func() {
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				a.renewDue(ctx)
			}
		}
	})
}

// newSubjectLocked adds a subject.
func (a *automatic) newSubjectLocked(name string, demanded bool) *subject {
	s := &subject{name: name, demanded: demanded, poke: make(chan struct{}, 1), settled: make(chan struct{})}
	s.ctx, s.drop = context.WithCancel(a.ctx)
	s.configure(a)
	a.subjects[name] = s
	return s
}

// configure gives the subject the configuration that the policy has for it now, and tells whether its authorities are others.
// a.mu is held.
func (s *subject) configure(a *automatic) (changed bool) {
	config := a.policy.config(a, s.name)
	var keys []string
	for _, issuer := range config.Issuers {
		keys = append(keys, issuer.IssuerKey())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	changed = !slices.Equal(s.issuers, keys)
	if s.config != config && s.err != nil { // what was wrong may be mended
		select {
		case s.poke <- struct{}{}:
		default:
		}
	}
	s.config, s.issuers = config, keys
	return changed
}

func (s *subject) configured() *certmagic.Config {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.config
}

// drop forgets a subject. Its certificate stays where it is kept.
func (a *automatic) drop(s *subject) {
	a.mu.Lock()
	a.dropLocked(s)
	a.mu.Unlock()
	a.forget(s)
}

func (a *automatic) dropLocked(s *subject) {
	s.drop()
	if a.subjects[s.name] == s {
		delete(a.subjects, s.name)
	}
}

// forget takes the certificates of subjects out of service that are served no more. It is called without a.mu: the cache asks for
// configurations while it is locked.
func (a *automatic) forget(dropped ...*subject) {
	for _, s := range dropped {
		a.mu.Lock()
		again := a.subjects[s.name] != nil
		a.mu.Unlock()
		if !again {
			a.cache.RemoveManaged([]certmagic.SubjectIssuer{{Subject: s.name}})
		}
	}
}

// configFor is certmagic's question for the configuration to renew a certificate by.
func (a *automatic) configFor(cert certmagic.Certificate) (*certmagic.Config, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if s := a.subjects[cert.Names[0]]; s != nil {
		return s.configured(), nil
	}
	return nil, fmt.Errorf("%s is not served any more", cert.Names[0])
}

// keep loads the certificate of a subject, or gets one, however long that takes. loaded is called once it is known whether there is
// one.
func (a *automatic) keep(s *subject, loaded func()) {
	defer loaded()
	for attempt := 0; ; attempt++ {
		err := a.load(s)
		if err == nil {
			return
		}
		loaded()
		if errors.Is(err, errNone) {
			err = a.obtainAgain(s, attempt)
		}
		if err == nil || s.ctx.Err() != nil {
			return
		}
		wait := backoff(attempt)
		s.failed(err, time.Now().Add(wait))
		a.told.Log(a.log, slog.LevelError, seldom.Event{Kind: "no certificate", Detail: s.name}, "no certificate: clients of this host are refused",
			"host", s.name, "error", err, "attempts", attempt+1, "next_attempt_in", wait.String())
		timer := time.NewTimer(wait)
		select {
		case <-s.ctx.Done():
			timer.Stop()
			return
		case <-s.poke:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// backoff is how long to wait after so many attempts that failed: authorities limit these by the hour.
func backoff(attempt int) time.Duration {
	waits := []time.Duration{time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 20 * time.Minute, time.Hour}
	return waits[min(attempt, len(waits)-1)]
}

// load takes the certificate of a subject from where it is kept. It asks nobody.
func (a *automatic) load(s *subject) error {
	select {
	case a.slots <- struct{}{}:
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
	defer func() { <-a.slots }()
	cert, err := s.configured().CacheManagedCertificate(s.ctx, s.name)
	switch {
	case err == nil:
		a.settle(s, cert)
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return errNone
	case s.ctx.Err() != nil:
		return s.ctx.Err()
	}
	// A program that was killed may leave a certificate beside the key of another.
	a.log.Warn("the certificate that is kept cannot be used: getting another", "host", s.name, "error", err)
	return a.replace(s.ctx, s)
}

// obtain gets the first certificate of a subject.
func (a *automatic) obtain(s *subject) error { return a.obtainAgain(s, 0) }

// obtainAgain gets it after so many attempts that failed. Let's Encrypt's authority for tests is then asked first.
func (a *automatic) obtainAgain(s *subject, attempt int) error {
	ctx, cancel := context.WithTimeout(s.ctx, obtainTimeout)
	defer cancel()
	return a.get(ctx, s, attempt)
}

func (a *automatic) get(ctx context.Context, s *subject, attempt int) error {
	select {
	case a.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-a.slots }()
	ctx = context.WithValue(ctx, certmagic.AttemptsCtxKey, &attempt)
	config := s.configured()
	if err := config.ObtainCertSync(ctx, s.name); err != nil {
		return plain(err)
	}
	cert, err := config.CacheManagedCertificate(ctx, s.name)
	if err == nil {
		a.settle(s, cert)
	}
	return err
}

// replace gets another certificate in the place of one that may still be good.
func (a *automatic) replace(ctx context.Context, s *subject) error {
	config := s.configured()
	if err := config.RenewCertSync(ctx, s.name, true); err != nil {
		return plain(err)
	}
	cert, err := config.CacheManagedCertificate(ctx, s.name)
	if err == nil {
		a.settle(s, cert)
	}
	return err
}

// settle serves a certificate, and no older one of its subject.
func (a *automatic) settle(s *subject, cert certmagic.Certificate) {
	var old []string
	for _, other := range a.cache.AllMatchingCertificates(s.name) {
		if other.Names[0] == s.name && other.Hash() != cert.Hash() {
			old = append(old, other.Hash())
		}
	}
	a.cache.Remove(old)
	s.succeeded()
	if s.ctx.Err() != nil { // dropped meanwhile
		a.forget(s)
	}
}

func (s *subject) failed(err error, next time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err, s.tried, s.next = err, time.Now(), next
}

// renewalFailed notes why the certificate is not renewed. certmagic tries again.
func (s *subject) renewalFailed(err error) { s.failed(err, time.Time{}) }

// begin notes that an attempt begins, and took tells how long it has taken.
func (s *subject) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.began = time.Now()
}

func (s *subject) took() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Since(s.began).Round(time.Millisecond)
}

func (s *subject) succeeded() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err, s.tried, s.next = nil, time.Now(), time.Time{}
}

// certificate is a source: what was got for the host that a client asks for.
func (a *automatic) certificate(q asked, p *policy) (*tls.Certificate, error) {
	name := q.name
	if name == "" {
		name = q.addr.String()
	}
	if cert := a.cached(name); cert != nil {
		if p.demands(q) {
			a.touch(name)
		}
		return cert, nil
	}
	switch {
	case p.demands(q):
		cert, err := a.demanded(q)
		if err != nil {
			q.tell(a.log, a.told, "TLS handshake refused: no certificate on demand", err.Error())
		}
		return cert, err
	case q.name == "":
		return a.cached(p.address), nil // behind a mapped port, clients know us by another address
	}
	subject := p.subject(q)
	if subject == "" {
		return nil, nil
	}
	err := a.missing(subject)
	q.tell(a.log, a.told, "TLS handshake refused: no certificate yet", err.Error())
	return nil, err
}

// cached is the certificate that is served for a name or an address; nil: none. Of several the one that lives the longest counts.
func (a *automatic) cached(name string) *tls.Certificate {
	var best certmagic.Certificate
	for _, cert := range a.cache.AllMatchingCertificates(name) {
		if best.Empty() || cert.Leaf.NotAfter.After(best.Leaf.NotAfter) && cert.Names[0] == best.Names[0] {
			best = cert
		}
	}
	if best.Empty() {
		return nil
	}
	return &best.Certificate
}

// touch notes that a client has asked for a host that got its certificate on demand.
func (a *automatic) touch(name string) {
	a.mu.Lock()
	s := a.subjects[name]
	a.mu.Unlock()
	if s != nil {
		s.used.Store(true)
	}
}

// missing is why a subject has no certificate.
func (a *automatic) missing(name string) error {
	a.mu.Lock()
	s := a.subjects[name]
	a.mu.Unlock()
	if s == nil {
		return errors.New("it is not got yet")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	return errors.New("the authority is being asked for it")
}

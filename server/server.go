// Package server is the program built from a configuration: its listeners, its routes, its APIs, and their life from start
// through reloads to drain.
package server

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"bridgehead/config"
	"bridgehead/hub"
	"bridgehead/internal/door"
	"bridgehead/internal/memory"
	"bridgehead/internal/metrics"
	"bridgehead/internal/seldom"
	"bridgehead/internal/systemd"
	"bridgehead/policy"
	"bridgehead/proxy/pump"
	"bridgehead/proxy/upstream"
	certs "bridgehead/tls"
	"bridgehead/ws"
)

// maxLimiterKeys bounds how many clients the limits remember at once, over all routes.
const maxLimiterKeys = 100_000

// maxFarewells bounds how many refused clients are told so by a Close at once, over all routes.
const maxFarewells = 1024

// afterDrain is what the last sockets get to finish their closing handshakes after the drain's window.
const afterDrain = 1500 * time.Millisecond

// A Server is one running program. Two may run in one process.
type Server struct {
	version string
	log     *slog.Logger

	hub      *hub.Hub
	metrics  *metrics.Set
	limits   *policy.Store
	capacity *policy.Capacity
	farewell *policy.Capacity
	mends    *seldom.Log
	loops    *pump.Loops
	names    upstream.Resolver
	node     string

	now      atomic.Pointer[generation] // what handshakes are served by
	draining atomic.Bool
	serving  sync.WaitGroup
	cut      context.Context // ends when requests beside the sockets may take no longer
	cutShort context.CancelFunc

	reloading sync.Mutex // guards the following; held while a reload is made
	started   bool
	watching  map[*upstream.Group]context.CancelFunc
	doors     map[string]*door.Door // of listeners, by name; one that is gone may come back
	source    Source
	manager   *systemd.Manager
	stopped   context.Context // ends with the program
	stop      context.CancelFunc
}

// New does all that can fail: it reads certificates, makes the local authority, opens every port and compiles the routes. When
// it fails, nothing stays open.
func New(c *config.Config, version string, log *slog.Logger) (*Server, error) {
	s := &Server{
		version: version, log: log, hub: hub.New(), metrics: metrics.New(version), limits: policy.NewStore(maxLimiterKeys),
		capacity: policy.NewCapacity(0), farewell: policy.NewCapacity(maxFarewells), mends: seldom.New(),
		names: upstream.Sparing(net.DefaultResolver), node: strings.ToLower(rand.Text()[:5]),
		watching: make(map[*upstream.Group]context.CancelFunc), doors: make(map[string]*door.Door),
	}
	s.stopped, s.stop = context.WithCancel(context.Background())
	s.metrics.Upstreams(s.samples)
	s.metrics.Certificates(s.certificateSamples)
	s.cut, s.cutShort = context.WithCancel(context.Background())
	s.now.Store(&generation{config: new(config.Config)})
	var err error
	if s.loops, err = newLoops(c); err != nil {
		return nil, err
	}
	first, err := s.plan(c, s.now.Load())
	if err != nil {
		s.loops.Close()
		return nil, err
	}
	s.commit(first)
	s.metrics.Configured(first.number, true)
	return s, nil
}

// newLoops starts the event loops, where they are wanted and the system has them; else they are nil.
func newLoops(c *config.Config) (*pump.Loops, error) {
	if c.Driver == "goroutines" {
		return nil, nil
	}
	loops, err := pump.NewLoops(c.Workers)
	switch {
	case !errors.Is(err, errors.ErrUnsupported):
		return loops, err
	case c.Driver == "loops":
		return nil, errors.New("driver: this system has no event loops: write auto")
	}
	return nil, nil
}

// Start serves, until Stop.
func (s *Server) Start() {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	s.started = true
	for _, f := range s.now.Load().fronts {
		s.serve(f)
	}
	s.watch(s.now.Load().groups)
	s.serving.Go(func() { memory.Keep(s.stopped) })
}

// ReportTo tells a service manager that the program serves, and from then on what becomes of it.
func (s *Server) ReportTo(m *systemd.Manager) {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	s.manager = m
	s.reportReady()
	s.serving.Go(func() { m.Watch(s.stopped) })
}

func (s *Server) reportReady() {
	now := s.now.Load()
	s.manager.Ready(fmt.Sprintf("generation %d, routes: %d, listeners: %d", now.number, len(now.config.Routes), len(now.config.Listeners)))
}

// watch has those groups watched that want to be, and no others.
func (s *Server) watch(groups upstream.Groups) {
	wanted := make(map[*upstream.Group]bool)
	for _, g := range groups {
		if !g.Watched() {
			continue
		}
		wanted[g] = true
		if s.watching[g] == nil {
			ctx, cancel := context.WithCancel(s.stopped)
			s.watching[g] = cancel
			s.serving.Go(func() { g.Watch(ctx) })
		}
	}
	for g, stop := range s.watching {
		if !wanted[g] {
			stop()
			delete(s.watching, g)
		}
	}
}

// ready tells why no socket is taken, if so.
func (s *Server) ready() error {
	if s.draining.Load() {
		return errors.New("draining")
	}
	return nil
}

// Drain takes no more clients, closes every socket at a moment of its own within the configured time, and returns when the last
// is gone, or when the time is over or ctx ends: then it says how many are left.
func (s *Server) Drain(ctx context.Context) error {
	s.reloading.Lock() // what a reload opens is to be drained too
	if s.draining.Swap(true) {
		s.reloading.Unlock()
		return errors.New("already draining")
	}
	now := s.now.Load()
	s.manager.Stopping(now.config.Drain + afterDrain)
	s.reloading.Unlock()

	s.log.Info("draining", "sockets", s.hub.Len(), "at_most", now.config.Drain.String())
	for _, f := range now.fronts {
		if f.public {
			f.close()
			f.socket.Close()
		}
	}
	ctx, cancel := context.WithTimeout(ctx, now.config.Drain+afterDrain)
	defer cancel()
	defer time.AfterFunc(now.config.Drain, s.cutShort).Stop() // some, as streams of events, never end
	if err := s.hub.Drain(ctx, now.config.Drain, ws.Cause{Kind: ws.ShuttingDown}); err != nil {
		return fmt.Errorf("drain: %d sockets are left, and applications may not know of every end: %w", s.hub.Len(), err)
	}
	s.log.Info("drained")
	return nil
}

// Stop ends everything at once and waits for it. After a Drain nothing is left to lose.
func (s *Server) Stop() {
	s.draining.Store(true)
	s.stop()
	s.cutShort()
	s.reloading.Lock()
	defer s.reloading.Unlock()
	now := s.now.Load()
	for _, f := range now.fronts {
		f.stop()
	}
	now.unwatch(nil) // nothing may begin any more
	s.serving.Wait()
	s.loops.Close()
	now.release(nil)
}

// Addr is where the listener of that name listens; the operators' is called admin, the applications' push. nil: there is none.
func (s *Server) Addr(name string) net.Addr { return s.now.Load().addr(name) }

// Root is the file with the certificate of the local authority, if there is one.
func (s *Server) Root() (path string, ok bool) {
	now := s.certs()
	if now == nil {
		return "", false
	}
	_, path, ok = now.Root()
	return path, ok
}

func (s *Server) certs() *certs.Certs { return s.now.Load().certs }

func (s *Server) tickets() *certs.Tickets { return s.now.Load().tickets }

// Package server is the program built from a configuration: its listeners, its routes, its APIs, and their life from start to
// drain.
package server

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"bridgehead/config"
	"bridgehead/hub"
	"bridgehead/internal/metrics"
	"bridgehead/policy"
	"bridgehead/routes"
	certs "bridgehead/tls"
	"bridgehead/ws"
)

// maxLimiterKeys bounds how many clients the limits remember at once, over all routes.
const maxLimiterKeys = 100_000

// afterDrain is what the last sockets get to finish their closing handshakes after the drain's window.
const afterDrain = 1500 * time.Millisecond

// A Server is one running program. Two may run in one process.
type Server struct {
	config  *config.Config
	version string
	log     *slog.Logger

	hub      *hub.Hub
	metrics  *metrics.Set
	limits   *policy.Store
	capacity *policy.Capacity
	certs    *certs.Certs // nil: no listener speaks TLS
	node     string
	table    atomic.Pointer[routes.Table]
	draining atomic.Bool

	closers []func() error // of what the routes hold
	fronts  []*front
	serving sync.WaitGroup
}

// New does all that can fail: it reads certificates, makes the local authority, opens every port and compiles the routes. When
// it fails, nothing stays open.
func New(c *config.Config, version string, log *slog.Logger) (*Server, error) {
	s := &Server{
		config: c, version: version, log: log,
		hub: hub.New(), metrics: metrics.New(version), limits: policy.NewStore(maxLimiterKeys),
		capacity: policy.NewCapacity(c.MaxConnections), node: strings.ToLower(rand.Text()[:5]),
	}
	if err := s.build(); err != nil {
		s.Stop()
		return nil, err
	}
	return s, nil
}

func (s *Server) build() (err error) {
	if err := os.MkdirAll(s.config.State, 0o700); err != nil {
		return fmt.Errorf("state: %w; name a directory that this user may write", err)
	}
	if s.config.Certificates.Enabled() {
		if s.certs, err = certs.New(s.config.Certificates, certNames(s.config.Routes), s.config.State, s.log); err != nil {
			return fmt.Errorf("certificates: %w", err)
		}
	}
	if err := s.open(); err != nil {
		return err
	}
	table, err := s.buildTable()
	if err != nil {
		return err
	}
	s.table.Store(table)
	return nil
}

// Start serves, until Stop.
func (s *Server) Start() {
	for _, f := range s.fronts {
		s.serving.Go(f.serve)
		s.log.Info("listening", "listener", f.name, "address", f.listener.Addr().String(), "tls", f.secure)
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
	if s.draining.Swap(true) {
		return errors.New("already draining")
	}
	s.log.Info("draining", "sockets", s.hub.Len(), "at_most", s.config.Drain.String())
	for _, f := range s.fronts {
		if f.public {
			f.stopAccepting()
		}
	}
	ctx, cancel := context.WithTimeout(ctx, s.config.Drain+afterDrain)
	defer cancel()
	if err := s.hub.Drain(ctx, s.config.Drain, ws.Cause{Kind: ws.ShuttingDown}); err != nil {
		return fmt.Errorf("drain: %d sockets are left, and applications may not know of every end: %w", s.hub.Len(), err)
	}
	s.log.Info("drained")
	return nil
}

// Stop ends everything at once and waits for it. After a Drain nothing is left to lose.
func (s *Server) Stop() {
	s.draining.Store(true)
	for _, f := range s.fronts {
		f.stop()
	}
	s.serving.Wait()
	if err := s.release(); err != nil {
		s.log.Warn("stop", "error", err)
	}
}

// release lets go of what New took.
func (s *Server) release() (err error) {
	if s.certs != nil {
		s.certs.Close()
	}
	for _, release := range s.closers {
		err = errors.Join(err, release())
	}
	return err
}

// Addr is where the listener of that name listens; the operators' is called admin, the applications' push. nil: there is none.
func (s *Server) Addr(name string) net.Addr {
	for _, f := range s.fronts {
		if f.name == name {
			return f.listener.Addr()
		}
	}
	return nil
}

// Root is the file with the certificate of the local authority, if there is one.
func (s *Server) Root() (path string, ok bool) {
	if s.certs == nil {
		return "", false
	}
	_, path, ok = s.certs.Root()
	return path, ok
}

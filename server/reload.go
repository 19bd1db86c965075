package server

import (
	"fmt"
	"log/slog"
	"net"
	"time"

	"bridgehead/admin"
	"bridgehead/config"
	"bridgehead/hub"
)

// A Source is where a reload finds the next configuration.
type Source struct {
	// Load reads and checks the configuration.
	Load func() (*config.Config, []config.Warning, error)
	// Level is set to what the configuration says. May be nil.
	Level *slog.LevelVar
}

// ReloadFrom names the source of reloads.
func (s *Server) ReloadFrom(source Source) {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	s.source = source
}

// Reload puts the configuration that its source holds now in force. All that can fail is done first: when it fails the running
// configuration is whole, and the error says why. Sockets of routes that did not change are not touched.
func (s *Server) Reload() (*Diff, error) {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	s.manager.Reloading()
	defer s.reportReady() // also if nothing came of it: the configuration before goes on
	began := time.Now()
	diff, err := s.reload()
	s.metrics.Configured(s.now.Load().number, err == nil)
	if err != nil {
		s.log.Error("not reloaded: the configuration before goes on", "error", err)
		return nil, err
	}
	s.log.Info("reloaded", "generation", diff.Generation, "took", time.Since(began).Round(time.Millisecond).String(),
		"routes_changed", len(diff.Routes), "routes_unchanged", diff.Unchanged, "listeners_changed", len(diff.Listeners))
	return diff, nil
}

func (s *Server) reload() (*Diff, error) {
	c, notes, err := s.load()
	if err != nil {
		return nil, err
	}
	next, err := s.plan(c, s.now.Load())
	if err != nil {
		return nil, err
	}
	next.changed.Notes = append(next.changed.Notes, notes...)
	s.commit(next)
	return next.changed, nil
}

// Preview tells what Reload would change, and changes nothing. What only trying can tell, such as whether a port is free, it does
// not find.
func (s *Server) Preview() (*Diff, error) {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	c, notes, err := s.load()
	if err != nil {
		return nil, err
	}
	now := s.now.Load()
	d := compare(now.config, c)
	d.Generation = now.number
	d.Notes = append(d.Notes, notes...)
	return d, nil
}

func (s *Server) load() (c *config.Config, notes []string, err error) {
	switch {
	case s.source.Load == nil:
		return nil, nil, fmt.Errorf("%w: this program runs without a file to read again", admin.ErrNotNow)
	case s.draining.Load():
		return nil, nil, fmt.Errorf("%w: the program is ending", admin.ErrNotNow)
	}
	c, warnings, err := s.source.Load()
	for _, w := range warnings {
		notes = append(notes, "warning: "+w.String())
	}
	return c, notes, err
}

// reloadCall is Reload, or Preview, for the API of the operators.
func (s *Server) reloadCall(dryRun bool) (any, error) {
	if dryRun {
		return s.Preview()
	}
	return s.Reload()
}

// commit puts a plan in force. The caller holds reloading, or nobody else knows of s yet.
func (s *Server) commit(p *plan) {
	for _, effect := range p.effects {
		effect()
	}
	was := s.now.Swap(p.generation)
	s.change(was.fronts, p.fronts)
	was.release(p.generation)
	s.review()
	if s.started {
		s.watch(p.groups)
	}
	if s.source.Level != nil {
		_ = s.source.Level.UnmarshalText([]byte(p.config.Log.Level)) // the configuration has checked it
	}
	if len(p.drained) > 0 {
		s.log.Info("draining what the reload has ended", "sockets", len(p.drained))
		s.serving.Go(func() { hub.Spread(s.stopped, p.drained, p.config.Drain, routeChanged) })
	}
}

// change brings the open listeners from one generation to the next.
func (s *Server) change(was, next []*front) {
	kept := make(map[*front]bool)
	sockets := make(map[net.Listener]bool)
	for _, f := range next {
		kept[f], sockets[f.socket] = true, true
	}
	for _, f := range was {
		if !kept[f] {
			f.close() // before another front takes its socket over
		}
		if !sockets[f.socket] {
			s.log.Info("no longer listening", "listener", f.name, "address", f.socket.Addr().String())
			f.socket.Close()
		}
	}
	for _, f := range next {
		if s.started && f.served == nil {
			s.serve(f)
		}
	}
}

func (s *Server) serve(f *front) {
	f.lease.begin()
	f.served = make(chan struct{})
	s.serving.Go(f.serve)
	s.log.Info("listening", "listener", f.name, "address", f.socket.Addr().String(), "tls", f.secure)
}

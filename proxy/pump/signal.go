package pump

import "sync"

// A Signal says once that something has happened. Its channel is made when somebody first waits, since for most sockets nobody ever
// does. Its zero value is ready; its methods may be called from any goroutine.
type Signal struct {
	mu    sync.Mutex // guards the following
	given bool
	done  chan struct{} // nil: nobody waits
}

// Give gives the signal. It may be called more than once.
func (s *Signal) Give() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.given && s.done != nil {
		close(s.done)
	}
	s.given = true
}

// Given reports whether it was given.
func (s *Signal) Given() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.given
}

// Done is closed when it is given.
func (s *Signal) Done() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done == nil {
		s.done = make(chan struct{})
		if s.given {
			close(s.done)
		}
	}
	return s.done
}

package soak

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// A machine may be too slow for any patience in seconds. So a socket is stuck not when it has waited for long, but when it has waited
// while the others went on: when each of them, on average, has had that many messages, or when nobody has had one for as long as
// hopeless.
const (
	others   = 100
	hopeless = 10 * patience
)

// A watch looks after all open sockets of the clients.
type watch struct {
	mu    sync.Mutex // guards the following, and that of the sockets
	open  map[*socket]bool
	moves int64 // messages of all sockets
}

// A socket is a client's, watched from the connection on.
type socket struct {
	*websocket.Conn
	watch *watch
	below net.Conn

	at    time.Time // of the last message, either way
	moves int64     // of all sockets until then
	stuck error
}

// errStuck is what a life ends with that was given up.
var errStuck = errors.New("the socket is stuck")

func (w *watch) add(s *socket, below net.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.open == nil {
		w.open = make(map[*socket]bool)
	}
	w.open[s] = true
	s.below, s.at, s.moves = below, time.Now(), w.moves
}

// String says what goes on.
func (w *watch) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	longest := time.Duration(0)
	for s := range w.open {
		longest = max(longest, time.Since(s.at))
	}
	return fmt.Sprintf("%d sockets open, %d messages, the longest wait is %s", len(w.open), w.moves, longest.Round(time.Second))
}

// moved says that the socket got on.
func (s *socket) moved() {
	s.watch.mu.Lock()
	defer s.watch.mu.Unlock()
	s.watch.moves++
	s.at, s.moves = time.Now(), s.watch.moves
}

// ReadMessage is gorilla's.
func (s *socket) ReadMessage() (int, []byte, error) {
	kind, data, err := s.Conn.ReadMessage()
	if err != nil {
		return kind, data, errors.Join(err, s.why())
	}
	s.moved()
	return kind, data, nil
}

// WriteMessage is gorilla's.
func (s *socket) WriteMessage(kind int, data []byte) error {
	if err := s.Conn.WriteMessage(kind, data); err != nil {
		return errors.Join(err, s.why())
	}
	s.moved()
	return nil
}

// why tells that the watch has ended the socket, if it has.
func (s *socket) why() error {
	s.watch.mu.Lock()
	defer s.watch.mu.Unlock()
	return s.stuck
}

// leave has the socket no longer watched, and gives why it was given up, if it was.
func (s *socket) leave() error {
	s.watch.mu.Lock()
	defer s.watch.mu.Unlock()
	delete(s.watch.open, s)
	return s.stuck
}

// end closes the socket.
func (s *socket) end() error {
	if s.below != nil {
		s.below.Close()
	}
	return s.leave()
}

// kill ends it as the end of a process would in the worst case.
func (s *socket) kill() {
	kill(s.below)
	s.leave()
}

// look gives up the sockets that are stuck at a time.
func (w *watch) look(now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for s := range w.open {
		waited, moves := now.Sub(s.at), w.moves-s.moves
		if s.stuck == nil && (waited >= hopeless || waited >= patience && moves >= others*int64(len(w.open))) {
			s.stuck = fmt.Errorf("%w: nothing for %s, in which %d sockets had %d messages", errStuck, waited.Round(time.Second), len(w.open), moves)
			s.below.Close()
		}
	}
}

// run looks again and again, until there is nobody to look after any more.
func (w *watch) run(over <-chan struct{}) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			w.look(now)
		case <-over:
			return
		}
	}
}

// Only who is behind while others get on is stuck.
func TestWatch(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		waited time.Duration
		moves  int64 // of the other socket
		stuck  bool
	}{
		{"the machine is slow", 2 * patience, 10, false},
		{"a moment ago", patience / 2, 1000 * others, false},
		{"the others went on", 2 * patience, 2 * others, true},
		{"nobody moves", hopeless, 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var w watch
			near, far := net.Pipe()
			defer far.Close()
			slow, quick := &socket{watch: &w}, &socket{watch: &w}
			w.add(slow, near)
			w.add(quick, nil)
			for range c.moves {
				quick.moved()
			}
			now := slow.at.Add(c.waited)
			quick.at = now
			w.look(now)
			if err := slow.end(); errors.Is(err, errStuck) != c.stuck {
				t.Errorf("stuck: %v", err)
			}
			if err := quick.end(); err != nil {
				t.Errorf("the other: %v", err)
			}
		})
	}
}

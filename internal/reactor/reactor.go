//go:build linux && (amd64 || arm64)

package reactor

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// maxEvents is how many events one call gives.
const maxEvents = 256

// A Handler is what the loop calls. It is never called from another goroutine than its loop's.
type Handler interface {
	// Ready says that a socket may be read or written, or that it asked for its turn by Again. A handler takes one buffer and asks
	// for another turn if there may be more, so that everybody has theirs.
	Ready(s *Socket)
	// Expired says that the time of an armed timer has come.
	Expired(t *Timer)
	// Panicked says that a call of the handler, or a function that was posted in its name, has panicked. It is to end what it is
	// about; nothing else is concerned.
	Panicked(v any)
	// Stopped says that the loop ends: sockets must be closed now.
	Stopped()
}

// A Reactor is a set of loops. Its methods may be called from any goroutine.
type Reactor struct {
	loops []*Loop
	next  atomic.Uint32
}

// New starts n loops, or as many as there are processors for this program if n is 0. Each has a buffer of that many bytes.
func New(n, buffer int) (*Reactor, error) {
	if n <= 0 {
		n = runtime.GOMAXPROCS(0)
	}
	r := new(Reactor)
	for range n {
		l, err := newLoop(buffer)
		if err != nil {
			r.Close()
			return nil, err
		}
		r.loops = append(r.loops, l)
		go l.run()
	}
	return r, nil
}

// Pick gives the loop that has the fewest sockets.
func (r *Reactor) Pick() *Loop {
	at := int(r.next.Add(1))
	best := r.loops[at%len(r.loops)]
	for i := range r.loops {
		if l := r.loops[(at+i)%len(r.loops)]; l.load.Load() < best.load.Load() {
			best = l
		}
	}
	return best
}

// Close stops the handlers of all sockets that are open and returns when the loops have ended.
func (r *Reactor) Close() {
	for _, l := range r.loops {
		l.Post(nil, func() { l.stopping = true })
	}
	for _, l := range r.loops {
		<-l.ended
	}
}

// A Loop is one event loop. But for Post, its methods and those of its sockets and timers are for what runs on it.
type Loop struct {
	epoll    int
	bed      bed // where it sleeps
	buffer   []byte
	events   []syscall.EpollEvent
	sockets  []*Socket // by descriptor
	queue    queue
	timers   timers
	now      time.Time
	current  Handler // in whose name something runs; nil: nobody's
	stopping bool

	load  atomic.Int64 // sockets that are open
	ended chan struct{}

	posted atomic.Bool // there are tasks
	mu     sync.Mutex  // guards the following
	tasks  []task
	closed bool // no task is taken any more
}

type task struct {
	handler Handler
	run     func()
}

func newLoop(buffer int) (*Loop, error) {
	epoll, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make an event loop: %w", err)
	}
	l := &Loop{
		epoll: epoll, now: time.Now(), ended: make(chan struct{}),
		buffer: make([]byte, buffer), events: make([]syscall.EpollEvent, maxEvents),
	}
	if err := l.bed.make(l); err != nil {
		return nil, fmt.Errorf("make an event loop: %w", err)
	}
	return l, nil
}

// Post lets f run on the loop, soon, and in the order of the calls; a panic of it is the handler's. It may be called from any
// goroutine, never blocks, and reports false when the loop has ended: then f never runs.
func (l *Loop) Post(h Handler, f func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.tasks = append(l.tasks, task{h, f})
	if !l.posted.Swap(true) {
		l.bed.wake()
	}
	return true
}

// Buffer is the memory that all sockets of the loop read into. What is in it is lost when the handler returns.
func (l *Loop) Buffer() []byte { return l.buffer }

// Now is the time at which this turn of the loop began.
func (l *Loop) Now() time.Time { return l.now }

// run is the loop's goroutine.
func (l *Loop) run() {
	defer close(l.ended)
	for !l.stopping {
		l.safely(l.turn)
	}
	for !l.close() {
		l.safely(l.runTasks)
		for _, s := range l.sockets {
			if s != nil {
				l.current = s.handler
				l.safely(s.handler.Stopped)
				s.Close() // should its handler not have done it
			}
		}
	}
}

// safely calls what runs handlers. A panic cuts it short, and what it had still to do is left for the next turn.
func (l *Loop) safely(f func()) {
	defer l.rescue()
	f()
}

// turn waits for something to do and does it.
func (l *Loop) turn() {
	l.current = nil
	l.wait()
	l.now = time.Now()
	l.runTasks()
	l.runTimers()
	l.runReady()
}

// close lets no task come any more, unless there are some or sockets are left.
func (l *Loop) close() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.tasks) > 0 || l.load.Load() > 0 {
		return false
	}
	l.closed = true
	l.bed.close()
	return true
}

// rescue is deferred around all that runs handlers.
func (l *Loop) rescue() {
	v := recover()
	if v == nil {
		return
	}
	h := l.current
	l.current = nil
	if h == nil {
		panic(v) // the loop's own fault
	}
	defer func() { _ = recover() }() // it had its chance
	h.Panicked(v)
}

func (l *Loop) runTasks() {
	if !l.posted.Swap(false) {
		return
	}
	l.mu.Lock()
	tasks := l.tasks
	l.tasks = nil
	l.mu.Unlock()
	for i, t := range tasks {
		l.runTask(t, tasks[i+1:])
	}
}

// runTask puts back what is left to do if the task panics.
func (l *Loop) runTask(t task, rest []task) {
	done := false
	defer func() {
		if !done && len(rest) > 0 {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.tasks = append(rest, l.tasks...)
			l.posted.Store(true)
		}
	}()
	l.current = t.handler
	t.run()
	done = true
}

func (l *Loop) runTimers() {
	for t := l.timers.due(l.now); t != nil; t = l.timers.due(l.now) {
		l.current = t.handler
		t.handler.Expired(t)
	}
}

// runReady gives each socket of the list one turn. Those that want another stand at its end.
func (l *Loop) runReady() {
	for range l.queue.len() {
		s := l.queue.take()
		s.queued = false
		if s.Open() {
			l.current = s.handler
			s.handler.Ready(s)
		}
	}
}

// wait notes which sockets are ready. It sleeps only if there is nothing else to do.
func (l *Loop) wait() {
	var n int
	if l.queue.len() > 0 {
		n = l.poll()
	} else {
		n = l.bed.sleep()
	}
	for i := range n {
		e := &l.events[i]
		if s := l.at(int(e.Fd)); s != nil {
			s.note(e.Events)
		}
	}
}

// at gives the socket with that descriptor. An event may be of one that was closed in this turn, whose descriptor another one has
// by now: that finds nothing when it looks.
func (l *Loop) at(fd int) *Socket {
	if fd < len(l.sockets) {
		return l.sockets[fd]
	}
	return nil
}

// A queue is a list whose memory is used again.
type queue struct {
	sockets []*Socket
	head    int
}

func (q *queue) len() int { return len(q.sockets) - q.head }

func (q *queue) put(s *Socket) {
	if q.head > 0 && len(q.sockets) == cap(q.sockets) {
		n := copy(q.sockets, q.sockets[q.head:])
		clear(q.sockets[n:])
		q.sockets, q.head = q.sockets[:n], 0
	}
	q.sockets = append(q.sockets, s)
}

func (q *queue) take() *Socket {
	s := q.sockets[q.head]
	q.sockets[q.head] = nil
	if q.head++; q.head == len(q.sockets) {
		q.sockets, q.head = q.sockets[:0], 0
	}
	return s
}

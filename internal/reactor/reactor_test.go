//go:build linux && (amd64 || arm64)

package reactor

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"bridgehead/internal/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

const patience = 20 * time.Second

func start(t *testing.T, loops int) *Reactor {
	t.Helper()
	r, err := New(loops, 4<<10)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// pair gives both ends of a connection.
func pair(t *testing.T, network string) (ours, theirs net.Conn) {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "s")
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if theirs, err = net.Dial(network, l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if ours, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { theirs.Close() })
	theirs.SetDeadline(time.Now().Add(patience))
	return ours, theirs
}

// An echo sends back what comes. It begins with a turn of its own.
type echo struct {
	Socket
	timer    Timer
	ready    func(e *echo) // instead
	expired  func()
	unsent   []byte
	panicked atomic.Value
	stopped  atomic.Bool
}

func (e *echo) Ready(*Socket) {
	if e.ready != nil {
		e.ready(e)
		return
	}
	if len(e.unsent) > 0 {
		n, _ := e.Write(e.unsent)
		e.unsent = e.unsent[n:]
	}
	if len(e.unsent) > 0 || !e.Readable() {
		return
	}
	buf := e.Loop().Buffer()
	n, err := e.Read(buf)
	switch {
	case n > 0:
		k, _ := e.Write(buf[:n])
		e.unsent = bytes.Clone(buf[k:n])
		e.Again()
	case !errors.Is(err, ErrAgain):
		e.Close()
	}
}

func (e *echo) Expired(*Timer) { e.expired() }

func (e *echo) Panicked(v any) {
	e.panicked.Store(v)
	e.Close()
}

func (e *echo) Stopped() {
	e.stopped.Store(true)
	e.Reset()
}

// add puts one end of a new connection on a loop and gives the other.
func add(t *testing.T, l *Loop, e *echo, network string) net.Conn {
	t.Helper()
	ours, theirs := pair(t, network)
	fd, err := Detach(ours)
	if err != nil {
		t.Fatal(err)
	}
	ours.Close()
	added := make(chan error, 1)
	l.Post(e, func() { added <- l.Add(&e.Socket, fd, e) })
	if err := <-added; err != nil {
		t.Fatal(err)
	}
	return theirs
}

func exchange(t *testing.T, conn net.Conn, size int) {
	t.Helper()
	sent := make([]byte, size)
	rand.NewChaCha8([32]byte{1}).Read(sent)
	go conn.Write(sent)
	got := make([]byte, size)
	if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d bytes came back, equal %v: %v", size, bytes.Equal(got, sent), err)
	}
}

func TestBytesComeAndGo(t *testing.T) {
	t.Parallel()
	r := start(t, 2)
	for _, network := range []string{"tcp", "unix"} {
		for _, size := range []int{1, 4 << 10, 4<<10 + 1, 4 << 20} {
			conn := add(t, r.Pick(), new(echo), network)
			exchange(t, conn, size)
			exchange(t, conn, size)
		}
	}
}

// What lay in the socket before it came to the loop is no event, and is read all the same.
func TestTheFirstTurnWaitsForNoEvent(t *testing.T) {
	t.Parallel()
	l := start(t, 1).Pick()
	ours, theirs := pair(t, "tcp")
	theirs.Write([]byte("early"))
	theirs.(*net.TCPConn).CloseWrite()
	fd, err := Detach(ours)
	if err != nil {
		t.Fatal(err)
	}
	ours.Close()
	e := new(echo)
	l.Post(e, func() { l.Add(&e.Socket, fd, e) })
	if got, err := io.ReadAll(theirs); string(got) != "early" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// A socket that always has more gets one buffer, and then the others have their turn.
func TestFairness(t *testing.T) {
	t.Parallel()
	l := start(t, 1).Pick()
	flood := &echo{ready: func(e *echo) { // nobody could have more
		e.Read(e.Loop().Buffer())
		e.Again()
	}}
	add(t, l, flood, "tcp")
	exchange(t, add(t, l, new(echo), "tcp"), 1<<20)
}

func TestAPanicIsTheSocketsOwn(t *testing.T) {
	t.Parallel()
	l := start(t, 1).Pick()
	other := add(t, l, new(echo), "tcp")
	for name, cause := range map[string]func(l *Loop, e *echo){
		"by an event":          func(_ *Loop, e *echo) { e.ready = func(*echo) { panic("a fault") }; e.Again() },
		"by a timer":           func(l *Loop, e *echo) { e.expired = func() { panic("a fault") }; l.Arm(&e.timer, time.Now(), e) },
		"by what it is posted": func(*Loop, *echo) { panic("a fault") },
	} {
		e := new(echo)
		conn := add(t, l, e, "tcp")
		ran := make(chan bool, 1)
		l.Post(e, func() { cause(l, e) })
		l.Post(nil, func() { ran <- true })
		if _, err := conn.Read(make([]byte, 1)); err == nil || e.panicked.Load() != "a fault" {
			t.Errorf("%s: %v, %v", name, err, e.panicked.Load())
		}
		<-ran // what stood behind it was not lost
	}
	exchange(t, other, 1000)
}

// Timers expire in order, never early, and not when they were disarmed.
func TestTimers(t *testing.T) {
	t.Parallel()
	l := start(t, 1).Pick()
	const n = 100
	begin := time.Now()
	expired := make(chan int, n)
	l.Post(nil, func() {
		timers := make([]*echo, n)
		for i := range n {
			at := begin.Add(time.Duration(i*7%n) * time.Millisecond)
			timers[i] = &echo{expired: func() {
				if early := time.Until(at); early > 0 {
					t.Errorf("%v early", early)
				}
				expired <- i * 7 % n
			}}
			l.Arm(&timers[i].timer, begin.Add(time.Hour), timers[i])
			l.Arm(&timers[i].timer, at, timers[i])
		}
		for i := range n {
			if i*7%n%2 == 1 {
				l.Disarm(&timers[i].timer)
			}
		}
	})
	for want := 0; want < n; want += 2 {
		if got := <-expired; got != want {
			t.Fatalf("timer %d expired, want %d", got, want)
		}
	}
}

func TestCloseStopsWhatIsLeft(t *testing.T) {
	t.Parallel()
	r, err := New(2, 1000)
	if err != nil {
		t.Fatal(err)
	}
	var es [10]echo
	var conns [len(es)]net.Conn
	for i := range es {
		conns[i] = add(t, r.Pick(), &es[i], "tcp")
	}
	if a, b := r.loops[0].load.Load(), r.loops[1].load.Load(); a != b {
		t.Errorf("the loops have %d and %d sockets", a, b)
	}
	l := r.Pick()
	r.Close()
	for i := range es {
		if _, err := conns[i].Read(make([]byte, 1)); err == nil || !es[i].stopped.Load() {
			t.Errorf("socket %d: %v, stopped %v", i, err, es[i].stopped.Load())
		}
	}
	if l.Post(nil, func() { t.Error("it runs after the end") }) {
		t.Error("a loop that has ended takes a task")
	}
}

// A closed socket is not its descriptor's next owner.
func TestAClosedSocketDoesNothing(t *testing.T) {
	t.Parallel()
	l := start(t, 1).Pick()
	e := new(echo)
	conn := add(t, l, e, "tcp")
	done := make(chan bool)
	l.Post(e, func() {
		defer close(done)
		e.Close()
		e.Close()
		e.Reset()
		e.Again()
		_, read := e.Read(make([]byte, 1))
		_, write := e.Write([]byte("x"))
		if read == nil || write == nil || e.CloseWrite() == nil {
			t.Errorf("read %v, write %v", read, write)
		}
	})
	<-done
	if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
		t.Error(err)
	}
}

func TestDetachNeedsADescriptor(t *testing.T) {
	t.Parallel()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if _, err := Detach(a); !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
	closed, _ := pair(t, "tcp")
	closed.Close()
	if _, err := Detach(closed); err == nil {
		t.Error("a closed connection has a descriptor")
	}
}

//go:build linux && (amd64 || arm64)

package pump

import (
	"crypto/tls"
	"log/slog"
	"net"
	"testing"
	"time"

	"bridgehead/internal/door"
	"bridgehead/ws"
)

func (l *loopLink) insertFrame(to side, frame []byte) {
	l.loop.Post(l, func() { l.insert(&l.ends[to], frame) })
}

func (l *loopLink) onControl(from side, f func(ws.Opcode, []byte) bool) {
	l.ends[from].filter.Control = f
}

// The clocks of the loops run on real time; what they say about times is tested where it is exact, with the other driver's.

func TestLoopsPingBothSides(t *testing.T) { bothDrivers(t, testPingBothSides) }

func testPingBothSides(t *testing.T) {
	t.Parallel()
	o := quiet()
	o.Ping, o.Pong = 30*time.Millisecond, patience
	r := startLink(t, o)
	for range 5 {
		r.client.pong()
		r.backend.pong()
	}
	r.client.send(true, ws.Pong, "unasked") // what answers no ping of ours passes on
	for f := r.backend.next(); f.op != ws.Pong || f.payload != "unasked"; f = r.backend.next() {
		if f.op != ws.Ping {
			t.Fatalf("got %v", f)
		}
	}
}

func TestLoopsClocks(t *testing.T) { bothDrivers(t, testClocks) }

func testClocks(t *testing.T) {
	t.Parallel()
	const soon = 60 * time.Millisecond
	for _, c := range []struct {
		name   string
		set    func(o *Options)
		silent side // who does not answer pings
		want   ws.Kind
	}{
		{"client dead", func(o *Options) { o.Ping, o.Pong = soon, soon }, client, ws.ClientDead},
		{"backend dead", func(o *Options) { o.Ping, o.Pong = soon, soon }, backend, ws.BackendDead},
		{"idle, though pings go", func(o *Options) { o.Ping, o.Pong, o.Idle = soon/4, patience, soon }, sides, ws.IdleTimeout},
		{"lifetime", func(o *Options) { o.Lifetime = soon }, sides, ws.LifetimeReached},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o := quiet()
			c.set(&o)
			r := startLink(t, o)
			for i, p := range []*peer{r.client, r.backend} {
				if side(i) == c.silent {
					go discard(p)
				} else {
					go p.answerPings()
				}
			}
			r.ended()
			r.wantCause(c.want)
		})
	}
}

// Changed options hold at once for what is open.
func TestLoopsObeyChangedOptions(t *testing.T) { bothDrivers(t, testObeyChangedOptions) }

func testObeyChangedOptions(t *testing.T) {
	t.Parallel()
	r := startLink(t, quiet())
	o := quiet()
	o.Idle = 10 * time.Millisecond
	r.options.Store(&o)
	r.link.Wake()
	r.ended()
	r.wantCause(ws.IdleTimeout)
	r.link.Wake() // after the end, nothing
	r.link.Flush()
}

// A client that sends too fast is not read for a while; what came passes. The end does not wait for it.
func TestLoopsThrottle(t *testing.T) { bothDrivers(t, testThrottle) }

func testThrottle(t *testing.T) {
	t.Parallel()
	const pause = 300 * time.Millisecond
	r := newLinkRig(t, quiet(), plain, plain, Backend{})
	r.socket.Grant = admit(t, pause, "throttle")
	r.link.Start()
	start := time.Now()
	for _, text := range []string{"one", "two", "three"} {
		r.client.send(true, ws.Text, text)
		r.backend.want(true, ws.Text, text)
	}
	if took := time.Since(start); took < pause*9/10 {
		t.Errorf("three passed after %v", took)
	}
	r.client.send(true, ws.Text, "for nobody")
	r.socket.End(ws.Cause{Kind: ws.Kicked})
	r.client.wantClose(1000, "")
	r.client.Close()
	r.backend.Close()
	r.wantCause(ws.Kicked)
}

func TestLoopsRateThatCloses(t *testing.T) { bothDrivers(t, testRateThatCloses) }

func testRateThatCloses(t *testing.T) {
	t.Parallel()
	r := newLinkRig(t, quiet(), plain, plain, Backend{})
	r.socket.Grant = admit(t, patience, "close")
	r.link.Start()
	r.client.send(true, ws.Text, "one")
	r.client.send(true, ws.Text, "two")
	r.client.wantClose(1008, "rate limit exceeded")
	r.client.Close()
	r.backend.Close()
	r.wantCause(ws.ClientRate)
}

// Plain connections of the operating system are carried by the loops, others are not, and are left whole.
func TestWhatTheLoopsCarry(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		client, backend kind
		want            bool
	}{
		{plain, plain, true}, {plain, unix, true}, {tls13, plain, true}, {tls12, tls13, true}, {plain, pipe, false}, {pipe, plain, false},
	} {
		r := newLinkRig(t, quiet(), c.client, c.backend, Backend{})
		r.socket.Loops = loops
		l, ok := loops.link(r.socket, Backend{Conn: r.ours})
		if ok != c.want {
			t.Errorf("%s to %s: %v", c.client, c.backend, ok)
		}
		if ok {
			r.link = l
		}
		r.link.Start()
		r.client.send(true, ws.Text, "hello")
		r.backend.want(true, ws.Text, "hello")
	}
}

// The end of the loops is the end of all that is on them, and of what comes too late.
func TestTheLoopsEnd(t *testing.T) {
	t.Parallel()
	own, err := NewLoops(1)
	if err != nil {
		t.Fatal(err)
	}
	var rigs []*rig
	for i := range 4 {
		r := newRig(t, quiet(), plain)
		r.socket.Loops = own
		ours, theirs := plain.pair(t, false)
		r.ours = ours
		r.backend = newPeer(t, theirs, false)
		r.link = NewLink(r.socket, Backend{Conn: r.ours})
		close(r.driven)
		if i < 3 {
			r.link.Start()
		}
		rigs = append(rigs, r)
	}
	rigs[0].client.send(true, ws.Text, "hello")
	rigs[0].backend.want(true, ws.Text, "hello")
	rigs[1].socket.End(ws.Cause{Kind: ws.Kicked})
	rigs[1].client.wantClose(1000, "") // it is about to close
	own.Close()
	rigs[3].link.Start()
	for i, r := range rigs {
		r.wantCause([]ws.Kind{ws.ShuttingDown, ws.Kicked, ws.ShuttingDown, ws.ShuttingDown}[i])
		if _, err := r.client.r.Discard(1); err == nil {
			t.Error("a connection was left open")
		}
	}
}

// A loop takes the connection of the operating system, whatever it has passed on its way in.
func TestUnwrapGoesBelowTheDoor(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l = door.New("x", slog.New(slog.DiscardHandler), nil, nil).Listener(l)
	defer l.Close()
	theirs, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	ours, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	below, secure := unwrap(tls.Server(NewWire(ours), &tls.Config{}))
	if _, ok := below.(*net.TCPConn); !ok || secure == nil {
		t.Errorf("a %T and %v", below, secure)
	}
}

package upstream

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bridgehead/policy"
	"bridgehead/ws"
)

// lab is a group whose servers fail on command.
type lab struct {
	*Group
	t *testing.T

	mu     sync.Mutex // guards the following
	broken map[string]bool
	tried  string
}

func newLab(t *testing.T, change func(*Options), servers ...string) *lab {
	t.Helper()
	l := &lab{t: t, broken: map[string]bool{}}
	l.Group = l.group(change, servers...)
	return l
}

func (l *lab) group(change func(*Options), servers ...string) *Group {
	o := DefaultOptions()
	for _, s := range servers {
		o.Servers = append(o.Servers, Server{URL: "tcp://" + s + ":1"})
	}
	if change != nil {
		change(&o)
	}
	g, err := New(o)
	if err != nil {
		l.t.Fatal(err)
	}
	return g
}

// breaks says which servers fail from now on.
func (l *lab) breaks(servers string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.broken = map[string]bool{}
	for _, s := range servers {
		l.broken[string(s)] = true
	}
}

func (l *lab) reach(t *Target) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	name := t.Address()[:1]
	l.tried += name
	if l.broken[name] {
		return errTest
	}
	return nil
}

// open leads a client somewhere, and tells which servers were tried.
func (l *lab) open() (tried string, lease *Lease, err error) {
	l.mu.Lock()
	l.tried = ""
	l.mu.Unlock()
	lease, err = l.Open(l.t.Context(), new(policy.Facts), func(_ context.Context, t *Target) error { return l.reach(t) })
	return l.tried, lease, err
}

// want opens n sockets that lead to servers in this order.
func (l *lab) want(order string) {
	l.t.Helper()
	var got string
	for range len(order) {
		_, lease, err := l.open()
		if err != nil {
			l.t.Fatal(err)
		}
		got += lease.Target().Address()[:1]
		lease.Release()
	}
	if got != order {
		l.t.Errorf("the sockets went to %s, want %s", got, order)
	}
}

func (l *lab) state(server string) string {
	for _, s := range l.states(time.Now()) {
		if strings.HasPrefix(s.Server, "tcp://"+server) {
			return s.State
		}
	}
	return "gone"
}

func (l *lab) wantState(server, want string) {
	l.t.Helper()
	if got := l.state(server); got != want {
		l.t.Errorf("%s is %s, want %s", server, got, want)
	}
}

func TestAServerThatFailsIsLeftAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil, "a", "b")
		l.breaks("a")
		l.want("bbbbbbbbb") // each client comes to b, five of them by way of a
		l.wantState("a", stateEjected)
		if tried, _, _ := l.open(); tried != "b" {
			t.Errorf("tried %s", tried)
		}
		time.Sleep(5*time.Second - 1)
		l.wantState("a", stateEjected)
		time.Sleep(time.Nanosecond)
		failed := 0
		for range 4 { // one client tries a, and the others are spared that
			if tried, _, _ := l.open(); strings.Contains(tried, "a") {
				failed++
			}
		}
		if failed != 1 {
			t.Errorf("%d clients tried a, want 1", failed)
		}
		time.Sleep(9 * time.Second) // of ten
		l.wantState("a", stateEjected)
		time.Sleep(time.Second)
		l.breaks("")
		l.open()
		l.open()
		l.wantState("a", stateUp)
	})
}

// The time doubles up to its bound, also through a long failure, and is short again for a server that was well for long.
func TestTheTimeOfAnEjection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil, "a", "b")
		l.breaks("a")
		ejected := func() (d time.Duration) {
			for l.state("a") == stateEjected {
				time.Sleep(time.Second)
				d += time.Second
			}
			return d
		}
		fail := func(times uint64) {
			for before := l.servers[0].failed; l.servers[0].failed < before+times; {
				l.open()
			}
		}
		fail(5)
		for _, want := range []time.Duration{5, 10, 20, 40, 60, 60, 60, 60} {
			if got := ejected(); got != want*time.Second {
				t.Errorf("left alone for %s, want %ds", got, want)
			}
			fail(1)
		}
		ejected()
		l.breaks("")
		l.open()
		l.open()
		time.Sleep(2 * time.Minute)
		l.breaks("a")
		fail(5)
		if got := ejected(); got != 5*time.Second {
			t.Errorf("left alone for %s after it was well for long, want 5s", got)
		}
	})
}

// When all fail, clients are told at once, and the first that finds a server well brings it back within a second.
func TestAllServersFail(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil, "a", "b")
		l.breaks("ab")
		for range 5 {
			l.open()
		}
		tried, _, err := l.open()
		if _, ok := errors.AsType[*Unavailable](err); !ok || tried != "" {
			t.Errorf("tried %s: %v; want none", tried, err)
		}
		l.breaks("")
		time.Sleep(lastResort)
		l.want("b")
		if l.Groups()["x"] != 1 {
			t.Errorf("%v clients were refused, want 1", l.Groups())
		}
	})
}

func (l *lab) Groups() map[string]uint64 { return Groups{"x": l.Group}.Refused() }

func TestALoneServerIsNeverLeftAlone(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil, "a")
	l.breaks("a")
	for range 20 {
		if tried, _, err := l.open(); tried != "a" || err != errTest {
			t.Fatalf("tried %q: %v", tried, err)
		}
	}
}

// A reload changes neither counters nor ejections of servers that stay.
func TestEjectionsOutliveAReload(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil, "a", "b")
		l.breaks("a")
		l.want("bbbbbbbbb")
		l.Adopt(l.group(func(o *Options) { o.Balance = leastConnections }, "c", "b", "a"))
		l.wantState("a", stateEjected)
		if s := l.servers[2]; s.key != "tcp://a:1" || s.failed != 5 || s.ejections != 1 {
			t.Errorf("%s failed %d times and was ejected %d times", s.key, s.failed, s.ejections)
		}
	})
}

// asks turns health checks on.
func asks(o *Options) {
	h := DefaultHealth()
	h.TCP, h.Healthy, h.Unhealthy = true, 2, 3
	o.Health = &h
}

func TestChecksTakeServersDownAndBringThemBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, asks, "a", "b")
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			l.watch(ctx, func(_ context.Context, _ *Health, t *Target) error { return l.reach(t) })
		}()
		time.Sleep(time.Minute)
		for _, s := range l.states(time.Now()) {
			if s.State != stateUp || s.Probed < 9 || s.Probed > 14 || s.Probe.Error != "" {
				t.Errorf("%+v", s)
			}
		}
		l.breaks("ab")
		time.Sleep(time.Second)
		l.wantState("a", stateUp) // one bad answer is not enough
		time.Sleep(20 * time.Second)
		tried, _, err := l.open()
		if none, ok := errors.AsType[*Unavailable](err); !ok || tried != "" || none.why[stateDown] != 2 {
			t.Errorf("tried %s: %v; want an answer at once", tried, err)
		}
		l.breaks("b")
		time.Sleep(15 * time.Second)
		l.want("aaa")
		stop()
		<-done
	})
}

// A good answer to a check ends an ejection before its time.
func TestACheckEndsAnEjection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, func(o *Options) {
			asks(o)
			o.Eject.Time, o.Eject.MaxTime = time.Hour, time.Hour
		}, "a", "b")
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			l.watch(ctx, func(context.Context, *Health, *Target) error { return nil })
		}()
		l.breaks("a")
		l.want("bbbbbbbbb")
		l.wantState("a", stateEjected)
		time.Sleep(7 * time.Second)
		l.wantState("a", stateUp)
		stop()
		<-done
	})
}

// Questions are bounded in number and do not come at the same moments.
func TestChecksAreSpread(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var names []string
		for i := range 100 {
			names = append(names, string(rune('A'+i/26))+string(rune('a'+i%26)))
		}
		l := newLab(t, asks, names...)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		var mu sync.Mutex // guards the following
		asking, most, moments := 0, 0, map[time.Time]bool{}
		go func() {
			defer close(done)
			l.watch(ctx, func(context.Context, *Health, *Target) error {
				mu.Lock()
				asking++
				most = max(most, asking)
				moments[time.Now()] = true
				mu.Unlock()
				time.Sleep(100 * time.Millisecond)
				mu.Lock()
				asking--
				mu.Unlock()
				return nil
			})
		}()
		time.Sleep(30 * time.Second)
		stop()
		<-done
		if most > maxAsking || len(moments) < 400 {
			t.Errorf("%d at once, at %d moments", most, len(moments))
		}
	})
}

func TestAsk(t *testing.T) {
	t.Parallel()
	answer := func(text string) func(net.Conn) error {
		return func(conn net.Conn) error {
			r, err := http.ReadRequest(bufio.NewReader(conn))
			if err == nil {
				io.WriteString(conn, strings.ReplaceAll(text, "{accept}", ws.AcceptKey(r.Header.Get("Sec-WebSocket-Key"))))
			}
			return err
		}
	}
	const accepted = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
	// pong says something before it answers the ping, as a server may.
	pong := func(conn net.Conn) error {
		if err := answer(accepted + "\x81\x05hello" + "\x82\x7e\x00\x80" + strings.Repeat("x", 128))(conn); err != nil {
			return err
		}
		frame := make([]byte, 14)
		if _, err := io.ReadFull(conn, frame); err != nil {
			return err
		}
		ws.Mask(frame[6:], [4]byte(frame[2:6]), 0)
		_, err := conn.Write(ws.AppendFrame(nil, ws.Pong, frame[6:], false))
		io.Copy(io.Discard, conn)
		return err
	}
	for name, c := range map[string]struct {
		health Health
		serve  func(net.Conn) error
		want   string // of the error; "" is well
	}{
		"tcp":                       {Health{TCP: true}, func(net.Conn) error { return nil }, ""},
		"http":                      {Health{HTTP: "/healthz"}, answer("HTTP/1.1 204 No Content\r\n\r\n"), ""},
		"http refuses":              {Health{HTTP: "/healthz"}, answer("HTTP/1.1 503 Service Unavailable\r\n\r\n"), "GET /healthz was answered 503 Service Unavailable"},
		"http is silent":            {Health{HTTP: "/healthz"}, func(c net.Conn) error { io.Copy(io.Discard, c); return nil }, "deadline"},
		"http hangs up":             {Health{HTTP: "/healthz"}, func(net.Conn) error { return nil }, ""},
		"websocket":                 {Health{WebSocket: "/ws"}, pong, ""},
		"websocket refuses":         {Health{WebSocket: "/ws"}, answer("HTTP/1.1 404 Not Found\r\n\r\n"), "the handshake at /ws was answered 404 Not Found"},
		"websocket lies":            {Health{WebSocket: "/ws"}, answer(strings.Replace(accepted, "{accept}", "x", 1)), "Sec-WebSocket-Accept"},
		"websocket answers no ping": {Health{WebSocket: "/ws"}, func(c net.Conn) error { answer(accepted)(c); io.Copy(io.Discard, c); return nil }, "deadline"},
		"websocket sends nonsense":  {Health{WebSocket: "/ws"}, answer(accepted + "\x82\xff"), "a frame that begins 82ff"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := listen(t)
			serve(t, l, c.serve)
			c.health.Timeout = patience
			if c.want == "deadline" {
				c.health.Timeout = soon
			}
			target, err := parse("ws://" + l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			err = ask(t.Context(), &c.health, target)
			switch {
			case name == "http hangs up":
				if err == nil {
					t.Error("a server that hangs up is well")
				}
			case (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want):
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

// Whatever a server sends instead of a pong: the check ends.
func FuzzPong(f *testing.F) {
	f.Add([]byte("\x81\x05hello\x8a\x0812345678"))
	f.Add([]byte("\x82\x7e\x00\x01x"))
	f.Add([]byte("\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, sent []byte) {
		err := awaitPong(bufio.NewReader(strings.NewReader(string(sent))), []byte("12345678"))
		if err == nil && !strings.Contains(string(sent), "12345678") {
			t.Errorf("%q answers the ping", sent)
		}
	})
}

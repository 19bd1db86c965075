package upstream

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bridgehead/hub"
	"bridgehead/policy"
)

// A directory is a resolver whose answers are set.
type directory struct {
	mu     sync.Mutex // guards the following
	names  map[string][]netip.Addr
	broken bool
	slow   time.Duration
	asked  int
	asking int
	most   int // of asking
}

// set gives a name addresses.
func (d *directory) set(name string, addresses ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.names == nil {
		d.names = make(map[string][]netip.Addr)
	}
	d.names[name] = addrs(addresses...)
}

func (d *directory) fail(broken bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.broken = broken
}

func (d *directory) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asked
}

func (d *directory) LookupNetIP(ctx context.Context, _, name string) ([]netip.Addr, error) {
	d.mu.Lock()
	d.asked++
	d.asking++
	d.most = max(d.most, d.asking)
	slow := d.slow
	d.mu.Unlock()
	if slow > 0 {
		select {
		case <-time.After(slow):
		case <-ctx.Done():
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asking--
	if found := d.names[name]; ctx.Err() == nil && !d.broken && len(found) > 0 {
		return slices.Clone(found), nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

func addrs(all ...string) (found []netip.Addr) {
	for _, a := range all {
		found = append(found, netip.MustParseAddr(a))
	}
	return found
}

// lines are a log.
type lines struct {
	mu   sync.Mutex // guards the following
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// take gives what was logged since the last time, the messages alone.
func (l *lines) take() (messages []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.text.String()) {
		if _, m, ok := strings.Cut(line, `msg="`); ok {
			m, _, _ = strings.Cut(m, `"`)
			messages = append(messages, m)
		}
	}
	l.text.Reset()
	return messages
}

// A town is a group whose servers have names.
type town struct {
	*Group
	t   *testing.T
	dns *directory
	log *lines
}

func newTown(t *testing.T, dns *directory, change func(*Options), urls ...string) *town {
	t.Helper()
	w := &town{t: t, dns: dns, log: new(lines)}
	w.Group = w.group(change, urls...)
	return w
}

func (w *town) group(change func(*Options), urls ...string) *Group {
	w.t.Helper()
	o := DefaultOptions()
	for _, url := range urls {
		s := DefaultServer()
		s.URL = url
		o.Servers = append(o.Servers, s)
	}
	if change != nil {
		change(&o)
	}
	g, err := newGroup("chat", o, Setup{Log: slog.New(slog.NewTextHandler(w.log, nil)), Key: []byte("k"), Resolver: w.dns})
	if err != nil {
		w.t.Fatal(err)
	}
	return g
}

// watched has the group watched until the test ends.
func (w *town) watched() (stop func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	var watching sync.WaitGroup
	watching.Go(func() { w.watch(ctx, func(context.Context, *Health, *Target) error { return nil }) })
	stop = func() { cancel(); watching.Wait() }
	w.t.Cleanup(stop)
	return stop
}

// open leads a client somewhere, by try if that is not nil.
func (w *town) open(try Try) (*Lease, error) {
	if try == nil {
		try = opens
	}
	return w.Open(w.t.Context(), &policy.Facts{Client: netip.MustParseAddr("192.0.2.7")}, try)
}

// at tells where n clients are led, whose sockets stay open.
func (w *town) at(n int) (count map[string]int, leases []*Lease) {
	w.t.Helper()
	count = make(map[string]int)
	for range n {
		l, err := w.open(nil)
		if err != nil {
			w.t.Fatal(err)
		}
		count[place(l.Target())]++
		leases = append(leases, l)
	}
	return count, leases
}

// place is where a target leads: its address, or else its name.
func place(t *Target) string {
	if t.found.addr.IsValid() {
		return t.found.addr.String()
	}
	return t.name
}

// told are the servers as the API tells of them: their addresses, states and sockets.
func (w *town) told() string {
	var all []string
	for _, s := range w.states(time.Now()) {
		all = append(all, fmt.Sprintf("%s %s %d", s.Address, s.State, s.Connections))
	}
	return strings.Join(all, ", ")
}

func (w *town) wantTold(want string) {
	w.t.Helper()
	if got := w.told(); got != want {
		w.t.Errorf("the servers are %s; want %s", got, want)
	}
}

func (w *town) wantLog(want ...string) {
	w.t.Helper()
	if got := w.log.take(); !slices.Equal(got, want) {
		w.t.Errorf("the log says %q, want %q", got, want)
	}
}

func TestHosts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ found, want string }{
		{"", ""},
		{"10.0.0.1", "10.0.0.1"},
		{"fd00::1", "fd00::1"},
		{"::1 127.0.0.1", "127.0.0.1=::1/127.0.0.1"}, // two ways to one, the better first
		{"127.0.0.1 ::1", "127.0.0.1=127.0.0.1/::1"},
		{"10.0.0.1 10.0.0.1 ::ffff:10.0.0.1", "10.0.0.1"},
		{"10.0.0.2 10.0.0.1", "10.0.0.1 10.0.0.2"},
		{"10.0.0.2 fd00::2 10.0.0.1 fd00::1", "10.0.0.1 10.0.0.2"},
		{"fd00::2 10.0.0.2 fd00::1 10.0.0.1", "fd00::1 fd00::2"},
		{"10.0.0.2 fd00::2 10.0.0.1", "10.0.0.1 10.0.0.2"},
	} {
		var got []string
		for _, h := range hosts(addrs(strings.Fields(c.found)...)) {
			text := h.addr.String()
			if len(h.ways) > 1 {
				text += "=" + h.ways[0].String() + "/" + h.ways[1].String()
			}
			got = append(got, text)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %s, want %s", c.found, got, c.want)
		}
	}
	var many []netip.Addr
	for i := range 300 {
		many = append(many, netip.AddrFrom4([4]byte{10, 0, byte(i / 256), byte(i)}))
	}
	if n := len(hosts(many)); n != addressesAtMost {
		t.Errorf("a name stands for %d servers", n)
	}
}

// Every address is balanced as a server; one that the name loses keeps its sockets and gets no more, until it is back.
func TestEachAddressIsAServer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, new(directory), func(o *Options) { o.Servers[0].MaxConnections = 6 }, "tcp://chat:1")
		w.dns.set("chat", "10.0.0.2", "10.0.0.1")
		w.wantTold(" unknown 0")
		w.watched()
		synctest.Wait()
		w.wantTold("10.0.0.1 up 0, 10.0.0.2 up 0")
		if count, _ := w.at(4); count["10.0.0.1"] != 2 || count["10.0.0.2"] != 2 {
			t.Errorf("%v", count)
		}
		w.wantLog()

		w.dns.set("chat", "10.0.0.3", "10.0.0.1")
		time.Sleep(34 * time.Second) // the interval is up to a tenth longer
		w.wantTold("10.0.0.1 up 2, 10.0.0.3 up 0, 10.0.0.2 gone 2")
		w.wantLog("addresses of a name have changed")
		count, leases := w.at(4)
		if count["10.0.0.1"] != 2 || count["10.0.0.3"] != 2 {
			t.Errorf("%v", count)
		}
		w.dns.fail(true)
		time.Sleep(100 * time.Second)
		w.wantTold("10.0.0.1 up 4, 10.0.0.3 up 2, 10.0.0.2 gone 2")
		w.wantLog("name cannot be looked up; the addresses from before are used on")
		if last := w.states(time.Now())[0].LookUp; last == nil || !strings.Contains(last.Error, "no such host") {
			t.Errorf("the API tells of the look-up %+v", last)
		}

		w.dns.fail(false)
		w.dns.set("chat", "10.0.0.1", "10.0.0.2", "10.0.0.3")
		time.Sleep(34 * time.Second)
		w.wantTold("10.0.0.1 up 4, 10.0.0.2 up 2, 10.0.0.3 up 2")
		w.wantLog("name can be looked up again", "addresses of a name have changed")

		// Without sockets it is forgotten, at once.
		for _, l := range leases {
			l.Release()
		}
		w.dns.set("chat", "10.0.0.1")
		time.Sleep(34 * time.Second)
		w.wantTold("10.0.0.1 up 2, 10.0.0.2 gone 2")
		w.wantLog("addresses of a name have changed")
		if _, _ = w.at(4); w.told() != "10.0.0.1 full 6, 10.0.0.2 gone 2" {
			t.Error(w.told())
		}
		if _, err := w.open(nil); err == nil || err.Error() != "no server of upstream chat can take a socket now: 1 full, 1 gone" {
			t.Errorf("error %v", err)
		}
		time.Sleep(1000 * time.Second)
		w.wantLog()
		all := Groups{"chat": w.Group}.Names()
		if len(all) != 1 || all[0].Addresses != 1 || all[0].Server != "tcp://chat:1" || all[0].Failed == 0 || all[0].Failed >= all[0].LookUps {
			t.Errorf("the metrics tell of %+v", all)
		}
	})
}

// Addresses are asked, ejected and started slowly one by one.
func TestAnAddressHasAStateOfItsOwn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, new(directory), func(o *Options) {
			o.Health = well(nil)
			o.Balance, o.SlowStart = leastConnections, time.Minute
		}, "tcp://chat:1")
		w.dns.set("chat", "10.0.0.1", "10.0.0.2")
		ctx, cancel := context.WithCancel(t.Context())
		var watching sync.WaitGroup
		watching.Go(func() {
			w.watch(ctx, func(_ context.Context, _ *Health, t *Target) error {
				if place(t) == "10.0.0.2" {
					return errTest
				}
				return nil
			})
		})
		time.Sleep(15 * time.Second)
		w.wantTold("10.0.0.1 up 0, 10.0.0.2 down 0")
		w.at(100)
		w.dns.set("chat", "10.0.0.1", "10.0.0.2", "10.0.0.3")
		time.Sleep(45 * time.Second)
		for range 5 {
			_, _ = w.open(func(_ context.Context, t *Target) error { // the slow start leaves it little load to take
				if place(t) == "10.0.0.3" {
					return errTest
				}
				return nil
			})
		}
		if got := w.told(); !strings.HasSuffix(got, "10.0.0.3 ejected 0") {
			t.Error(got)
		}
		cancel()
		watching.Wait()
	})
}

// The first clients wait until the addresses are known. A name that nobody knows is left to them, so that they learn what is wrong.
func TestTheFirstLookUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, &directory{slow: 2 * time.Second}, nil, "tcp://chat:1")
		w.dns.set("chat", "10.0.0.1", "10.0.0.2")
		began := time.Now()
		go func() { w.watched() }()
		if count, _ := w.at(2); len(count) != 2 || count["chat"] != 0 || time.Since(began) != 2*time.Second {
			t.Errorf("%v after %s", count, time.Since(began))
		}

		w = newTown(t, &directory{slow: 3 * time.Second, broken: true}, nil, "tcp://chat:1")
		w.watched()
		if count, _ := w.at(2); count["chat"] != 2 {
			t.Errorf("%v", count)
		}
		synctest.Wait() // what waits for a look-up does not wait for the log
		w.wantTold(" up 2")
		w.wantLog("name cannot be looked up; the addresses from before are used on")

		// Others need not wait for a name.
		w = newTown(t, &directory{slow: 3 * time.Second}, nil, "tcp://chat:1", "tcp://10.0.0.9:1")
		w.dns.set("chat", "10.0.0.1")
		w.watched()
		began = time.Now()
		if count, _ := w.at(2); count[""] != 2 || time.Since(began) != 0 {
			t.Errorf("%v after %s", count, time.Since(began))
		}
		time.Sleep(10 * time.Second) // no look-up is left behind
	})
}

// A server that has moved is found before the interval is over, by the client that misses it.
func TestAServerThatCannotBeReachedIsLookedUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, &directory{slow: time.Millisecond}, nil, "tcp://chat:1")
		w.dns.set("chat", "10.0.0.1")
		w.watched()
		time.Sleep(10 * time.Second)
		w.dns.set("chat", "10.0.0.2")
		asked := w.dns.count()
		reach := func(_ context.Context, t *Target) error {
			if place(t) != "10.0.0.2" {
				return errTest
			}
			return nil
		}
		l, err := w.open(reach)
		if err != nil || place(l.Target()) != "10.0.0.2" {
			t.Fatalf("%v", err)
		}
		// One that is there, and does not answer, is looked up once a second at most, and nobody waits for that.
		for range 100 {
			began := time.Now()
			if _, err := w.open(func(context.Context, *Target) error { return errTest }); !errors.Is(err, errTest) || time.Since(began) > time.Second {
				t.Fatalf("%v after %s", err, time.Since(began))
			}
			time.Sleep(20 * time.Millisecond)
		}
		if n := w.dns.count() - asked; n > 5 {
			t.Errorf("%d look-ups in two seconds", n)
		}
	})
}

// Keys go by names first: a name whose server has another address keeps them.
func TestHashOfNames(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, new(directory), func(o *Options) { o.Balance, o.Hash = hashing, "client.ip" },
			"tcp://chat-0:1", "tcp://chat-1:1", "tcp://chat-2:1")
		for i := range 3 {
			w.dns.set(fmt.Sprintf("chat-%d", i), fmt.Sprintf("10.0.0.%d", i))
		}
		w.watched()
		synctest.Wait()
		names := func() (all []string) {
			for i := range 200 {
				f := &policy.Facts{Client: netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})}
				l, err := w.Open(t.Context(), f, opens)
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, l.Target().name)
			}
			return all
		}
		before := names()
		w.dns.set("chat-1", "10.0.1.1")
		time.Sleep(time.Minute)
		if !slices.Equal(before, names()) {
			t.Error("clients have moved, though only an address has")
		}
		w.dns.set("chat-1", "10.0.1.1", "10.0.1.2") // which doubles its share
		time.Sleep(time.Minute)
		moved := 0
		for i, name := range names() {
			if name != before[i] {
				if moved++; name != "chat-1" {
					t.Errorf("a client has moved to %s", name)
				}
			}
		}
		if moved == 0 || moved > 60 {
			t.Errorf("%d of 200 clients have moved, want about 33", moved)
		}
	})
}

func TestStickyToAnAddress(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sticky := DefaultSticky()
		w := newTown(t, new(directory), func(o *Options) { o.Sticky = &sticky }, "tcp://chat:1", "tcp://10.0.0.9:1")
		w.dns.set("chat", "10.0.0.1", "10.0.0.2")
		w.watched()
		synctest.Wait()
		_, cookie := visit(t, w.Group, nil, false)
		if strings.Contains(cookie.Value, "10.") || len(cookie.Value) != 22+1+22 {
			t.Errorf("cookie %s", cookie)
		}
		for range 5 {
			if at, set := visit(t, w.Group, cookie, false); at != "chat:1 (10.0.0.1)" || set != nil {
				t.Errorf("the client came back to %s, and was told %v", at, set)
			}
		}
		w.dns.set("chat", "10.0.0.3")
		time.Sleep(time.Minute)
		for range 5 { // the name is as near as can be
			if at, set := visit(t, w.Group, cookie, false); at != "chat:1 (10.0.0.3)" || set == nil {
				t.Errorf("the client came back to %s, and was told %v", at, set)
			}
		}
	})
}

// What a reload changes about names, and what it leaves.
func TestAdoptNames(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, new(directory), nil, "tcp://chat:1")
		w.dns.set("chat", "10.0.0.1", "10.0.0.2")
		w.dns.set("news", "10.0.1.1")
		w.watched()
		synctest.Wait()
		var conns []hub.Conn
		for range 4 {
			l, err := w.open(nil)
			if err != nil {
				t.Fatal(err)
			}
			c := new(conn)
			conns = append(conns, c)
			l.Carry(c)
		}
		asked := w.dns.count()
		if leaving := w.Adopt(w.group(nil, "tcp://chat:1")); len(leaving) != 0 {
			t.Errorf("%d sockets leave", len(leaving))
		}
		synctest.Wait()
		w.wantTold("10.0.0.1 up 2, 10.0.0.2 up 2")
		if w.dns.count() != asked {
			t.Error("a reload has names looked up that stay")
		}
		// A shorter interval counts at once.
		w.dns.set("chat", "10.0.0.1")
		w.Adopt(w.group(func(o *Options) { o.Resolve = 2 * time.Second }, "tcp://chat:1"))
		synctest.Wait()
		w.wantTold("10.0.0.1 up 2, 10.0.0.2 gone 2")
		// Off leaves the sockets where they are too.
		off := func(o *Options) { o.Resolve = 0 }
		if leaving := w.Adopt(w.group(off, "tcp://chat:1")); len(leaving) != 0 {
			t.Errorf("%d sockets leave", len(leaving))
		}
		w.wantTold(" up 0, 10.0.0.1 gone 2, 10.0.0.2 gone 2")
		asked = w.dns.count()
		if count, leases := w.at(1); count["chat"] != 1 {
			t.Errorf("%v", count)
		} else {
			leases[0].Release()
		}
		time.Sleep(time.Minute)
		if n := w.dns.count(); n != asked || w.Watched() {
			t.Errorf("%d look-ups more", n-asked)
		}
		w.Adopt(w.group(nil, "tcp://chat:1"))
		synctest.Wait()
		w.wantTold("10.0.0.1 up 2, 10.0.0.2 gone 2")
		// What is not listed any more drains, wherever it was.
		if leaving := w.Adopt(w.group(nil, "tcp://news:1")); len(leaving) != len(conns) {
			t.Errorf("%d sockets leave", len(leaving))
		}
		synctest.Wait()
		w.wantTold("10.0.1.1 up 0")
	})
}

// Look-ups are spread and bounded, and end with the watching.
func TestLookUpsAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &directory{slow: time.Second}
		var urls []string
		for i := range 100 {
			name := fmt.Sprintf("s%d", i)
			urls = append(urls, "tcp://"+name+":1")
			d.set(name, fmt.Sprintf("10.0.0.%d", i))
		}
		w := newTown(t, d, nil, urls...)
		resolver := Sparing(d)
		w.resolver = resolver
		stop := w.watched()
		time.Sleep(20 * time.Second)
		if d.count() != 100 || d.most != lookUpsAtMost {
			t.Errorf("%d look-ups, %d at once", d.count(), d.most)
		}
		var moments []int
		for range 12 {
			before := d.count()
			time.Sleep(time.Second)
			moments = append(moments, d.count()-before)
		}
		if slices.Max(moments) > 60 {
			t.Errorf("look-ups per second: %v", moments)
		}
		d.mu.Lock()
		d.slow = time.Hour
		d.mu.Unlock()
		time.Sleep(24 * time.Second) // some are under way
		stop()
		if d.asking != 0 {
			t.Errorf("%d look-ups go on", d.asking)
		}
		asked := d.count()
		time.Sleep(time.Hour)
		if d.count() != asked {
			t.Error("names are looked up that nobody watches")
		}
	})
}

// resolverOf asks a name server on loopback, which has the names of d; it counts the questions for addresses.
func resolverOf(t *testing.T, d *directory) *net.Resolver {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		buf := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = conn.WriteTo(answerTo(d, buf[:n]), from)
		}
	})
	t.Cleanup(func() { conn.Close(); serving.Wait() })
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

// answerTo answers a question for the addresses of a name (RFC 1035, section 4).
func answerTo(d *directory, q []byte) []byte {
	const head, a, aaaa = 12, 1, 28
	var labels []string
	at := head
	for q[at] != 0 {
		labels = append(labels, string(q[at+1:at+1+int(q[at])]))
		at += 1 + int(q[at])
	}
	kind, end := binary.BigEndian.Uint16(q[at+1:]), at+5
	found, err := d.LookupNetIP(context.Background(), "ip", labels[0])
	out := slices.Clone(q[:end])
	copy(out[2:], []byte{0x84, 0, 0, 1, 0, 0, 0, 0, 0, 0}) // an answer, authoritative, with one question
	if err != nil {
		out[3] = 3 // no such name
	}
	for _, addr := range found {
		if addr.Is4() != (kind == a) || kind != a && kind != aaaa {
			continue
		}
		out[7]++
		data := addr.AsSlice()
		out = append(out, 0xC0, head)                                          // the name of the question
		out = append(out, 0, byte(kind), 0, 1, 0, 0, 0, 5, 0, byte(len(data))) // IN, 5s, size
		out = append(out, data...)
	}
	return out
}

// The look-ups of a name server's answers, over UDP as everywhere.
func TestNamesAreLookedUpByDNS(t *testing.T) {
	t.Parallel()
	w := newTown(t, new(directory), func(o *Options) { o.Resolve = minResolve }, "tcp://chat.test.:1")
	w.dns.set("chat", "127.0.0.1", "127.0.0.2", "127.0.0.3")
	w.resolver = resolverOf(t, w.dns)
	w.watched()
	if count, leases := w.at(6); count["127.0.0.1"] != 2 || count["127.0.0.2"] != 2 || count["127.0.0.3"] != 2 {
		t.Errorf("%v", count)
	} else {
		for _, l := range leases {
			l.Release()
		}
	}
	w.dns.set("chat", "127.0.0.3", "127.0.0.4")
	w.awaitTold("127.0.0.3 up 0, 127.0.0.4 up 0")
	w.dns.fail(true)
	for by := time.Now().Add(patience); w.states(time.Now())[0].LookUp.Error == ""; <-time.After(time.Millisecond) {
		if time.Now().After(by) {
			t.Fatal("the look-ups do not fail")
		}
	}
	w.wantTold("127.0.0.3 up 0, 127.0.0.4 up 0")
	w.dns.fail(false)
	w.dns.set("chat", "127.0.0.5")
	w.awaitTold("127.0.0.5 up 0")
}

// awaitTold waits until the API tells this.
func (w *town) awaitTold(want string) {
	w.t.Helper()
	for by := time.Now().Add(patience); w.told() != want; <-time.After(time.Millisecond) {
		if time.Now().After(by) {
			w.t.Fatalf("the servers are %s; want %s", w.told(), want)
		}
	}
}

// Two addresses of one server are dialled one after the other, and the one that answers counts.
func TestDialEither(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	there := l.Addr().String()
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	nowhere := gone.Addr().String()
	for _, ways := range [][2]string{{there, nowhere}, {nowhere, there}, {there, there}} {
		conn, err := dialEither(t.Context(), ways[0], ways[1])
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	if _, err := dialEither(t.Context(), nowhere, there+"0"); err == nil || !strings.Contains(err.Error(), nowhere) {
		t.Errorf("error %v, want the first way's", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := dialEither(ended, there, there); !errors.Is(err, context.Canceled) && err == nil {
		t.Errorf("error %v", err)
	}

	// As localhost, with a server at one of the two.
	target, err := parse("tcp://localhost:" + there[strings.LastIndexByte(there, ':')+1:])
	if err != nil {
		t.Fatal(err)
	}
	conn, err := target.at(hosts(addrs("::1", "127.0.0.1"))[0]).Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

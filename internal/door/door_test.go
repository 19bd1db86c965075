package door

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"bridgehead/internal/leak"
	"bridgehead/internal/metrics"
	"bridgehead/internal/proxyproto"
	"bridgehead/internal/seldom"
)

func TestMain(m *testing.M) { leak.Main(m) }

const patience = 20 * time.Second

// A record takes a log from several goroutines.
type record struct {
	mu   sync.Mutex // guards the following
	text strings.Builder
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(p)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

func anyone(netip.Addr) bool { return true }
func noOne(netip.Addr) bool  { return false }

// A house is a door with a server of one sort or another behind it.
type house struct {
	*Door
	log     *record
	address string
}

// build serves with a door: what a request is told of is the answer.
func build(t *testing.T, o Options) *house {
	t.Helper()
	if o.Timeout == 0 {
		o.Timeout = patience
	}
	h := &house{log: new(record)}
	h.Door = New("public", slog.New(slog.NewTextHandler(h.log, nil)), seldom.New(), metrics.New("x").Listener("public"))
	h.Set(o)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.address = l.Addr().String()
	s := &http.Server{ConnContext: Context, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn := From(r.Context())
		conn.Pass().Arrived()
		fmt.Fprintf(w, "%s to %v, %s says %s", r.RemoteAddr, r.Context().Value(http.LocalAddrContextKey), conn.Peer(), conn.Header().Value("authority"))
	})}
	served := make(chan error)
	go func() { served <- s.Serve(h.Listener(l)) }()
	t.Cleanup(func() {
		s.Close()
		<-served
	})
	return h
}

// dial connects, and says something.
func (h *house) dial(t *testing.T, say string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", h.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, say); err != nil {
		t.Fatal(err)
	}
	return conn
}

const (
	request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
	header1 = "PROXY TCP4 203.0.113.7 198.51.100.1 50000 443\r\n"
)

func header2(t *testing.T) string {
	t.Helper()
	h := proxyproto.Header{
		Version: 2, Source: netip.MustParseAddrPort("[2001:db8::7]:50000"), Destination: netip.MustParseAddrPort("[2001:db8::1]:443"),
		TLVs: []proxyproto.TLV{{Type: proxyproto.Authority, Value: []byte("chat.example")}},
	}
	raw, err := h.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func answer(t *testing.T, conn net.Conn) string {
	t.Helper()
	all, err := io.ReadAll(conn)
	conn.Close()
	if err != nil {
		t.Fatal(err)
	}
	return string(all)
}

func TestTheHeaderSaysWhoTheClientIs(t *testing.T) {
	t.Parallel()
	h := build(t, Options{Proxy: true, Trusted: anyone})
	for header, want := range map[string]string{
		header1:             "203.0.113.7:50000 to 198.51.100.1:443, 127.0.0.1 says ",
		header2(t):          "[2001:db8::7]:50000 to [2001:db8::1]:443, 127.0.0.1 says chat.example",
		"PROXY UNKNOWN\r\n": "127.0.0.1:",
	} {
		if got := answer(t, h.dial(t, header+request)); !strings.HasPrefix(got, "HTTP/1.1 200") || !strings.Contains(got, want) {
			t.Errorf("%q: %q", header, got)
		}
	}
}

// However the header is cut, and however much comes with it, nothing is lost.
func TestTheHeaderCutInEveryPlace(t *testing.T) {
	t.Parallel()
	o := Options{Proxy: true, Trusted: anyone, Timeout: patience}
	for _, header := range []string{header1, header2(t)} {
		text := header + request
		for cut := range text {
			ours, theirs := net.Pipe()
			d := New("public", slog.New(slog.DiscardHandler), nil, nil)
			d.Set(o)
			c := d.meet(ours)
			go func() {
				io.WriteString(theirs, text[:cut])
				io.WriteString(theirs, text[cut:])
				theirs.Close()
			}()
			got, err := io.ReadAll(c)
			if err != nil || string(got) != request || c.Header() == nil {
				t.Fatalf("cut at %d: %q, %v", cut, got, err)
			}
			c.Close()
		}
	}
}

func TestRefusedHeaders(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		options Options
		say     string
		want    string // in the answer
		told    string // in the log
	}{
		{"untrusted, with a header", Options{Proxy: true, Trusted: noOne}, header1 + request, "403 Forbidden", "reason=untrusted"},
		{"untrusted, without", Options{Proxy: true, Trusted: noOne}, request, "for the proxies in front alone", "add its address"},
		{"nobody is trusted", Options{Proxy: true}, header1 + request, "403 Forbidden", "reason=untrusted"},
		{"missing", Options{Proxy: true, Trusted: anyone}, request, "400 Bad Request", "reason=no_header"},
		{"malformed", Options{Proxy: true, Trusted: anyone}, "PROXY TCP9 x\r\n" + request, "is malformed", "reason=bad_header"},
		{"late", Options{Proxy: true, Trusted: anyone, Timeout: time.Millisecond}, "PROXY ", "408 Request Timeout", "reason=late_header"},
		{"missing before TLS", Options{Proxy: true, Trusted: anyone, TLS: true}, "\x16\x03\x01", "\x15\x03\x01\x00\x02\x02\x31", "reason=no_header"},
	} {
		h := build(t, c.options)
		if got := answer(t, h.dial(t, c.say)); !strings.Contains(got, c.want) {
			t.Errorf("%s: %q", c.name, got)
		}
		if told := h.log.String(); strings.Count(told, "connection refused") != 1 || !strings.Contains(told, c.told) {
			t.Errorf("%s: the log says %q", c.name, told)
		}
		answer(t, h.dial(t, c.say))
		if told := h.log.String(); strings.Count(told, "\n") != 1 {
			t.Errorf("%s: told again: %q", c.name, told)
		}
		h.empty(t)
	}
}

// empty waits until every place is free.
func (h *house) empty(t *testing.T) {
	t.Helper()
	h.await(t, func() bool {
		return h.connections.total == 0 && h.handshakes.total == 0 && len(h.connections.held)+len(h.handshakes.held) == 0
	})
}

func (h *house) await(t *testing.T, so func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); ; <-tick.C {
		h.mu.Lock()
		ok, text := so(), fmt.Sprintf("%+v %+v", h.connections, h.handshakes)
		h.mu.Unlock()
		if ok {
			return
		}
		if time.Now().After(end) {
			t.Fatal(text)
		}
	}
}

// A check of the port by a load balancer is no news, and a client says what it likes.
func TestWhatIsNoNews(t *testing.T) {
	t.Parallel()
	h := build(t, Options{Proxy: true, Trusted: anyone})
	for _, say := range []string{"", "PRO"} {
		conn := h.dial(t, say)
		h.await(t, func() bool { return h.connections.total == 1 })
		conn.Close()
		h.empty(t)
	}
	if told := h.log.String(); told != "" {
		t.Error(told)
	}
}

func TestAHeaderThatNobodyExpects(t *testing.T) {
	t.Parallel()
	h := build(t, Options{})
	for _, header := range []string{header1, header2(t)} {
		if got := answer(t, h.dial(t, header+request)); !strings.Contains(got, "400 Bad Request") {
			t.Errorf("%q", got)
		}
	}
	if told := h.log.String(); strings.Count(told, "\n") != 1 || !strings.Contains(told, "set proxy_protocol: true") {
		t.Error(told)
	}
}

// Below TLS the header is read before the handshake, by whoever asks first.
func TestTheHeaderBeforeTLS(t *testing.T) {
	t.Parallel()
	ours, theirs := net.Pipe()
	d := New("public", slog.New(slog.DiscardHandler), nil, nil)
	d.Set(Options{Proxy: true, Trusted: anyone, Timeout: patience, TLS: true})
	conn := tls.Server(d.meet(ours), &tls.Config{})
	defer conn.Close()
	go func() {
		io.WriteString(theirs, header1+"GET / HTTP/1.1")
		io.Copy(io.Discard, theirs)
		theirs.Close()
	}()
	if err := conn.HandshakeContext(t.Context()); err == nil || !strings.Contains(err.Error(), "does not look like a TLS handshake") {
		t.Errorf("TLS was not reached: %v", err)
	}
	if got := conn.RemoteAddr().String(); got != "203.0.113.7:50000" {
		t.Error(got)
	}
	theirs.Close()
	if c := From(Context(context.Background(), conn)); c == nil || c.Header() == nil {
		t.Error("a request does not find its connection")
	}
}

// A client is a connection from an address.
type client struct {
	net.Conn
	addr string
}

func (c client) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(c.addr), 1))
}
func (client) Close() error { return nil }

// from lets n connections from an address in, and gives those that found room.
func (h *house) from(addr string, n int) (in []*Conn) {
	for range n {
		if c := h.meet(client{addr: addr}); c != nil {
			in = append(in, c)
		}
	}
	return in
}

// One address gets half of the room, the next a third of it in all, and so on: there is always some left.
func TestWhoHasMostIsRefusedFirst(t *testing.T) {
	t.Parallel()
	h := build(t, Options{Connections: 12, Trusted: func(a netip.Addr) bool { return a.String() == "10.0.0.1" }})
	greedy := h.from("203.0.113.1", 100)
	if len(greedy) != 6 {
		t.Fatalf("one address holds %d of 12", len(greedy))
	}
	if told := h.log.String(); !strings.Contains(told, "reason=share") || strings.Count(told, "\n") != 1 {
		t.Error(told)
	}
	if n := len(h.from("203.0.113.2", 100)); n != 3 {
		t.Errorf("the second holds %d", n)
	}
	if n := len(h.from("2001:db8::1", 1)) + len(h.from("2001:db8::2", 1)) + len(h.from("2001:db8::3", 1)); n != 2 {
		t.Errorf("three of one /64: %d", n) // 3 were free
	}
	if n := len(h.from("10.0.0.1", 100)); n != 1 {
		t.Errorf("a proxy finds %d", n)
	}
	if n := len(h.from("203.0.113.9", 1)); n != 0 || !strings.Contains(h.log.String(), "reason=full") {
		t.Error("one more than there is room for")
	}
	for _, c := range greedy {
		c.Close()
		c.Close() // its place is given back once
	}
	if n := len(h.from("203.0.113.9", 100)); n != 3 {
		t.Errorf("of the places that are free again one address gets %d", n)
	}
}

func TestHandshakesAreBounded(t *testing.T) {
	t.Parallel()
	h := build(t, Options{Handshakes: 4})
	slow := h.from("203.0.113.1", 100)
	if len(slow) != 2 || !strings.Contains(h.log.String(), "reason=handshakes_share") {
		t.Fatalf("%d, %s", len(slow), h.log)
	}
	for _, c := range slow {
		c.Pass().Arrived()
		c.Pass().Arrived()
	}
	if n := len(h.from("203.0.113.1", 100)); n != 2 {
		t.Errorf("after the first have arrived: %d", n)
	}
	if n := len(h.from("203.0.113.2", 1)) + len(h.from("203.0.113.3", 1)); n != 2 {
		t.Errorf("others: %d", n)
	}
	if n := len(h.from("203.0.113.4", 1)); n != 0 || !strings.Contains(h.log.String(), "reason=handshakes ") {
		t.Error("one more than there is room for")
	}
}

// Behind a proxy the share is the client's, as soon as the header names it.
func TestTheShareOfAClientBehindAProxy(t *testing.T) {
	t.Parallel()
	h := build(t, Options{Proxy: true, Connections: 4, Trusted: func(a netip.Addr) bool { return a.IsLoopback() }})
	let := make([]net.Conn, 0, 2)
	for range 2 {
		conn := h.dial(t, header1+strings.Replace(request, "close", "keep-alive", 1))
		if _, err := io.ReadFull(conn, make([]byte, 12)); err != nil {
			t.Fatal(err)
		}
		let = append(let, conn)
	}
	if got := answer(t, h.dial(t, header1+request)); !strings.Contains(got, "503 Service Unavailable") {
		t.Errorf("%q", got)
	}
	if got := answer(t, h.dial(t, strings.Replace(header1, ".7 ", ".8 ", 1)+request)); !strings.Contains(got, "200 OK") {
		t.Errorf("%q", got)
	}
	for _, conn := range let {
		conn.Close()
	}
	h.empty(t)
}

// Files are still sent by the system.
func TestReadFrom(t *testing.T) {
	t.Parallel()
	ours, theirs := net.Pipe()
	c := &Conn{Conn: ours, options: &Options{}, pass: &Pass{door: New("x", slog.New(slog.DiscardHandler), nil, nil)}, started: true}
	go func() {
		c.ReadFrom(bytes.NewReader([]byte("file")))
		ours.Close()
	}()
	if got, err := io.ReadAll(theirs); string(got) != "file" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestNothingOfNothing(t *testing.T) {
	t.Parallel()
	c := From(t.Context())
	c.Pass().Arrived()
	c.Pass().Leave()
	if c.Header() != nil {
		t.Error("a header from nowhere")
	}
}

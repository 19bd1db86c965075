package server

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// A flood is many clients behind a trusted proxy on this machine, none of whom has a key that counts.
type flood struct {
	t       *testing.T
	s       *Server
	handler http.Handler
	answers sync.Map // how many by status: *atomic.Int64
}

// client is the i-th address: half of them are the /64s of one /48, the others come from everywhere.
func (*flood) client(i int) string {
	if i%2 == 0 {
		a := netip.MustParseAddr("2001:db8:bad::1").As16()
		binary.BigEndian.PutUint16(a[6:], uint16(i/2))
		return netip.AddrFrom16(a).String()
	}
	random := rand.New(rand.NewPCG(1, uint64(i)))
	return netip.AddrFrom4([4]byte{byte(1 + random.Uint32()%100), byte(random.Uint32()), byte(random.Uint32()), byte(random.Uint32())}).String()
}

func (f *flood) count(status int) {
	n, _ := f.answers.LoadOrStore(status, new(atomic.Int64))
	n.(*atomic.Int64).Add(1)
}

func (f *flood) counted(status int) int64 {
	if n, ok := f.answers.Load(status); ok {
		return n.(*atomic.Int64).Load()
	}
	return 0
}

// header is that of a handshake.
func (*flood) header(client string) http.Header {
	return http.Header{
		"Upgrade": {"websocket"}, "Connection": {"Upgrade"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="},
		"X-Api-Key": {"guessed"}, "X-Forwarded-For": {client},
	}
}

// shakeHands is a handshake without a connection, which a refusal does without.
func (f *flood) shakeHands(i int) {
	r := httptest.NewRequest("GET", "http://chat.example.com/ws", nil)
	r.RemoteAddr, r.Header = "127.0.0.1:1234", f.header(f.client(i))
	w := httptest.NewRecorder()
	f.handler.ServeHTTP(w, r)
	f.count(w.Code)
}

// dial is a handshake over a connection of its own.
func (f *flood) dial(i int) {
	conn, err := net.Dial("tcp", f.s.Addr("plain").String())
	if err != nil {
		f.t.Error(err)
		return
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	r, _ := http.NewRequest("GET", "http://chat.example.com/ws", nil)
	r.Header = f.header(f.client(i))
	if err := r.Write(conn); err != nil {
		f.t.Error(err)
		return
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), r)
	if err != nil {
		f.t.Error(err)
		return
	}
	f.count(resp.StatusCode)
}

// come has the clients from first to last shake hands, some at once.
func (f *flood) come(first, last int, by func(int)) {
	const atOnce = 8
	var wg sync.WaitGroup
	for w := range atOnce {
		wg.Go(func() {
			for i := first + w; i < last; i += atOnce {
				by(i)
			}
		})
	}
	wg.Wait()
}

// A counter counts the lines of a log that are heard.
type counter struct {
	slog.Handler
	lines *atomic.Int64
}

func (c counter) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }
func (c counter) WithAttrs([]slog.Attr) slog.Handler               { return c }
func (c counter) WithGroup(string) slog.Handler                    { return c }

func (c counter) Handle(context.Context, slog.Record) error {
	c.lines.Add(1)
	return nil
}

// floodSize is how many clients come. FLOOD asks for another number, such as 200000.
func floodSize(t *testing.T) int {
	n := 40_000
	if text := os.Getenv("FLOOD"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			t.Fatal("FLOOD: ", err)
		}
	}
	return n
}

// A flood of clients leaves memory bounded, the log readable, and a good client served, with just what it had left.
func TestAFloodOfAddresses(t *testing.T) {
	t.Parallel()
	sum := sha256.Sum256([]byte("the key of ann"))
	keys := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(keys, []byte("ann sha256:"+hex.EncodeToString(sum[:])+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var lines atomic.Int64
	s, err := New(parse(t, `
listeners: [{name: plain, address: "127.0.0.1:0"}]
admin: {address: "127.0.0.1:0"}
trusted_proxies: [loopback]
authenticators: {keys: {api_key: {file: `+keys+`}}}
routes:
  - path: /ws
    auth: keys
    limits:
      - {per: client.ip, connect_rate: 10/h, failures: 5/h}
      - {per: [client.ip, header.x-api-key], connect_rate: 10/h} # with three rules it takes a third of the clients
      - {per: [client.ip, host], connect_rate: 10/h} # to fill the room for what is remembered of them
    websocket: {to: "ws://`+echo(t)+`"}
`), "test", slog.New(counter{lines: &lines}))
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(s.Stop)
	f := &flood{t: t, s: s}
	for _, front := range s.now.Load().fronts {
		if front.name == "plain" {
			f.handler = front.server.Handler
		}
	}
	good := http.Header{"X-Api-Key": {"the key of ann"}, "X-Forwarded-For": {"2001:db8:900d::1"}}
	url := "ws://" + s.Addr("plain").String() + "/ws"
	enter := func() (*websocket.Conn, int) {
		conn, resp, err := websocket.DefaultDialer.Dial(url, good)
		if resp == nil {
			t.Fatal(err)
		}
		if err == nil {
			t.Cleanup(func() { conn.Close() })
		}
		return conn, resp.StatusCode
	}
	served := func(conn *websocket.Conn) {
		t.Helper()
		conn.SetReadDeadline(time.Now().Add(time.Minute))
		if err := conn.WriteMessage(websocket.TextMessage, []byte("still here")); err != nil {
			t.Fatal(err)
		}
		if _, data, err := conn.ReadMessage(); err != nil || string(data) != "still here" {
			t.Fatalf("%q, %v", data, err)
		}
	}

	first, _ := enter()
	before, said := inUse(), lines.Load()
	n := floodSize(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.come(0, n, f.shakeHands)
	}()
	for running := true; running; {
		select {
		case <-done:
			running = false
		case <-time.After(50 * time.Millisecond):
			served(first)
		}
	}
	second, status := enter()
	if status != http.StatusSwitchingProtocols {
		t.Fatalf("the good client got %d after %d others", status, n)
	}
	served(second)
	f.come(0, 2000, f.dial)
	if told := lines.Load() - said; told > 100 {
		t.Errorf("%d lines in the log", told)
	}
	served(first)
	passed := 2
	for ; passed < 100; passed++ {
		if _, status = enter(); status != http.StatusSwitchingProtocols {
			break
		}
	}
	if passed != 10 || status != http.StatusTooManyRequests {
		t.Errorf("the good client came in %d times and then got %d, want 10 and 429", passed, status)
	}

	if got := f.counted(401) + f.counted(429); got != int64(n+2000) || f.counted(401) == 0 {
		t.Errorf("%d refusals of %d", got, n+2000)
	}
	if kept, most := s.limits.Len(), maxLimiterKeys+3*s.hub.Len(); kept > most || kept < maxLimiterKeys {
		t.Errorf("%d accounts are kept, want the room of %d to be full, and no more than %d", kept, maxLimiterKeys, most)
	}
	const room = 200 << 20
	if grown := inUse() - before; grown > room {
		t.Errorf("the heap has grown by %d MiB, want %d at most", grown>>20, room>>20)
	}
}

// inUse is what is in use after a collection.
func inUse() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

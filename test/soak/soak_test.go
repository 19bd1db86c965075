// Package soak lets thousands of sockets live and die in a server of this process, and looks whether anything is left of them. It
// says now and then how far it is:
//
//	SOAK_LIVES=200000 go test -timeout 0 -v ./test/soak
//	SOAK_LIVES=20000 SOAK_AT_ONCE=2000 go test -race -timeout 0 -v ./test/soak
//	SOAK_DRIVER=goroutines go test ./test/soak
package soak

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"bridgehead/config"
	"bridgehead/internal/leak"
	"bridgehead/server"
)

func TestMain(m *testing.M) { leak.Main(m) }

const patience = 60 * time.Second

// A world is a server with backends of both kinds, and the sockets of its clients.
type world struct {
	t       *testing.T
	server  *server.Server
	reloads atomic.Int64
	done    atomic.Int64 // lives that have ended
	watch   watch
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "bh")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	w := &world{t: t}
	text := `
state: ` + dir + `
certificates: {internal: true}
driver: ` + cmp.Or(os.Getenv("SOAK_DRIVER"), "auto") + `
listeners:
  - {name: ws, address: "127.0.0.1:0", header_timeout: 20m}
  - {name: wss, address: "127.0.0.1:0", header_timeout: 20m, tls: true}
admin: {address: "127.0.0.1:0"}
defaults:
  limits: [{per: client.ip, messages: %d000000/s, bytes: 1GiB/s}]
  socket: {ping: 1s, pong: 20m, write_timeout: 20m, close_timeout: 20m} # who is stuck is for the test to say
routes:
  - {name: relay, path: /relay, websocket: {to: "ws://` + serve(t, relayed) + `", connect: {timeout: 20m}}}
  - {name: stream, path: /stream, tcp: {to: "` + serve(t, streamed) + `", close: {linger: 20m}, connect: {timeout: 20m}}}
`
	load := func() (*config.Config, []config.Warning, error) {
		return config.Parse("soak.yaml", fmt.Appendf(nil, text, 1+w.reloads.Add(1)%9), func(string) (string, bool) { return "", false })
	}
	c, _, err := load()
	if err != nil {
		t.Fatal(err)
	}
	if w.server, err = server.New(c, "soak", slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	w.server.ReloadFrom(server.Source{Load: load})
	w.server.Start()
	t.Cleanup(w.server.Stop)
	return w
}

// serve hands every connection to a backend.
func serve(t *testing.T, backend func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { defer conn.Close(); backend(conn) })
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().String()
}

// kill ends a connection as the end of its process would in the worst case.
func kill(conn net.Conn) {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	conn.(*net.TCPConn).SetLinger(0)
	conn.Close()
}

// relayed is a WebSocket that echoes, and does what it is told: `die`, or `flood N` for N numbered messages.
func relayed(conn net.Conn) {
	l := &once{conn: make(chan net.Conn, 1), closed: make(chan struct{})}
	l.conn <- conn
	var upgrader websocket.Upgrader
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer l.Close()
		ws, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer ws.Close()
		answerPings(ws)
		for {
			kind, data, err := ws.ReadMessage()
			if err != nil {
				return
			}
			word, number, _ := strings.Cut(string(data[:min(len(data), 20)]), " ")
			switch word {
			case "die":
				kill(ws.NetConn())
				return
			case "flood":
				n, _ := strconv.Atoi(number)
				for i := range n {
					if ws.WriteMessage(websocket.BinaryMessage, numbered(i, 10_000)) != nil {
						return
					}
				}
			default:
				if ws.WriteMessage(kind, data) != nil {
					return
				}
			}
		}
	})}
	s.Serve(l)
	<-l.closed
}

// A once is a listener for one connection.
type once struct {
	conn   chan net.Conn
	closed chan struct{}
	close  sync.Once
}

func (l *once) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conn:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *once) Close() error { l.close.Do(func() { close(l.closed) }); return nil }

func (l *once) Addr() net.Addr { return nil }

// streamed echoes bytes, and after the end of what it is sent says goodbye.
func streamed(conn net.Conn) {
	if _, err := io.Copy(conn, conn); err == nil {
		conn.Write([]byte("goodbye"))
	}
}

// answerPings has more patience than gorilla's own handler, which breaks the connection if the pong has to wait for a second.
func answerPings(conn *websocket.Conn) {
	conn.SetPingHandler(func(payload string) error {
		conn.WriteControl(websocket.PongMessage, []byte(payload), time.Now().Add(hopeless)) // which fails behind our Close
		return nil
	})
}

// numbered is a message that tells its place among its like.
func numbered(i, size int) []byte {
	b := make([]byte, 20+size)
	copy(b, fmt.Sprintf("%-19d ", i))
	return b
}

// dial opens a socket, by TLS or not.
func (w *world) dial(rnd *rand.Rand, path string) (*socket, error) {
	scheme := []string{"ws", "wss"}[rnd.IntN(2)]
	s := &socket{watch: &w.watch}
	d := &websocket.Dialer{TLSClientConfig: &tls.Config{
		InsecureSkipVerify: true, MaxVersion: []uint16{tls.VersionTLS12, tls.VersionTLS13}[rnd.IntN(2)],
	}, NetDial: func(network, address string) (net.Conn, error) {
		conn, err := net.Dial(network, address)
		if err == nil {
			w.watch.add(s, conn)
		}
		return conn, err
	}}
	conn, resp, err := d.Dial(scheme+"://"+w.server.Addr(scheme).String()+path, nil)
	if err != nil {
		if resp != nil {
			err = fmt.Errorf("%w: %s", err, resp.Status)
		}
		return nil, errors.Join(err, s.end())
	}
	s.Conn = conn
	s.moved()
	answerPings(conn)
	return s, nil
}

// talk sends numbered messages, a few ahead, and checks that each comes back once and in order.
func talk(conn *socket, rnd *rand.Rand) error {
	const ahead = 4
	n := 1 + rnd.IntN(20)
	sizes := make([]int, n)
	for i := range sizes {
		sizes[i] = []int{0, 10, 100, 200, 5000, 70_000}[rnd.IntN(6)*rnd.IntN(6)/5]
	}
	for i := range n + ahead {
		if i < n {
			if err := conn.WriteMessage(websocket.BinaryMessage, numbered(i, sizes[i])); err != nil {
				return fmt.Errorf("message %d: %w", i, err)
			}
		}
		if i >= ahead {
			if err := expect(conn, i-ahead, sizes[i-ahead]); err != nil {
				return err
			}
		}
	}
	return nil
}

func expect(conn *socket, i, size int) error {
	_, data, err := conn.ReadMessage()
	if err != nil {
		return fmt.Errorf("echo %d: %w", i, err)
	}
	if string(data) != string(numbered(i, size)) {
		return fmt.Errorf("echo %d is %.20q with %d bytes", i, data, len(data))
	}
	return nil
}

// closed checks with which code a socket ends.
func closed(conn *socket, code int) error {
	for {
		_, _, err := conn.ReadMessage()
		if err == nil {
			continue
		}
		if code == 1014 && strings.Contains(err.Error(), "bad close code 1014") { // gorilla takes it for none
			return nil
		}
		if c, ok := errors.AsType[*websocket.CloseError](err); !ok || c.Code != code {
			return fmt.Errorf("ended by %w, want code %d", err, code)
		}
		return nil
	}
}

func sayClose(conn *socket) {
	conn.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(1000, ""))
}

// lives are what a socket may go through; each opens its own.
var lives = map[string]func(w *world, rnd *rand.Rand) error{
	"open, talk, close": func(w *world, rnd *rand.Rand) error {
		conn, err := w.dial(rnd, "/relay")
		if err != nil {
			return err
		}
		defer conn.end()
		if err := talk(conn, rnd); err != nil {
			return err
		}
		sayClose(conn)
		return closed(conn, 1000)
	},
	"the client is killed": func(w *world, rnd *rand.Rand) error {
		conn, err := w.dial(rnd, []string{"/relay", "/stream"}[rnd.IntN(2)])
		if err != nil {
			return err
		}
		conn.WriteMessage(websocket.TextMessage, make([]byte, rnd.IntN(100_000)))
		conn.kill()
		return nil
	},
	"the backend is killed": func(w *world, rnd *rand.Rand) error {
		conn, err := w.dial(rnd, "/relay")
		if err != nil {
			return err
		}
		defer conn.end()
		if err := talk(conn, rnd); err != nil {
			return err
		}
		conn.WriteMessage(websocket.TextMessage, []byte("die"))
		return closed(conn, 1014)
	},
	"half-close": func(w *world, rnd *rand.Rand) error {
		conn, err := w.dial(rnd, "/stream")
		if err != nil {
			return err
		}
		defer conn.end()
		sent := numbered(7, rnd.IntN(50_000))
		conn.WriteMessage(websocket.BinaryMessage, sent)
		sayClose(conn)
		var got []byte
		for {
			_, data, err := conn.ReadMessage()
			if got = append(got, data...); err != nil {
				break
			}
		}
		if err := conn.why(); err != nil {
			return err
		}
		if string(got) != string(sent)+"goodbye" {
			return fmt.Errorf("%d bytes came back of %d, and %.10q", len(got), len(sent), got[max(0, len(got)-10):])
		}
		return nil
	},
	"slow reader": func(w *world, rnd *rand.Rand) error {
		conn, err := w.dial(rnd, "/relay")
		if err != nil {
			return err
		}
		defer conn.end()
		n := 100 + rnd.IntN(300)
		conn.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, "flood %d", n))
		<-time.After(time.Duration(rnd.IntN(100)) * time.Millisecond) // is the slowness
		for i := range n {
			if err := expect(conn, i, 10_000); err != nil {
				return err
			}
		}
		sayClose(conn)
		return closed(conn, 1000)
	},
}

// usage is what the process holds. All of it but the resident memory, which the collector gives back when it likes, must not grow.
type usage struct {
	descriptors, goroutines int
	heap, resident          int64
}

func use(t *testing.T) usage {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc to count with")
	}
	var m runtime.MemStats
	debug.FreeOSMemory() // collects, twice: pools drop what they hold at the second time
	debug.FreeOSMemory()
	runtime.ReadMemStats(&m)
	return usage{len(fds), runtime.NumGoroutine(), int64(m.HeapAlloc), resident(t)}
}

// resident is the memory that the kernel has given to the process.
func resident(t *testing.T) int64 {
	t.Helper()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, line, _ := strings.Cut(string(text), "VmRSS:")
	kb, err := strconv.ParseInt(strings.Fields(line)[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kb << 10
}

// TestSoak lets sockets live in all ways at once, under reloads, and then compares what the process holds with what it held before.
func TestSoak(t *testing.T) {
	n := asked(t, "SOAK_LIVES", 2000)
	if testing.Short() {
		n = 200
	}
	w := newWorld(t)
	w.live(n / 10) // pools and tables grow to their size
	w.settled()
	before := use(t)
	w.done.Store(0)
	w.live(n)
	w.settled()
	after := use(t)
	for deadline := time.Now().Add(patience / 2); !after.within(before) && time.Now().Before(deadline); after = use(t) {
		<-time.After(50 * time.Millisecond) // nobody tells when a connection of the backends has ended
	}
	t.Logf("%d lives and %d reloads", w.done.Load(), w.reloads.Load())
	t.Logf("descriptors: %d before, %d after", before.descriptors, after.descriptors)
	t.Logf("goroutines: %d before, %d after", before.goroutines, after.goroutines)
	t.Logf("heap in use: %d KiB before, %d KiB after", before.heap>>10, after.heap>>10)
	t.Logf("resident memory, that of clients and backends with it: %d KiB before, %d KiB after", before.resident>>10, after.resident>>10)
	if !after.within(before) {
		t.Errorf("something is left: %+v before, %+v after", before, after)
	}
}

func (u usage) within(before usage) bool {
	return u.descriptors <= before.descriptors && u.goroutines <= before.goroutines && u.heap <= before.heap+2<<20
}

// asked is the number that the environment asks for.
func asked(t *testing.T, name string, otherwise int) int {
	t.Helper()
	n, err := strconv.Atoi(cmp.Or(os.Getenv(name), strconv.Itoa(otherwise)))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// live lets n sockets live, and reloads all the while.
func (w *world) live(n int) {
	var names []string
	for name := range lives {
		names = append(names, name)
	}
	enough := make(chan struct{})
	var beside, wg sync.WaitGroup
	beside.Go(func() { w.reloadUntil(enough) })
	beside.Go(func() { w.watch.run(enough) })
	beside.Go(func() { w.tellUntil(enough, n) })
	seed := rand.Uint64()
	w.t.Logf("seed %d", seed)
	turns := make(chan int)
	for range asked(w.t, "SOAK_AT_ONCE", 100) {
		wg.Go(func() {
			for i := range turns {
				rnd := rand.New(rand.NewPCG(seed, uint64(i)))
				name := names[rnd.IntN(len(names))]
				if err := lives[name](w, rnd); err != nil {
					w.t.Errorf("life %d, %s: %v", i, name, err)
				}
				w.done.Add(1)
			}
		})
	}
	for i := range n {
		turns <- i
	}
	close(turns)
	wg.Wait()
	close(enough)
	beside.Wait()
}

// tellUntil says now and then how far it is.
func (w *world) tellUntil(enough <-chan struct{}, n int) {
	began, before := time.Now(), w.done.Load()
	for {
		select {
		case <-enough:
			return
		case <-time.After(30 * time.Second):
			lived := w.done.Load() - before
			w.t.Logf("%d of %d lives in %s, %s", lived, n, time.Since(began).Round(time.Second), w.watch.String())
		}
	}
}

// reloadUntil changes a limit again and again: sockets live on.
func (w *world) reloadUntil(enough <-chan struct{}) {
	for {
		select {
		case <-enough:
			return
		case <-time.After(100 * time.Millisecond):
		}
		if _, err := w.server.Reload(); err != nil {
			w.t.Error(err)
		}
	}
}

// settled waits until the server has no socket any more, and says so.
func (w *world) settled() {
	http.DefaultClient.CloseIdleConnections()
	least := math.Inf(1)
	for deadline := time.Now().Add(patience); ; {
		resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get("http://" + w.server.Addr("admin").String() + "/metrics")
		if err != nil {
			w.t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		open := 0.0
		for line := range strings.Lines(string(body)) {
			if strings.HasPrefix(line, "bridgehead_connections{") {
				fields := strings.Fields(line)
				v, _ := strconv.ParseFloat(fields[len(fields)-1], 64)
				open += v
			}
		}
		if open == 0 {
			return
		}
		if open < least {
			least, deadline = open, time.Now().Add(patience)
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("%v sockets are open after all lives have ended", open)
		}
		<-time.After(20 * time.Millisecond) // until it is asked again
	}
}

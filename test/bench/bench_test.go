// Package bench measures the built binary as a process on loopback: the processor time that it spends on an echo round trip, and
// the memory that an idle socket costs.
//
//	make bench
//	make bench BENCH=Relay/wss
package bench

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// An edge is the running binary with one route of each kind that leads to an echo.
type edge struct {
	process *exec.Cmd
	addrs   map[string]string // of the listeners wss and ws
	roots   *x509.CertPool
}

// start builds and runs the binary in front of echoes. All policies of a normal route are on.
func start(b *testing.B) *edge {
	b.Helper()
	dir := b.TempDir()
	program := filepath.Join(dir, "bridgehead")
	if out, err := exec.Command("go", "build", "-o", program, "bridgehead/cmd/bridgehead").CombinedOutput(); err != nil {
		b.Fatalf("build: %v\n%s", err, out)
	}
	file := filepath.Join(dir, "config.yaml")
	text := fmt.Sprintf(`state: ./state
certificates: {internal: true}
listeners:
  - {name: wss, address: "127.0.0.1:0", tls: true}
  - {name: ws, address: "127.0.0.1:0"}
admin: {address: "127.0.0.1:0"}
log: {level: info}
defaults:
  limits: [{per: client.ip, connections: 100000, messages: 100000000/s, bytes: 1000GiB/s}]
routes:
  - {name: relay, path: /relay, websocket: {to: "ws://%s"}}
  - {name: stream, path: /stream, tcp: {to: "%s"}}
`, serveWebSocket(b), serveTCP(b))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	e := &edge{process: exec.Command(program, "serve", "-c", file), addrs: map[string]string{}, roots: x509.NewCertPool()}
	stderr, err := e.process.StderrPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := e.process.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { e.process.Process.Kill(); e.process.Wait() })
	e.readAddresses(b, stderr)
	pem, err := os.ReadFile(filepath.Join(dir, "state", "ca", "root.pem"))
	if err != nil {
		b.Fatal(err)
	}
	e.roots.AppendCertsFromPEM(pem)
	return e
}

// readAddresses reads the log until all listeners are open, and then throws it away.
func (e *edge) readAddresses(b *testing.B, log io.Reader) {
	b.Helper()
	scanner := bufio.NewScanner(log)
	for len(e.addrs) < 3 && scanner.Scan() {
		if fields := strings.Fields(scanner.Text()); strings.Contains(scanner.Text(), "msg=listening") {
			var name, address string
			for _, f := range fields {
				if v, ok := strings.CutPrefix(f, "listener="); ok {
					name = v
				}
				if v, ok := strings.CutPrefix(f, "address="); ok {
					address = v
				}
			}
			e.addrs[name] = address
		}
	}
	if len(e.addrs) < 3 {
		b.Fatal("it did not start")
	}
	go io.Copy(io.Discard, log)
}

// serveWebSocket is a WebSocket echo.
func serveWebSocket(b *testing.B) string {
	upgrader := websocket.Upgrader{ReadBufferSize: 64 << 10, WriteBufferSize: 64 << 10}
	l := listen(b)
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer conn.Close()
		for {
			kind, data, err := conn.ReadMessage()
			if err != nil || conn.WriteMessage(kind, data) != nil {
				return
			}
		}
	})}
	go s.Serve(l)
	b.Cleanup(func() { s.Close() })
	return l.Addr().String()
}

// serveTCP is a TCP echo.
func serveTCP(b *testing.B) string {
	l := listen(b)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer conn.Close(); io.Copy(conn, conn) }()
		}
	}()
	b.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

func listen(b *testing.B) net.Listener {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	return l
}

func (e *edge) dial(b *testing.B, scheme, path string) *websocket.Conn {
	b.Helper()
	d := &websocket.Dialer{
		TLSClientConfig: &tls.Config{RootCAs: e.roots, ServerName: "localhost"},
		ReadBufferSize:  64 << 10, WriteBufferSize: 64 << 10,
	}
	conn, _, err := d.Dial(scheme+"://"+e.addrs[scheme]+path, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	return conn
}

// cpu is the processor time that the process has used.
func (e *edge) cpu(b *testing.B) time.Duration {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", e.process.Process.Pid))
	if err != nil {
		b.Skipf("no /proc to measure with on %s", runtime.GOOS)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	var ticks int64
	for _, i := range []int{11, 12} { // utime and stime, in hundredths of a second: proc(5)
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// resident is the memory of the process in bytes.
func (e *edge) resident(b *testing.B) int64 {
	b.Helper()
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", e.process.Process.Pid))
	if err != nil {
		b.Skipf("no /proc to measure with on %s", runtime.GOOS)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(statm))[1], 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

// BenchmarkEcho sends messages of a size over 64 sockets, each waiting for its echo, and reports the processor time of the
// bridge per round trip (cpu-µs/op) beside the time that passed.
func BenchmarkEcho(b *testing.B) {
	e := start(b)
	for _, path := range []string{"relay", "stream"} {
		for _, scheme := range []string{"ws", "wss"} {
			for _, size := range []int{64, 16 << 10, 1 << 20} {
				b.Run(fmt.Sprintf("%s/%s/%d", path, scheme, size), func(b *testing.B) { e.echo(b, scheme, "/"+path, size) })
			}
		}
	}
}

func (e *edge) echo(b *testing.B, scheme, path string, size int) {
	const sockets = 64
	conns := make([]*websocket.Conn, sockets)
	for i := range conns {
		conns[i] = e.dial(b, scheme, path)
	}
	message := make([]byte, size)
	turns := make(chan struct{}, b.N)
	for range b.N {
		turns <- struct{}{}
	}
	close(turns)
	before := e.cpu(b)
	b.ResetTimer()
	var wg sync.WaitGroup
	for _, conn := range conns {
		wg.Go(func() {
			for range turns {
				if conn.WriteMessage(websocket.BinaryMessage, message) != nil {
					b.Error("the socket ended")
					return
				}
				for got := 0; got < size; {
					_, data, err := conn.ReadMessage()
					if err != nil {
						b.Error(err)
						return
					}
					got += len(data)
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64((e.cpu(b)-before).Microseconds())/float64(b.N), "cpu-µs/op")
	b.SetBytes(2 * int64(size))
}

// BenchmarkIdle opens sockets that say nothing and reports the memory that each costs the bridge.
func BenchmarkIdle(b *testing.B) {
	for _, scheme := range []string{"ws", "wss"} {
		b.Run(scheme, func(b *testing.B) {
			e := start(b)
			e.dial(b, scheme, "/relay") // what the first one alone costs
			const sockets = 1000
			before := e.resident(b)
			for b.Loop() {
				for range sockets {
					e.dial(b, scheme, "/relay")
				}
			}
			b.ReportMetric(float64(e.resident(b)-before)/1024/sockets/float64(b.N), "KiB/socket")
		})
	}
}

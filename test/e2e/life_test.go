package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"bridgehead/ws"
)

func TestABackendThatDies(t *testing.T) {
	t.Parallel()
	t.Run("between messages is 1014", func(t *testing.T) {
		t.Parallel()
		e := start(t, `
routes:
  - {name: r, websocket: {to: "ws://`+backend(t, func(conn *websocket.Conn, _ *http.Request) {
			conn.WriteMessage(websocket.TextMessage, []byte("last"))
			conn.NetConn().(*net.TCPConn).SetLinger(0) // as a killed process
		})+`"}}
`)
		raw := e.raw("/")
		if got := wsReadFrame(t, raw); got != "last" {
			t.Fatalf("got %q", got)
		}
		wantRawClose(t, raw, 1014)
		if err := subset(e.closedLine("r"), map[string]any{"cause": "backend gone", "by": "backend", "code": 1014}); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("inside a frame is the end of TCP alone", func(t *testing.T) {
		t.Parallel()
		e := start(t, `
routes:
  - {name: r, websocket: {to: "ws://`+backend(t, func(conn *websocket.Conn, _ *http.Request) {
			frame := ws.AppendFrame(nil, ws.Binary, make([]byte, 1000), false)
			conn.NetConn().Write(frame[:500])
		})+`"}}
`)
		raw := e.raw("/")
		got, err := io.ReadAll(raw)
		if err != nil || len(got) != 500 {
			t.Fatalf("%d bytes, %v: a Close inside a frame would be taken for its payload", len(got), err)
		}
	})
}

func TestAClientThatVanishes(t *testing.T) {
	t.Parallel()
	told := make(chan int, 1)
	e := start(t, `
routes:
  - {name: r, websocket: {to: "ws://`+backend(t, func(conn *websocket.Conn, _ *http.Request) {
		_, _, err := conn.ReadMessage()
		if closed, ok := errors.AsType[*websocket.CloseError](err); ok {
			told <- closed.Code
		}
	})+`"}}
`)
	raw := e.raw("/")
	e.await(func(line map[string]any) bool { return line["msg"] == "open" }) // before it the client would be gone in the handshake
	vanish(raw.Conn)
	if code := <-told; code != 1001 {
		t.Fatalf("the upstream was told %d", code)
	}
	if err := subset(e.closedLine("r"), map[string]any{"cause": "client gone", "by": "client"}); err != nil {
		t.Fatal(err)
	}
}

func TestADeadPeerIsNoticed(t *testing.T) {
	t.Parallel()
	for name, route := range bridges(t, `socket: {ping: 100ms, pong: 3s, close_timeout: 300ms}`) {
		t.Run("client of "+name, func(t *testing.T) {
			t.Parallel()
			e := start(t, "routes:\n  - {name: r, "+route+"}\n")
			e.raw("/") // answers no ping
			if err := subset(e.closedLine("r"), map[string]any{"cause": "client dead", "code": 1001}); err != nil {
				t.Fatal(err)
			}
			living := e.dial("/", nil)
			pings := make(chan struct{}, 100)
			answer := living.PingHandler()
			living.SetPingHandler(func(payload string) error { pings <- struct{}{}; return answer(payload) })
			ended := make(chan error, 1)
			go func() { // answers pings
				_, _, err := living.ReadMessage()
				ended <- err
			}()
			for range 35 { // the last comes after the pong of the first was due
				select {
				case <-pings:
				case err := <-ended:
					t.Fatalf("a client that answers pings was closed: %v", err)
				}
			}
			if _, text := e.get("/v1/connections"); !strings.Contains(text, `"route":"r"`) {
				t.Fatal("a client that answers pings was closed")
			}
		})
	}
	t.Run("upstream", func(t *testing.T) {
		t.Parallel()
		e := start(t, `
routes:
  - {name: r, socket: {ping: 100ms, pong: 3s}, websocket: {to: "ws://`+backend(t, func(_ *websocket.Conn, _ *http.Request) {
			<-t.Context().Done() // reads nothing, so answers no ping
		})+`"}}
`)
		raw := e.raw("/")
		for {
			f, err := readFrame(raw)
			if err != nil {
				t.Fatal(err)
			}
			if f.op == ws.Close {
				if code, _, _ := ws.ParseClose(f.payload); code != 1014 {
					t.Fatalf("closed with %d", code)
				}
				break
			}
			raw.Write(rawFrame(ws.Header{Fin: true, Opcode: ws.Pong}, string(f.payload)))
		}
	})
}

func TestIdleAndLifetime(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ socket, cause string }{
		{"{idle: 300ms, ping: 50ms}", "idle"}, // pings are no activity
		{"{lifetime: 300ms}", "lifetime"},
	} {
		for name, route := range bridges(t, "socket: "+c.socket) {
			t.Run(c.cause+" "+name, func(t *testing.T) {
				t.Parallel()
				e := start(t, "routes:\n  - {name: r, "+route+"}\n")
				conn := e.dial("/", nil)
				wantClose(t, conn, 1001)
				if err := subset(e.closedLine("r"), map[string]any{"cause": c.cause}); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}

func TestSIGTERMDrains(t *testing.T) {
	t.Parallel()
	for name, route := range bridges(t, `limits: []`) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := start(t, "drain: 5s\nroutes:\n  - {name: r, "+route+"}\n")
			const count = 400 // at 200 a second the window is two seconds
			ends := make(chan time.Time, count)
			var wg sync.WaitGroup
			for range count {
				conn := e.dial("/", nil)
				wg.Go(func() {
					if code, _ := closeCode(t, conn); code != 1001 {
						t.Errorf("closed with %d", code)
					}
					ends <- time.Now()
				})
			}
			began := time.Now()
			if err := e.terminate(); err != nil {
				t.Fatalf("exit: %v", err)
			}
			wg.Wait()
			close(ends)
			wantEven(t, began, ends)
		})
	}
}

func TestASecondSignalEndsAtOnce(t *testing.T) {
	t.Parallel()
	e := start(t, `
drain: 60s
routes:
  - {name: r, socket: {close_timeout: 60s}, websocket: {to: "ws://`+backend(t, echo)+`"}}
`)
	e.raw("/") // never answers the close
	e.process.Process.Signal(syscall.SIGTERM)
	e.await(func(line map[string]any) bool { return line["msg"] == "draining" })
	if status, _ := e.get("/readyz"); status != http.StatusServiceUnavailable {
		t.Fatalf("readiness while draining: %d", status)
	}
	if status, _ := e.get("/healthz"); status != http.StatusOK {
		t.Fatalf("health while draining: %d", status)
	}
	e.process.Process.Signal(syscall.SIGTERM)
	if err := e.wait(); err == nil {
		t.Fatal("it ended as if all were well")
	}
}

// resident is the memory of the process in bytes.
func (e *edge) resident() int64 {
	e.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", e.process.Process.Pid))
	if err != nil {
		e.t.Skip("no /proc here to measure memory with")
	}
	for line := range strings.SplitSeq(string(status), "\n") {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kib << 10
		}
	}
	e.t.Fatal("no VmRSS")
	return 0
}

// offered is what the stalled peers of the following tests are offered, and grown what the program may grow by meanwhile.
const (
	offered = 1 << 30
	grown   = 8 << 20
)

func TestAClientThatNeverReadsCostsNoMemory(t *testing.T) {
	t.Parallel()
	message := make([]byte, 1<<20)
	for name, to := range map[string]string{
		"websocket": `websocket: {to: "ws://` + backend(t, func(conn *websocket.Conn, _ *http.Request) {
			for sent := 0; sent < offered; sent += len(message) {
				if conn.WriteMessage(websocket.BinaryMessage, message) != nil {
					return
				}
			}
		}) + `"}`,
		"raw": `tcp: {to: "` + tcpBackend(t, func(conn *net.TCPConn) {
			for sent := 0; sent < offered; sent += len(message) {
				if _, err := conn.Write(message); err != nil {
					return
				}
			}
		}) + `"}`,
		"line": `tcp: {framing: line, to: "` + tcpBackend(t, func(conn *net.TCPConn) {
			line := []byte(strings.Repeat("x", 999) + "\n")
			for sent := 0; sent < offered; sent += len(line) {
				if _, err := conn.Write(line); err != nil {
					return
				}
			}
		}) + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			e := start(t, "routes:\n  - {name: r, socket: {write_timeout: 3s}, "+to+"}\n")
			warm(e)
			before := e.resident()
			e.raw("/")
			most := e.watch(before, "closed")
			t.Logf("grew by %d KiB", most>>10)
			if most > grown && !raced {
				t.Fatalf("grew by %d KiB", most>>10)
			}
			if err := subset(e.closedLine("r"), map[string]any{"cause": "client slow", "by": "limit"}); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestABackendThatNeverReadsCostsNoMemory(t *testing.T) {
	t.Parallel()
	stalled := tcpBackend(t, func(conn *net.TCPConn) { <-t.Context().Done() })
	for name, to := range map[string]string{
		"websocket": `websocket: {to: "ws://` + backend(t, func(conn *websocket.Conn, _ *http.Request) { <-t.Context().Done() }) + `"}`,
		"raw":       `tcp: {to: "` + stalled + `"}`,
		"line":      `tcp: {framing: line, to: "` + stalled + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			e := start(t, "routes:\n  - {name: r, socket: {write_timeout: 3s}, "+to+"}\n")
			warm(e)
			before := e.resident()
			raw := e.raw("/")
			var wg sync.WaitGroup
			wg.Go(func() {
				frame := rawFrame(ws.Header{Fin: true, Opcode: ws.Binary}, strings.Repeat("x", 100_000))
				for sent := 0; sent < offered; sent += len(frame) {
					if _, err := raw.Write(frame); err != nil {
						return
					}
				}
			})
			most := e.watch(before, "closed")
			t.Logf("grew by %d KiB", most>>10)
			if most > grown && !raced {
				t.Errorf("grew by %d KiB", most>>10)
			}
			if err := subset(e.closedLine("r"), map[string]any{"cause": "backend slow"}); err != nil {
				t.Error(err)
			}
			raw.Close()
			wg.Wait()
		})
	}
}

// warm lets the program do once what costs memory the first time.
func warm(e *edge) {
	e.ask("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

// watch waits for a line of the log and gives by how much the program grew meanwhile, at most.
func (e *edge) watch(before int64, msg string) (most int64) {
	e.t.Helper()
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				most = max(most, e.resident()-before)
			case <-done:
				return
			}
		}
	})
	e.await(func(line map[string]any) bool { return line["msg"] == msg })
	close(done)
	wg.Wait()
	return most
}

package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"bridgehead/ws"
)

// pings floods a socket, until it ends or enough have gone.
func pings(conn *websocket.Conn, most int) {
	for range most {
		if conn.WriteControl(websocket.PingMessage, []byte("p"), time.Now().Add(patience)) != nil {
			return
		}
	}
}

func TestAFloodOfPingsIsClosed(t *testing.T) {
	t.Parallel()
	s := newSubject(t, `limits: [{per: client.ip, messages: 1000/s, frames: {rate: 50/s, burst: 20}, on_exceed: close}]`)
	for kind, conn := range s.enter() {
		go pings(conn, 1000)
		endsWith(t, kind, conn, websocket.ClosePolicyViolation)
		conn.Close()
		line := s.closedLine(kind)
		if err := subset(line, map[string]any{"cause": "client rate", "by": "limit", "reason": "rate limit exceeded"}); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		if text := fmt.Sprint(line["error"]); !strings.Contains(text, "limit per client.ip: frames is at 50/s") {
			t.Errorf("%s: the log says %s", kind, text)
		}
	}
}

func TestTooManyFragmentsAreClosed(t *testing.T) {
	t.Parallel()
	s := newSubject(t, `limits: [{per: client.ip, fragments: 100}]`)
	for kind := range s.kinds {
		conn := s.raw("/" + kind)
		for n, whole := range []int{100, 101} {
			conn.Write(rawFrame(ws.Header{Opcode: ws.Text}, "x"))
			for range whole - 2 {
				conn.Write(rawFrame(ws.Header{Opcode: ws.Continuation}, ""))
				conn.Write(rawFrame(ws.Header{Fin: true, Opcode: ws.Pong}, ""))
			}
			conn.Write(rawFrame(ws.Header{Fin: true, Opcode: ws.Continuation}, "y"))
			if n == 0 { // a hundred pass
				for got := ""; got != "xy"; {
					f, err := readFrame(conn)
					if err != nil || f.op == ws.Close {
						t.Fatalf("%s: after %q: %v, %v", kind, got, f, err)
					}
					if !f.op.IsControl() {
						got += string(f.payload)
					}
				}
			}
		}
		wantRawClose(t, conn, websocket.ClosePolicyViolation)
		if err := subset(s.closedLine(kind), map[string]any{"cause": "client fragments", "by": "limit", "reason": "too many fragments"}); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

func TestMessageSizeOfARule(t *testing.T) {
	t.Parallel()
	s := newSubject(t, `limits: [{per: client.ip, message_size: 1KiB}, {per: header.x-small, message_size: 100}], socket: {message_size: 2KiB}`)
	for kind := range s.kinds {
		for size, header := range map[int]http.Header{1 << 10: nil, 100: {"X-Small": {"y"}}} {
			conn := s.dial("/"+kind, header)
			repeat(t, kind, conn, strings.Repeat("x", size), patience)
			conn.WriteMessage(websocket.TextMessage, []byte(strings.Repeat("x", size+1)))
			endsWith(t, kind, conn, websocket.CloseMessageTooBig)
		}
	}
}

// A client that is throttled for its frames gets everything through, in its order, whatever it sends in between.
func TestThrottledFramesLoseNothing(t *testing.T) {
	t.Parallel()
	const count = 100
	s := newSubject(t, `limits: [{per: client.ip, frames: {rate: 400/s, burst: 20}}]`)
	delete(s.kinds, "webhook") // whose application answers several messages at once
	var want strings.Builder
	for i := range count {
		fmt.Fprintf(&want, "%d;", i)
	}
	for kind, conn := range s.enter() {
		var pongs []string
		conn.SetPongHandler(func(n string) error { pongs = append(pongs, n); return nil })
		go func() {
			for i := range count {
				conn.WriteControl(websocket.PingMessage, fmt.Append(nil, i), time.Now().Add(patience))
				conn.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, "%d;", i))
			}
		}()
		conn.SetReadDeadline(time.Now().Add(2 * patience))
		returns(t, kind, conn, want.String())
		for i, n := range pongs { // the last may be late
			if n != fmt.Sprint(i) {
				t.Fatalf("%s: pong %s came in place of %d", kind, n, i)
			}
		}
		if len(pongs) < count/2 {
			t.Errorf("%s: %d pings were answered of %d", kind, len(pongs), count)
		}
	}
	s.throttled()
}

func TestThrottledFramesLoseNothingOfAWebhook(t *testing.T) {
	t.Parallel()
	const count = 100
	got := make(chan string, count)
	app := newApplication(t, func(e told) decision {
		if e.Type == "message" {
			got <- *e.Text
		}
		return decision{}
	})
	e := start(t, `
routes:
  - name: r
    limits: [{per: client.ip, frames: {rate: 400/s, burst: 20}}]
    webhook: {to: "http://`+app.addr+`/", secret: `+secrets()+`}
`)
	conn := e.dial("/", nil)
	go func() {
		for i := range count {
			pings(conn, 1)
			conn.WriteMessage(websocket.TextMessage, fmt.Append(nil, i))
		}
	}()
	timeout := time.After(2 * patience)
	for i := range count {
		select {
		case text := <-got:
			if text != fmt.Sprint(i) {
				t.Fatalf("got %s in place of %d", text, i)
			}
		case <-timeout:
			t.Fatalf("%d of %d came", i, count)
		}
	}
	if e.samples()[`bridgehead_throttled_total{route="r"}`] == 0 {
		t.Error("it was never throttled")
	}
}

// While a client may not send, what is sent to it flows on. Nothing is lost of what it sends meanwhile, or else its end comes at once.
func TestAThrottledClientIsStillSentTo(t *testing.T) {
	t.Parallel()
	const pushes = 200
	speaks := backend(t, func(conn *websocket.Conn, _ *http.Request) {
		for n := 0; ; n++ {
			_, data, err := conn.ReadMessage()
			if err != nil {
				return
			}
			if n == 1 { // by debt; the client is throttled now, or will be
				for i := range pushes {
					conn.WriteMessage(websocket.TextMessage, fmt.Append(nil, i))
				}
			}
			conn.WriteMessage(websocket.TextMessage, data)
		}
	})
	route := func(limits string) string {
		return twoListeners + `routes: [{name: r, ` + limits + `, websocket: {to: "ws://` + speaks + `"}}]`
	}
	e := startIn(t, room(t), route(`limits: []`))
	e.addr("ws")
	conn, other := e.dial("/", nil), e.dial("/", nil)
	e.becomes(route(`limits: [{per: client.ip, frames: {rate: 1/h, burst: 1}}]`))
	send(t, conn, "first")
	if got := receive(t, conn); got != "first" {
		t.Fatalf("got %q", got)
	}
	send(t, conn, "second")
	for i := range pushes {
		if got := receive(t, conn); got != fmt.Sprint(i) {
			t.Fatalf("got %q in place of push %d", got, i)
		}
	}
	if got := receive(t, conn); got != "second" {
		t.Fatalf("got %q", got)
	}
	eventually(t, "the client is throttled", func() bool { return e.samples()[`bridgehead_throttled_total{route="r"}`] > 0 })
	send(t, other, "in debt by the key that they share")
	for i := range 100 {
		send(t, conn, fmt.Sprint("waits ", i))
	}
	e.becomes(route(`limits: [{per: client.ip, frames: {rate: 100000/s, burst: 100000}}]`))
	for i := range 100 {
		if got, want := receive(t, conn), fmt.Sprint("waits ", i); got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
	if got := receive(t, other); got != "in debt by the key that they share" {
		t.Fatalf("got %q", got)
	}
	e.becomes(route(`limits: [{per: client.ip, frames: {rate: 1/h, burst: 1}}]`))
	go pings(conn, 1000)
	e.process.Process.Signal(syscall.SIGTERM)
	endsWith(t, "drained", conn, websocket.CloseGoingAway)
	endsWith(t, "drained", other, websocket.CloseGoingAway)
}

// A client that floods is throttled; the work of its neighbour is done all the same.
func TestNeighboursOfAFlood(t *testing.T) {
	t.Parallel()
	const trips = 300
	s := newSubject(t, `limits: [{per: header.x-key, frames: {rate: 50/s, burst: 50}}]`)
	for kind := range s.kinds {
		var flooded atomic.Int64
		var flooding sync.WaitGroup
		floods := s.dial("/"+kind, http.Header{"X-Key": {"flood"}})
		flooding.Go(func() {
			for floods.WriteControl(websocket.PingMessage, []byte("p"), time.Now().Add(patience)) == nil {
				flooded.Add(1)
			}
		})
		flooding.Go(func() {
			for {
				if _, _, err := floods.ReadMessage(); err != nil {
					return
				}
			}
		})
		eventually(t, "the flood is throttled", func() bool {
			return s.samples()[fmt.Sprintf("bridgehead_throttled_total{route=%q}", kind)] > 0
		})
		neighbour := s.dial("/"+kind, http.Header{"X-Key": {"neighbour"}})
		unlimited := s.dial("/"+kind, nil)
		for i := range trips {
			repeat(t, kind, unlimited, fmt.Sprint("trip ", i), patience)
			if i < 50 { // what its own burst allows
				repeat(t, kind, neighbour, fmt.Sprint("trip ", i), patience)
			}
		}
		vanish(floods.UnderlyingConn())
		flooding.Wait()
		t.Logf("%s: %d trips beside %d pings", kind, trips+50, flooded.Load())
	}
}

func TestFramesAndFragmentsFollowReloads(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		tight, wide string
		offend      func(*websocket.Conn) // is within the wide one
		code        int
	}{
		"frames": {`frames: {rate: 1/h, burst: 20}, on_exceed: close`, `frames: {rate: 100000/s, burst: 100000}, on_exceed: close`,
			func(conn *websocket.Conn) { pings(conn, 40) }, websocket.ClosePolicyViolation},
		"fragments": {`fragments: 1`, `fragments: 100`,
			func(conn *websocket.Conn) {
				conn.WriteMessage(websocket.TextMessage, []byte(strings.Repeat("x", 20<<10)))
			}, // 4 KiB each
			websocket.ClosePolicyViolation},
		"message_size": {`message_size: 1KiB`, `message_size: 100KiB`,
			func(conn *websocket.Conn) {
				conn.WriteMessage(websocket.TextMessage, []byte(strings.Repeat("x", 20<<10)))
			},
			websocket.CloseMessageTooBig},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSubject(t, `limits: []`)
			conns := s.open()
			s.becomes(`limits: [{per: client.ip, ` + c.wide + `}]`)
			for kind, conn := range conns {
				c.offend(conn)
				if name != "frames" {
					returns(t, kind, conn, strings.Repeat("x", 20<<10))
				}
				repeat(t, kind, conn, "still here", promptly)
			}
			s.becomes(`limits: [{per: client.ip, ` + c.tight + `}]`)
			for kind, conn := range conns {
				go c.offend(conn)
				endsWith(t, kind, conn, c.code)
			}
		})
	}
}

package e2e

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"bridgehead/ws"
)

func TestConnectionLimitPerClient(t *testing.T) {
	t.Parallel()
	e := start(t, `
routes:
  - name: r
    path: /rooms/{room}
    limits: [{per: room, connections: 2}]
    websocket: {to: "ws://`+backend(t, echo)+`/"}
`)
	first := e.dial("/rooms/a", nil)
	e.dial("/rooms/a", nil)
	resp := e.refused("/rooms/a", nil)
	if resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") == "" {
		t.Fatalf("got %s, %v", resp.Status, resp.Header)
	}
	e.dial("/rooms/b", nil) // another key is not concerned
	first.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1000, ""), time.Now().Add(patience))
	wantClose(t, first, 1000)
	e.closedLine("r")
	e.dial("/rooms/a", nil) // a closed socket gives its place back
}

func TestHandshakeRateLimit(t *testing.T) {
	t.Parallel()
	e := start(t, `
routes:
  - name: r
    limits: [{per: header.x-key, connect_rate: {rate: 1/s, burst: 3}}]
    websocket: {to: "ws://`+backend(t, echo)+`"}
`)
	key := http.Header{"X-Key": {"k"}}
	for range 3 {
		e.dial("/", key)
	}
	resp := e.refused("/", key)
	if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); resp.StatusCode != 429 || err != nil || seconds < 1 || seconds > 60 {
		t.Fatalf("got %s, %v", resp.Status, resp.Header)
	}
	e.dial("/", http.Header{"X-Key": {"other"}})
	e.dial("/", nil) // a handshake without the value is not counted by this rule
}

func TestAFloodOfHandshakesIsRefusedAndTheProgramLives(t *testing.T) {
	t.Parallel()
	e := start(t, `
trusted_proxies: [loopback]
routes:
  - {name: r, websocket: {to: "ws://`+backend(t, echo)+`"}}
`)
	// The default limit of 256 connections per address, seen through X-Forwarded-For.
	flood := http.Header{"X-Forwarded-For": {"203.0.113.9"}}
	for range 256 {
		e.dial("/", flood)
	}
	if resp := e.refused("/", flood); resp.StatusCode != 429 {
		t.Fatalf("status %s", resp.Status)
	}
	good := e.dial("/", http.Header{"X-Forwarded-For": {"203.0.113.10"}})
	send(t, good, "still here")
	if receive(t, good) != "still here" {
		t.Fatal("the good client suffers")
	}
}

func TestCapacity(t *testing.T) {
	t.Parallel()
	up := backend(t, echo)
	e := start(t, `
max_connections: 3
routes:
  - {name: small, path: /small, max_connections: 1, websocket: {to: "ws://`+up+`"}}
  - {name: large, path: /large, websocket: {to: "ws://`+up+`"}}
`)
	e.dial("/small", nil)
	if resp := e.refused("/small", nil); resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
		t.Fatalf("got %s, %v", resp.Status, resp.Header)
	}
	e.dial("/large", nil)
	e.dial("/large", nil)
	if resp := e.refused("/large", nil); resp.StatusCode != 503 {
		t.Fatalf("status %s", resp.Status)
	}
	if _, text := e.get("/metrics"); !strings.Contains(text, `bridgehead_refusals_total{reason="capacity",route="large"} 1`) {
		t.Fatal("the refusal was not counted")
	}
}

// bridges are the same service behind each kind of bridge that carries frames or messages.
func bridges(t *testing.T, options string) map[string]string {
	line := lineBackend(t)
	return map[string]string{
		"websocket": options + `, websocket: {to: "ws://` + backend(t, echo) + `"}`,
		"raw":       options + `, tcp: {to: "` + echoTCP(t) + `", message: text}`,
		"line":      options + `, tcp: {to: "` + line + `", framing: line, message: text}`,
	}
}

func TestMessageRateThrottlesAndLosesNothing(t *testing.T) {
	t.Parallel()
	for name, route := range bridges(t, `limits: [{per: client.ip, messages: {rate: 50/s, burst: 5}}]`) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := start(t, "routes:\n  - {name: r, "+route+"}\n")
			conn := e.dial("/", nil)
			const count = 40
			began := time.Now()
			go func() {
				for i := range count {
					conn.WriteMessage(websocket.TextMessage, []byte(strconv.Itoa(i)+";"))
				}
			}()
			want, got := "", ""
			for i := range count {
				want += strconv.Itoa(i) + ";"
			}
			for len(got) < len(want) {
				got += receive(t, conn)
			}
			if got != want {
				t.Fatalf("got %s", got)
			}
			// 40 messages at 50/s with 5 for free take 0.7 s; a read may bring several, which pass by debt.
			if took := time.Since(began); took < 300*time.Millisecond && name == "line" {
				t.Fatalf("took %s: not throttled", took)
			}
		})
	}
}

func TestMessageRateCloses(t *testing.T) {
	t.Parallel()
	for name, route := range bridges(t, `limits: [{per: client.ip, messages: {rate: 1/s, burst: 5}, on_exceed: close}]`) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := start(t, "routes:\n  - {name: r, "+route+"}\n")
			conn := e.dial("/", nil)
			for range 20 {
				conn.WriteMessage(websocket.TextMessage, []byte("x"))
			}
			wantClose(t, conn, 1008)
			if err := subset(e.closedLine("r"), map[string]any{"cause": "client rate", "by": "limit"}); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestOversizedMessagesClose1009(t *testing.T) {
	t.Parallel()
	for name, route := range bridges(t, `socket: {message_size: 1KiB}`) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := start(t, "routes:\n  - {name: r, "+route+"}\n")
			conn := e.dial("/", nil)
			send(t, conn, strings.Repeat("x", 1024))
			for got := 0; got < 1024; { // just fits
				got += len(receive(t, conn))
			}
			conn.WriteMessage(websocket.TextMessage, []byte(strings.Repeat("x", 1025)))
			wantClose(t, conn, 1009)

			// In fragments too, and by the declared length alone.
			raw := e.raw("/")
			raw.Write(rawFrame(ws.Header{Opcode: ws.Text}, strings.Repeat("x", 1000)))
			raw.Write(ws.AppendHeader(nil, ws.Header{Fin: true, Opcode: ws.Continuation, Masked: true, Length: 1 << 40}))
			wantRawClose(t, raw, 1009)
		})
	}
}

func TestABackendsOversizedMessage(t *testing.T) {
	t.Parallel()
	told := make(chan int, 1)
	e := start(t, `
routes:
  - name: r
    socket: {backend_message_size: 1KiB}
    websocket: {to: "ws://`+backend(t, func(conn *websocket.Conn, _ *http.Request) {
		conn.WriteMessage(websocket.TextMessage, make([]byte, 1025))
		_, _, err := conn.ReadMessage()
		if closed, ok := errors.AsType[*websocket.CloseError](err); ok {
			told <- closed.Code
		}
	})+`"}
`)
	wantClose(t, e.dial("/", nil), 1001)
	if code := <-told; code != 1009 {
		t.Fatalf("the upstream was told %d", code)
	}
}

func TestMalformedFrames(t *testing.T) {
	t.Parallel()
	frames := []struct {
		name  string
		bytes []byte
		code  int
	}{
		{"unmasked", ws.AppendFrame(nil, ws.Text, []byte("x"), false), 1002},
		{"reserved bit", rawFrame(ws.Header{Fin: true, RSV1: true, Opcode: ws.Text}, "x"), 1002},
		{"reserved opcode", rawFrame(ws.Header{Fin: true, Opcode: 3}, "x"), 1002},
		{"long ping", rawFrame(ws.Header{Fin: true, Opcode: ws.Ping}, strings.Repeat("x", 126)), 1002},
		{"fragmented ping", rawFrame(ws.Header{Opcode: ws.Ping}, "x"), 1002},
		{"continuation of nothing", rawFrame(ws.Header{Fin: true, Opcode: ws.Continuation}, "x"), 1002},
		{"message in a message", append(rawFrame(ws.Header{Opcode: ws.Text}, "x"), rawFrame(ws.Header{Fin: true, Opcode: ws.Text}, "x")...), 1002},
		{"close of one byte", rawFrame(ws.Header{Fin: true, Opcode: ws.Close}, "x"), 1002},
	}
	routes := bridges(t, `limits: []`)
	for name, route := range routes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := start(t, "routes:\n  - {name: r, "+route+"}\n")
			for _, f := range frames {
				t.Run(f.name, func(t *testing.T) {
					conn := e.raw("/")
					conn.Write(rawFrame(ws.Header{Fin: true, Opcode: ws.Ping}, "first"))
					conn.Write(f.bytes)
					wantRawClose(t, conn, f.code)
				})
			}
		})
	}
	for name, route := range routes {
		if name == "websocket" {
			continue // UTF-8 is the duty of its ends
		}
		t.Run(name+" text that is not UTF-8", func(t *testing.T) {
			t.Parallel()
			e := start(t, "routes:\n  - {name: r, "+route+"}\n")
			conn := e.raw("/")
			conn.Write(rawFrame(ws.Header{Fin: true, Opcode: ws.Text}, "\xff\xfe"))
			wantRawClose(t, conn, 1007)
		})
	}
}

// wantRawClose reads frames until the Close, checks its code, answers it, and waits for the end of TCP.
func wantRawClose(t *testing.T, conn *rawConn, code int) {
	t.Helper()
	for {
		f, err := readFrame(conn)
		if err != nil {
			t.Fatalf("no close: %v", err)
		}
		if f.op != ws.Close {
			continue
		}
		got, reason, _ := ws.ParseClose(f.payload)
		if int(got) != code {
			t.Fatalf("closed with %d %q, want %d", got, reason, code)
		}
		break
	}
	conn.Write(ws.AppendCloseFrame(nil, ws.Code(code), "", true))
	if _, err := io.Copy(io.Discard, conn); err != nil {
		t.Fatalf("TCP did not end cleanly: %v", err)
	}
}

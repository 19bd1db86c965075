package e2e

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"bridgehead/ws"
)

func TestRelayPassesEverythingUnchanged(t *testing.T) {
	t.Parallel()
	e := start(t, `
routes:
  - {name: echo, path: /echo, websocket: {to: "ws://`+backend(t, echo)+`"}}
`)
	conn := e.dial("/echo", nil)
	for _, size := range []int{0, 1, 125, 126, 65535, 65536, 1 << 20} {
		want := bytes.Repeat([]byte("x"), size)
		for _, kind := range []int{websocket.TextMessage, websocket.BinaryMessage} {
			if err := conn.WriteMessage(kind, want); err != nil {
				t.Fatal(err)
			}
			got, data, err := conn.ReadMessage()
			if err != nil || got != kind || !bytes.Equal(data, want) {
				t.Fatalf("%d bytes of type %d came back as %d of type %d, %v", size, kind, len(data), got, err)
			}
		}
	}
	pong := make(chan string, 1)
	conn.SetPongHandler(func(s string) error { pong <- s; return nil })
	conn.WriteControl(websocket.PingMessage, []byte("to the upstream and back"), time.Now().Add(patience))
	send(t, conn, "after the ping")
	receive(t, conn)
	if got := <-pong; got != "to the upstream and back" {
		t.Fatalf("pong %q", got)
	}
	conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(4321, "bye"), time.Now().Add(patience))
	code, reason := closeCode(t, conn)
	if code != 4321 { // the upstream echoes the code
		t.Fatalf("closed with %d %q", code, reason)
	}
	if err := subset(e.closedLine("echo"), map[string]any{
		"cause": "client closed", "by": "client", "code": 4321, "reason": "bye",
		"messages_in": 15, "messages_out": 15, "level": "INFO",
	}); err != nil {
		t.Fatal(err)
	}
}

func TestRelayHandsOnTheUpstreamsCloseAndSubprotocol(t *testing.T) {
	t.Parallel()
	e := start(t, `
routes:
  - {name: r, path: /r, websocket: {to: "ws://`+backend(t, func(conn *websocket.Conn, _ *http.Request) {
		conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(4001, "go away"), time.Now().Add(patience))
		conn.ReadMessage()
	})+`"}}
`)
	conn := e.dial("/r", nil, "chat.v1", "chat.v2")
	if conn.Subprotocol() != "chat.v2" { // the upstream's choice, not ours
		t.Fatalf("subprotocol %q", conn.Subprotocol())
	}
	if code, reason := closeCode(t, conn); code != 4001 || reason != "go away" {
		t.Fatalf("closed with %d %q", code, reason)
	}
	if err := subset(e.closedLine("r"), map[string]any{"cause": "backend closed", "by": "backend", "code": 4001, "subprotocol": "chat.v2"}); err != nil {
		t.Fatal(err)
	}
}

func TestRelayHeaders(t *testing.T) {
	t.Parallel()
	seen := make(chan *http.Request, 1)
	e := start(t, `
routes:
  - name: r
    path: /rooms/{room}
    origins: ["*"]
    websocket:
      to: "ws://`+backend(t, func(_ *websocket.Conn, r *http.Request) { seen <- r })+`/in/{room}?room={room}"
      headers:
        set: {X-Room: "room {room}", X-Agent: "{header.user-agent}", X-None: "{header.x-absent}"}
        remove: [X-Secret]
`)
	conn := e.dial("/rooms/a%20b%26c?lost=1", http.Header{
		"Origin": {"https://page.example"}, "Cookie": {"a=1"}, "User-Agent": {"me"}, "X-Secret": {"s"},
		"X-Forwarded-For": {"6.6.6.6"}, "X_Forwarded_For": {"6.6.6.6"}, "Forwarded": {"for=6.6.6.6"}, "X-Real-Ip": {"6.6.6.6"},
		"X_Room": {"forged"}, "X-None": {"forged"}, "X-Kept": {"one", "two"},
	})
	defer conn.Close()
	r := <-seen
	for name, want := range map[string]string{
		"Origin": "https://page.example", "Cookie": "a=1", "X-Secret": "", "X-Kept": "one", "X-Room": "room a b&c", "X-Agent": "me",
		"X-None": "", "X_Room": "", "X_Forwarded_For": "", "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "https",
		"X-Real-Ip": "127.0.0.1", "X-Forwarded-Host": e.addrs["wss"],
		"Forwarded": `for=127.0.0.1;host="` + e.addrs["wss"] + `";proto=https`,
	} {
		if got := r.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if got := r.RequestURI; got != "/in/a%20b&c?room=a+b%26c" && got != "/in/a%20b%26c?room=a+b%26c" {
		t.Errorf("target %q", got)
	}
	if r.Host != e.addrs["wss"] {
		t.Errorf("host %q", r.Host)
	}
	if id := r.Header.Get("X-Connection-Id"); !strings.HasPrefix(id, "c_") || len(id) < 25 {
		t.Errorf("connection id %q", id)
	}
}

func TestTheUpstreamsRefusalReachesTheClientAsItIs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		status int
		header string
		value  string
	}{
		{"unauthorized", 401, "WWW-Authenticate", `Basic realm="x"`},
		{"forbidden", 403, "X-Why", "because"},
		{"redirect", 302, "Location", "https://elsewhere.example/"},
		{"unavailable", 503, "Retry-After", "7"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			e := start(t, `
routes:
  - {name: r, path: /r, websocket: {to: "ws://`+httpBackend(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set(c.header, c.value)
				w.WriteHeader(c.status)
				io.WriteString(w, "the upstream says no")
			})+`"}}
`)
			resp := e.refused("/r", nil)
			body, _ := io.ReadAll(resp.Body)
			if resp.StatusCode != c.status || resp.Header.Get(c.header) != c.value || string(body) != "the upstream says no" {
				t.Fatalf("got %s, %v, %q", resp.Status, resp.Header, body)
			}
		})
	}
}

func TestADeadOrWrongUpstreamIsABadGateway(t *testing.T) {
	t.Parallel()
	closed := listen(t)
	closed.Close()
	silent := tcpBackend(t, func(conn *net.TCPConn) { io.Copy(io.Discard, conn) })
	for _, c := range []struct {
		name, to string
		status   int
	}{
		{"nobody listens", closed.Addr().String(), 502},
		{"it never answers", silent, 504},
		{"it answers 200", httpBackend(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") }), 502},
		{"it is no HTTP", tcpBackend(t, func(conn *net.TCPConn) { io.WriteString(conn, "220 smtp ready\r\n") }), 502},
		{"its Accept is wrong", tcpBackend(t, func(conn *net.TCPConn) {
			io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: no\r\n\r\n")
			io.Copy(io.Discard, conn)
		}), 502},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			timeout := patience.String()
			if c.status == http.StatusGatewayTimeout {
				timeout = "300ms"
			}
			e := start(t, `
routes:
  - {name: r, path: /r, websocket: {to: "ws://`+c.to+`", connect: {timeout: `+timeout+`}}}
`)
			if resp := e.refused("/r", nil); resp.StatusCode != c.status {
				t.Fatalf("status %s, want %d", resp.Status, c.status)
			}
		})
	}
}

func TestBytesThatCameWithEitherHandshakeAreNotLost(t *testing.T) {
	t.Parallel()
	// RFC 6455 lets a server speak right behind its 101; clients that pipeline do it too.
	up := tcpBackend(t, func(conn *net.TCPConn) {
		head, rest := readHead(t, conn)
		answer := ws.AppendAnswer(nil, headerOf(head, "Sec-WebSocket-Key"), ws.Answer{})
		conn.Write(append(answer, ws.AppendFrame(nil, ws.Text, []byte("early from the server"), false)...))
		io.Copy(conn, io.MultiReader(bytes.NewReader(unmask(t, rest)), unmaskFrames(t, conn)))
	})
	e := start(t, `
routes:
  - {name: r, path: /r, websocket: {to: "ws://`+up+`"}}
`)
	conn := e.raw("/r")
	early := wsReadFrame(t, conn)
	if early != "early from the server" {
		t.Fatalf("got %q", early)
	}

	// A client that sends its first frame in the same write as its handshake.
	plain, err := net.Dial("tcp", e.addrs["ws"])
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	plain.SetDeadline(time.Now().Add(patience))
	plain.Write(append([]byte(handshake("/r")), ws.AppendFrame(nil, ws.Text, []byte("early from the client"), true)...))
	br := readUpgrade(t, plain)
	if got := wsReadFrame(t, br) + ", " + wsReadFrame(t, br); got != "early from the server, early from the client" {
		t.Fatalf("got %q", got)
	}
}

func TestFragmentsAndControlFramesBetweenThemPassAsTheyCame(t *testing.T) {
	t.Parallel()
	got := make(chan []byte, 1)
	sent := slices.Concat(
		rawFrame(ws.Header{Opcode: ws.Text}, "he"), rawFrame(ws.Header{Fin: true, Opcode: ws.Ping}, "p"),
		rawFrame(ws.Header{Opcode: ws.Continuation}, "ll"), rawFrame(ws.Header{Fin: true, Opcode: ws.Pong}, "unasked"),
		rawFrame(ws.Header{Opcode: ws.Continuation}, ""), rawFrame(ws.Header{Fin: true, Opcode: ws.Continuation}, "o"),
	)
	up := tcpBackend(t, func(conn *net.TCPConn) {
		head, rest := readHead(t, conn)
		conn.Write(ws.AppendAnswer(nil, headerOf(head, "Sec-WebSocket-Key"), ws.Answer{}))
		frames := make([]byte, len(sent))
		n := copy(frames, rest)
		io.ReadFull(conn, frames[n:])
		got <- frames
	})
	e := start(t, `
routes:
  - {name: r, path: /r, websocket: {to: "ws://`+up+`"}}
`)
	conn := e.raw("/r")
	for _, b := range sent { // byte by byte: the worst split
		conn.Write([]byte{b})
	}
	if frames := <-got; !bytes.Equal(frames, sent) {
		t.Fatalf("sent % x\n got % x", sent, frames)
	}
}

func TestCompressionIsNegotiatedEndToEndOrStripped(t *testing.T) {
	t.Parallel()
	up := backend(t, echo)
	e := start(t, `
routes:
  - {name: pass, path: /pass, websocket: {to: "ws://`+up+`"}}
  - {name: off, path: /off, websocket: {to: "ws://`+up+`", compression: off}}
`)
	text := strings.Repeat("compress me ", 10000)
	for path, extension := range map[string]string{"/pass": "permessage-deflate; server_no_context_takeover; client_no_context_takeover", "/off": ""} {
		d := e.dialer()
		d.EnableCompression = true
		conn, resp, err := d.Dial(e.url(path), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if got := resp.Header.Get("Sec-WebSocket-Extensions"); got != extension {
			t.Fatalf("%s: extensions %q", path, got)
		}
		send(t, conn, text)
		if receive(t, conn) != text {
			t.Fatalf("%s: the text changed", path)
		}
		conn.Close()
	}
	if err := subset(e.closedLine("off"), map[string]any{"bytes_in": len(text)}); err != nil {
		t.Fatal(err)
	}
	if line := e.closedLine("pass"); line["bytes_in"].(float64) > float64(len(text)/10) {
		t.Fatalf("%v bytes were not compressed", line["bytes_in"])
	}
}

func TestRoundRobinOverAListOfServers(t *testing.T) {
	t.Parallel()
	name := func(text string) string {
		return backend(t, func(conn *websocket.Conn, _ *http.Request) {
			conn.WriteMessage(websocket.TextMessage, []byte(text))
			conn.ReadMessage()
		})
	}
	e := start(t, `
upstreams:
  pair: {servers: ["ws://`+name("a")+`", {url: "http://`+name("b")+`"}]}
routes:
  - {name: r, websocket: {to: pair}}
`)
	var got string
	for range 4 {
		got += receive(t, e.dial("/", nil))
	}
	if got != "abab" {
		t.Fatalf("got %s", got)
	}
}

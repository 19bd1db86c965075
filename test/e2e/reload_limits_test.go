package e2e

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// promptly is how soon open sockets obey a changed limit: a second, and what a machine that does much else needs on top.
const promptly = patience

// kinds are the bridges of each kind to something that says everything again.
func kinds(t *testing.T) map[string]string {
	app := newApplication(t, func(e told) decision {
		if e.Type != "message" {
			return decision{}
		}
		return decision{body: *e.Text}
	})
	return map[string]string{
		"websocket": `websocket: {to: "ws://` + backend(t, echo) + `"}`,
		"raw":       `tcp: {to: "` + echoTCP(t) + `", message: text}`,
		"line":      `tcp: {to: "` + lineBackend(t) + `", framing: line, message: text}`,
		"webhook":   `webhook: {to: "http://` + app.addr + `/", secret: ` + secrets() + `}`,
	}
}

// A subject is an edge with one route of each kind, whose options change.
type subject struct {
	*edge
	kinds map[string]string
}

func newSubject(t *testing.T, options string) *subject {
	s := &subject{kinds: kinds(t)}
	s.edge = startIn(t, room(t), s.text(options))
	s.addr("ws")
	return s
}

func (s *subject) text(options string) string {
	var b strings.Builder
	b.WriteString(twoListeners + "routes:\n")
	for _, kind := range slices.Sorted(maps.Keys(s.kinds)) {
		fmt.Fprintf(&b, "  - {name: %s, path: /%s, %s, %s}\n", kind, kind, options, s.kinds[kind])
	}
	return b.String()
}

// becomes changes the options of all routes, which must drain no socket.
func (s *subject) becomes(options string) {
	s.t.Helper()
	for _, change := range s.edge.becomes(s.text(options))["routes"].([]any) {
		if change.(map[string]any)["drains"] != nil {
			s.t.Errorf("sockets drain: %v", change)
		}
	}
}

// enter opens a socket on each route.
func (s *subject) enter() map[string]*websocket.Conn {
	s.t.Helper()
	conns := map[string]*websocket.Conn{}
	for kind := range s.kinds {
		conns[kind] = s.dial("/"+kind, nil)
	}
	return conns
}

// open is enter, and sees them work.
func (s *subject) open() map[string]*websocket.Conn {
	s.t.Helper()
	conns := s.enter()
	for kind, conn := range conns {
		repeat(s.t, kind, conn, "hello", 2*patience)
	}
	return conns
}

// repeat sends a text and waits for all of it to come back, if in pieces.
func repeat(t *testing.T, kind string, conn *websocket.Conn, text string, within time.Duration) {
	t.Helper()
	conn.SetReadDeadline(time.Now().Add(within))
	if err := conn.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
		t.Fatalf("%s: %v", kind, err)
	}
	returns(t, kind, conn, text)
}

func returns(t *testing.T, kind string, conn *websocket.Conn, text string) {
	t.Helper()
	for got := ""; got != text; {
		_, data, err := conn.ReadMessage()
		if err != nil {
			t.Fatalf("%s: after %d of %d bytes: %v", kind, len(got), len(text), err)
		}
		if got += string(data); !strings.HasPrefix(text, got) {
			t.Fatalf("%s: got %.100q", kind, got)
		}
	}
}

// endsWith waits for the Close of a socket.
func endsWith(t *testing.T, kind string, conn *websocket.Conn, code int) {
	t.Helper()
	conn.SetReadDeadline(time.Now().Add(promptly))
	for {
		_, _, err := conn.ReadMessage()
		if websocket.IsCloseError(err, code) {
			return
		}
		if err != nil {
			t.Errorf("%s ended with %v, want %d", kind, err, code)
			return
		}
	}
}

// throttled waits until reading has been put off on each route.
func (s *subject) throttled() {
	s.t.Helper()
	eventually(s.t, "clients are throttled", func() bool {
		all := s.samples()
		for kind := range s.kinds {
			if all[fmt.Sprintf("bridgehead_throttled_total{route=%q}", kind)] == 0 {
				return false
			}
		}
		return true
	})
}

// slowly are limits by which a client that has sent a message of all the bytes, and another, has to wait an hour.
func slowly(what string) string {
	burst := map[string]int{"messages": 1, "bytes": len("all the bytes")}[what]
	return fmt.Sprintf(`limits: [{per: client.ip, %s: {rate: 1/h, burst: %d}}]`, what, burst)
}

func TestRaisedRatesFreeThrottledClients(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"messages", "bytes"} {
		for name, free := range map[string]string{
			"raised":  fmt.Sprintf(`limits: [{per: client.ip, %s: 1000000/s}]`, what),
			"off":     `limits: [{per: client.ip, connections: 99}]`,
			"removed": `limits: []`,
		} {
			t.Run(what+" "+name, func(t *testing.T) {
				t.Parallel()
				s := newSubject(t, "limits: []")
				conns := s.enter() // what they say from now on is all that is charged
				s.becomes(slowly(what))
				for kind, conn := range conns {
					repeat(t, kind, conn, "all the bytes", promptly)
					repeat(t, kind, conn, "passes by debt", promptly)
				}
				s.throttled()
				for _, conn := range conns {
					send(t, conn, "waits")
				}
				s.becomes(free)
				for kind, conn := range conns {
					conn.SetReadDeadline(time.Now().Add(promptly))
					returns(t, kind, conn, "waits")
				}
			})
		}
	}
}

func TestANewRuleHoldsForOpenSockets(t *testing.T) {
	t.Parallel()
	for _, before := range []string{`limits: []`, `limits: [{per: header.x-key, connections: 5}]`,
		`limits: [{per: client.ip, messages: {rate: 1000/s, burst: 1000}, on_exceed: close}]`} {
		t.Run(before, func(t *testing.T) {
			t.Parallel()
			s := newSubject(t, before)
			conns := s.open()
			s.becomes(`limits: [{per: client.ip, messages: {rate: 1/h, burst: 2}, on_exceed: close, connections: 1}]`)
			for kind, conn := range conns {
				if resp := s.refused("/"+kind, nil); resp.StatusCode != http.StatusTooManyRequests {
					t.Errorf("%s: one more socket gets %s", kind, resp.Status)
				}
				for range 5 {
					conn.WriteMessage(websocket.TextMessage, []byte("x"))
				}
				endsWith(t, kind, conn, websocket.ClosePolicyViolation)
			}
		})
	}
}

func TestLoweredConnectionsCloseNoSocket(t *testing.T) {
	t.Parallel()
	s := newSubject(t, `limits: [{per: client.ip, connections: 3}]`)
	first, second, third := s.open(), s.open(), s.open()
	s.becomes(`limits: [{per: client.ip, connections: 2}]`)
	for kind := range s.kinds {
		if resp := s.refused("/"+kind, nil); resp.StatusCode != http.StatusTooManyRequests {
			t.Errorf("%s: a fourth socket gets %s", kind, resp.Status)
		}
		for _, conns := range []map[string]*websocket.Conn{first, second, third} {
			repeat(t, kind, conns[kind], "still here", promptly)
		}
		hangUp(t, first[kind], websocket.CloseNormalClosure, "")
		hangUp(t, second[kind], websocket.CloseNormalClosure, "")
	}
	eventually(t, "the places are free", func() bool { return s.sockets() == len(s.kinds) })
	fourth := s.open()
	s.becomes(`limits: [{per: client.ip, connections: 9}]`)
	s.open()
	for kind, conn := range fourth {
		repeat(t, kind, conn, "still here", promptly)
	}
}

// sockets is how many are open.
func (s *subject) sockets() (n int) {
	all := s.samples()
	for kind := range s.kinds {
		n += int(all[fmt.Sprintf("bridgehead_connections{route=%q}", kind)])
	}
	return n
}

func TestMaxConnectionsFollowReloads(t *testing.T) {
	t.Parallel()
	s := newSubject(t, `max_connections: 0`)
	s.open()
	s.becomes(`max_connections: 1`)
	for kind := range s.kinds {
		if resp := s.refused("/"+kind, nil); resp.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("%s: a second socket gets %s", kind, resp.Status)
		}
	}
	s.becomes(`max_connections: 2`)
	s.open()
}

func TestMessageSizesFollowReloads(t *testing.T) {
	t.Parallel()
	s := newSubject(t, `socket: {message_size: 1KiB}`)
	conns := s.open()
	s.becomes(`socket: {message_size: 100KiB}`)
	for kind, conn := range conns {
		repeat(t, kind, conn, strings.Repeat("x", 100<<10), promptly)
	}
	s.becomes(`socket: {message_size: 2KiB}`)
	for kind, conn := range conns {
		repeat(t, kind, conn, strings.Repeat("x", 2<<10), promptly)
		conn.WriteMessage(websocket.TextMessage, make([]byte, 2<<10+1))
		endsWith(t, kind, conn, websocket.CloseMessageTooBig)
	}
}

func TestBackendMessageSizesFollowReloads(t *testing.T) {
	t.Parallel()
	s := newSubject(t, `socket: {backend_message_size: 1KiB}`)
	conns := s.open()
	s.becomes(`socket: {backend_message_size: 1MiB}`)
	for kind, conn := range conns {
		repeat(t, kind, conn, strings.Repeat("x", 100<<10), promptly)
	}
	s.becomes(`socket: {backend_message_size: 2KiB}`)
	for _, kind := range []string{"websocket", "line", "webhook"} { // which have messages of a backend that could be too big
		repeat(t, kind, conns[kind], strings.Repeat("x", 2<<10), promptly)
		conns[kind].WriteMessage(websocket.TextMessage, []byte(strings.Repeat("x", 4<<10)))
		endsWith(t, kind, conns[kind], websocket.CloseGoingAway)
	}
}

func TestClocksFollowReloads(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, before, after string }{
		{"idle set", `socket: {idle: off}`, `socket: {idle: 200ms}`},
		{"idle lowered", `socket: {idle: 1h}`, `socket: {idle: 200ms}`},
		{"lifetime set", `socket: {lifetime: off}`, `socket: {lifetime: 200ms}`},
		{"lifetime lowered", `socket: {lifetime: 1h}`, `socket: {lifetime: 200ms}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSubject(t, c.before)
			conns := s.open()
			s.becomes(c.after)
			for kind, conn := range conns {
				endsWith(t, kind, conn, websocket.CloseGoingAway)
			}
		})
	}
}

func TestPingsFollowReloads(t *testing.T) {
	t.Parallel()
	for _, before := range []string{`socket: {ping: off}`, `socket: {ping: 1h}`} {
		t.Run(before, func(t *testing.T) {
			t.Parallel()
			s := newSubject(t, before)
			conns := s.open()
			s.becomes(`socket: {ping: 100ms, pong: 200ms}`)
			for kind, conn := range conns {
				wantPing(t, kind, conn)
			}
		})
	}
}

// wantPing waits for a ping, and then for the end, since it is not answered.
func wantPing(t *testing.T, kind string, conn *websocket.Conn) {
	t.Helper()
	conn.SetReadDeadline(time.Now().Add(promptly))
	pings := 0
	conn.SetPingHandler(func(string) error { pings++; return nil })
	_, _, err := conn.ReadMessage()
	if pings == 0 || !websocket.IsCloseError(err, websocket.CloseGoingAway) {
		t.Errorf("%s: %d pings, then %v", kind, pings, err)
	}
}

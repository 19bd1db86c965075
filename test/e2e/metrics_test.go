package e2e

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// samples are the figures of a text exposition, by name and labels as they are written.
func (e *edge) samples() map[string]float64 {
	e.t.Helper()
	status, text := e.get("/metrics")
	if status != http.StatusOK {
		e.t.Fatalf("metrics: %d", status)
	}
	all := map[string]float64{}
	for line := range strings.Lines(text) {
		at := strings.LastIndexByte(line, ' ')
		if at < 0 || line[0] == '#' {
			continue
		}
		value, err := strconv.ParseFloat(strings.TrimSpace(line[at:]), 64)
		if err != nil {
			e.t.Errorf("metrics: %v", err)
		}
		all[line[:at]] = value
	}
	return all
}

// counted compares figures, which are written as in the exposition, with what they must be.
func (e *edge) counted(want map[string]float64) {
	e.t.Helper()
	got := e.samples()
	for name, value := range want {
		if got[name] != value {
			e.t.Errorf("%s is %v, want %v", name, got[name], value)
		}
	}
}

func TestMetricsOfSockets(t *testing.T) {
	t.Parallel()
	const takes = 60 * time.Millisecond
	app := newApplication(t, func(e told) decision {
		time.Sleep(takes) // the application works
		if e.Type == "message" {
			return decision{body: "taken"}
		}
		return decision{}
	})
	e := start(t, `
routes:
  - {name: relay, path: /relay, websocket: {to: "ws://`+backend(t, echo)+`"}}
  - {name: lines, path: /lines, tcp: {to: "`+lineBackend(t)+`", framing: line, message: text}}
  - {name: raw, path: /raw, tcp: {to: "`+echoTCP(t)+`"}}
  - {name: hook, path: /hook, webhook: {to: "http://`+app.addr+`/", secret: `+secrets()+`}}
`)
	var open []*websocket.Conn
	for _, route := range []string{"relay", "lines", "raw", "hook"} {
		conn := e.dial("/"+route, nil)
		for _, text := range []string{"one", "three", ""} {
			if text == "" && route == "raw" {
				continue // an empty message is no byte of a stream
			}
			send(t, conn, text)
			receive(t, conn)
		}
		open = append(open, conn)
		e.counted(map[string]float64{`bridgehead_connections{route="` + route + `"}`: 1})
	}
	for _, conn := range open {
		hangUp(t, conn, 1000, "")
	}
	for _, route := range []string{"relay", "lines", "raw", "hook"} {
		e.closedLine(route)
		in, out, bytesOut := 3.0, 3.0, 8.0
		switch route {
		case "raw":
			in, out = 2, 2
		case "hook":
			bytesOut = 15
		}
		e.counted(map[string]float64{
			`bridgehead_connections{route="` + route + `"}`:                                                0,
			`bridgehead_handshakes_total{outcome="accepted",route="` + route + `"}`:                        1,
			`bridgehead_handshakes_total{outcome="refused",route="` + route + `"}`:                         0,
			`bridgehead_handshake_seconds_count{route="` + route + `"}`:                                    1,
			`bridgehead_messages_total{direction="in",route="` + route + `"}`:                              in,
			`bridgehead_messages_total{direction="out",route="` + route + `"}`:                             out,
			`bridgehead_bytes_total{direction="in",route="` + route + `"}`:                                 8,
			`bridgehead_bytes_total{direction="out",route="` + route + `"}`:                                bytesOut,
			`bridgehead_connections_closed_total{by="client",cause="client closed",route="` + route + `"}`: 1,
			`bridgehead_connection_seconds_count{route="` + route + `"}`:                                   1,
			`bridgehead_backend_total{op="open",outcome="ok",route="` + route + `"}`:                       1,
			`bridgehead_backend_seconds_count{op="open",route="` + route + `"}`:                            1,
		})
	}

	// The application is told of the end after the socket is gone.
	got := e.samples()
	for until := time.Now().Add(patience); got[`bridgehead_backend_seconds_count{op="close",route="hook"}`] == 0 && time.Now().Before(until); {
		got = e.samples()
	}
	for op, requests := range map[string]float64{"connect": 1, "message": 3, "close": 1} {
		labels := `{op="` + op + `",route="hook"}`
		if n := got["bridgehead_backend_seconds_count"+labels]; n != requests {
			t.Errorf("%s: %v requests, want %v", op, n, requests)
		}
		sum := time.Duration(got["bridgehead_backend_seconds_sum"+labels] * float64(time.Second))
		if least := time.Duration(requests) * takes; sum < least || sum > least+patience {
			t.Errorf("%s: the application took %s in all, want %s and a little", op, sum, least)
		}
		if n := got[`bridgehead_backend_total{op="`+op+`",outcome="2xx",route="hook"}`]; n != requests {
			t.Errorf("%s: %v answers are 2xx, want %v", op, n, requests)
		}
	}
	if sum := got[`bridgehead_handshake_seconds_sum{route="hook"}`]; sum < takes.Seconds() {
		t.Errorf("the handshake that waited %s for the application took %v s", takes, sum)
	}
}

func TestMetricsOfRefusals(t *testing.T) {
	t.Parallel()
	closed := listen(t)
	closed.Close()
	up := backend(t, echo)
	e := start(t, `
routes:
  - {name: listed, path: /listed, origins: ["https://page.example"], websocket: {to: "ws://`+up+`"}}
  - {name: rare, path: /rare, limits: [{per: query.k, connections: 1}], websocket: {to: "ws://`+up+`"}}
  - {name: small, path: /small, max_connections: 1, websocket: {to: "ws://`+up+`"}}
  - {name: dead, path: /dead, tcp: {to: "`+closed.Addr().String()+`"}}
  - {name: no, path: /no, websocket: {to: "ws://`+httpBackend(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) })+`"}}
`)
	e.refused("/listed", http.Header{"Origin": {"https://evil.example"}})
	e.ask("GET /listed HTTP/1.1\r\nHost: localhost\r\n\r\n")
	e.dial("/rare?k=1", nil)
	e.refused("/rare?k=1", nil)
	e.refused("/rare?k=1", nil)
	e.dial("/small", nil)
	e.refused("/small", nil)
	e.refused("/dead", nil)
	e.refused("/no", nil)
	e.refused("/nowhere", nil)

	want := map[string]float64{
		`bridgehead_unrouted_total{reason="no route"}`:                     1,
		`bridgehead_handshakes_total{outcome="refused",route="listed"}`:    2,
		`bridgehead_handshakes_total{outcome="refused",route="rare"}`:      2,
		`bridgehead_handshakes_total{outcome="accepted",route="rare"}`:     1,
		`bridgehead_backend_total{op="open",outcome="error",route="dead"}`: 1,
		`bridgehead_backend_seconds_count{op="open",route="dead"}`:         1,
		`bridgehead_backend_seconds_count{op="open",route="listed"}`:       0, // nobody was asked
		`bridgehead_handshakes_total{outcome="accepted",route="dead"}`:     0,
		`bridgehead_connections{route="rare"}`:                             1,
		`bridgehead_connections{route="listed"}`:                           0,
	}
	for refusal, n := range map[string]float64{
		"origin listed": 1, "handshake listed": 1, "limit rare": 2, "capacity small": 1, "backend dead": 1, "upstream no": 1,
	} {
		reason, route, _ := strings.Cut(refusal, " ")
		want[fmt.Sprintf(`bridgehead_refusals_total{reason=%q,route=%q}`, reason, route)] = n
	}
	e.counted(want)
}

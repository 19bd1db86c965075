package server

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"bridgehead/proxy/upstream"
)

// servers asks the operators' API how the servers are.
func (l *live) servers() (states []upstream.State) {
	l.t.Helper()
	resp, err := http.Get("http://" + l.Addr("admin").String() + "/v1/upstreams")
	if err != nil {
		l.t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer struct{ Servers []upstream.State }
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		l.t.Fatal(err)
	}
	return answer.Servers
}

// await waits until the servers are in these states.
func (l *live) await(want string) {
	l.t.Helper()
	var got string
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); <-time.After(5 * time.Millisecond) {
		var states []string
		for _, s := range l.servers() {
			states = append(states, s.State)
		}
		if got = strings.Join(states, " "); got == want {
			return
		}
	}
	l.t.Fatalf("the servers are %s, want %s", got, want)
}

// When all servers are down, clients are told at once; the first good answer brings the route back. A reload takes the checks away,
// and what they found with them.
func TestHealthThroughTheProgram(t *testing.T) {
	t.Parallel()
	to := echo(t)
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := nobody.Addr().String()
	nobody.Close()
	text := around + `
upstreams:
  chat:
    servers: ["ws://` + address + `"]
    health: {tcp: true, interval: 100ms, timeout: 1s, unhealthy: 1}
routes: [{websocket: {to: chat}}]
`
	l := start(t, text)
	l.await("down")
	_, resp, err := websocket.DefaultDialer.Dial("ws://"+l.Addr("plain").String()+"/", nil)
	if err == nil || resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("%v, %v; want 503", err, resp)
	}
	back, err := net.Listen("tcp", address)
	if err != nil {
		t.Skip("somebody else has taken the port")
	}
	defer back.Close()
	l.await("up")
	l.becomes(strings.Replace(text, address, to, 1))
	l.await("up")
	conn := l.open("/")
	talks(t, conn)
	if s := l.servers()[0]; s.Connections != 1 || s.Opened != 1 || s.Upstream != "chat" || s.Server != "ws://"+to {
		t.Errorf("%+v", s)
	}
	metrics, err := http.Get("http://" + l.Addr("admin").String() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer metrics.Body.Close()
	if body, _ := io.ReadAll(metrics.Body); !strings.Contains(string(body), `bridgehead_upstream_server_up{server="ws://`+to+`",upstream="chat"} 1`) {
		t.Error("the metrics do not tell of the server")
	}
	l.becomes(around + `routes: [{websocket: {to: "ws://` + to + `"}}]`)
	if s := l.servers()[0]; s.Upstream != "route:*" || s.Probe != nil || len(l.watching) != 0 {
		t.Errorf("%+v; %d groups are watched", s, len(l.watching))
	}
}

// A lifetime moves sockets to a server that joins: each ends at a moment of its own, with a code by which clients come back.
func TestALifetimeMovesSocketsOver(t *testing.T) {
	t.Parallel()
	first, second := echo(t), echo(t)
	text := around + `
upstreams:
  chat: {servers: ["ws://` + first + `"], balance: least_connections}
routes: [{websocket: {to: chat}, socket: {lifetime: 1s, close_timeout: 20s}}]
`
	l := start(t, text)
	ctx, leave := context.WithCancel(t.Context())
	var talking sync.WaitGroup
	defer talking.Wait()
	defer leave()
	const clients = 30
	for range clients {
		talking.Go(func() {
			for ctx.Err() == nil {
				l.stay(ctx)
			}
		})
	}
	spread := func(least ...int) {
		t.Helper()
		var got []int
		for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); <-time.After(time.Millisecond) {
			got = nil
			enough := true
			for i, s := range l.servers() {
				got = append(got, s.Connections)
				enough = enough && s.Connections >= least[i]
			}
			if enough {
				return
			}
		}
		t.Fatalf("the servers have %v sockets, want %v at least", got, least)
	}
	spread(clients)
	l.becomes(strings.Replace(text, `"]`, `", "ws://`+second+`"]`, 1))
	spread(clients*2/5, clients*2/5)
}

// stay talks until the socket ends, which its lifetime alone may bring about.
func (l *live) stay(ctx context.Context) {
	conn, _, err := websocket.DefaultDialer.Dial("ws://"+l.Addr("plain").String()+"/", nil)
	if err != nil {
		l.t.Error(err)
		return
	}
	defer conn.Close()
	for ctx.Err() == nil {
		conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		_ = conn.WriteMessage(websocket.TextMessage, []byte("hello")) // if it cannot be written, reading tells why
		_, _, err = conn.ReadMessage()
		if err == nil {
			continue
		}
		if closed, ok := errors.AsType[*websocket.CloseError](err); !ok || closed.Code != websocket.CloseGoingAway || closed.Text != "lifetime reached" {
			l.t.Error(err)
		}
		return
	}
}

// A name in a route's own URL is looked up, and the look-ups end when the configuration wants none.
func TestNamesThroughTheProgram(t *testing.T) {
	t.Parallel()
	to := echo(t)
	_, port, _ := net.SplitHostPort(to)
	l := start(t, around+`
upstreams:
  chat: {servers: ["ws://localhost:`+port+`"]}
routes: [{websocket: {to: chat}}]
`)
	conn := l.open("/")
	talks(t, conn)
	if all := l.servers(); len(all) != 1 || all[0].Address == "" || all[0].Connections != 1 || all[0].LookUp == nil || all[0].LookUp.Addresses == 0 {
		t.Errorf("%+v", all)
	}
	resp, err := http.Get("http://" + l.Addr("admin").String() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); !strings.Contains(string(body), `bridgehead_upstream_name_addresses{server="ws://localhost:`+port+`",upstream="chat"} 1`) {
		t.Errorf("the metrics do not tell of the name: %s", body)
	}
	d := l.becomes(around + `
upstreams:
  chat: {servers: ["ws://localhost:` + port + `"], resolve: off}
routes: [{websocket: {to: chat}}]
`)
	if len(d.Routes) != 1 || d.Routes[0].Drains || len(d.Routes[0].Leaving) != 0 {
		t.Errorf("%+v", d)
	}
	talks(t, conn)
	if len(l.watching) != 0 {
		t.Errorf("%d groups are watched", len(l.watching))
	}
	l.open("/")
}

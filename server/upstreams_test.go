package server

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
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

package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// A throng is clients that talk all the time, and open another socket whenever theirs ends.
type throng struct {
	e      *edge
	dialer *websocket.Dialer
	path   string
	stop   chan struct{}
	all    sync.WaitGroup

	talked  atomic.Int64 // messages that came back
	refused atomic.Int64 // handshakes that got no socket

	mu   sync.Mutex // guards the following
	at   map[string]int
	lost map[string]int // sockets that ended, by server and close code
}

func newThrong(e *edge, path string) *throng {
	c := &throng{e: e, dialer: e.anyHost(), path: path, stop: make(chan struct{}), at: map[string]int{}, lost: map[string]int{}}
	e.t.Cleanup(c.leave)
	return c
}

// join adds clients, one after the other, and waits until all have their sockets.
func (c *throng) join(n int) {
	c.e.t.Helper()
	for range n {
		conn, name, err := c.open()
		if err != nil {
			c.e.t.Fatal(err)
		}
		c.all.Go(func() { c.live(conn, name) })
	}
}

func (c *throng) leave() {
	close(c.stop)
	c.all.Wait()
}

func (c *throng) over() bool {
	select {
	case <-c.stop:
		return true
	default:
		return false
	}
}

// open opens a socket and learns which server it is at.
func (c *throng) open() (*websocket.Conn, string, error) {
	conn, _, err := c.dialer.Dial("wss://localhost"+c.path, nil)
	if err != nil {
		return nil, "", err
	}
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	_, name, err := conn.ReadMessage()
	if err != nil {
		conn.Close()
		return nil, "", err
	}
	c.mu.Lock()
	c.at[string(name)]++
	c.mu.Unlock()
	return conn, string(name), nil
}

// live is the life of one client.
func (c *throng) live(conn *websocket.Conn, name string) {
	for !c.over() {
		if conn != nil {
			code := c.talk(conn)
			conn.Close()
			c.mu.Lock()
			c.at[name]--
			if code != 0 {
				c.lost[name+" "+strconv.Itoa(code)]++
			}
			c.mu.Unlock()
			if code == 0 {
				return
			}
		}
		var err error
		if conn, name, err = c.open(); err != nil {
			conn = nil
			c.refused.Add(1)
			<-time.After(300 * time.Millisecond)
		}
	}
	if conn != nil {
		conn.Close()
	}
}

// talk says things, each when the one before has come back, until the socket ends; the code is 0 when the throng leaves.
func (c *throng) talk(conn *websocket.Conn) (code int) {
	for i := 0; ; i++ {
		if c.over() {
			return 0
		}
		said := strconv.Itoa(i)
		err := conn.WriteMessage(websocket.TextMessage, []byte(said))
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		_, heard, readErr := conn.ReadMessage() // also when the write fails: the Close may be there to read
		if err == nil && readErr == nil && string(heard) == said {
			c.talked.Add(1)
			<-time.After(20 * time.Millisecond)
			continue
		}
		if closed, ok := readErr.(*websocket.CloseError); ok { //nolint:errorlint // gorilla gives it bare
			return closed.Code
		}
		return websocket.CloseAbnormalClosure
	}
}

// await waits until the sockets are spread as want says.
func (c *throng) await(what string, want func(at map[string]int) bool) map[string]int {
	c.e.t.Helper()
	var at map[string]int
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-time.After(10 * time.Millisecond) {
		c.mu.Lock()
		at = maps.Clone(c.at)
		c.mu.Unlock()
		if want(at) {
			c.e.t.Logf("%s: %v", what, at)
			return at
		}
	}
	c.e.t.Fatalf("%s: the sockets are at %v; lost are %v", what, at, c.lost)
	return nil
}

// wantLost checks which sockets have ended since it was called last.
func (c *throng) wantLost(what string, want map[string]int) {
	c.e.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !maps.Equal(c.lost, want) {
		c.e.t.Errorf("%s: sockets ended %v, want %v", what, c.lost, want)
	}
	c.lost = map[string]int{}
}

// awaitStates waits until the API tells these states of the servers, in their order.
func (e *edge) awaitStates(want string) {
	e.t.Helper()
	var got string
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-time.After(10 * time.Millisecond) {
		_, body := e.get("/v1/upstreams")
		var answer struct{ Servers []struct{ State string } }
		if err := json.Unmarshal([]byte(body), &answer); err != nil {
			e.t.Fatal(err)
		}
		var states []string
		for _, s := range answer.Servers {
			states = append(states, s.State)
		}
		if got = strings.Join(states, " "); got == want {
			return
		}
	}
	e.t.Fatalf("the servers are %s, want %s", got, want)
}

// reloads puts another configuration in force.
func (e *edge) reloads(dir, text string) {
	e.t.Helper()
	write(e.t, dir, "config.yaml", text)
	before := e.generation()
	if err := e.process.Process.Signal(syscall.SIGHUP); err != nil {
		e.t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-time.After(10 * time.Millisecond) {
		if e.generation() != before {
			return
		}
	}
	e.t.Fatal("it did not reload")
}

func (e *edge) generation() string {
	_, body := e.get("/metrics")
	for line := range strings.Lines(body) {
		if strings.HasPrefix(line, "bridgehead_config_generation ") {
			return line
		}
	}
	return ""
}

// Servers come and go under hundreds of sockets that talk, and no socket is lost but those of a server that crashes.
func showsLoadBalancing(t *testing.T, r *recipe) {
	f := newFleet(t, "websocket", "a", "b", "c")
	for i, name := range []string{"a", "b", "c"} {
		r.with(fmt.Sprintf("127.0.0.1:900%d", i+1), f.at[name])
	}
	e := r.start()
	e.awaitStates("up up up")
	c := newThrong(e, "/ws")
	c.join(200)
	c.await("by weight", func(at map[string]int) bool { return at["a"] == 50 && at["b"] == 50 && at["c"] == 100 })

	f.kill("c")
	c.await("after the crash of c", func(at map[string]int) bool { return at["a"] == 100 && at["b"] == 100 && at["c"] == 0 })
	e.awaitStates("up up down")
	c.mu.Lock()
	crashed := c.lost["c 1014"] + c.lost["c 1011"] + c.lost["c 1006"] // as the system tells the bridge of the crash
	c.lost["c 1014"], c.lost["c 1011"], c.lost["c 1006"] = 0, 0, 0
	maps.DeleteFunc(c.lost, func(_ string, n int) bool { return n == 0 })
	c.mu.Unlock()
	if crashed != 100 || c.refused.Load() != 0 {
		t.Errorf("%d sockets ended with c, and %d handshakes were refused; want 100 and 0", crashed, c.refused.Load())
	}
	c.wantLost("after the crash of c", map[string]int{})

	f.begin("c")
	e.awaitStates("up up up")
	c.join(50)
	<-time.After(2 * time.Second) // the slow start of c, as the file says
	c.join(150)
	c.await("after c is back", func(at map[string]int) bool { return at["c"] >= 150 && at["a"]+at["b"]+at["c"] == 400 })
	c.wantLost("after c is back", map[string]int{})

	at := c.await("before a drains", func(map[string]int) bool { return true })
	draining := strings.Replace(r.text, "- ws://"+f.at["a"], "- {url: ws://"+f.at["a"]+", drain: true}", 1)
	e.reloads(r.dir, draining)
	e.awaitStates("draining up up")
	c.await("after a has drained", func(now map[string]int) bool { return now["a"] == 0 && now["b"]+now["c"] == 400 })
	c.wantLost("after a has drained", map[string]int{"a 1012": at["a"]})
	f.kill("a") // nobody is there any more

	f.kill("b")
	f.kill("c")
	e.awaitStates("draining down down")
	e.wantStatus(t, http.StatusServiceUnavailable, "wss://localhost/ws", nil)
	f.begin("b")
	c.await("after b is back alone", func(at map[string]int) bool { return at["b"] == 400 })
	if c.talked.Load() < 5000 {
		t.Errorf("%d messages were exchanged in all: the sockets hardly talked", c.talked.Load())
	}
	_, metrics := e.get("/metrics")
	for _, want := range []string{
		fmt.Sprintf("bridgehead_upstream_server_up{server=%q,upstream=%q} 0\n", "ws://"+f.at["c"], "chat"),
		`bridgehead_refusals_total{reason="no server",route="chat"} `,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("no %s in the metrics", want)
		}
	}
}

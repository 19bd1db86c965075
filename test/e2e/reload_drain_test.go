package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// twoListeners is a head of a configuration that a test goes on with.
var twoListeners = own + `certificates: {internal: true}
listeners:
  - {name: wss, address: "127.0.0.1:0", tls: true}
  - {name: ws, address: "127.0.0.1:0"}
drain: 30s
`

// plainly opens a socket without TLS by whatever host, and leaves it to the caller.
func (e *edge) plainly(host, path string) (*websocket.Conn, *http.Response, error) {
	return websocket.DefaultDialer.Dial("ws://"+e.addrs["ws"]+path, http.Header{"Host": {host}})
}

// wants1012 reads to the Close of a socket that a reload has ended.
func wants1012(conn *websocket.Conn) error {
	conn.SetReadDeadline(time.Now().Add(2 * patience))
	for {
		_, _, err := conn.ReadMessage()
		if err == nil {
			continue
		}
		if closed, ok := errors.AsType[*websocket.CloseError](err); !ok || closed.Code != websocket.CloseServiceRestart || closed.Text != "route changed" {
			return fmt.Errorf("it ended with %w, want 1012 route changed", err)
		}
		return nil
	}
}

// named says which server one has come to, and then echoes.
func named(t *testing.T, name string) string {
	return backend(t, func(conn *websocket.Conn, r *http.Request) {
		conn.WriteMessage(websocket.TextMessage, []byte(name))
		echo(conn, r)
	})
}

func TestReloadDrains(t *testing.T) {
	t.Parallel()
	one, two := named(t, "one"), named(t, "two")
	upstreams := "upstreams: {group: {servers: [\"ws://" + one + "\"]}}\n"
	before := `- {name: r, host: a.example, path: /r, websocket: {to: "ws://` + one + `"}}`
	for _, c := range []struct{ name, before, after string }{
		{"a route that is removed", before, ""},
		{"a route that leads elsewhere", before, strings.Replace(before, one, two, 1)},
		{"a route whose host changed", before, strings.Replace(before, "a.example", "b.example", 1)},
		{"a route whose path changed", before, strings.Replace(before, "/r", "/s", 1)},
		{"a route to an upstream whose servers changed", `- {name: r, host: a.example, path: /r, websocket: {to: group}}`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			text := func(route string) string {
				return twoListeners + upstreams + "routes:\n  - {name: stays, path: /stays, websocket: {to: \"ws://" + one + "\"}}\n  " + route + "\n"
			}
			after := text(c.after)
			if strings.Contains(c.before, "group") {
				after = strings.Replace(text(c.before), one, two, 1) // which is the one in the upstream
			}
			e := startIn(t, room(t), text(c.before))
			e.addr("ws")
			drainsEvenly(t, e, after)
		})
	}
}

// drainsEvenly fills route r and checks how its sockets end when another configuration comes.
func drainsEvenly(t *testing.T, e *edge, after string) {
	others := staying(t, e)
	n := scaled(600, 300)
	ends := make(chan time.Time, n)
	var reading sync.WaitGroup
	defer reading.Wait()
	for range n {
		conn, _, err := e.plainly("a.example", "/r")
		if err != nil {
			t.Fatal(err)
		}
		conn.SetReadDeadline(time.Now().Add(patience))
		hears(t, conn, "one") // so the program knows which server it is at
		reading.Go(func() {
			defer conn.Close()
			if err := wants1012(conn); err != nil {
				t.Error(err)
			}
			ends <- time.Now()
		})
	}
	began := time.Now()
	diff := e.becomes(after)
	route := diff["routes"].([]any)[0].(map[string]any)
	if route["sockets"] != float64(n) || route["drains"] != true && route["draining_sockets"] != float64(n) {
		t.Errorf("the answer is %v", diff)
	}
	reading.Wait()
	close(ends)
	wantEven(t, began, ends)
	others()
}

// staying opens sockets on route stays, and gives a function that checks that they live.
func staying(t *testing.T, e *edge) (check func()) {
	var conns []*websocket.Conn
	for range 10 {
		conns = append(conns, e.dial("/stays", nil))
	}
	return func() {
		t.Helper()
		for _, conn := range conns {
			hears(t, conn, "one")
			send(t, conn, "still here")
			hears(t, conn, "still here")
		}
	}
}

// wantEven checks that what happened since began was spread over a second for 200, evenly. A slow machine makes it later and never
// sooner, so only what comes too soon counts.
func wantEven(t *testing.T, began time.Time, moments <-chan time.Time) {
	t.Helper()
	var after []time.Duration
	for m := range moments {
		after = append(after, m.Sub(began))
	}
	slices.Sort(after)
	length := time.Duration(len(after)) * time.Second / 200
	if last := after[len(after)-1]; last < length*3/4 {
		t.Errorf("all within %s, want about %s", last, length)
	}
	for third := 1; third < 3; third++ {
		by := length * time.Duration(third) / 3
		n, _ := slices.BinarySearch(after, by)
		if share := float64(n) / float64(len(after)); share > float64(third)/3+0.13 {
			t.Errorf("within %s of %s, %d of %d", by, length, n, len(after))
		}
	}
}

func TestEachKindOfBridgeDrains(t *testing.T) {
	t.Parallel()
	app := newApplication(t, nil)
	all := kinds(t)
	all["webhook"] = `webhook: {to: "http://` + app.addr + `/", secret: ` + secrets() + `}`
	s := &subject{kinds: all}
	s.edge = startIn(t, room(t), s.text("limits: []"))
	conns := map[string]*websocket.Conn{}
	for kind := range all {
		conns[kind] = s.dial("/"+kind, nil)
	}
	s.edge.becomes(strings.ReplaceAll(s.text("limits: []"), "path: /", "path: /elsewhere/"))
	for kind, conn := range conns {
		if err := wants1012(conn); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
	wantEnd(t, app.await("close", 1), told{Code: 1012, Reason: "route changed", Initiator: "shutdown", Clean: true})
}

// TestARouteComesBackWhileItsSocketsDrain has the old sockets end all the same, and the new ones live.
func TestARouteComesBackWhileItsSocketsDrain(t *testing.T) {
	t.Parallel()
	text := twoListeners + "routes:\n  - {name: stays, path: /stays, websocket: {to: \"ws://" + named(t, "one") + "\"}}\n"
	with := text + "  - {name: r, path: /r, limits: [{per: client.ip, connections: 200}], websocket: {to: \"ws://" + named(t, "one") + "\"}}\n"
	e := startIn(t, room(t), with)
	e.addr("ws")
	var reading sync.WaitGroup
	for range 200 {
		conn, _, err := e.plainly("", "/r")
		if err != nil {
			t.Fatal(err)
		}
		reading.Go(func() {
			defer conn.Close()
			if err := wants1012(conn); err != nil {
				t.Error(err)
			}
		})
	}
	e.becomes(text)
	e.becomes(with)
	var again *websocket.Conn
	eventually(t, "there is room for a new one", func() (came bool) { // the old ones count as long as they are there
		conn, _, err := e.plainly("", "/r")
		again = conn
		return err == nil
	})
	defer again.Close()
	reading.Wait()
	hears(t, again, "one")
	repeat(t, "new", again, "still here", promptly)
	eventually(t, "one is counted", func() bool { return e.samples()[`bridgehead_connections{route="r"}`] == 1 })
}

// TestTheProgramEndsWhileSocketsDrain tells each socket one of the two reasons, and waits for no window but its own.
func TestTheProgramEndsWhileSocketsDrain(t *testing.T) {
	t.Parallel()
	text := twoListeners + "routes:\n  - {name: stays, path: /stays, websocket: {to: \"ws://" + named(t, "one") + "\"}}\n"
	e := startIn(t, room(t), text+"  - {name: r, path: /r, websocket: {to: \"ws://"+named(t, "one")+"\"}}\n")
	e.addr("ws")
	var reading sync.WaitGroup
	for range 200 {
		conn, _, err := e.plainly("", "/r")
		if err != nil {
			t.Fatal(err)
		}
		reading.Go(func() {
			defer conn.Close()
			if code, _ := closeCode(t, conn); code != websocket.CloseServiceRestart && code != websocket.CloseGoingAway {
				t.Errorf("ended with %d", code)
			}
		})
	}
	e.becomes(text)
	if err := e.terminate(); err != nil {
		t.Errorf("exit: %v", err)
	}
	reading.Wait()
}

// fragments is what a server sends all the time: messages in many frames, whose bytes count up.
func fragments(conn *websocket.Conn, _ *http.Request) {
	counting := make([]byte, 256<<10)
	for i := range counting {
		counting[i] = byte(i)
	}
	for {
		w, err := conn.NextWriter(websocket.BinaryMessage)
		if err != nil {
			return
		}
		for range 8 {
			if _, err := w.Write(counting); err != nil { // frames of 4 KiB, the writer's buffer
				return
			}
		}
		if w.Close() != nil {
			return
		}
	}
}

func TestReloadCutsNoFrame(t *testing.T) {
	t.Parallel()
	flood := backend(t, fragments)
	text := twoListeners + "routes:\n  - {name: stays, path: /stays, websocket: {to: \"ws://" + flood + "\"}}\n"
	e := startIn(t, room(t), text+"  - {name: r, path: /r, websocket: {to: \"ws://"+flood+"\"}}\n")
	e.addr("ws")
	var reading sync.WaitGroup
	defer reading.Wait()
	const streams = 16
	flowing := make(chan struct{}, streams)
	for range streams {
		conn, _, err := e.plainly("", "/r")
		if err != nil {
			t.Fatal(err)
		}
		reading.Go(func() {
			defer conn.Close()
			if err := readsCounting(conn, flowing); !websocket.IsCloseError(err, websocket.CloseServiceRestart) {
				t.Errorf("a stream ended with %v, want 1012", err)
			}
		})
	}
	for range streams {
		<-flowing
	}
	e.becomes(text)
}

// readsCounting reads to the end, and checks the bytes. It tells once that something came.
func readsCounting(conn *websocket.Conn, flowing chan<- struct{}) error {
	conn.SetReadDeadline(time.Now().Add(2 * patience))
	want := make([]byte, 64<<10)
	for i := range want {
		want[i] = byte(i)
	}
	tell := sync.OnceFunc(func() { flowing <- struct{}{} })
	for {
		_, r, err := conn.NextReader()
		if err != nil {
			return err
		}
		got := make([]byte, len(want))
		for {
			n, err := io.ReadFull(r, got)
			if !bytes.Equal(got[:n], want[:n]) {
				return fmt.Errorf("the bytes are not those that were sent")
			}
			if err == io.EOF || err == io.ErrUnexpectedEOF && n == 0 {
				break
			}
			if err != nil {
				return err
			}
			tell()
		}
	}
}

// TestAReloadLosesNoHandshake has a server hold a handshake until the reload is done.
func TestAReloadLosesNoHandshake(t *testing.T) {
	t.Parallel()
	for _, gone := range []bool{true, false} {
		t.Run(fmt.Sprintf("removed %t", gone), func(t *testing.T) {
			t.Parallel()
			asked, hold := make(chan struct{}), make(chan struct{})
			upgrader := websocket.Upgrader{}
			slow := httpBackend(t, func(w http.ResponseWriter, r *http.Request) {
				close(asked)
				<-hold
				if conn, err := upgrader.Upgrade(w, r, nil); err == nil {
					defer conn.Close()
					echo(conn, r)
				}
			})
			text := twoListeners + "routes:\n  - {name: other, path: /other, websocket: {to: \"ws://" + slow + "\"}}\n"
			route := `  - {name: r, path: /r, websocket: {to: "ws://` + slow + `"}}` + "\n"
			e := startIn(t, room(t), text+route)
			e.addr("ws")
			var dialling sync.WaitGroup
			defer dialling.Wait()
			dialling.Go(func() {
				conn, _, err := e.plainly("", "/r")
				if err != nil {
					t.Errorf("the handshake is lost: %v", err)
					return
				}
				defer conn.Close()
				if err := wants1012(conn); err != nil {
					t.Error(err)
				}
			})
			<-asked
			if !gone {
				text += strings.Replace(route, slow, named(t, "new"), 1)
			}
			e.becomes(text)
			close(hold)
		})
	}
}

// A storm is clients that come all the time and stay until they are told to go.
type storm struct {
	e       *edge
	stop    chan struct{}
	coming  sync.WaitGroup // who begins handshakes, and those that are under way
	clients sync.WaitGroup

	mu   sync.Mutex     // guards the following
	at   map[string]int // how many are where, by the name of the server
	seen map[string]int // how many have ever been there
}

func (s *storm) rages() {
	s.coming.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				s.coming.Add(1)
				s.clients.Go(s.client)
			case <-s.stop:
				return
			}
		}
	})
}

// client is one that comes; it must hear 1012 in the end.
func (s *storm) client() {
	conn, _, err := s.e.plainly("", "/r")
	s.coming.Done()
	if err != nil {
		s.e.t.Errorf("a handshake is lost: %v", err)
		return
	}
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(patience))
	if _, name, err := conn.ReadMessage(); err == nil {
		s.is(string(name), 1)
		defer s.is(string(name), -1)
	} else if !websocket.IsCloseError(err, websocket.CloseServiceRestart) {
		s.e.t.Errorf("a newcomer ended with %v", err)
		return
	} else {
		return
	}
	if err := wants1012(conn); err != nil {
		s.e.t.Error(err)
	}
}

// is counts clients at a server.
func (s *storm) is(name string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at[name] += n
	s.seen[name] += max(n, 0)
}

func (s *storm) count(name string) (now, ever int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at[name], s.seen[name]
}

// TestAStormThroughRepointing leads a route here and there while clients come: in the end each was told 1012, or is where the route
// leads.
func TestAStormThroughRepointing(t *testing.T) {
	t.Parallel()
	servers := [2]string{named(t, "even"), named(t, "odd")}
	text := func(i int) string {
		return twoListeners + "routes:\n  - {name: r, path: /r, websocket: {to: \"ws://" + servers[i%2] + "\"}}\n"
	}
	e := startIn(t, room(t), text(0))
	e.addr("ws")
	s := &storm{e: e, stop: make(chan struct{}), at: map[string]int{}, seen: map[string]int{}}
	s.rages()
	for i := range scaled(100, 20) {
		_, before := s.count(odd(i, "even", "odd"))
		e.becomes(text(i))
		eventually(t, "somebody comes to the new server", func() bool {
			_, ever := s.count(odd(i, "even", "odd"))
			return ever > before
		})
	}
	close(s.stop)
	s.coming.Wait()
	eventually(t, "nobody is left at the old server", func() bool { now, _ := s.count("even"); return now == 0 })
	now, ever := s.count("odd")
	if now == 0 {
		t.Errorf("of %d that came to the new server nobody is left", ever)
	}
	e.becomes(strings.Replace(text(0), "/r", "/nowhere", 1))
	s.clients.Wait()
}

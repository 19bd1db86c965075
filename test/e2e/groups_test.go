package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// behind runs a test for the groups of each kind of bridge.
func behind(t *testing.T, test func(t *testing.T, kind string)) {
	t.Parallel()
	for _, kind := range []string{"websocket", "tcp", "webhook"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			test(t, kind)
		})
	}
}

// groups is a configuration with an upstream and a route for each line, as in "name: options". Nobody is pinged: the guests of these
// tests read only now and then. A server has a minute, which is more than a client's patience.
func groups(kind string, upstreams ...string) string {
	late := "connect: {timeout: 1m}"
	if kind == "webhook" {
		late = "timeout: 1m"
	}
	text := twoListeners + "defaults: {socket: {ping: off}}\nupstreams:\n"
	for _, u := range upstreams {
		name, options, _ := strings.Cut(u, ": ")
		text += "  " + name + ": {" + options + "}\n"
	}
	text += "routes:\n"
	for _, u := range upstreams {
		name, _, _ := strings.Cut(u, ": ")
		text += fmt.Sprintf("  - {name: %s, path: /%s, %s: {to: %s, %s}}\n", name, name, kind, name, late)
	}
	return text
}

// startGroups runs a configuration of groups.
func startGroups(t *testing.T, text string) *edge {
	t.Helper()
	e := startIn(t, room(t), text)
	e.addr("ws")
	return e
}

// A guest is a socket that has come to a server of a fleet.
type guest struct {
	*websocket.Conn
	at     string
	cookie *http.Cookie // that it was given; nil if none
}

// come opens a socket, and learns which server it is at. It is closed with the test.
func (e *edge) come(t *testing.T, path string, header http.Header) *guest {
	t.Helper()
	conn, resp, err := e.plain().Dial("ws://"+e.addrs["ws"]+path, header)
	if err != nil {
		t.Fatalf("%s with %v: %v, %+v", path, header, err, resp)
	}
	t.Cleanup(func() { conn.Close() })
	return greeted(t, conn, resp)
}

// greeted hears from its server who that is.
func greeted(t *testing.T, conn *websocket.Conn, resp *http.Response) *guest {
	t.Helper()
	conn.SetReadDeadline(time.Now().Add(patience))
	g := &guest{Conn: conn, at: receive(t, conn)}
	if all := resp.Cookies(); len(all) > 0 {
		g.cookie = all[0]
	}
	return g
}

func (e *edge) plain() *websocket.Dialer { return &websocket.Dialer{HandshakeTimeout: patience} }

// comeAll opens some sockets, and counts where they are.
func (e *edge) comeAll(t *testing.T, n int, path string) (all []*guest, at map[string]int) {
	t.Helper()
	at = map[string]int{}
	for range n {
		g := e.come(t, path, nil)
		all = append(all, g)
		at[g.at]++
	}
	return all, at
}

// talk checks that a socket still reaches its server and comes back.
func (g *guest) talk(t *testing.T) {
	t.Helper()
	g.SetReadDeadline(time.Now().Add(patience))
	wantEcho(t, g.Conn)
}

// turnedAway opens a socket that must be refused, and gives the answer.
func (e *edge) turnedAway(t *testing.T, status int, path string) *http.Response {
	t.Helper()
	conn, resp, err := e.plain().Dial("ws://"+e.addrs["ws"]+path, nil)
	if err == nil {
		conn.Close()
	}
	if err == nil || resp == nil || resp.StatusCode != status {
		t.Fatalf("%s: %v, %+v; want %d", path, err, resp, status)
	}
	return resp
}

// An observed server is what the API tells of it.
type observed struct {
	Upstream    string `json:"upstream"`
	State       string `json:"state"`
	Connections int    `json:"connections"`
	Ejections   int    `json:"ejections_total"`
}

// servers asks the API how those of one group are.
func (e *edge) servers(group string) []observed {
	e.t.Helper()
	_, body := e.get("/v1/upstreams")
	var answer struct {
		Servers []observed `json:"servers"`
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		e.t.Fatal(err)
	}
	return slices.DeleteFunc(answer.Servers, func(s observed) bool { return s.Upstream != group })
}

// leave closes sockets, and waits until their server counts them no more.
func (e *edge) leave(t *testing.T, group string, server int, guests ...*guest) {
	t.Helper()
	want := e.servers(group)[server].Connections - len(guests)
	for _, g := range guests {
		g.Close()
	}
	eventually(t, "they have left", func() bool { return e.servers(group)[server].Connections == want })
}

// at are those of some sockets that are at one of these servers.
func at(all []*guest, servers string) []*guest {
	return slices.DeleteFunc(slices.Clone(all), func(g *guest) bool { return !strings.Contains(servers, g.at) })
}

func TestGroupsBalance(t *testing.T) {
	behind(t, func(t *testing.T, kind string) {
		f := newFleet(t, kind, "a", "b", "c")
		never := ", eject: {failures: 0}"
		e := startGroups(t, groups(kind,
			"turns: "+f.servers("a", "b", "c weight: 2"),
			"least: balance: least_connections, "+f.servers("a", "b", "c weight: 2"),
			"two: balance: random_two, "+f.servers("a", "b", "c"),
			"hashed: balance: hash, hash: query.room, "+f.servers("a", "b", "c")+never,
		))
		byWeight := map[string]int{"a": 10, "b": 10, "c": 20}
		if _, n := e.comeAll(t, 40, "/turns"); !maps.Equal(n, byWeight) {
			t.Errorf("in turn: %v", n)
		}

		all, n := e.comeAll(t, 40, "/least")
		if !maps.Equal(n, byWeight) {
			t.Errorf("least connections: %v", n)
		}
		e.leave(t, "least", 2, at(all, "c")...)
		if _, n := e.comeAll(t, 20, "/least"); n["c"] != 20 {
			t.Errorf("the room at c is taken by %v", n)
		}

		if _, n := e.comeAll(t, 60, "/two"); min(n["a"], n["b"], n["c"]) < 10 {
			t.Errorf("two at random: %v", n)
		}

		rooms := func() (at map[string]string, n map[string]int) {
			at, n = map[string]string{}, map[string]int{}
			for i := range 40 {
				room := fmt.Sprint("/hashed?room=", i)
				at[room] = e.come(t, room, nil).at
				n[at[room]]++
			}
			return at, n
		}
		home, n := rooms()
		if len(n) != 3 {
			t.Errorf("the rooms are at %v", n)
		}
		if again, _ := rooms(); !maps.Equal(again, home) {
			t.Errorf("the rooms are at %v, and then at %v", home, again)
		}
		f.kill("c")
		moved, _ := rooms()
		for room, was := range home {
			if now := moved[room]; now == "c" || was != "c" && now != was {
				t.Errorf("without c, %s moves from %s to %s", room, was, now)
			}
		}
		f.begin("c")
		if back, _ := rooms(); !maps.Equal(back, home) {
			t.Errorf("the rooms were at %v, and are now at %v", home, back)
		}
	})
}

// A client comes to a server that is there as long as there are retries left; else it learns that its own is not.
func TestGroupsMoveOn(t *testing.T) {
	behind(t, func(t *testing.T, kind string) {
		f := newFleet(t, kind, "x", "y", "a")
		f.kill("x")
		f.kill("y")
		never := f.servers("x", "y", "a") + ", eject: {failures: 0}"
		e := startGroups(t, groups(kind, "twice: retries: 2, "+never, "once: retries: 1, "+never, "never: retries: 0, "+never))
		if _, n := e.comeAll(t, 9, "/twice"); n["a"] != 9 {
			t.Errorf("they are at %v", n)
		}
		for name, retries := range map[string]int{"never": 0, "once": 1} {
			came, most, seen := 0, 0, 0
			for range 6 {
				conn, resp, err := e.plain().Dial("ws://"+e.addrs["ws"]+"/"+name, nil)
				switch {
				case err == nil:
					conn.Close()
					came++
				case resp == nil || resp.StatusCode != http.StatusBadGateway:
					t.Errorf("%s: %v, %v", name, err, resp)
				}
				most = max(most, e.led(name, &seen))
			}
			if came == 0 || came == 6 || retries == 0 && came != 2 {
				t.Errorf("%s: %d of 6 were served", name, came)
			}
			if most != retries {
				t.Errorf("%s: a client was led on %d times", name, most)
			}
		}
	})
}

// led is how often the next client of the log was led on to another server.
func (e *edge) led(name string, seen *int) (moves int) {
	e.t.Helper()
	e.awaitFrom(seen, func(line map[string]any) bool {
		if line["msg"] == "trying the next server" && line["upstream"] == name {
			moves++
		}
		return line["route"] == name && (line["msg"] == "open" || line["msg"] == "refused")
	})
	return moves
}

// A server that answers a handshake with 503 is left for the next, and left alone in time.
func TestAServerThatRefusesIsLeft(t *testing.T) {
	t.Parallel()
	f := newFleet(t, "websocket", "a", "b")
	e := startGroups(t, groups("websocket", "g: "+f.servers("a", "b")+", eject: {failures: 3, time: 1h, max_time: 1h}"))
	f.be("refusing", "a")
	if _, n := e.comeAll(t, 10, "/g"); n["b"] != 10 {
		t.Errorf("they are at %v", n)
	}
	e.awaitStates("ejected up")
}

func TestGroupsAsk(t *testing.T) {
	behind(t, func(t *testing.T, kind string) {
		for check, kinds := range map[string]string{
			"tcp: true": "websocket tcp webhook", "http: /healthz": "websocket webhook", "websocket: /": "websocket",
		} {
			if strings.Contains(kinds, kind) {
				t.Run(check, func(t *testing.T) { asks(t, kind, check) })
			}
		}
	})
}

// asks has checks of one sort take a server down and bring it back; what clients meet there has no say. A server that is sick but
// there keeps its sockets.
func asks(t *testing.T, kind, check string) {
	t.Parallel()
	f := newFleet(t, kind, "a", "b")
	e := startGroups(t, groups(kind,
		"g: "+f.servers("a", "b")+", retries: 0, eject: {failures: 0}, health: {interval: 100ms, timeout: 20s, "+check+"}"))
	open, n := e.comeAll(t, 4, "/g")
	if n["a"] != 2 {
		t.Errorf("at first they are at %v", n)
	}
	crash := check == "tcp: true"
	if crash {
		f.kill("a")
	} else {
		f.be("sick", "a")
	}
	e.awaitStates("down up")
	if _, n := e.comeAll(t, 4, "/g"); n["b"] != 4 {
		t.Errorf("while a is down they are at %v", n)
	}
	for _, g := range open {
		if !crash || g.at == "b" {
			g.talk(t)
		}
	}
	up := `bridgehead_upstream_server_up{server="` + f.url("a") + `",upstream="g"}`
	if v, ok := e.samples()[up]; !ok || v != 0 {
		t.Errorf("%s is %v", up, v)
	}
	if crash {
		f.begin("a")
	} else {
		f.be("well", "a")
	}
	e.awaitStates("up up")
	if _, n := e.comeAll(t, 4, "/g"); n["a"] == 0 {
		t.Errorf("after a is back they are at %v", n)
	}
	if v := e.samples()[up]; v != 1 {
		t.Errorf("%s is %v", up, v)
	}
	for _, text := range []string{"server is down", "server is back"} {
		if n := e.says(text); n != 1 {
			t.Errorf("%q stands in the log %d times", text, n)
		}
	}
}

// says counts the lines of the log with a message.
func (e *edge) says(text string) (n int) {
	for _, line := range e.log() {
		if line["msg"] == text {
			n++
		}
	}
	return n
}

// Nobody asks here: what clients meet takes a server out, and one client that tries brings it back.
func TestGroupsEject(t *testing.T) {
	behind(t, func(t *testing.T, kind string) {
		f := newFleet(t, kind, "a", "b")
		e := startGroups(t, groups(kind, "g: "+f.servers("a", "b")+", eject: {failures: 3, time: 100ms, max_time: 200ms}"))
		f.kill("a")
		eventually(t, "a is left alone", func() bool {
			if g := e.come(t, "/g", nil); g.at != "b" {
				t.Errorf("a client is at %s", g.at)
			}
			return e.servers("g")[0].Ejections > 0
		})
		f.begin("a")
		eventually(t, "a serves again", func() bool { return e.come(t, "/g", nil).at == "a" })
		e.awaitStates("up up")
		for _, text := range []string{"server is left alone: it fails again and again", "server is back"} {
			if n := e.says(text); n != 1 {
				t.Errorf("%q stands in the log %d times", text, n)
			}
		}
	})
}

func TestGroupsAreFull(t *testing.T) {
	behind(t, func(t *testing.T, kind string) {
		f := newFleet(t, kind, "a", "b")
		e := startGroups(t, groups(kind, "g: "+f.servers("a max_connections: 2", "b max_connections: 3")))
		all, n := e.comeAll(t, 5, "/g")
		if n["a"] != 2 || n["b"] != 3 {
			t.Errorf("they are at %v", n)
		}
		e.awaitStates("full full")
		wantRetryAfter(t, e.turnedAway(t, http.StatusServiceUnavailable, "/g"))
		e.leave(t, "g", 0, at(all, "a")[0])
		if g := e.come(t, "/g", nil); g.at != "a" {
			t.Errorf("the free place is at a, and the client at %s", g.at)
		}
		e.turnedAway(t, http.StatusServiceUnavailable, "/g")
	})
}

func wantRetryAfter(t *testing.T, resp *http.Response) {
	t.Helper()
	if resp.Header.Get("Retry-After") == "" {
		t.Errorf("no Retry-After with %s", resp.Status)
	}
}

// When all servers are down clients learn it at once, and not when their time to connect is over; the first good answer to a check
// brings the route back.
func TestGroupsAreDown(t *testing.T) {
	behind(t, func(t *testing.T, kind string) {
		f := newFleet(t, kind, "a", "b")
		check := "http: /healthz"
		if kind == "tcp" {
			check = "tcp: true"
		}
		e := startGroups(t, groups(kind, "g: "+f.servers("a", "b")+", health: {interval: 100ms, timeout: 1s, "+check+"}"))
		if kind == "tcp" { // silence is nothing that it would notice
			f.kill("a")
			f.kill("b")
		} else {
			f.be("silent", "a", "b")
		}
		e.awaitStates("down down")
		for range 3 {
			wantRetryAfter(t, e.turnedAway(t, http.StatusServiceUnavailable, "/g"))
		}
		if kind == "tcp" {
			f.begin("b")
		} else {
			f.be("well", "b")
		}
		eventually(t, "b is back", func() bool {
			conn, resp, err := e.plain().Dial("ws://"+e.addrs["ws"]+"/g", nil)
			if err != nil {
				return false
			}
			defer conn.Close()
			return greeted(t, conn, resp).at == "b"
		})
	})
}

// A server that is to drain loses its sockets, each at a moment of its own. Those of the others notice nothing.
func TestGroupsDrain(t *testing.T) {
	behind(t, func(t *testing.T, kind string) {
		f := newFleet(t, kind, "a", "b")
		e := startGroups(t, groups(kind, "g: "+f.servers("a", "b")))
		all, n := e.comeAll(t, scaled(400, 200), "/g")
		moments := make(chan time.Time, len(all))
		var reading sync.WaitGroup
		for _, g := range at(all, "a") {
			reading.Go(func() {
				if err := wants1012(g.Conn); err != nil {
					t.Error(err)
				}
				moments <- time.Now()
			})
		}
		began := time.Now()
		diff := e.becomes(groups(kind, "g: "+f.servers("a drain: true", "b")))
		if route := diff["routes"].([]any)[0].(map[string]any); route["draining_sockets"] != float64(n["a"]) {
			t.Errorf("the answer is %v", diff)
		}
		if _, n := e.comeAll(t, 4, "/g"); n["b"] != 4 {
			t.Errorf("while a drains they come to %v", n)
		}
		reading.Wait()
		close(moments)
		wantEven(t, began, moments)
		e.awaitStates("draining up")
		for _, g := range at(all, "b") {
			g.talk(t)
		}
		e.becomes(groups(kind, "g: "+f.servers("a", "b")))
		e.awaitStates("up up")
		if _, n := e.comeAll(t, 4, "/g"); n["a"] == 0 {
			t.Errorf("after the drain they come to %v", n)
		}
	})
}

// A server that is back gets few sockets for as long as its slow start takes, and is filled when it is over. Here it takes an hour,
// until a reload ends it.
func TestGroupsStartSlowly(t *testing.T) {
	behind(t, func(t *testing.T, kind string) {
		f := newFleet(t, kind, "a", "b")
		slow := "g: " + f.servers("a", "b") + ", balance: least_connections, health: {tcp: true, interval: 100ms, timeout: 20s}, slow_start: 1h"
		e := startGroups(t, groups(kind, slow))
		f.kill("b")
		e.awaitStates("up down")
		f.begin("b")
		e.awaitStates("up up")
		if _, n := e.comeAll(t, 44, "/g"); n["b"] < 2 || n["b"] > 10 {
			t.Errorf("in its slow start, b has %d of 44; want about 4", n["b"])
		}
		e.becomes(groups(kind, strings.Replace(slow, "1h", "off", 1)))
		e.comeAll(t, 36, "/g")
		if all := e.servers("g"); all[0].Connections != 40 || all[1].Connections != 40 {
			t.Errorf("after it, they are %+v", all)
		}
	})
}

// Sockets do not stay for ever where they came when there was nowhere else.
func TestGroupsLevelAsSocketsGrowOld(t *testing.T) {
	behind(t, func(t *testing.T, kind string) {
		f := newFleet(t, kind, "a", "b")
		text := groups(kind, "g: "+f.servers("a", "b drain: true")+", balance: least_connections")
		text = strings.Replace(text, "path: /g,", "path: /g, socket: {lifetime: 2s},", 1)
		e := startGroups(t, text)
		c := newThrong(e, "/g")
		c.join(20)
		e.becomes(strings.Replace(text, "drain: true", "drain: false", 1))
		c.await("as sockets grow old", func(at map[string]int) bool { return at["a"] <= 12 && at["b"] >= 6 })
		if c.refused.Load() != 0 {
			t.Errorf("%d were refused", c.refused.Load())
		}
	})
}

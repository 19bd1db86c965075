package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// scaled is a number that is smaller where everything is slower.
func scaled(plain, underRace int) int {
	if raced {
		return underRace
	}
	return plain
}

// revise puts another configuration in the place of the file, as editors do.
func (e *edge) revise(config string) {
	e.t.Helper()
	file := e.process.Args[3]
	replace(e.t, filepath.Dir(file), filepath.Base(file), []byte(modern(config)))
}

// reload asks the program to read its configuration again.
func (e *edge) reload() (status int, answer map[string]any) {
	e.t.Helper()
	status, answer, _ = call(e.t, "POST", "http://"+e.addrs["admin"]+"/v1/reload", "", "")
	e.tellsOfReload()
	return status, answer
}

// becomes puts another configuration in force, which must be taken, and gives the difference.
func (e *edge) becomes(config string) (diff map[string]any) {
	e.t.Helper()
	e.revise(config)
	status, diff := e.reload()
	if status != http.StatusOK {
		e.t.Fatalf("not reloaded: %d, %v", status, diff)
	}
	return diff
}

// hup reloads by the signal, and gives the line of the log that tells how it went.
func (e *edge) hup() (line map[string]any) {
	e.t.Helper()
	if err := e.process.Process.Signal(syscall.SIGHUP); err != nil {
		e.t.Fatal(err)
	}
	return e.tellsOfReload()
}

// tellsOfReload waits for the line of the next reload: each leaves one.
func (e *edge) tellsOfReload() (line map[string]any) {
	e.t.Helper()
	return e.awaitFrom(&e.told, func(line map[string]any) bool {
		text := fmt.Sprint(line["msg"])
		return text == "reloaded" || strings.HasPrefix(text, "not reloaded")
	})
}

// eventually asks again and again until what it asks for is so.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	deadline := time.After(patience)
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for !so() {
		select {
		case <-again.C:
		case <-deadline:
			t.Fatalf("never: %s", what)
		}
	}
}

// settings are what differs between the configurations of a steady edge, by the words that stand for it.
type settings map[string]string

// steadily is the text of a configuration.
func steadily(text string, changed settings) string {
	all := settings{
		"CERTIFICATES": "{internal: true}", "TRUSTED": "[]", "LEVEL": "info", "TIMEOUT": "10s", "LISTENER": "", "ORIGINS": `["*"]`,
		"LIMITS": "[]", "SOCKET": "{}", "TURN": "none", "SECRET": secrets(), "RETRIES": "4", "OTHER": "ws://127.0.0.1:1", "ROUTE": "",
	}
	maps.Copy(all, changed)
	for word, value := range all {
		text = strings.ReplaceAll(text, "<"+word+">", value)
	}
	return text
}

// steadyText is a configuration of which each kind of reload changes something.
func steadyText(t *testing.T, h *secretary) string {
	up := backend(t, counting(t))
	return `
state: ./state
certificates: <CERTIFICATES>
trusted_proxies: <TRUSTED>
log: {format: json, level: <LEVEL>}
admin: {address: "127.0.0.1:0"}
listeners:
  - {name: wss, address: "127.0.0.1:0", tls: true, header_timeout: <TIMEOUT>}
  - {name: ws, address: "127.0.0.1:0", header_timeout: <TIMEOUT>}
  <LISTENER>
defaults: {origins: <ORIGINS>, limits: <LIMITS>, socket: <SOCKET>}
routes:
  - {name: talk, path: /talk, websocket: {to: "ws://` + up + `", headers: {set: {X-Turn: "<TURN>"}}}}
  - {name: lines, path: /lines, tcp: {to: "` + tcpBackend(t, countingLines(t)) + `", framing: line, message: text}}
  - {name: hook, path: /hook, webhook: {to: "http://` + httpBackend(t, h.serve) + `/", secret: <SECRET>, retries: <RETRIES>}}
  - {name: other, path: /other, websocket: {to: "<OTHER>"}}
  <ROUTE>
`
}

// counting is a server that counts what it gets and what it sends, each by itself.
func counting(t *testing.T) func(*websocket.Conn, *http.Request) {
	return func(conn *websocket.Conn, r *http.Request) {
		if r.URL.RawQuery == "turn" {
			conn.WriteMessage(websocket.TextMessage, []byte(r.Header.Get("X-Turn")))
		}
		for n := 0; ; n++ {
			_, data, err := conn.ReadMessage()
			if websocket.IsCloseError(err, websocket.CloseNormalClosure) {
				return
			}
			if err != nil || string(data) != fmt.Sprintf("c%d", n) {
				t.Errorf("the server got %q, %v in place of message %d", data, err, n)
				return
			}
			if err := conn.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, "s%d", n)); err != nil {
				t.Errorf("the server cannot send message %d: %v", n, err)
				return
			}
		}
	}
}

// countingLines is counting for a stream.
func countingLines(t *testing.T) func(*net.TCPConn) {
	return func(conn *net.TCPConn) {
		lines := bufio.NewScanner(conn)
		for n := 0; lines.Scan(); n++ {
			if lines.Text() != fmt.Sprintf("c%d", n) {
				t.Errorf("the stream got %q in place of line %d", lines.Text(), n)
				return
			}
			fmt.Fprintf(conn, "s%d\n", n)
		}
		if err := lines.Err(); err != nil {
			t.Errorf("the stream broke: %v", err)
		}
	}
}

// A secretary is an application that answers each message with the name of the key that it was signed with.
type secretary struct {
	keys map[string]*standardwebhooks.Webhook
}

// shift are the keys that a webhook route has in turn.
var shift = map[string]string{"old": oldKey, "new": newKey}

func newSecretary(t *testing.T) *secretary {
	s := &secretary{keys: map[string]*standardwebhooks.Webhook{}}
	for name, key := range shift {
		verifier, err := standardwebhooks.NewWebhook(key)
		if err != nil {
			t.Fatal(err)
		}
		s.keys[name] = verifier
	}
	return s
}

func (s *secretary) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var asked struct{ Events []told }
	if err != nil || json.Unmarshal(body, &asked) != nil || len(asked.Events) != 1 {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	event := asked.Events[0]
	if event.Type != "message" {
		return
	}
	by := "nobody"
	for _, name := range []string{"old", "new"} {
		if s.keys[name].Verify(body, r.Header) == nil {
			by = name
		}
	}
	decision{body: *event.Text + " by " + by}.write(w)
}

// A crowd is many clients that talk, and others that come and go, until they are told to stop.
type crowd struct {
	e       *edge
	stop    chan struct{}
	enough  time.Time // when a machine on which all this takes long may do with less
	talking sync.WaitGroup

	mu     sync.Mutex // guards the following
	visits int
	errs   []error
}

func (c *crowd) fail(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.errs = append(c.errs, fmt.Errorf(format, args...))
}

// connect opens a socket, by TLS or not.
func (c *crowd) connect(path string, secure bool) (*websocket.Conn, error) {
	url := "ws://" + c.e.addrs["ws"] + path
	if secure {
		url = c.e.url(path)
	}
	conn, resp, err := c.e.dialer().Dial(url, nil)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w, %+v", url, err, resp)
	}
	return conn, nil
}

// talks sends numbered messages every so often, does not wait for answers, and closes at the end; what comes back must be complete.
func (c *crowd) talks(path string, secure bool, every time.Duration) {
	c.e.t.Helper()
	conn, err := c.connect(path, secure)
	if err != nil {
		c.e.t.Fatal(err)
	}
	sent := make(chan int, 1)
	c.talking.Go(func() { sent <- c.counts(conn, every) })
	c.talking.Go(func() {
		defer conn.Close()
		got, err := c.hearsAll(conn)
		if want := <-sent; got != want || !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
			c.fail("%s: %d answers to %d messages, then %w", path, got, want, err)
		}
	})
}

func (c *crowd) counts(conn *websocket.Conn, every time.Duration) (sent int) {
	tick := time.NewTicker(rand.N(every) + every/2)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := conn.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, "c%d", sent)); err != nil {
				return sent
			}
			sent++
		case <-c.stop:
			conn.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""))
			return sent
		}
	}
}

// hearsAll reads numbered messages to the end.
func (c *crowd) hearsAll(conn *websocket.Conn) (got int, err error) {
	for {
		conn.SetReadDeadline(time.Now().Add(2 * patience))
		_, data, err := conn.ReadMessage()
		if err != nil {
			return got, err
		}
		if string(data) != fmt.Sprintf("s%d", got) {
			return got, fmt.Errorf("%q in place of answer %d", data, got)
		}
		got++
	}
}

// converses sends messages to the application and waits for each answer.
func (c *crowd) converses(every time.Duration) {
	c.e.t.Helper()
	conn, err := c.connect("/hook", false)
	if err != nil {
		c.e.t.Fatal(err)
	}
	c.talking.Go(func() {
		defer conn.Close()
		tick := time.NewTicker(every)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-tick.C:
			case <-c.stop:
				return
			}
			if by, err := converse(conn, n); err != nil || by == "nobody" {
				c.fail("the application: message %d is signed by %q, %w", n, by, err)
				return
			}
		}
	})
}

// converse tells by which key a message was signed.
func converse(conn *websocket.Conn, n int) (by string, err error) {
	if err := conn.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, "m%d", n)); err != nil {
		return "", err
	}
	conn.SetReadDeadline(time.Now().Add(patience))
	_, data, err := conn.ReadMessage()
	if err != nil {
		return "", err
	}
	text, by, _ := strings.Cut(string(data), " by ")
	if text != fmt.Sprintf("m%d", n) {
		return "", fmt.Errorf("the answer is %q", data)
	}
	return by, nil
}

// comeAndGo opens sockets one after another, and closes each when it has had its answer.
func (c *crowd) comeAndGo(secure bool) {
	c.talking.Go(func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-c.stop:
				return
			}
			if err := c.visit(secure); err != nil {
				c.fail("a newcomer: %w", err)
			}
		}
	})
}

func (c *crowd) visit(secure bool) error {
	conn, err := c.connect("/talk", secure)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.WriteMessage(websocket.TextMessage, []byte("c0"))
	conn.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""))
	got, err := c.hearsAll(conn)
	if got != 1 || !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
		return fmt.Errorf("%d answers, then %w", got, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.visits++
	return nil
}

// gather makes a crowd of n.
func gather(e *edge, n int) *crowd {
	c := &crowd{e: e, stop: make(chan struct{}), enough: time.Now().Add(40 * time.Second)}
	for i := range n {
		every := 300 * time.Millisecond
		if i%100 == 1 {
			every = 5 * time.Millisecond
		}
		switch {
		case i%50 == 0:
			c.converses(every)
		case i%20 == 0:
			c.talks("/lines", false, every)
		default:
			c.talks("/talk", i%10 == 1, every)
		}
	}
	for _, secure := range []bool{true, false, true, false} {
		c.comeAndGo(secure)
	}
	return c
}

// disperse ends the crowd and tells what went wrong in it.
func (c *crowd) disperse() {
	c.e.t.Helper()
	close(c.stop)
	c.talking.Wait()
	for i, err := range c.errs {
		if i == 10 {
			c.e.t.Errorf("and %d more", len(c.errs)-i)
			break
		}
		c.e.t.Error(err)
	}
	if c.visits == 0 {
		c.e.t.Error("nobody came")
	}
}

// A change is a kind of reload.
type change struct {
	name   string
	sets   func(i int) settings                // of the i-th reload
	check  func(t *testing.T, c *crowd, i int) // that it holds; may be nil
	broken bool                                // every second file cannot be used
}

// odd gives one of two values in turn.
func odd(i int, even, odd string) string { return [2]string{even, odd}[i%2] }

// changes are all kinds of reload that touch no open socket.
func changes() []change {
	return []change{
		{name: "nothing", sets: func(int) settings { return nil }},
		{name: "limits", sets: func(i int) settings {
			return settings{"LIMITS": fmt.Sprintf("[{per: client.ip, connections: %d, connect_rate: 99999/s, messages: 99999/s}]", 5000+i)}
		}},
		{name: "socket", sets: func(i int) settings {
			return settings{"SOCKET": fmt.Sprintf("{message_size: %dKiB, ping: %ds, idle: %ds, write_timeout: %ds}", 64+i, 20+i, 120+i, 30+i)}
		}},
		{name: "origins", sets: func(i int) settings {
			return settings{"ORIGINS": odd(i, `["https://a.example"]`, `["https://b.example"]`)}
		}, check: wantOrigins},
		{name: "a route comes and goes", sets: func(i int) settings {
			return settings{"ROUTE": odd(i, `- {name: guest, path: /guest, websocket: {to: "ws://127.0.0.1:1"}}`, "")}
		}, check: func(t *testing.T, c *crowd, i int) { c.wantStatus(t, "/guest", "", []int{502, 404}[i%2]) }},
		{name: "another route leads elsewhere", sets: func(i int) settings {
			return settings{"OTHER": fmt.Sprintf("ws://127.0.0.1:%d", 1+i)}
		}},
		{name: "a listener comes and goes", sets: func(i int) settings {
			return settings{"LISTENER": odd(i, `- {name: guest, address: "127.0.0.1:0"}`, "")}
		}},
		{name: "listeners in use", sets: func(i int) settings { return settings{"TIMEOUT": fmt.Sprintf("%ds", 10+i)} }},
		{name: "certificates", sets: func(i int) settings {
			return settings{"CERTIFICATES": odd(i, "{internal: true, files: [{cert: other.pem, key: other.key}]}", "{internal: true}")}
		}},
		{name: "trusted proxies", sets: func(i int) settings { return settings{"TRUSTED": odd(i, "[loopback]", "[]")} }},
		{name: "headers", sets: func(i int) settings { return settings{"TURN": fmt.Sprint(i)} }, check: wantTurn},
		{name: "secret", sets: func(i int) settings {
			return settings{"SECRET": odd(i, oldKey, newKey)}
		}, check: wantKey()},
		{name: "retries", sets: func(i int) settings { return settings{"RETRIES": odd(i, "2", "3")} }},
		{name: "log level", sets: func(i int) settings { return settings{"LEVEL": odd(i, "debug", "info")} }},
		{name: "a broken file", sets: func(i int) settings { return settings{"LIMITS": odd(i, "[{per: nobody", "[]")} }, broken: true},
	}
}

// wantKey checks with which key the application is asked, by one socket through all reloads.
func wantKey() func(*testing.T, *crowd, int) {
	var open *websocket.Conn
	return func(t *testing.T, c *crowd, i int) {
		if open == nil {
			open = c.e.dial("/hook", nil)
			t.Cleanup(func() { open.Close() })
		}
		if by, err := converse(open, i); err != nil || by != odd(i, "old", "new") {
			t.Fatalf("after reload %d messages are signed with the %q key, %v", i, by, err)
		}
	}
}

func wantOrigins(t *testing.T, c *crowd, i int) {
	c.wantStatus(t, "/talk", odd(i, "https://a.example", "https://b.example"), 101)
	c.wantStatus(t, "/talk", odd(i, "https://b.example", "https://a.example"), 403)
}

// wantTurn tells the turn from the header that the server sees.
func wantTurn(t *testing.T, c *crowd, i int) {
	conn, err := c.connect("/talk?turn", false)
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	if got := receive(t, conn); got != fmt.Sprint(i) {
		t.Errorf("after reload %d the server sees the header %q", i, got)
	}
	hangUp(t, conn, websocket.CloseNormalClosure, "")
}

// wantStatus checks how a handshake is answered.
func (c *crowd) wantStatus(t *testing.T, path, origin string, status int) {
	t.Helper()
	header := http.Header{}
	if origin != "" {
		header.Set("Origin", origin)
	}
	conn, resp, err := c.e.dialer().Dial("ws://"+c.e.addrs["ws"]+path, header)
	if err == nil {
		hangUp(t, conn, websocket.CloseNormalClosure, "")
		conn.Close()
	}
	if resp == nil || resp.StatusCode != status {
		t.Errorf("%s from %q: %v, %v, want %d", path, origin, resp, err, status)
	}
}

func TestReloadsUnderTalkingSockets(t *testing.T) {
	t.Parallel()
	text := steadyText(t, newSecretary(t))
	dir := room(t)
	cert, key := makePair(t, 1, "other.example")
	write(t, dir, "other.pem", string(cert))
	write(t, dir, "other.key", string(key))
	e := startIn(t, dir, steadily(text, nil))
	before := e.rests(text)
	c := gather(e, scaled(1000, 100))
	for _, kind := range changes() {
		t.Run(kind.name, func(t *testing.T) { c.reloads(t, text, kind) })
	}
	c.disperse()
	e.restsAgain(text, before)
}

// reloads does the reloads of one kind, by the API and by the signal in turn: all of them, where the machine is not too slow.
func (c *crowd) reloads(t *testing.T, text string, kind change) {
	for i := range scaled(100, 10) {
		if i >= 10 && time.Now().After(c.enough) {
			t.Logf("%d reloads", i)
			return
		}
		c.e.revise(steadily(text, kind.sets(i)))
		var taken bool
		if i%4 < 2 {
			status, _ := c.e.reload()
			taken = status == http.StatusOK
		} else {
			taken = c.e.hup()["msg"] == "reloaded"
		}
		if broken := kind.broken && i%2 == 0; taken == broken {
			t.Fatalf("reload %d: taken is %t", i, taken)
		}
		if kind.check != nil {
			kind.check(t, c, i)
		}
	}
}

// What an edge uses while nobody is there.
type usage struct{ fds, goroutines float64 }

// rests brings the edge to where nothing is kept that needs not be, and measures.
func (e *edge) rests(text string) usage {
	e.t.Helper()
	for _, path := range []string{"/talk", "/lines", "/hook"} {
		conn := e.dial(path, nil)
		hangUp(e.t, conn, websocket.CloseNormalClosure, "")
		conn.Close()
	}
	e.idles(text)
	s := e.samples()
	return usage{s["process_open_fds"], s["go_goroutines"]}
}

// idles waits until no socket is left, and makes the edge forget the connections that it keeps for later.
func (e *edge) idles(text string) {
	e.t.Helper()
	e.becomes(steadily(text, settings{"RETRIES": "9"}))
	e.becomes(steadily(text, nil))
	eventually(e.t, "no connection is left", func() bool {
		for name, value := range e.samples() {
			if strings.HasPrefix(name, "bridgehead_connections{") && value != 0 {
				return false
			}
		}
		return true
	})
}

// restsAgain checks that the edge has given back all it used.
func (e *edge) restsAgain(text string, before usage) {
	e.t.Helper()
	e.idles(text)
	var now usage
	defer func() { e.t.Logf("at rest %+v, at the start %+v", now, before) }()
	eventually(e.t, "file descriptors and goroutines as at the start", func() bool {
		s := e.samples()
		now = usage{s["process_open_fds"], s["go_goroutines"]}
		return now.fds <= before.fds+1 && now.goroutines <= before.goroutines+3
	})
}

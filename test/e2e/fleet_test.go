package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// actAs makes this test's own program act as another one: see [act].
const actAs = "BRIDGEHEAD_E2E_ACT_AS_SERVER"

// act serves at an address, as a bridge of one kind wants it, until the process is killed. To each socket it says its name, and then
// what it hears.
func act(part string) {
	part, at, _ := strings.Cut(part, "@")
	kind, name, _ := strings.Cut(part, " ")
	s := &actor{name: name, upgrader: websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}}
	s.mood.Store("well")
	l, err := net.Listen("tcp", at)
	if err == nil {
		switch kind {
		case "tcp":
			err = s.serveTCP(l)
		case "webhook":
			server := &http.Server{Handler: s.handler(s.serveEvents)} //nolint:gosec // it lives for a test
			// Nobody knows what became of an event on a kept connection when its server crashes, and so it goes to no other.
			server.SetKeepAlivesEnabled(false)
			err = server.Serve(l)
		default:
			err = http.Serve(l, s.handler(s.serveSocket)) //nolint:gosec // as above
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// An actor is a server that does as it is told by POSTs of /be/ and a mood: "sick", it says so on /healthz and hangs up when it is
// pinged; "refusing", it answers 503; "silent", nothing.
type actor struct {
	name     string
	upgrader websocket.Upgrader
	mood     atomic.Value // string
}

func (s *actor) handler(serve http.HandlerFunc) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /be/{mood}", func(_ http.ResponseWriter, r *http.Request) { s.mood.Store(r.PathValue("mood")) })
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		switch mood := s.mood.Load(); {
		case mood == "silent":
			<-r.Context().Done()
		case mood == "refusing", mood == "sick" && r.URL.Path == "/healthz":
			w.WriteHeader(http.StatusServiceUnavailable)
		case r.URL.Path != "/healthz":
			serve(w, r)
		}
	})
	return mux
}

func (s *actor) serveSocket(w http.ResponseWriter, r *http.Request) {
	conn, err := s.upgrader.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer conn.Close()
	pong := conn.PingHandler()
	conn.SetPingHandler(func(text string) error {
		if s.mood.Load() == "sick" {
			return net.ErrClosed
		}
		return pong(text)
	})
	for text := []byte(s.name); conn.WriteMessage(websocket.TextMessage, text) == nil; {
		if _, text, err = conn.ReadMessage(); err != nil {
			return
		}
	}
}

func (s *actor) serveEvents(w http.ResponseWriter, r *http.Request) {
	var asked struct{ Events []told }
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	var actions []any
	for _, event := range asked.Events {
		switch event.Type {
		case "connect":
			actions = append(actions, map[string]any{"send": map[string]any{"text": s.name}})
		case "message":
			actions = append(actions, map[string]any{"send": map[string]any{"text": *event.Text}})
		}
	}
	decision{body: map[string]any{"actions": actions}}.write(w)
}

func (s *actor) serveTCP(l net.Listener) error {
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			_, _ = io.WriteString(conn, s.name)
			_, _ = io.Copy(conn, conn)
		}()
	}
}

// A fleet is some servers, each a process of its own, that come and go.
type fleet struct {
	t       *testing.T
	kind    string            // of the bridge that they are for
	at      map[string]string // addresses, by name
	running map[string]*exec.Cmd
}

// newFleet finds an address for each server, and starts all of them.
func newFleet(t *testing.T, kind string, names ...string) *fleet {
	f := &fleet{t: t, kind: kind, at: map[string]string{}, running: map[string]*exec.Cmd{}}
	t.Cleanup(func() {
		for _, name := range slices.Collect(maps.Keys(f.running)) {
			f.kill(name)
		}
	})
	for _, name := range names {
		f.at[name] = reserve(t)
		f.begin(name)
	}
	return f
}

// begin starts a server and waits until it listens.
func (f *fleet) begin(name string) {
	f.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), actAs+"="+f.kind+" "+name+"@"+f.at[name])
	if err := cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	f.running[name] = cmd
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-time.After(5 * time.Millisecond) {
		if conn, err := net.Dial("tcp", f.at[name]); err == nil {
			conn.Close()
			return
		}
	}
	f.t.Fatalf("server %s does not listen", name)
}

// kill ends a server as a crash does.
func (f *fleet) kill(name string) {
	f.running[name].Process.Kill()
	_ = f.running[name].Wait()
	delete(f.running, name)
}

// be puts a server in a mood; see [actor].
func (f *fleet) be(mood string, names ...string) {
	f.t.Helper()
	for _, name := range names {
		resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Post("http://"+f.at[name]+"/be/"+mood, "", nil)
		if err != nil {
			f.t.Fatal(err)
		}
		resp.Body.Close()
	}
}

// url is where a server is, as its kind of bridge says it.
func (f *fleet) url(name string) string {
	return map[string]string{"websocket": "ws", "tcp": "tcp", "webhook": "http"}[f.kind] + "://" + f.at[name]
}

// servers is the value of the key `servers` for some of the fleet. Behind a name may stand more keys: "a weight: 2".
func (f *fleet) servers(each ...string) string {
	for i, name := range each {
		name, more, _ := strings.Cut(name, " ")
		each[i] = fmt.Sprintf("{url: %q, %s}", f.url(name), more)
	}
	return "servers: [" + strings.Join(each, ", ") + "]"
}

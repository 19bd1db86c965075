package relay

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"bridgehead/proxy/upstream"
)

// A directory is a resolver that knows one name.
type directory struct {
	mu    sync.Mutex // guards the following
	found []netip.Addr
}

func (d *directory) set(addresses ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.found = nil
	for _, a := range addresses {
		d.found = append(d.found, netip.MustParseAddr(a))
	}
}

func (d *directory) LookupNetIP(_ context.Context, _, name string) ([]netip.Addr, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if name != "example.com" {
		return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
	}
	return d.found, nil
}

// listenAt listens at addresses of loopback, all at the same port. Systems that have only one such address skip the test.
func listenAt(t *testing.T, addresses ...string) (port string, all []net.Listener) {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", addresses[0]+":0")
		must(t, err)
		all = []net.Listener{l}
		_, port, _ = net.SplitHostPort(l.Addr().String())
		for _, a := range addresses[1:] {
			if l, err = net.Listen("tcp", net.JoinHostPort(a, port)); err != nil {
				break
			}
			all = append(all, l)
		}
		if err == nil {
			return port, all
		}
		for _, l := range all {
			l.Close()
		}
		if !strings.Contains(err.Error(), "in use") {
			t.Skip(err)
		}
	}
	t.Fatal("no port is free at all addresses")
	panic("unreachable")
}

// whereabouts answers every request, and every message of a socket, with the address of the server and the host that was asked for.
func whereabouts(w http.ResponseWriter, r *http.Request) {
	local, _, _ := net.SplitHostPort(r.Context().Value(http.LocalAddrContextKey).(net.Addr).String())
	text := local + " " + r.Host
	if r.TLS != nil {
		text += " " + r.TLS.ServerName
	}
	if !websocket.IsWebSocketUpgrade(r) {
		io.WriteString(w, text)
		return
	}
	c, err := (&websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}).Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer c.Close()
	for {
		if _, _, err := c.ReadMessage(); err != nil {
			return
		}
		if c.WriteMessage(websocket.TextMessage, []byte(text)) != nil {
			return
		}
	}
}

// servers serves at listeners; config is nil for servers without TLS.
func servers(t *testing.T, config *tls.Config, all []net.Listener) {
	for _, l := range all {
		s := httptest.NewUnstartedServer(http.HandlerFunc(whereabouts))
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		s.Listener.Close()
		if s.Listener = l; config != nil {
			s.TLS = config
			s.StartTLS()
		} else {
			s.Start()
		}
		t.Cleanup(s.Close)
	}
}

// namedGroup is a group of one URL, whose name is looked up often.
func namedGroup(t *testing.T, d *directory, url string, change func(*upstream.Options)) *upstream.Group {
	t.Helper()
	o := upstream.To{url}.Own()
	o.Resolve = time.Second
	if change != nil {
		change(&o)
	}
	groups, err := upstream.NewGroups(map[string]upstream.Options{"chat": o}, upstream.Setup{Log: slog.New(slog.DiscardHandler), Resolver: d})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	watching.Go(func() { groups["chat"].Watch(ctx) })
	t.Cleanup(func() { cancel(); watching.Wait() })
	return groups["chat"]
}

func addressesOf(g *upstream.Group) map[string]upstream.State {
	all := make(map[string]upstream.State)
	for _, s := range (upstream.Groups{"chat": g}).States() {
		all[s.Address] = s
	}
	return all
}

// awaitStates waits until the servers of a group are as they should be.
func awaitStates(t *testing.T, g *upstream.Group, what string, right func(map[string]upstream.State) bool) {
	t.Helper()
	for by := time.Now().Add(patience); !right(addressesOf(g)); <-time.After(time.Millisecond) {
		if time.Now().After(by) {
			t.Fatalf("want %s; there are %+v", what, addressesOf(g))
		}
	}
}

// namedStreet is a route to a name.
func namedStreet(t *testing.T, g *upstream.Group) *street {
	t.Helper()
	terms := streetTerms(t, nil, "unused:1")
	o := terms.Bridge.(*Bridge).options
	bridge, err := New(o, g)
	must(t, err)
	t.Cleanup(bridge.requests.transport.CloseIdleConnections)
	terms.Bridge = bridge
	return newStreetOf(t, terms)
}

// A talker is a client that never stops talking.
type talker struct {
	conn *websocket.Conn
	at   string // the server
}

// dialTalker opens a socket and says where it leads.
func dialTalker(s *street) (*talker, error) {
	dialer := websocket.Dialer{HandshakeTimeout: patience}
	conn, resp, err := dialer.Dial("ws://"+s.address+"/", nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %+v", err, resp)
	}
	k := &talker{conn: conn}
	return k, k.talk()
}

// talk says a word, and hears whether the same server answers.
func (k *talker) talk() error {
	k.conn.SetReadDeadline(time.Now().Add(patience))
	if err := k.conn.WriteMessage(websocket.TextMessage, []byte("x")); err != nil {
		return err
	}
	_, answer, err := k.conn.ReadMessage()
	if err != nil {
		return err
	}
	at, _, _ := strings.Cut(string(answer), " ")
	if k.at != "" && k.at != at {
		return errors.New(k.at + " has become " + at)
	}
	k.at = at
	return nil
}

// Sockets talk on while the name of their servers gets other addresses, and new ones go where it leads then.
func TestANameChangesUnderLoad(t *testing.T) {
	t.Parallel()
	port, listeners := listenAt(t, "127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4")
	servers(t, nil, listeners)
	d := new(directory)
	d.set("127.0.0.1", "127.0.0.2")
	g := namedGroup(t, d, "ws://example.com:"+port, func(o *upstream.Options) { o.Balance = "least_connections" })
	s := namedStreet(t, g)

	const half = 60
	ctx, quiet := context.WithCancel(t.Context())
	var talking sync.WaitGroup
	defer talking.Wait()
	defer quiet()
	open := func(n int) map[string]int {
		count := make(map[string]int)
		for range n {
			k, err := dialTalker(s)
			must(t, err)
			count[k.at]++
			talking.Go(func() {
				defer k.conn.Close()
				for ctx.Err() == nil {
					if err := k.talk(); err != nil {
						t.Errorf("a socket at %s: %v", k.at, err)
						return
					}
				}
			})
		}
		return count
	}
	if count := open(half); count["127.0.0.1"] != half/2 || count["127.0.0.2"] != half/2 {
		t.Errorf("%v", count)
	}
	d.set("127.0.0.4", "127.0.0.3", "127.0.0.2")
	awaitStates(t, g, "four", func(all map[string]upstream.State) bool { return len(all) == 4 })
	if all := addressesOf(g); all["127.0.0.1"].State != "gone" || all["127.0.0.1"].Connections != half/2 {
		t.Errorf("%+v", all["127.0.0.1"])
	}
	if count := open(half); count["127.0.0.3"] != half/2 || count["127.0.0.4"] != half/2 {
		t.Errorf("%v, want the newcomers to get as many as the one that stays has", count)
	}
	quiet()
	talking.Wait()
	awaitStates(t, g, "three without sockets", func(all map[string]upstream.State) bool {
		n := 0
		for _, s := range all {
			n += s.Connections
		}
		return n == 0 && len(all) == 3
	})
}

// Requests find the address that was chosen too, with connections of its own, and over TLS the name is what counts.
func TestRequestsToAName(t *testing.T) {
	t.Parallel()
	fixture := httptest.NewTLSServer(nil) // its certificate is for example.com
	fixture.Close()
	for _, scheme := range []string{"ws", "wss"} {
		port, listeners := listenAt(t, "127.0.0.1", "127.0.0.2")
		d := new(directory)
		d.set("127.0.0.1", "127.0.0.2")
		var config *tls.Config
		want, ca := "x", ""
		if scheme == "wss" {
			config, want = &tls.Config{Certificates: fixture.TLS.Certificates}, "x example.com"
			ca = filepath.Join(t.TempDir(), "ca.pem")
			must(t, os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: fixture.Certificate().Raw}), 0o600))
		}
		servers(t, config, listeners)
		g := namedGroup(t, d, scheme+"://example.com:"+port, func(o *upstream.Options) { o.TLS.CA = ca })
		s := namedStreet(t, g)
		count := make(map[string]int)
		for range 10 {
			resp, body := s.ask("GET / HTTP/1.1\nHost: x\nConnection: close")
			at, rest, _ := strings.Cut(body, " ")
			if resp.StatusCode != http.StatusOK || rest != want {
				t.Errorf("%s: %s %q\n%s", scheme, resp.Status, body, s.log)
			}
			count[at]++
		}
		if count["127.0.0.1"] != 5 || count["127.0.0.2"] != 5 {
			t.Errorf("%s: %v", scheme, count)
		}
		if all := addressesOf(g); all["127.0.0.1"].Requests != 5 || all["127.0.0.1"].Opened != 0 {
			t.Errorf("%+v", all)
		}
	}
}

// nowhere is an address at which nobody listens.
func nowhere(t *testing.T) string { return strings.TrimPrefix(nobody(t), "ws://") }

// A request that finds no server goes to the next, with its body. One that a server has seen is not another's.
func TestFailoverOfRequests(t *testing.T) {
	t.Parallel()
	s := newStreet(t, nil, nowhere(t), nowhere(t), app(t, mirror))
	for range 4 {
		for request, want := range map[string]string{
			"GET / HTTP/1.1\nHost: x":                                                       "GET / host=x",
			"POST / HTTP/1.1\nHost: x\nContent-Length: 4\n\nbody":                           `body="body"`,
			"PUT / HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\n4\r\nbody\r\n0\r\n\r\n": `body="body"`,
		} {
			if resp, body := s.ask(request); resp.StatusCode != http.StatusOK || !strings.Contains(body, want) {
				t.Errorf("%s: %s %q, want %s\n%s", request, resp.Status, body, want, s.log)
			}
		}
	}
	rude, seen := server(t, hangsUp(""))
	s = newStreet(t, nil, strings.TrimPrefix(rude, "ws://"), app(t, func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("the next server sees %s %s", r.Method, r.URL)
	}))
	if resp, _ := s.ask("POST / HTTP/1.1\nHost: x\nContent-Length: 4\n\nbody"); resp.StatusCode != http.StatusBadGateway {
		t.Errorf("%s", resp.Status)
	}
	if e := <-seen; e.request == nil {
		t.Errorf("%v", e.err)
	}
	s = newStreet(t, nil, nowhere(t), nowhere(t))
	if resp, _ := s.ask("POST / HTTP/1.1\nHost: x\nContent-Length: 4\n\nbody"); resp.StatusCode != http.StatusBadGateway {
		t.Errorf("%s", resp.Status)
	}
	if !strings.Contains(s.log.String(), "does the server run") {
		t.Errorf("%s", s.log)
	}
}

// Requests are not what balancing counts: a server full of sockets serves them still, and a poll that waits is no load.
func TestRequestsAreNoSockets(t *testing.T) {
	t.Parallel()
	waiting, leave := make(chan struct{}), make(chan struct{})
	slow := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/poll" {
			waiting <- struct{}{}
			<-leave
		}
		whereabouts(w, r)
	}
	o := upstream.DefaultOptions()
	o.Balance = "least_connections"
	for range 2 {
		o.Servers = append(o.Servers, upstream.Server{URL: "ws://" + app(t, slow), Weight: 1, MaxConnections: 1})
	}
	g, err := upstream.New(o)
	must(t, err)
	s := namedStreet(t, g)
	var polls sync.WaitGroup
	for range 6 {
		polls.Go(func() {
			if resp, _ := s.ask("GET /poll HTTP/1.1\nHost: x"); resp.StatusCode != http.StatusOK {
				t.Errorf("%s", resp.Status)
			}
		})
		<-waiting
	}
	states := upstream.Groups{"chat": g}.States()
	for _, s := range states {
		if s.Connections != 0 || s.Opened != 0 || s.Requests != 3 {
			t.Errorf("%+v", s)
		}
	}
	for range 2 {
		k, err := dialTalker(s)
		must(t, err)
		defer k.conn.Close()
	}
	if k, err := dialTalker(s); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("a third socket: %v, %v", k, err)
	}
	if resp, _ := s.ask("GET / HTTP/1.1\nHost: x"); resp.StatusCode != http.StatusOK {
		t.Errorf("a request to full servers: %s", resp.Status)
	}
	close(leave)
	polls.Wait()
}

// A request that meets nobody counts as a failure.
func TestRequestsAndEjection(t *testing.T) {
	t.Parallel()
	o := upstream.DefaultOptions()
	o.Retries, o.Eject = 0, upstream.Eject{Failures: 2, Time: time.Hour, MaxTime: time.Hour}
	for _, at := range []string{nowhere(t), app(t, whereabouts)} {
		o.Servers = append(o.Servers, upstream.Server{URL: "ws://" + at, Weight: 1})
	}
	g, err := upstream.New(o)
	must(t, err)
	s := namedStreet(t, g)
	var got []int
	for range 6 {
		resp, _ := s.ask("GET / HTTP/1.1\nHost: x")
		got = append(got, resp.StatusCode)
	}
	if fmt.Sprint(got) != "[502 200 502 200 200 200]" || (upstream.Groups{"chat": g}).States()[0].State != "ejected" {
		t.Errorf("%v, %+v", got, upstream.Groups{"chat": g}.States()[0])
	}
}

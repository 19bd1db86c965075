package webhook

import (
	"context"
	"encoding/pem"
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

	"bridgehead/proxy/upstream"
	"bridgehead/ws"
)

// A directory is a resolver for which every name has the same addresses.
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

func (d *directory) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.found, nil
}

// listenTwice listens at one port of two addresses. Systems that have only one of them skip the test.
func listenTwice(t *testing.T) (port string, all [2]net.Listener) {
	t.Helper()
	for range 100 {
		one, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		_, port, _ = net.SplitHostPort(one.Addr().String())
		two, err := net.Listen("tcp", "127.0.0.2:"+port)
		if err == nil {
			return port, [...]net.Listener{one, two}
		}
		one.Close()
		if !strings.Contains(err.Error(), "in use") {
			t.Skip(err)
		}
	}
	t.Fatal("no port is free at both addresses")
	panic("unreachable")
}

// Events go to the address that was chosen, by HTTP/2 too, in the name of the URL; and to another one when the name has lost it.
func TestAnApplicationWithAName(t *testing.T) {
	t.Parallel()
	port, listeners := listenTwice(t)
	type seen struct{ at, host, name, proto, kind string }
	calls := make(chan seen, 100)
	var certificate []byte
	for _, l := range listeners {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			at, _, _ := net.SplitHostPort(r.Context().Value(http.LocalAddrContextKey).(net.Addr).String())
			body, _ := io.ReadAll(r.Body)
			_, kind, _ := strings.Cut(string(body), `"type":"`)
			kind, _, _ = strings.Cut(kind, `"`)
			calls <- seen{at, r.Host, r.TLS.ServerName, r.Proto, kind}
			w.WriteHeader(http.StatusNoContent)
		}))
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		s.Listener.Close()
		s.Listener, s.EnableHTTP2 = l, true
		s.StartTLS() // with a certificate for example.com
		t.Cleanup(s.Close)
		certificate = s.Certificate().Raw
	}
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}), 0o600); err != nil {
		t.Fatal(err)
	}
	d := new(directory)
	d.set("127.0.0.1", "127.0.0.2")
	o := upstream.To{"https://example.com:" + port + "/hook"}.Own()
	o.TLS.CA, o.Resolve = ca, time.Second
	groups, err := upstream.NewGroups(map[string]upstream.Options{"app": o}, upstream.Setup{Log: slog.New(slog.DiscardHandler), Resolver: d})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	watching.Go(func() { groups["app"].Watch(ctx) })
	defer watching.Wait()
	defer cancel()
	b, err := New(DefaultOptions(), Config{Route: "chat", Group: groups["app"]})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()

	var sessions []*session
	at := make(map[*session]string)
	for range 2 {
		opened, err := b.Open(t.Context(), handshake())
		if err != nil {
			t.Fatal(err)
		}
		s := opened.(*session)
		sessions = append(sessions, s)
		call := <-calls
		want := seen{call.at, "example.com:" + port, "example.com", "HTTP/2.0", typeConnect}
		if at[s] = call.at; call != want {
			t.Errorf("the application sees %+v, want %+v", call, want)
		}
	}
	tell := func(s *session) string {
		r, err := s.request(patience, s.event(typeMessage, event{message: newMessage(ws.Message{Op: ws.Text, Data: []byte("x")})}))
		if err == nil {
			_, err = s.setup().app.insist(t.Context(), slog.New(slog.DiscardHandler), r)
		}
		if err != nil {
			t.Fatal(err)
		}
		return (<-calls).at
	}
	if at[sessions[0]] == at[sessions[1]] {
		t.Errorf("both sessions are at %s", at[sessions[0]])
	}
	for range 3 {
		for _, s := range sessions {
			if got := tell(s); got != at[s] {
				t.Errorf("a session of %s is at %s", at[s], got)
			}
		}
	}
	d.set("127.0.0.2")
	for by := time.Now().Add(patience); ; <-time.After(time.Millisecond) {
		gone := 0
		for _, s := range groups.States() {
			if s.State == "gone" {
				gone++
			}
		}
		if gone == 1 {
			break
		}
		if time.Now().After(by) {
			t.Fatalf("%+v", groups.States())
		}
	}
	for _, s := range sessions {
		if got := tell(s); got != "127.0.0.2" {
			t.Errorf("a session is at %s, which the name has lost", got)
		}
		s.Close(ws.Cause{Kind: ws.ClientGone})
	}
}

package e2e

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// begun writes a file to start from, as a newcomer does, moves its ports, changes texts, such as where it leads, and serves it.
func begun(t *testing.T, kind string, changes ...string) *edge {
	t.Helper()
	dir := room(t)
	written := command(t, dir, "init", kind)
	written.wants(t, 0)
	if !strings.Contains(written.stdout, "bridgehead serve -c config.yaml") {
		t.Errorf("it does not tell what is next:\n%s", written.stdout)
	}
	checked := command(t, dir, "check", "-c", "config.yaml")
	if checked.wants(t, 0); checked.stderr != "" {
		t.Errorf("check warns: %s", checked.stderr)
	}
	text, err := os.ReadFile(filepath.Join(dir, "config.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(changes); i += 2 {
		if !strings.Contains(string(text), changes[i]) {
			t.Fatalf("the file has no %s", changes[i])
		}
	}
	config := strings.NewReplacer(changes...).Replace(string(text))
	config = regexp.MustCompile(`(?m)^( +address: 127\.0\.0\.1):[0-9]+`).ReplaceAllString(config, "$1:0")
	e := startIn(t, dir, config)
	e.addr("public")
	return e
}

// enter opens a socket by a URL of the public listener, as a page of a developer's own server does.
func (e *edge) enter(host, path string, subprotocols ...string) *websocket.Conn {
	e.t.Helper()
	conn, resp, err := e.knock(host, path, "http://localhost:3000", subprotocols...)
	if err != nil {
		e.t.Fatalf("dial %s: %v (%v)", path, err, resp)
	}
	e.t.Cleanup(func() { conn.Close() })
	conn.SetReadDeadline(time.Now().Add(patience))
	return conn
}

func (e *edge) knock(host, path, origin string, subprotocols ...string) (*websocket.Conn, *http.Response, error) {
	d := websocket.Dialer{
		TLSClientConfig: e.tls(), HandshakeTimeout: patience, Subprotocols: subprotocols,
		NetDialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", e.addrs["public"])
		},
	}
	d.TLSClientConfig.ServerName = host
	return d.Dial("wss://"+host+path, http.Header{"Origin": {origin}})
}

func TestInitChat(t *testing.T) {
	t.Parallel()
	e := begun(t, "chat", "127.0.0.1:9000", backend(t, echo))
	conn := e.enter("localhost", "/ws")
	send(t, conn, "hello")
	if got := receive(t, conn); got != "hello" {
		t.Errorf("it said %q", got)
	}
	if _, resp, err := e.knock("localhost", "/ws", "https://evil.example"); err == nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("a page from elsewhere: %v, want 403", resp)
	}
}

func TestInitVNC(t *testing.T) {
	t.Parallel()
	e := begun(t, "vnc", "127.0.0.1:5900", tcpBackend(t, func(conn *net.TCPConn) {
		io.WriteString(conn, "RFB 003.008\n")
		copyBack(conn)
	}))
	conn := e.enter("localhost", "/websockify", "binary")
	if got := receive(t, conn); got != "RFB 003.008\n" {
		t.Errorf("it said %q", got)
	}
}

func TestInitMQTT(t *testing.T) {
	t.Parallel()
	e := begun(t, "mqtt", "127.0.0.1:1883", tcpBackend(t, copyBack))
	conn := e.enter("localhost", "/mqtt", "mqtt")
	if conn.Subprotocol() != "mqtt" {
		t.Errorf("the subprotocol is %q", conn.Subprotocol())
	}
	send(t, conn, "\x10\x00")
	if got := receive(t, conn); got != "\x10\x00" {
		t.Errorf("it said %q", got)
	}
	if _, resp, err := e.knock("localhost", "/mqtt", "http://localhost:3000"); err == nil || resp.StatusCode != http.StatusBadRequest {
		t.Errorf("a client that speaks no MQTT: %v, want 400", resp)
	}
}

func TestInitWebhook(t *testing.T) {
	t.Parallel()
	e := begun(t, "webhook", "127.0.0.1:8000", httpBackend(t, func(w http.ResponseWriter, r *http.Request) {
		var request struct {
			Connection struct {
				PushURL string `json:"push_url"`
			}
			Events []struct{ Type, Text string }
		}
		if err := json.NewDecoder(r.Body).Decode(&request); err != nil || len(request.Events) == 0 {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "text/plain")
		if first := request.Events[0]; first.Type == "message" {
			io.WriteString(w, r.URL.RequestURI()+" heard "+first.Text+", push to "+request.Connection.PushURL)
		}
	}))
	conn := e.enter("localhost", "/events/lobby")
	send(t, conn, "hello")
	if got, want := hears(t, conn, "/ws?room=lobby heard hello, push to "), "http://"+e.addr("push"); !strings.HasSuffix(got, want) {
		t.Errorf("it said %q, want a push URL of %s", got, want)
	}
	resp, err := http.Post("http://"+e.addrs["push"]+"/v1/send", "application/json", strings.NewReader(`{"to":{"route":"events"},"text":"pushed"}`))
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	defer resp.Body.Close()
	hears(t, conn, "pushed")
}

func TestInitSaaS(t *testing.T) {
	t.Parallel()
	e := begun(t, "saas", "127.0.0.1:9000", backend(t, func(conn *websocket.Conn, r *http.Request) {
		conn.WriteMessage(websocket.TextMessage, []byte(r.Header.Get("X-Tenant")))
		echo(conn, r)
	}), "{per: tenant, connections: 1000,", "{per: tenant, connections: 1,")
	for _, tenant := range []string{"acme", "globex"} {
		conn, resp, err := e.knock(tenant+".localhost", "/ws", "http://"+tenant+".localhost:3000")
		if err != nil {
			t.Fatalf("%s: %v (%v)", tenant, err, resp)
		}
		defer conn.Close()
		conn.SetReadDeadline(time.Now().Add(patience))
		if got := receive(t, conn); got != tenant {
			t.Errorf("the backend of %s was told of %q", tenant, got)
		}
	}
	if _, resp, err := e.knock("acme.localhost", "/ws", "http://acme.localhost:3000"); err == nil || resp.StatusCode != http.StatusTooManyRequests {
		t.Errorf("more than a tenant's limit: %v, want 429", resp)
	}
	if _, resp, err := e.knock("localhost", "/ws", "http://localhost:3000"); err == nil || resp == nil || resp.StatusCode != http.StatusNotFound {
		t.Errorf("a host without a tenant: %v, want 404", resp)
	}
}

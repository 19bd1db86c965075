package e2e

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gorilla/websocket"
)

// docs is where the documentation stands.
var docs = filepath.Join("..", "..", "docs")

// recipes are what each file of docs/recipes has to show. None may be missing.
var recipes = map[string]func(*testing.T, *recipe){
	"behind-a-proxy.yaml":     showsBehindAProxy,
	"behind-a-tcp-proxy.yaml": showsBehindATCPProxy,
	"chat.yaml":               showsChatOfThree,
	"container.yaml":          showsContainer,
	"from-caddy.yaml":         showsFromCaddy,
	"from-nginx.yaml":         showsFromNginx,
	"from-websockify.yaml":    showsFromWebsockify,
	"load-balancing.yaml":     showsLoadBalancing,
	"mqtt.yaml":               showsMQTTForBrowsers,
	"php.yaml":                showsPHP,
	"service.yaml":            showsService,
	"signed-in.yaml":          showsSignedIn,
	"socketio.yaml":           showsSocketIO,
	"tenants.yaml":            showsManyTenants,
	"vnc.yaml":                showsVNC,
}

func TestRecipes(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join(docs, "recipes", "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, file := range files {
		name := filepath.Base(file)
		names = append(names, name)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			show := recipes[name]
			if show == nil {
				t.Fatalf("%s has no entry in the table: say what it shows", file)
			}
			show(t, newRecipe(t, file))
		})
	}
	if tried := slices.Sorted(maps.Keys(recipes)); !slices.Equal(names, tried) {
		t.Errorf("the files are %v, the table has %v", names, tried)
	}
}

// A recipe is a file of the documentation, made ready to run beside others: its ports are free ones.
type recipe struct {
	t    *testing.T
	dir  string // of the configuration; what it names by relative paths is made here
	text string
}

// listening is where a listener, or the API, is told its address.
var listening = regexp.MustCompile(`address: "?[^",}\n]+"?`)

func newRecipe(t *testing.T, file string) *recipe {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return &recipe{t: t, dir: room(t), text: listening.ReplaceAllString(string(text), `address: "127.0.0.1:0"`)}
}

// with puts something of the test where the file names something of the reader's.
func (r *recipe) with(theirs, ours string) {
	r.t.Helper()
	if !strings.Contains(r.text, theirs) {
		r.t.Fatalf("the file does not say %q", theirs)
	}
	r.text = strings.ReplaceAll(r.text, theirs, ours)
}

// files makes a directory with a page, and gives its path.
func (r *recipe) files(name, page string) string {
	r.t.Helper()
	dir := filepath.Join(r.dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		r.t.Fatal(err)
	}
	write(r.t, dir, page, "the page")
	return dir
}

// certificate puts a pair for the host into a directory, and gives the certificate.
func (r *recipe) certificate(dir, host string) []byte {
	r.t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		r.t.Fatal(err)
	}
	cert, key := makePair(r.t, 1, host)
	write(r.t, dir, "fullchain.pem", string(cert))
	write(r.t, dir, "privkey.pem", string(key))
	return cert
}

func (r *recipe) start(env ...string) *edge {
	r.t.Helper()
	e := startIn(r.t, r.dir, r.text, env...)
	e.addr("admin") // the last to be opened of those that every file has
	return e
}

// wantStatus opens a socket that must be refused.
func (e *edge) wantStatus(t *testing.T, status int, url string, header http.Header, subprotocols ...string) {
	t.Helper()
	d := e.anyHost()
	d.Subprotocols = subprotocols
	conn, resp, err := d.Dial(url, header)
	if err == nil {
		conn.Close()
	}
	if err == nil || resp == nil || resp.StatusCode != status {
		t.Errorf("%s with %v: %v, %v; want %d", url, header, resp, err, status)
	}
}

// wantOrigin checks that a page from elsewhere may not open a socket, and one of this origin may.
func (e *edge) wantOrigin(t *testing.T, url, origin string, subprotocols ...string) {
	t.Helper()
	e.wantStatus(t, http.StatusForbidden, url, http.Header{"Origin": {"https://evil.example"}}, subprotocols...)
	e.visit(url, http.Header{"Origin": {origin}}, subprotocols...)
}

// wantEcho says something on a socket that says it back.
func wantEcho(t *testing.T, conn *websocket.Conn) {
	t.Helper()
	send(t, conn, "hello")
	if got := receive(t, conn); got != "hello" {
		t.Errorf("got %q", got)
	}
}

// wantPage gets a page by the name of the host, from a listener.
func (e *edge) wantPage(t *testing.T, url string) {
	t.Helper()
	if resp, body := e.fetch(t, "wss", url); resp.StatusCode != http.StatusOK || body != "the page" {
		t.Errorf("%s: %s %q", url, resp.Status, body)
	}
}

// wantRedirect checks that the plain listener leads to https.
func (e *edge) wantRedirect(t *testing.T, host string) {
	t.Helper()
	resp, _ := e.fetch(t, "http", "http://"+host+"/a?b=c")
	if to := resp.Header.Get("Location"); resp.StatusCode/100 != 3 || !strings.HasPrefix(to, "https://"+host) {
		t.Errorf("plain HTTP is answered %s to %q", resp.Status, to)
	}
}

// fetch gets a URL from a listener, whatever host it names, and follows nothing.
func (e *edge) fetch(t *testing.T, listener, url string) (*http.Response, string) {
	t.Helper()
	to := e.addr(listener)
	transport := &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: clientTLS(e.roots, ""),
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", to)
		},
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

// repeats is a server that repeats some headers of its handshake, and then echoes.
func repeats(t *testing.T, name string, headers ...string) string {
	return backend(t, func(conn *websocket.Conn, r *http.Request) {
		text := name + " " + r.Host + r.RequestURI
		for _, h := range headers {
			text += fmt.Sprintf(" %s=%s", h, r.Header.Get(h))
		}
		send(t, conn, text)
		echo(conn, r)
	})
}

// desktop is a VNC server as far as its greeting.
func desktop(t *testing.T, name string) string {
	return tcpBackend(t, func(conn *net.TCPConn) {
		io.WriteString(conn, "RFB 003.008\n"+name)
		io.Copy(conn, conn)
	})
}

// inTurn opens n sockets on servers that say their names first, and checks that all names are met equally often.
func (e *edge) inTurn(t *testing.T, n int, url, rest string, names ...string) {
	t.Helper()
	met := map[string]int{}
	for range n {
		conn := e.visit(url, nil)
		name, told, _ := strings.Cut(receive(t, conn), " ")
		met[name]++
		if told != rest {
			t.Errorf("the server was told %q, want %q", told, rest)
		}
		wantEcho(t, conn)
	}
	for _, name := range names {
		if met[name] != n/len(names) {
			t.Errorf("%d sockets went to %v", n, met)
		}
	}
}

func showsChatOfThree(t *testing.T, r *recipe) {
	for i, name := range []string{"first", "second", "third"} {
		r.with(fmt.Sprintf("127.0.0.1:900%d", i+1), repeats(t, name, "X-Client"))
	}
	r.files("public", "index.html")
	e := r.start()
	e.inTurn(t, 6, "wss://localhost/ws?room=1", "localhost/ws?room=1 X-Client=127.0.0.1", "first", "second", "third")
	e.wantOrigin(t, "wss://localhost/ws", "https://localhost")
	e.wantPage(t, "https://localhost/")

	conn := e.visit("wss://localhost/ws", nil)
	receive(t, conn)
	send(t, conn, strings.Repeat("x", 64<<10+1))
	wantClose(t, conn, websocket.CloseMessageTooBig)
}

func showsVNC(t *testing.T, r *recipe) {
	r.with("127.0.0.1:5900", desktop(t, ""))
	r.with("/usr/share/novnc", r.files("novnc", "vnc.html"))
	e := r.start()
	for _, subprotocols := range [][]string{{"binary"}, nil} { // older and newer noVNC
		conn := e.visit("wss://localhost/websockify", nil, subprotocols...)
		if kind, data, err := conn.ReadMessage(); err != nil || kind != websocket.BinaryMessage || string(data) != "RFB 003.008\n" {
			t.Errorf("greeted with %q of type %d, %v", data, kind, err)
		}
		wantEcho(t, conn)
	}
	e.wantOrigin(t, "wss://localhost/websockify", "https://localhost")
	e.wantPage(t, "https://localhost/vnc.html")
}

func showsMQTTForBrowsers(t *testing.T, r *recipe) {
	r.with("127.0.0.1:1883", tcpBackend(t, func(conn *net.TCPConn) {
		packet := make([]byte, 14)
		if _, err := io.ReadFull(conn, packet); err == nil && packet[0] == 0x10 { // CONNECT
			conn.Write([]byte{0x20, 2, 0, 0}) // CONNACK
		}
		io.Copy(io.Discard, conn)
	}))
	e := r.start()
	for _, subprotocol := range []string{"mqtt", "mqttv3.1"} {
		conn := e.visit("wss://localhost/mqtt", nil, subprotocol)
		if conn.Subprotocol() != subprotocol {
			t.Errorf("subprotocol %q, want %q", conn.Subprotocol(), subprotocol)
		}
		conn.WriteMessage(websocket.BinaryMessage, []byte("\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00"))
		if got := receive(t, conn); got != "\x20\x02\x00\x00" {
			t.Errorf("the broker answers % x", got)
		}
	}
	e.wantStatus(t, http.StatusBadRequest, "wss://localhost/mqtt", nil)
	e.wantOrigin(t, "wss://localhost/mqtt", "https://dashboard.example.com", "mqtt")
}

func showsPHP(t *testing.T, r *recipe) {
	app := newApplication(t, asPHP)
	app.keys = app.keys[:1] // this file has one secret
	r.with("127.0.0.1:8000", app.addr)
	e := r.start("WEBHOOK_SECRET="+newKey, "PUSH_TOKEN=may-push")
	conn := e.visit("wss://localhost/rooms/blue", http.Header{"Cookie": {"session=ann"}})
	hears(t, conn, "welcome to blue")
	send(t, conn, "hi")
	if got := receive(t, conn); got != `{"echo":"hi","room":"blue"}` {
		t.Errorf("got %q", got)
	}
	connect := app.await("connect", 1)
	if connect.URI != "/ws.php?room=blue" || connect.Headers["cookie"] != "session=ann" {
		t.Errorf("the application was asked %+v", connect)
	}
	push := "http://" + e.addr("push") + "/v1/send"
	if status, answer, _ := call(t, http.MethodPost, push, "may-push", `{"to":{"route":"rooms"},"text":"a push"}`); status != http.StatusOK {
		t.Errorf("the push is answered %d %v", status, answer)
	}
	hears(t, conn, "a push")
	if status, _, _ := call(t, http.MethodPost, push, "guessed", `{"to":{"route":"rooms"},"text":"no"}`); status != http.StatusUnauthorized {
		t.Errorf("a push with a wrong token is answered %d", status)
	}
	send(t, conn, "bye")
	wantClose(t, conn, websocket.CloseNormalClosure)
	e.wantStatus(t, http.StatusForbidden, "wss://localhost/rooms/closed", nil)
	e.wantOrigin(t, "wss://localhost/rooms/blue", "https://localhost")
}

// asPHP answers as ws.php does.
func asPHP(e told) decision {
	name := strings.TrimPrefix(e.URI, "/ws.php?room=")
	switch {
	case e.Type == "connect" && name == "closed":
		return decision{status: http.StatusForbidden}
	case e.Type == "connect":
		return decision{body: map[string]any{
			"accept":  map[string]any{"state": map[string]string{"room": name}},
			"actions": []any{map[string]any{"send": map[string]string{"text": "welcome to " + name}}},
		}}
	case e.Type == "message" && *e.Text == "bye":
		return decision{body: map[string]any{"actions": []any{map[string]any{"close": map[string]any{"code": 1000, "reason": "bye"}}}}}
	case e.Type == "message":
		reply := map[string]string{"room": name, "echo": *e.Text}
		return decision{body: map[string]any{"actions": []any{map[string]any{"send": map[string]any{"json": reply}}}}}
	}
	return decision{status: http.StatusNoContent}
}

func showsManyTenants(t *testing.T, r *recipe) {
	for address, name := range map[string]string{"9001": "one", "9002": "two", "9100": "reports", "9200": "acme"} {
		r.with("127.0.0.1:"+address, repeats(t, name, "X-Tenant"))
	}
	r.with("connections: 500", "connections: 4")
	e := r.start()
	const globex = "globex.app.example.com"
	e.inTurn(t, 4, "wss://"+globex+"/live", globex+"/live X-Tenant=globex", "one", "two")
	e.wantStatus(t, http.StatusTooManyRequests, "wss://"+globex+"/live", nil) // the fifth of a tenant who may have four here
	e.inTurn(t, 2, "wss://initech.app.example.com/", "initech.app.example.com/ X-Tenant=initech", "one", "two")
	e.inTurn(t, 2, "wss://"+globex+"/reports/7", globex+"/reports/7 X-Tenant=globex", "reports")
	e.inTurn(t, 5, "wss://acme.app.example.com/live", "acme.app.example.com/live X-Tenant=acme", "acme")
	e.wantOrigin(t, "wss://initech.app.example.com/", "https://initech.app.example.com")
	e.wantStatus(t, http.StatusForbidden, "wss://initech.app.example.com/", http.Header{"Origin": {"https://" + globex}})
	e.wantStatus(t, http.StatusNotFound, "wss://localhost/", nil)
}

func showsSignedIn(t *testing.T, r *recipe) {
	var over atomic.Bool
	signIn := httpBackend(t, func(w http.ResponseWriter, req *http.Request) {
		switch session, _ := req.Cookie("session"); {
		case req.URL.Path != "/":
			_, _ = io.WriteString(w, "sign in, "+req.Header.Get("X-Forwarded-Proto"))
		case session == nil || over.Load():
			http.Redirect(w, req, "/oauth2/start", http.StatusFound)
		default:
			w.Header().Set("X-Auth-Request-User", session.Value)
		}
	})
	made := command(t, r.dir, "auth", "key", "ci")
	key, line, _ := strings.Cut(made.stdout, "\n")
	write(t, r.dir, "keys.txt", line)
	r.files("public", "index.html")
	r.with("127.0.0.1:4180", signIn)
	r.with("127.0.0.1:9001", repeats(t, "chat", "X-User", "X-Api-Key"))
	r.with("recheck: 1m", "recheck: 1s")
	e := r.start()
	own := http.Header{"Origin": {"https://localhost"}, "Cookie": {"session=ann"}}
	conn := e.visit("wss://localhost/ws", own)
	if got := receive(t, conn); got != "chat localhost/ws X-User=ann X-Api-Key=" {
		t.Errorf("the chat was told %q", got)
	}
	machine := e.visit("wss://localhost/ws", http.Header{"X-Api-Key": {key}, "X-User": {"root"}})
	if got := receive(t, machine); got != "chat localhost/ws X-User=ci X-Api-Key=" {
		t.Errorf("the chat was told %q", got)
	}
	e.wantStatus(t, http.StatusForbidden, "wss://localhost/ws", http.Header{"Origin": {"https://evil.example"}, "Cookie": {"session=ann"}})
	e.wantStatus(t, http.StatusFound, "wss://localhost/ws", http.Header{"Origin": {"https://localhost"}})
	e.wantStatus(t, http.StatusUnauthorized, "wss://localhost/ws", http.Header{"X-Api-Key": {"wrong"}})
	over.Store(true)
	if code, _ := closeCode(t, conn); code != 4401 {
		t.Errorf("closed with %d", code)
	}
	e.wantStatus(t, http.StatusFound, "wss://localhost/ws", own)
	wantEcho(t, machine)
}

func showsBehindAProxy(t *testing.T, r *recipe) {
	r.with("127.0.0.1:9001", repeats(t, "chat", "X-Forwarded-For", "X-Forwarded-Proto"))
	e := r.start()
	to := e.addr("ws")
	dialer := &websocket.Dialer{HandshakeTimeout: patience, NetDialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", to)
	}}
	asProxy := func(origin string) http.Header {
		return http.Header{"Origin": {origin}, "X-Forwarded-For": {"203.0.113.7"}, "X-Forwarded-Proto": {"https"}}
	}
	conn, _, err := dialer.Dial("ws://localhost:8443/ws", asProxy("https://localhost:8443"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := receive(t, conn); got != "chat localhost:8443/ws X-Forwarded-For=203.0.113.7, 127.0.0.1 X-Forwarded-Proto=https" {
		t.Errorf("the server was told %q", got)
	}
	wantEcho(t, conn)
	_, resp, err := dialer.Dial("ws://localhost:8443/ws", asProxy("https://evil.example"))
	if err == nil || resp == nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("a page from elsewhere: %v, %v", resp, err)
	}
}

func showsBehindATCPProxy(t *testing.T, r *recipe) {
	r.with(`["10.0.0.0/8"]`, "[loopback]")
	cert := r.certificate(filepath.Join(r.dir, "tls"), "chat.example.com")
	r.with("127.0.0.1:9001", repeats(t, "chat", "X-Forwarded-For", "X-Forwarded-Proto"))
	e := r.start()
	e.roots.AppendCertsFromPEM(cert)
	dialer := e.anyHost()
	if _, _, err := dialer.Dial("wss://chat.example.com/ws", nil); err == nil || !strings.Contains(err.Error(), "access denied") {
		t.Errorf("without a header: %v", err)
	}
	e.await(func(line map[string]any) bool { return strings.Contains(fmt.Sprint(line["msg"]), "reason=no_header") })
	connect := dialer.NetDialContext
	dialer.NetDialTLSContext = nil // it comes over HTTP/1.1: what it writes first is not TLS's
	dialer.NetDialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := connect(ctx, network, address)
		if err == nil {
			_, err = io.WriteString(conn, "PROXY TCP4 203.0.113.7 198.51.100.1 50000 443\r\n")
		}
		return conn, err
	}
	conn, _, err := dialer.Dial("wss://chat.example.com/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := receive(t, conn); got != "chat chat.example.com/ws X-Forwarded-For=203.0.113.7 X-Forwarded-Proto=https" {
		t.Errorf("the server was told %q", got)
	}
	wantEcho(t, conn)
}

func showsSocketIO(t *testing.T, r *recipe) {
	upgrader := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
	r.with("127.0.0.1:3000", httpBackend(t, func(w http.ResponseWriter, q *http.Request) {
		if !websocket.IsWebSocketUpgrade(q) {
			fmt.Fprintf(w, "%s %s for %s", q.Method, q.RequestURI, q.Header.Get("X-Real-Ip"))
			return
		}
		if conn, err := upgrader.Upgrade(w, q, nil); err == nil {
			defer conn.Close()
			echo(conn, q)
		}
	}))
	e := r.start()
	for _, path := range []string{"/", "/socket.io/?EIO=4&transport=polling"} {
		if resp, body := e.fetch(t, "wss", "https://localhost"+path); resp.StatusCode != http.StatusOK || body != "GET "+path+" for 127.0.0.1" {
			t.Errorf("%s: %s %q", path, resp.Status, body)
		}
	}
	e.wantOrigin(t, "wss://localhost/socket.io/?EIO=4&transport=websocket", "https://localhost")
}

func showsFromNginx(t *testing.T, r *recipe) {
	r.with("127.0.0.1:9001", repeats(t, "one"))
	r.with("127.0.0.1:9002", repeats(t, "two"))
	r.files("public", "index.html")
	e := r.start()
	e.inTurn(t, 4, "wss://localhost/ws/a?b=c", "app.internal/ws/a?b=c", "one", "two")
	e.wantOrigin(t, "wss://localhost/ws/a", "https://www.example.com")
	e.wantPage(t, "https://localhost/")
	e.wantRedirect(t, "localhost")
	for n := 5; ; n++ { // ten at once, and five more each second; twenty at most are open
		conn, resp, err := e.anyHost().Dial("wss://localhost/ws/a", nil)
		if err == nil {
			t.Cleanup(func() { conn.Close() })
		}
		if resp != nil && resp.StatusCode == http.StatusTooManyRequests {
			break
		}
		if err != nil || n > 20 {
			t.Fatalf("socket %d: %v", n, err)
		}
	}
}

func showsFromCaddy(t *testing.T, r *recipe) {
	r.with("127.0.0.1:9001", repeats(t, "one", "X-Edge", "Cookie"))
	r.with("127.0.0.1:9002", repeats(t, "two", "X-Edge", "Cookie"))
	r.files("public", "index.html")
	e := r.start()
	e.inTurn(t, 4, "wss://localhost/ws/a?b=c", "localhost/ws/a?b=c X-Edge=localhost Cookie=", "one", "two")
	conn := e.visit("wss://localhost/ws/a", http.Header{"Cookie": {"session=ann"}})
	if got := receive(t, conn); !strings.HasSuffix(got, " Cookie=") {
		t.Errorf("the server was told %q", got)
	}
	e.wantOrigin(t, "wss://localhost/ws/a", "https://localhost")
	e.wantPage(t, "https://localhost/")
	e.wantRedirect(t, "localhost")
}

func showsFromWebsockify(t *testing.T, r *recipe) {
	r.with("10.0.0.11:5901", desktop(t, "pc1"))
	r.with("10.0.0.12:5901", desktop(t, "pc2"))
	r.with("/run/vnc.sock", unixDesktop(t, filepath.Join(r.dir, "vnc.sock")))
	r.with("/usr/share/novnc", r.files("novnc", "vnc.html"))
	e := r.start()
	for _, machine := range []string{"pc1", "pc2", "local"} {
		conn := e.visit("wss://localhost/machines/"+machine, nil, "binary")
		var got string
		for want := "RFB 003.008\n" + machine; got != want; {
			if got += receive(t, conn); !strings.HasPrefix(want, got) {
				t.Fatalf("%s greets with %q", machine, got)
			}
		}
		wantEcho(t, conn)
	}
	e.wantOrigin(t, "wss://localhost/machines/pc1", "https://localhost")
	e.wantStatus(t, http.StatusNotFound, "wss://localhost/machines/pc3", nil)
	e.wantPage(t, "https://localhost/vnc.html")
}

// unixDesktop is a desktop that calls itself local, behind a Unix socket; it gives the path.
func unixDesktop(t *testing.T, path string) string {
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		stop := closeOnCleanup(t, conn)
		defer stop()
		io.WriteString(conn, "RFB 003.008\nlocal")
		io.Copy(conn, conn)
	})
	t.Cleanup(func() { l.Close(); serving.Wait() })
	return path
}

func showsService(t *testing.T, r *recipe) {
	tlsDir := filepath.Join(r.dir, "tls")
	cert := r.certificate(tlsDir, "chat.example.com")
	r.with("/etc/bridgehead/tls", tlsDir)
	r.with("/var/lib/bridgehead", "./state")
	r.with("127.0.0.1:9001", repeats(t, "chat"))
	r.showsOneChat(cert)
}

func showsContainer(t *testing.T, r *recipe) {
	cert := r.certificate(filepath.Join(r.dir, "tls"), "chat.example.com")
	r.with("chat:9001", repeats(t, "chat"))
	r.showsOneChat(cert, "STATE_DIRECTORY="+filepath.Join(r.dir, "state"))
}

// showsOneChat runs a file with a chat at its public name, and a redirect to it.
func (r *recipe) showsOneChat(cert []byte, env ...string) {
	r.t.Helper()
	e := r.start(env...)
	e.roots.AppendCertsFromPEM(cert)
	e.inTurn(r.t, 2, "wss://chat.example.com/ws", "chat.example.com/ws", "chat")
	e.wantOrigin(r.t, "wss://chat.example.com/ws", "https://chat.example.com")
	e.wantRedirect(r.t, "chat.example.com")
}

// fenced is a block of code in a page.
var fenced = regexp.MustCompile("(?ms)^```[a-z]*\n(.*?)^```$")

// What a reader copies from a page is the file that was tried.
func TestPagesShowTheFilesOfTheRecipes(t *testing.T) {
	t.Parallel()
	blocks := map[string]bool{}
	files, err := filepath.Glob(filepath.Join(docs, "recipes", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		for _, block := range fenced.FindAllStringSubmatch(read(t, file), -1) {
			blocks[block[1]] = true
		}
	}
	for _, file := range files {
		if filepath.Ext(file) != ".md" && !blocks[read(t, file)] {
			t.Errorf("no page shows %s as it is", file)
		}
	}
}

// link is a link to another file of the project.
var link = regexp.MustCompile(`\]\(([^():#\s]+)(?:#[^()\s]*)?\)`)

func TestLinksOfThePagesLeadSomewhere(t *testing.T) {
	t.Parallel()
	var pages []string
	for _, pattern := range []string{filepath.Join("..", "..", "*.md"), filepath.Join(docs, "*.md"), filepath.Join(docs, "recipes", "*.md")} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, found...)
	}
	for _, page := range pages {
		for _, to := range link.FindAllStringSubmatch(read(t, page), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), to[1])); err != nil {
				t.Errorf("%s: %v", page, err)
			}
		}
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

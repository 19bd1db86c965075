// Package e2e runs the built binary as a process and talks to it over wss as clients and backends that are not ours do.
package e2e

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"bridgehead/internal/leak"
	"bridgehead/test/h2test"
)

// patience bounds every wait for something that ought to happen soon.
const patience = 20 * time.Second

// program is the binary under test, built once.
var program string

func TestMain(m *testing.M) {
	if address := os.Getenv(actAs); address != "" {
		act(address)
	}
	dir, err := os.MkdirTemp("", "bridgehead-e2e-")
	if err != nil {
		panic(err)
	}
	program = filepath.Join(dir, "bridgehead")
	args := append([]string{"build", "-o", program}, buildFlags...)
	build := exec.Command("go", append(args, "bridgehead/cmd/bridgehead")...)
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the binary: %v\n%s", err, out)
		os.Exit(1)
	}
	leak.Main(cleaning{m, dir})
}

// cleaning removes the binary when the tests are over.
type cleaning struct {
	m   *testing.M
	dir string
}

func (c cleaning) Run() int {
	defer os.RemoveAll(c.dir)
	return c.m.Run()
}

// An edge is a running bridgehead with a wss, a plain and an admin listener.
type edge struct {
	t       *testing.T
	process *exec.Cmd
	roots   *x509.CertPool
	addrs   map[string]string // by name of the listener: wss, ws, admin, push
	exited  chan error
	told    int // lines of the log up to that of the last reload

	mu    sync.Mutex // guards the following
	lines []map[string]any
	text  bytes.Buffer
	news  chan struct{} // closed and replaced with each line
}

// start runs a configuration; the listeners, state and certificates are the harness's own, the rest is body.
func start(t *testing.T, body string) *edge {
	t.Helper()
	e := launch(t, body)
	e.await(func(line map[string]any) bool { return line["msg"] == "listening" && line["listener"] == "admin" })
	for _, line := range e.log() {
		if line["msg"] == "listening" {
			e.addrs[line["listener"].(string)] = line["address"].(string)
		}
	}
	pem, err := os.ReadFile(filepath.Join(filepath.Dir(e.process.Args[3]), "state", "ca", "root.pem"))
	if err != nil {
		t.Fatal(err)
	}
	e.roots = x509.NewCertPool()
	e.roots.AppendCertsFromPEM(pem)
	return e
}

func launch(t *testing.T, body string) *edge {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "config.yaml")
	head := `state: ./state
certificates: {internal: true}
log: {format: json, level: debug}
listeners:
  - {name: wss, address: "127.0.0.1:0", tls: true, http2: ` + fmt.Sprint(http2) + `}
  - {name: ws, address: "127.0.0.1:0"}
admin: {address: "127.0.0.1:0"}
` + driverLine
	if err := os.WriteFile(file, []byte(head+body), 0o600); err != nil {
		t.Fatal(err)
	}
	e := &edge{t: t, addrs: map[string]string{}, exited: make(chan error, 1), news: make(chan struct{})}
	e.process = exec.Command(program, "serve", "-c", file)
	stderr, err := e.process.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := e.process.Start(); err != nil {
		t.Fatal(err)
	}
	go e.read(stderr)
	t.Cleanup(e.stop)
	return e
}

// read collects the log, and then the exit.
func (e *edge) read(stderr io.Reader) {
	scanner := bufio.NewScanner(stderr)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		var line map[string]any
		if err := json.Unmarshal(scanner.Bytes(), &line); err != nil {
			line = map[string]any{"msg": scanner.Text()}
		}
		e.mu.Lock()
		e.lines = append(e.lines, line)
		e.text.Write(append(scanner.Bytes(), '\n'))
		close(e.news)
		e.news = make(chan struct{})
		e.mu.Unlock()
	}
	e.exited <- e.process.Wait()
}

func (e *edge) log() []map[string]any {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.lines)
}

// await waits for a line of the log, past ones included, and gives it.
func (e *edge) await(match func(map[string]any) bool) map[string]any {
	e.t.Helper()
	return e.awaitFrom(new(int), match)
}

// awaitFrom waits for a line behind those that were seen already, and counts on.
func (e *edge) awaitFrom(seen *int, match func(map[string]any) bool) map[string]any {
	e.t.Helper()
	timeout := time.After(patience)
	for {
		e.mu.Lock()
		lines, news := e.lines[*seen:], e.news
		e.mu.Unlock()
		for _, line := range lines {
			*seen++
			if match(line) {
				return line
			}
		}
		select {
		case <-news:
		case err := <-e.exited:
			e.exited <- err
			e.t.Fatalf("it ended: %v", err)
		case <-timeout:
			e.t.Fatal("no such line in the log")
		}
	}
}

// closedLine waits for the line that sums up the end of a socket on a route.
func (e *edge) closedLine(route string) map[string]any {
	e.t.Helper()
	return e.await(func(line map[string]any) bool { return line["msg"] == "closed" && line["route"] == route })
}

// stop ends it at once, and shows the end of its log if the test failed. A data race fails it: the detector only tells of it there.
func (e *edge) stop() {
	e.process.Process.Kill()
	<-e.exited
	if _, report, raced := strings.Cut(e.text.String(), "WARNING: DATA RACE"); raced {
		e.t.Errorf("the program has a data race:%.10000s", report)
	}
	if e.t.Failed() {
		e.t.Logf("log:\n%s", lastLines(e.text.String(), 60))
	}
}

// lastLines is the end of a text that may be long: what failed is to be found beside it.
func lastLines(text string, n int) string {
	lines := slices.Collect(strings.Lines(text))
	if left := len(lines) - n; left > 0 {
		return fmt.Sprintf("(%d lines before these)\n", left) + strings.Join(lines[left:], "")
	}
	return text
}

// terminate sends SIGTERM and waits for the exit.
func (e *edge) terminate() error {
	e.t.Helper()
	e.process.Process.Signal(syscall.SIGTERM)
	return e.wait()
}

func (e *edge) wait() error {
	e.t.Helper()
	select {
	case err := <-e.exited:
		e.exited <- err
		return err
	case <-time.After(patience):
		e.t.Fatal("it did not end")
		return nil
	}
}

func (e *edge) tls() *tls.Config { return clientTLS(e.roots, "localhost") }

// clientTLS is what a client has for TLS with a host; "": the one that it dials.
func clientTLS(roots *x509.CertPool, host string) *tls.Config {
	return &tls.Config{RootCAs: roots, ServerName: host, MaxVersion: maxTLS}
}

// maxTLS is the version that clients and backends of the suite speak: TLS 1.3, or with E2E_TLS=1.2 that one. The suite is for both.
var maxTLS = map[string]uint16{"": tls.VersionTLS13, "1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}[os.Getenv("E2E_TLS")]

// dialer is a WebSocket client that trusts the local authority.
func (e *edge) dialer() *websocket.Dialer {
	d := &websocket.Dialer{TLSClientConfig: e.tls(), HandshakeTimeout: patience}
	if http2 {
		d.NetDialTLSContext = func(ctx context.Context, _, address string) (net.Conn, error) {
			return h2test.Dial(ctx, address, d.TLSClientConfig)
		}
	}
	return d
}

// http2 has the clients of the suite, those of the wss listener, come over HTTP/2: E2E_HTTP=2. The suite is for both.
var http2 = os.Getenv("E2E_HTTP") == "2"

// modern has the TLS listeners of a configuration speak HTTP/2, where the suite does.
func modern(config string) string {
	if http2 {
		config = strings.ReplaceAll(config, "tls: true}", "tls: true, http2: true}")
	}
	return config
}

// dialTLS connects to the wss listener for a handshake by hand.
func (e *edge) dialTLS() (net.Conn, error) {
	if http2 {
		return h2test.Dial(e.t.Context(), e.addrs["wss"], e.tls())
	}
	return tls.Dial("tcp", e.addrs["wss"], e.tls())
}

func (e *edge) url(path string) string { return "wss://" + e.addrs["wss"] + path }

// dial opens a socket and closes it with the test.
func (e *edge) dial(path string, header http.Header, subprotocols ...string) *websocket.Conn {
	e.t.Helper()
	d := e.dialer()
	d.Subprotocols = subprotocols
	conn, resp, err := d.Dial(e.url(path), header)
	if err != nil {
		status := "no answer"
		if resp != nil {
			body, _ := io.ReadAll(resp.Body)
			status = resp.Status + " " + string(body)
		}
		e.t.Fatalf("dial %s: %v (%s)", path, err, status)
	}
	e.t.Cleanup(func() { conn.Close() })
	conn.SetReadDeadline(time.Now().Add(patience))
	return conn
}

// refused opens a socket that must be refused, and gives the answer.
func (e *edge) refused(path string, header http.Header) *http.Response {
	e.t.Helper()
	conn, resp, err := e.dialer().Dial(e.url(path), header)
	if err == nil {
		conn.Close()
		e.t.Fatalf("dial %s was accepted", path)
	}
	if resp == nil {
		e.t.Fatalf("dial %s: %v", path, err)
	}
	return resp
}

// raw opens a TLS connection and does a handshake by hand, so that a test can say anything on it. It gives the connection with
// whatever followed the 101.
func (e *edge) raw(path string, extra ...string) *rawConn {
	e.t.Helper()
	conn, err := e.dialTLS()
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	io.WriteString(conn, handshake(path, extra...))
	br := bufio.NewReader(conn)
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		e.t.Fatal(err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		e.t.Fatalf("handshake: %s", resp.Status)
	}
	return &rawConn{Conn: conn, br: br}
}

// handshake is the text of an opening handshake.
func handshake(path string, extra ...string) string {
	lines := append([]string{
		"GET " + path + " HTTP/1.1", "Host: localhost", "Upgrade: websocket", "Connection: Upgrade",
		"Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
	}, extra...)
	return strings.Join(lines, "\r\n") + "\r\n\r\n"
}

// A rawConn is an upgraded connection on which a test says what it likes.
type rawConn struct {
	net.Conn
	br *bufio.Reader
}

// vanish ends a connection as a killed process does.
func vanish(conn net.Conn) {
	for upper, ok := conn.(interface{ NetConn() net.Conn }); ok; upper, ok = conn.(interface{ NetConn() net.Conn }) {
		conn = upper.NetConn()
	}
	conn.(*net.TCPConn).SetLinger(0)
	conn.Close()
}

func (c *rawConn) Read(p []byte) (int, error) { return c.br.Read(p) }

// get asks the admin listener.
func (e *edge) get(path string) (int, string) {
	e.t.Helper()
	resp, err := http.Get("http://" + e.addrs["admin"] + path)
	if err != nil {
		e.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		e.t.Fatal(err)
	}
	http.DefaultClient.CloseIdleConnections()
	return resp.StatusCode, string(body)
}

// backend runs a WebSocket server that hands each socket to serve.
func backend(t *testing.T, serve func(*websocket.Conn, *http.Request)) (addr string) {
	t.Helper()
	upgrader := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }, Subprotocols: []string{"chat.v2", "chat.v1"}, EnableCompression: true}
	return httpBackend(t, func(w http.ResponseWriter, r *http.Request) {
		conn, err := upgrader.Upgrade(w, r, http.Header{"X-Backend": {"here"}})
		if err != nil {
			return
		}
		defer conn.Close()
		serve(conn, r)
	})
}

// httpBackend runs an HTTP server.
func httpBackend(t *testing.T, h http.HandlerFunc) (addr string) {
	t.Helper()
	l := listen(t)
	s := &http.Server{Handler: h}
	var serving sync.WaitGroup
	serving.Go(func() { s.Serve(l) })
	t.Cleanup(func() { s.Close(); serving.Wait() })
	return l.Addr().String()
}

// echo sends every message back, and ends as the client does.
func echo(conn *websocket.Conn, _ *http.Request) {
	for {
		kind, data, err := conn.ReadMessage()
		if err != nil {
			return
		}
		if err := conn.WriteMessage(kind, data); err != nil {
			return
		}
	}
}

// tcpBackend runs a TCP server that hands each connection to serve and then closes it.
func tcpBackend(t *testing.T, serve func(*net.TCPConn)) (addr string) {
	t.Helper()
	l := listen(t)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				stop := closeOnCleanup(t, conn)
				defer stop()
				serve(conn.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() { l.Close(); serving.Wait() })
	return l.Addr().String()
}

// closeOnCleanup ends a connection that its server waits on when the test is over.
func closeOnCleanup(t *testing.T, conn net.Conn) (stop func()) {
	done := make(chan struct{})
	go func() {
		select {
		case <-t.Context().Done(): // just before the clean-ups run
			conn.Close()
		case <-done:
		}
	}()
	return func() { close(done) }
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// closeCode reads until the socket's Close, and gives its code and reason.
func closeCode(t *testing.T, conn *websocket.Conn) (int, string) {
	t.Helper()
	for {
		_, _, err := conn.ReadMessage()
		if closed, ok := errors.AsType[*websocket.CloseError](err); ok {
			return closed.Code, closed.Text
		}
		if err != nil {
			t.Fatalf("no close: %v", err)
		}
	}
}

// wantClose reads until the socket's Close, and checks its code.
func wantClose(t *testing.T, conn *websocket.Conn, code int) {
	t.Helper()
	if got, reason := closeCode(t, conn); got != code {
		t.Fatalf("closed with %d %q, want %d", got, reason, code)
	}
}

// receive reads one message.
func receive(t *testing.T, conn *websocket.Conn) string {
	t.Helper()
	_, data, err := conn.ReadMessage()
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func send(t *testing.T, conn *websocket.Conn, text string) {
	t.Helper()
	if err := conn.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

// subset tells whether a line of the log has these members.
func subset(line, want map[string]any) error {
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if fmt.Sprint(line[key]) != fmt.Sprint(want[key]) {
			return fmt.Errorf("%s is %v, want %v", key, line[key], want[key])
		}
	}
	return nil
}

// room is a directory for a program of its own. Its path is short, since that of the admin socket in it is bounded.
func room(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "bh")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// write makes a file in a directory and gives its path.
func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// own is the head of a file that a test writes whole: its state is kept beside it, and its log can be read.
var own = "state: ./state\nlog: {format: json, level: debug}\nadmin: {address: \"127.0.0.1:0\"}\n" + driverLine

// driverLine is the line of a configuration for what E2E_DRIVER says: loops or goroutines. The suite is for both.
var driverLine = "driver: " + cmp.Or(os.Getenv("E2E_DRIVER"), "auto") + "\n"

// startIn runs a whole configuration that stands in dir, with more variables in its environment. The client trusts the local
// authority, if there is one.
func startIn(t *testing.T, dir, config string, env ...string) *edge {
	t.Helper()
	return startBy(t, exec.Command(program, "serve", "-c", write(t, dir, "config.yaml", modern(config))), env...)
}

// startBy is startIn by a command of the caller's, whose file stands behind -c.
func startBy(t *testing.T, command *exec.Cmd, env ...string) *edge {
	t.Helper()
	e := &edge{t: t, addrs: map[string]string{}, exited: make(chan error, 1), news: make(chan struct{}), roots: x509.NewCertPool()}
	e.process = command
	e.process.Env = append(os.Environ(), env...)
	stderr, err := e.process.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := e.process.Start(); err != nil {
		t.Fatal(err)
	}
	go e.read(stderr)
	t.Cleanup(e.stop)
	e.addr("admin")
	if pem, err := os.ReadFile(filepath.Join(filepath.Dir(command.Args[3]), "state", "ca", "root.pem")); err == nil {
		e.roots.AppendCertsFromPEM(pem)
	}
	return e
}

// addr waits until a listener is open, and gives its address; those that were opened before it stand in addrs then.
func (e *edge) addr(name string) string {
	e.t.Helper()
	e.await(func(line map[string]any) bool {
		if line["listener"] == nil {
			line = fields(fmt.Sprint(line["msg"]))
		}
		if line["msg"] == "listening" {
			e.addrs[line["listener"].(string)] = line["address"].(string)
		}
		return line["msg"] == "listening" && line["listener"] == name
	})
	return e.addrs[name]
}

// field is a key and its value in a line of a text log.
var field = regexp.MustCompile(`([a-z_]+)=("(?:[^"\\]|\\.)*"|\S*)`)

// fields reads a line of a text log.
func fields(line string) map[string]any {
	all := map[string]any{}
	for _, m := range field.FindAllStringSubmatch(line, -1) {
		value := m[2]
		if text, err := strconv.Unquote(value); err == nil {
			value = text
		}
		all[m[1]] = value
	}
	return all
}

// anyHost is a client that reaches the wss listener by whatever name, as if DNS led there.
func (e *edge) anyHost() *websocket.Dialer {
	to := e.addr("wss")
	d := &websocket.Dialer{
		TLSClientConfig: clientTLS(e.roots, ""), HandshakeTimeout: patience,
		NetDialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", to)
		},
	}
	if http2 {
		d.NetDialTLSContext = func(ctx context.Context, _, address string) (net.Conn, error) {
			config := d.TLSClientConfig.Clone()
			config.ServerName, _, _ = net.SplitHostPort(address)
			return h2test.Dial(ctx, to, config)
		}
	}
	return d
}

// visit opens a socket by a URL with any host and closes it with the test.
func (e *edge) visit(url string, header http.Header, subprotocols ...string) *websocket.Conn {
	e.t.Helper()
	d := e.anyHost()
	d.Subprotocols = subprotocols
	conn, resp, err := d.Dial(url, header)
	if err != nil {
		e.t.Fatalf("dial %s: %v (%v)", url, err, resp)
	}
	e.t.Cleanup(func() { conn.Close() })
	conn.SetReadDeadline(time.Now().Add(patience))
	return conn
}

// hangUp closes a socket as a client does, and waits for the answer.
func hangUp(t *testing.T, conn *websocket.Conn, code int, reason string) {
	t.Helper()
	conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, reason), time.Now().Add(patience))
	wantClose(t, conn, code)
}

// hears reads messages until one begins with a text, and gives it.
func hears(t *testing.T, conn *websocket.Conn, beginning string) string {
	t.Helper()
	for {
		if got := receive(t, conn); strings.HasPrefix(got, beginning) {
			return got
		}
	}
}

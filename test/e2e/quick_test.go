package e2e

import (
	"bufio"
	"bytes"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// A quickBridge is a running `bridgehead quick`.
type quickBridge struct {
	t       *testing.T
	process *exec.Cmd
	guide   string
	exited  chan error
	roots   *x509.CertPool // of the local authority, if the guide names it

	mu     sync.Mutex // guards stderr
	stderr bytes.Buffer
}

// quick starts a bridge that keeps its state in dir, and reads what it tells the person at the terminal.
func quick(t *testing.T, dir string, args ...string) *quickBridge {
	t.Helper()
	q := &quickBridge{t: t, exited: make(chan error, 1), roots: x509.NewCertPool()}
	q.process = exec.Command(program, append([]string{"quick"}, args...)...)
	q.process.Dir = dir
	q.process.Env = append(os.Environ(), "STATE_DIRECTORY="+filepath.Join(dir, "state"))
	q.process.Stderr = q
	stdout, err := q.process.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := q.process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		q.process.Process.Kill()
		<-q.exited
		if t.Failed() {
			t.Logf("guide:\n%s\nstandard error:\n%s", q.guide, q.errors())
		}
	})
	told := make(chan string, 1)
	go q.read(stdout, told)
	select {
	case q.guide = <-told:
	case err := <-q.exited:
		q.exited <- err
		t.Fatalf("it ended: %v", err)
	case <-time.After(patience):
		t.Fatal("no guide")
	}
	if root := regexp.MustCompile(`whose root is (\S+); `).FindStringSubmatch(q.guide); root != nil {
		pem, err := os.ReadFile(root[1])
		if err != nil || !q.roots.AppendCertsFromPEM(pem) {
			t.Fatalf("the root that the guide names: %v", err)
		}
	}
	return q
}

// read collects the guide, and then the exit.
func (q *quickBridge) read(stdout io.Reader, told chan<- string) {
	var guide strings.Builder
	for scanner := bufio.NewScanner(stdout); scanner.Scan(); {
		guide.WriteString(scanner.Text() + "\n")
		if strings.HasPrefix(scanner.Text(), "Ctrl-C") {
			told <- guide.String()
		}
	}
	q.exited <- q.process.Wait()
}

// Write takes the standard error.
func (q *quickBridge) Write(p []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.stderr.Write(p)
}

func (q *quickBridge) errors() string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.stderr.String()
}

// url is the first URL of the guide, where sockets are opened.
func (q *quickBridge) url() string {
	q.t.Helper()
	url := regexp.MustCompile(`(?m)^  (wss?://\S+) `).FindStringSubmatch(q.guide)
	if url == nil {
		q.t.Fatalf("the guide does not say where to connect:\n%s", q.guide)
	}
	return url[1]
}

func (q *quickBridge) dial(origin string, subprotocols ...string) (*websocket.Conn, *http.Response, error) {
	q.t.Helper()
	d := websocket.Dialer{TLSClientConfig: clientTLS(q.roots, ""), HandshakeTimeout: patience, Subprotocols: subprotocols}
	header := http.Header{}
	if origin != "" {
		header.Set("Origin", origin)
	}
	return d.Dial(q.url(), header)
}

// open opens a socket and closes it with the test.
func (q *quickBridge) open(origin string, subprotocols ...string) *websocket.Conn {
	q.t.Helper()
	conn, resp, err := q.dial(origin, subprotocols...)
	if err != nil {
		q.t.Fatalf("dial %s as %q: %v (%v)", q.url(), origin, err, resp)
	}
	q.t.Cleanup(func() { conn.Close() })
	conn.SetReadDeadline(time.Now().Add(patience))
	return conn
}

// ends waits for the exit.
func (q *quickBridge) ends(within time.Duration) {
	q.t.Helper()
	select {
	case err := <-q.exited:
		q.exited <- err
		if err != nil {
			q.t.Errorf("exit: %v", err)
		}
	case <-time.After(within):
		q.t.Fatal("it does not end")
	}
}

// copyBack is a TCP service that says again what it hears.
func copyBack(conn *net.TCPConn) { io.Copy(conn, conn) }

func TestQuickBridgesAStream(t *testing.T) {
	t.Parallel()
	q := quick(t, room(t), "--from", "127.0.0.1:0", "--to", "tcp://"+tcpBackend(t, copyBack))
	for _, origin := range []string{"", "http://localhost:3000", "https://127.0.0.1:5173", "http://[::1]:8000", strings.TrimSuffix(strings.Replace(q.url(), "wss", "https", 1), "/")} {
		conn := q.open(origin)
		send(t, conn, "hello")
		if got := receive(t, conn); got != "hello" {
			t.Errorf("as %q it said %q", origin, got)
		}
		conn.Close()
	}
	for _, origin := range []string{"https://evil.example", "http://localhost.evil.example", "null"} {
		if conn, resp, err := q.dial(origin); err == nil || resp == nil || resp.StatusCode != http.StatusForbidden {
			t.Errorf("as %q: %v, %v, want 403", origin, conn, resp)
		}
	}
	if !strings.Contains(q.guide, "bridgehead connect "+q.url()+" --ca ") {
		t.Errorf("the guide does not say how to try it:\n%s", q.guide)
	}
	q.process.Process.Signal(os.Interrupt)
	q.ends(patience)
}

func TestQuickBridgesWebSocketsAndWebhooks(t *testing.T) {
	t.Parallel()
	ws := quick(t, room(t), "--from", "ws://127.0.0.1:0/chat", "--to", "ws://"+backend(t, echo), "--origin", "https://app.example.com")
	conn := ws.open("https://app.example.com")
	send(t, conn, "hello")
	if got := receive(t, conn); got != "hello" {
		t.Errorf("it said %q", got)
	}
	if _, resp, err := ws.dial("http://localhost:3000"); err == nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("--origin has not replaced the pages of localhost: %v", resp)
	}

	app := httpBackend(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		io.WriteString(w, "hello from "+r.Method+" "+r.URL.Path)
	})
	hook := quick(t, room(t), "--from", "ws://127.0.0.1:0", "--to", "http://"+app+"/events")
	if got := receive(t, hook.open("")); got != "hello from POST /events" {
		t.Errorf("it said %q", got)
	}
	if !strings.Contains(hook.guide, "add: --as websocket") {
		t.Errorf("the guide does not say what the URL was taken for:\n%s", hook.guide)
	}
	as := quick(t, room(t), "--from", "ws://127.0.0.1:0", "--to", "http://"+backend(t, echo), "--as", "websocket")
	conn = as.open("")
	send(t, conn, "hello")
	if got := receive(t, conn); got != "hello" {
		t.Errorf("it said %q", got)
	}
}

// As noVNC and its users expect it of websockify: plain ws, the subprotocol binary, the page beside the socket.
func TestQuickAsWebsockify(t *testing.T) {
	t.Parallel()
	dir := room(t)
	if err := os.Mkdir(filepath.Join(dir, "novnc"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "novnc"), "vnc.html", "<title>noVNC</title>")
	q := quick(t, dir, "127.0.0.1:0", tcpBackend(t, copyBack), "--web=./novnc", "--heartbeat=30")
	conn := q.open("", "binary")
	if conn.Subprotocol() != "binary" || !strings.HasSuffix(q.url(), "/websockify") {
		t.Errorf("%s speaks %q", q.url(), conn.Subprotocol())
	}
	conn.WriteMessage(websocket.BinaryMessage, []byte("RFB 003.008\n"))
	if kind, got, err := conn.ReadMessage(); err != nil || kind != websocket.BinaryMessage || string(got) != "RFB 003.008\n" {
		t.Errorf("it said %q in a message of type %d, %v", got, kind, err)
	}
	page := regexp.MustCompile(`(?m)^  (http://\S+/vnc\.html) `).FindStringSubmatch(q.guide)
	if page == nil {
		t.Fatalf("the guide names no page:\n%s", q.guide)
	}
	resp, err := http.Get(page[1])
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); string(body) != "<title>noVNC</title>" {
		t.Errorf("the page is %s %q", resp.Status, body)
	}
}

func TestQuickEndsWhenIdle(t *testing.T) {
	t.Parallel()
	q := quick(t, room(t), "--idle-timeout=2", "127.0.0.1:0", tcpBackend(t, copyBack))
	conn := q.open("")
	select {
	case err := <-q.exited:
		q.exited <- err
		t.Fatalf("it ended while a socket was open: %v", err)
	case <-time.After(4 * time.Second): // twice the time is not to pass
	}
	hangUp(t, conn, websocket.CloseNormalClosure, "")
	q.ends(patience)
}

func TestQuickWarnsOfABackendThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	const nobody = "127.0.0.1:1" // a port that another test closed may be a third one's by now
	q := quick(t, room(t), "--from", "127.0.0.1:0", "--to", nobody)
	want := "warning: nothing answers at " + nobody + ": "
	for by := time.Now().Add(patience); !strings.Contains(q.errors(), want); <-time.After(time.Millisecond) { // another pipe than the guide's
		if time.Now().After(by) {
			t.Fatalf("standard error has no %q", want)
		}
	}
	if _, resp, err := q.dial(""); err == nil || resp == nil || resp.StatusCode != http.StatusBadGateway {
		t.Errorf("a socket: %v, want 502", resp)
	}
}

func TestQuickPrintsTheFileThatItEquals(t *testing.T) {
	t.Parallel()
	dir := room(t)
	to := tcpBackend(t, copyBack)
	q := exec.Command(program, "quick", "--from", "127.0.0.1:0", "--to", to, "--print", "--log", "debug")
	q.Env = append(os.Environ(), "STATE_DIRECTORY="+filepath.Join(dir, "state"))
	file, err := q.Output()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "state")); err == nil {
		t.Error("--print made the state directory")
	}
	e := startIn(t, dir, string(file))
	d := websocket.Dialer{TLSClientConfig: e.tls(), HandshakeTimeout: patience}
	conn, _, err := d.Dial("wss://"+e.addr("quick")+"/", http.Header{"Origin": {"http://localhost:3000"}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(patience))
	send(t, conn, "hello")
	if got := receive(t, conn); got != "hello" {
		t.Errorf("it said %q", got)
	}
}

// Bridges of one user share the authority, and nothing else.
func TestQuickBridgesStandSideBySide(t *testing.T) {
	t.Parallel()
	dir, to := room(t), tcpBackend(t, copyBack)
	free := func() string {
		l := listen(t)
		defer l.Close()
		return l.Addr().String()
	}
	a, b := quick(t, dir, "--from", free(), "--to", to), quick(t, dir, "--from", free(), "--to", to)
	if !a.roots.Equal(b.roots) {
		t.Error("two bridges of one user have two authorities")
	}
	for _, q := range []*quickBridge{a, b} {
		conn := q.open("")
		send(t, conn, "hello")
		if got := receive(t, conn); got != "hello" {
			t.Errorf("it said %q", got)
		}
	}
	_, port, _ := net.SplitHostPort(strings.TrimSuffix(strings.TrimPrefix(a.url(), "wss://"), "/"))
	taken := command(t, dir, "quick", "--from", "ws://127.0.0.1:"+port, "--to", to)
	taken.wants(t, 1, "address already in use", "stop the program that listens there, or choose another address")
}

func TestTheRootThatCaPrintsIsTheOneToTrust(t *testing.T) {
	t.Parallel()
	dir := room(t)
	write(t, dir, "config.yaml", "state: ./state\ncertificates: {internal: true}\nlisteners: [{name: wss, address: \"127.0.0.1:0\", tls: true}]\n"+
		"routes: [{websocket: {to: \"ws://"+backend(t, echo)+"\"}}]\n")
	root := command(t, dir, "ca") // before the first start
	root.wants(t, 0)
	if root.stderr != "" {
		t.Errorf("standard error: %s", root.stderr)
	}
	text, err := os.ReadFile(filepath.Join(dir, "config.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	e := startIn(t, dir, string(text))
	e.roots = x509.NewCertPool()
	if !e.roots.AppendCertsFromPEM([]byte(root.stdout)) {
		t.Fatalf("no certificate: %q", root.stdout)
	}
	e.addr("wss")
	conn := e.dial("/", nil)
	send(t, conn, "hello")
	receive(t, conn)
	if again := command(t, dir, "ca"); again != root { // while it runs
		t.Errorf("later it is another: %+v", again)
	}
}

// The demo takes the pages of any server on this machine, as quick does, and no others.
func TestTheDemoTakesPagesOfThisMachine(t *testing.T) {
	t.Parallel()
	d := demo(t)
	dialer := websocket.Dialer{TLSClientConfig: clientTLS(d.roots, ""), HandshakeTimeout: patience}
	for origin, want := range map[string]int{
		"http://localhost:3000": http.StatusSwitchingProtocols, "https://" + d.https: http.StatusSwitchingProtocols,
		"https://evil.example": http.StatusForbidden,
	} {
		conn, resp, err := dialer.Dial("wss://"+d.https+"/line", http.Header{"Origin": {origin}})
		if err == nil {
			conn.Close()
		}
		if resp == nil || resp.StatusCode != want {
			t.Errorf("a page of %s: %v, %v, want %d", origin, resp, err, want)
		}
	}
}

package acme_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// patience is for anything that ought to come soon, on a machine that is busy.
const patience = 60 * time.Second

// binary is the program, built once.
var binary string

func TestMain(m *testing.M) {
	if to := os.Getenv("BRIDGEHEAD_TEST_RECORDER"); to != "" {
		os.Exit(record(to, os.Args[1:]))
	}
	dir, err := os.MkdirTemp("", "bridgehead")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "bridgehead")
	build := exec.Command("go", append(append([]string{"build"}, raceFlags...), "-o", binary, "./cmd/bridgehead")...)
	build.Dir, build.Stderr = filepath.Join("..", ".."), os.Stderr
	code := 1
	if err := build.Run(); err == nil {
		code = m.Run()
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

// record is the command that sets records, in a process of its own.
func record(to string, args []string) int {
	if len(args) != 4 || args[0] != "set" {
		fmt.Fprintf(os.Stderr, "arguments %q\n", args)
		return 1
	}
	body, _ := json.Marshal(map[string]string{"action": args[1], "name": args[2], "value": args[3]})
	resp, err := http.Post(to, "application/json", bytes.NewReader(body))
	if err != nil || resp.StatusCode != http.StatusOK {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// ports are where the program listens.
type ports struct{ plain, secure, admin int }

// given are the ports that were given to tests: no two get the same.
var given struct {
	sync.Mutex
	ports map[int]bool
}

// freePorts are free while nobody else takes them.
func freePorts(t *testing.T) ports {
	t.Helper()
	given.Lock()
	defer given.Unlock()
	if given.ports == nil {
		given.ports = make(map[int]bool)
	}
	var all []int
	for len(all) < 3 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if port := l.Addr().(*net.TCPAddr).Port; !given.ports[port] {
			given.ports[port] = true
			all = append(all, port)
		}
	}
	return ports{all[0], all[1], all[2]}
}

// A gateway is the program under test.
type gateway struct {
	t      *testing.T
	ports  ports
	dir    string
	config string
	roots  *x509.CertPool
	env    []string
	echo   string // where the sockets lead

	cmd  *exec.Cmd
	done chan struct{}
	log  *syncBuffer
}

// gateway prepares the program. certificates is the section of that name; hosts have a route each.
func newGateway(t *testing.T, p ports, roots *x509.CertPool, certificates string, hosts ...string) *gateway {
	t.Helper()
	g := &gateway{t: t, ports: p, dir: t.TempDir(), roots: roots, echo: echo(t), log: new(syncBuffer)}
	g.write(certificates, hosts...)
	t.Cleanup(func() {
		g.kill()
		if strings.Contains(g.log.String(), "DATA RACE") {
			t.Error("the program has a data race")
		}
		if t.Failed() {
			t.Logf("the log of the program:\n%s", g.log)
		}
	})
	return g
}

// write writes the configuration.
func (g *gateway) write(certificates string, hosts ...string) {
	g.t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "state: ./state\nlog: {level: debug}\ncertificates:\n%s\n", indent(certificates))
	fmt.Fprintf(&b, "listeners:\n  - {name: plain, address: \"127.0.0.1:%d\", redirect: true}\n", g.ports.plain)
	fmt.Fprintf(&b, "  - {name: secure, address: \"127.0.0.1:%d\", tls: true}\nadmin: {address: \"127.0.0.1:%d\"}\nroutes:\n", g.ports.secure, g.ports.admin)
	for _, host := range hosts {
		fmt.Fprintf(&b, "  - {host: %q, websocket: {to: %q}, origins: \"*\"}\n", host, g.echo)
	}
	g.config = filepath.Join(g.dir, "config.yaml")
	if err := os.WriteFile(g.config, []byte(b.String()), 0o600); err != nil {
		g.t.Fatal(err)
	}
}

func indent(s string) string {
	return "  " + strings.ReplaceAll(strings.TrimSpace(s), "\n", "\n  ")
}

// start runs the program until it listens.
func (g *gateway) start() *gateway {
	g.t.Helper()
	g.cmd = exec.Command(binary, "serve", "-c", g.config)
	g.cmd.Env = append(os.Environ(), g.env...)
	g.cmd.Stdout, g.cmd.Stderr = g.log, g.log
	if err := g.cmd.Start(); err != nil {
		g.t.Fatal(err)
	}
	done := make(chan struct{})
	cmd := g.cmd
	go func() { cmd.Wait(); close(done) }()
	g.done = done
	g.eventually("the program answers", func() error {
		_, err := g.get("/healthz")
		return err
	})
	return g
}

// stop ends the program with a signal, and waits.
func (g *gateway) stop() {
	g.t.Helper()
	g.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-g.done:
	case <-time.After(patience):
		g.t.Error("the program does not end")
	}
}

// kill ends it at once, if it runs.
func (g *gateway) kill() {
	if g.cmd != nil {
		g.cmd.Process.Kill()
		<-g.done
	}
}

// run runs another command of the program.
func (g *gateway) run(args ...string) (string, error) {
	out, err := exec.Command(binary, append(args, "-c", g.config)...).CombinedOutput()
	return string(out), err
}

// get asks the admin listener.
func (g *gateway) get(path string) (string, error) {
	resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d%s", g.ports.admin, path))
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	return string(body), err
}

// eventually waits until what returns nil.
func (g *gateway) eventually(what string, holds func() error) {
	g.t.Helper()
	eventually(g.t, what, holds)
}

func eventually(t *testing.T, what string, holds func() error) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	late := time.After(patience)
	for {
		err := holds()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("%s: not within %s: %v", what, patience, err)
		}
	}
}

// handshake is the certificate that a client of a host gets, who trusts the authority.
func (g *gateway) handshake(host string) (*x509.Certificate, error) {
	return g.handshakeWith(&tls.Config{ServerName: host, RootCAs: g.roots})
}

func (g *gateway) handshakeWith(config *tls.Config) (*x509.Certificate, error) {
	d := &tls.Dialer{NetDialer: &net.Dialer{Timeout: patience}, Config: config}
	conn, err := d.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", g.ports.secure))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}

// certified waits for a certificate that clients take.
func (g *gateway) certified(host string) (cert *x509.Certificate) {
	g.t.Helper()
	g.eventually("a certificate for "+host, func() (err error) {
		cert, err = g.handshake(host)
		return err
	})
	return cert
}

// dial opens a socket, which must echo.
func (g *gateway) dial(host string) *websocket.Conn {
	g.t.Helper()
	d := &websocket.Dialer{
		TLSClientConfig: &tls.Config{ServerName: host, RootCAs: g.roots},
		NetDial: func(string, string) (net.Conn, error) {
			return net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", g.ports.secure))
		},
	}
	conn, _, err := d.Dial("wss://"+host+"/", nil)
	if err != nil {
		g.t.Fatalf("dial %s: %v", host, err)
	}
	g.t.Cleanup(func() { conn.Close() })
	g.talk(conn)
	return conn
}

// talk says something, and hears it.
func (g *gateway) talk(conn *websocket.Conn) {
	g.t.Helper()
	if err := conn.WriteMessage(websocket.TextMessage, []byte("hello")); err != nil {
		g.t.Fatalf("the socket is gone: %v", err)
	}
	conn.SetReadDeadline(time.Now().Add(patience))
	if _, got, err := conn.ReadMessage(); err != nil || string(got) != "hello" {
		g.t.Fatalf("the socket says %q, error %v", got, err)
	}
}

// logged waits for words in the log.
func (g *gateway) logged(words string) {
	g.t.Helper()
	g.eventually(fmt.Sprintf("%q in the log", words), func() error {
		if !strings.Contains(g.log.String(), words) {
			return errors.New("it is not there")
		}
		return nil
	})
}

// echo is a server that says what it hears.
func echo(t *testing.T) string {
	t.Helper()
	upgrader := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer conn.Close()
		for {
			kind, message, err := conn.ReadMessage()
			if err != nil || conn.WriteMessage(kind, message) != nil {
				return
			}
		}
	}))
	t.Cleanup(s.CloseClientConnections)
	return "ws" + strings.TrimPrefix(s.URL, "http")
}

// A syncBuffer may be written and read at once.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

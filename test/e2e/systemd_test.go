//go:build linux

package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A manager is what systemd is to the program: it holds the sockets, and hears how it is.
type manager struct {
	t     *testing.T
	dir   string
	files []*os.File
	told  *net.UnixConn
	text  string
}

func manage(t *testing.T, text string, listeners ...*net.TCPListener) *manager {
	t.Helper()
	m := &manager{t: t, dir: room(t), text: text}
	for _, l := range listeners {
		f, err := l.File()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		m.files = append(m.files, f)
	}
	told, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(m.dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { told.Close() })
	m.told = told
	return m
}

// start runs the program as a service, with the sockets under the names.
func (m *manager) start(names string) *edge {
	m.t.Helper()
	file := write(m.t, m.dir, "config.yaml", m.text)
	// The process id is part of what is handed over, and is known when there is one.
	command := exec.Command("sh", "-c", `LISTEN_PID=$$ exec `+program+` serve -c "$0"`, file)
	command.ExtraFiles = m.files
	return startBy(m.t, command, fmt.Sprintf("LISTEN_FDS=%d", len(m.files)), "LISTEN_FDNAMES="+names,
		"NOTIFY_SOCKET="+filepath.Join(m.dir, "notify"), "WATCHDOG_USEC=200000")
}

// hears waits for a notification that begins so, and gives its lines. The watchdog's come in between.
func (m *manager) hears(begin string) string {
	m.t.Helper()
	m.told.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 4096)
	for {
		n, err := m.told.Read(buf)
		if err != nil {
			m.t.Fatalf("%s was not told: %v", begin, err)
		}
		if text := string(buf[:n]); strings.HasPrefix(text, begin) {
			return text
		} else if text != "WATCHDOG=1" {
			m.t.Fatalf("%q was told before %s", text, begin)
		}
	}
}

func loopback(t *testing.T) *net.TCPListener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.(*net.TCPListener)
}

// ask begins a handshake on a plain listener; the answer may come later.
func ask(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatalf("a connection was refused: %v", err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(2 * patience))
	io.WriteString(conn, "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
	return conn
}

// status is what a handshake is answered. The socket ends.
func status(t *testing.T, conn net.Conn) int {
	t.Helper()
	defer conn.Close()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode
}

// A service whose sockets are its manager's restarts, and nobody who connects meanwhile is turned away.
func TestRestartOfAServiceWithSocketsHandedOver(t *testing.T) {
	t.Parallel()
	first, second, third := loopback(t), loopback(t), loopback(t)
	m := manage(t, `
state: ./state
log: {format: json}
drain: 1s
listeners: [{name: web, address: ["systemd:web", "systemd:other"]}]
admin: {address: "127.0.0.1:0"}
routes: [{path: /ws, websocket: {to: "ws://`+backend(t, echo)+`"}}]
`, first, second, third)
	e := m.start("web:web:other")
	m.hears("READY=1\nSTATUS=generation 1, routes: 1, listeners: 1")
	for _, l := range []net.Listener{first, second, third} {
		if got := status(t, ask(t, l.Addr().String())); got != http.StatusSwitchingProtocols {
			t.Errorf("%s answers %d", l.Addr(), got)
		}
	}
	m.text = strings.Replace(m.text, `, "systemd:other"`, "", 1)
	write(t, m.dir, "config.yaml", m.text)
	e.process.Process.Signal(syscall.SIGHUP)
	if got := m.hears("RELOADING=1\nMONOTONIC_USEC="); strings.Contains(got, "USEC=0\n") {
		t.Error(got)
	}
	m.hears("READY=1\nSTATUS=generation 2")
	write(t, m.dir, "config.yaml", m.text+"nonsense")
	e.process.Process.Signal(syscall.SIGHUP)
	m.hears("RELOADING=1")
	m.hears("READY=1\nSTATUS=generation 2")

	var clients sync.WaitGroup
	restarted := make(chan struct{})
	clients.Go(func() { // some connect all the while
		for {
			conn, err := net.Dial("tcp", second.Addr().String())
			if err != nil {
				t.Errorf("a connection was refused: %v", err)
				return
			}
			conn.Close()
			select {
			case <-restarted:
				return
			case <-time.After(time.Millisecond):
			}
		}
	})
	e.process.Process.Signal(syscall.SIGTERM)
	m.hears("STOPPING=1\nSTATUS=draining\nEXTEND_TIMEOUT_USEC=2500000")
	if err := <-e.exited; err != nil {
		t.Errorf("it ended with %v", err)
	}
	e.exited <- nil // for its cleaning
	between := ask(t, first.Addr().String())
	m.start("web:web:other")
	m.hears("READY=1")
	if got := status(t, between); got != http.StatusSwitchingProtocols {
		t.Errorf("who came in between is answered %d", got)
	}
	close(restarted)
	clients.Wait()
}

func TestAServiceWhoseSocketsHaveOtherNames(t *testing.T) {
	t.Parallel()
	m := manage(t, "state: ./state\nlisteners: [{address: \"systemd:web\"}]\nroutes: [{websocket: {to: \"ws://127.0.0.1:1\"}}]\n", loopback(t))
	command := exec.Command("sh", "-c", `LISTEN_PID=$$ exec `+program+` serve -c "$0"`, write(t, m.dir, "config.yaml", m.text))
	command.ExtraFiles = m.files
	command.Env = append(os.Environ(), "LISTEN_FDS=1", "LISTEN_FDNAMES=http")
	out, err := command.CombinedOutput()
	if err == nil || !strings.Contains(string(out), `no socket "web", but "http"`) {
		t.Errorf("%v, %s", err, out)
	}
}

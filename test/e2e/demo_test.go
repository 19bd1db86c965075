package e2e

import (
	"bufio"
	"crypto/x509"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// A showing is a running demo.
type showing struct {
	t       *testing.T
	process *exec.Cmd
	tmp     string // where its directory is made
	told    chan string
	exited  chan error

	http, https string // the addresses that the guide names
	roots       *x509.CertPool
}

// demo starts a demo and reads what it tells the person at the terminal.
func demo(t *testing.T) *showing {
	t.Helper()
	d := beginDemo(t)
	d.follow()
	return d
}

func beginDemo(t *testing.T) *showing {
	t.Helper()
	d := &showing{t: t, tmp: room(t), told: make(chan string, 1), exited: make(chan error, 1)}
	d.process = exec.Command(program, "demo")
	d.process.Env = append(os.Environ(), "TMPDIR="+d.tmp)
	d.process.Stderr = os.Stderr
	stdout, err := d.process.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.process.Process.Kill()
		<-d.exited
	})
	go d.read(stdout)
	return d
}

// read collects the guide, and then the exit.
func (d *showing) read(stdout io.Reader) {
	var guide strings.Builder
	for scanner := bufio.NewScanner(stdout); scanner.Scan(); {
		guide.WriteString(scanner.Text() + "\n")
		if strings.HasPrefix(scanner.Text(), "Ctrl-C") {
			d.told <- guide.String()
		}
	}
	d.exited <- d.process.Wait()
}

// follow reads the guide as a person does.
func (d *showing) follow() {
	d.t.Helper()
	var guide string
	select {
	case guide = <-d.told:
	case err := <-d.exited:
		d.exited <- err
		d.t.Fatalf("it ended: %v", err)
	case <-time.After(patience):
		d.t.Fatal("no guide")
	}
	open := regexp.MustCompile(`(?m)^  http://(\S+)/ .*\n  https://(\S+)/ .* trusts (\S+)$`).FindStringSubmatch(guide)
	if open == nil {
		d.t.Fatalf("the guide does not say what to open:\n%s", guide)
	}
	d.http, d.https, d.roots = open[1], open[2], x509.NewCertPool()
	pem, err := os.ReadFile(open[3])
	if err != nil || !d.roots.AppendCertsFromPEM(pem) {
		d.t.Fatalf("the root that the guide names: %v", err)
	}
}

func (d *showing) dial(path string) (*websocket.Conn, *http.Response, error) {
	dialer := websocket.Dialer{TLSClientConfig: clientTLS(d.roots, ""), HandshakeTimeout: patience}
	return dialer.Dial("wss://"+d.https+path, nil)
}

// open opens a socket.
func (d *showing) open(path string) *websocket.Conn {
	d.t.Helper()
	conn, _, err := d.dial(path)
	if err != nil {
		d.t.Fatalf("dial %s: %v", path, err)
	}
	d.t.Cleanup(func() { conn.Close() })
	conn.SetReadDeadline(time.Now().Add(patience))
	return conn
}

// interrupt does what Ctrl-C does, and checks that everything ends well, and leaves nothing behind.
func (d *showing) interrupt() {
	d.t.Helper()
	d.process.Process.Signal(os.Interrupt)
	select {
	case err := <-d.exited:
		d.exited <- err
		if err != nil {
			d.t.Errorf("exit: %v", err)
		}
	case <-time.After(patience):
		d.t.Fatal("it does not end")
	}
	if left, err := os.ReadDir(d.tmp); len(left) > 0 || err != nil {
		d.t.Errorf("it left %v, %v", left, err)
	}
}

func TestDemo(t *testing.T) {
	t.Parallel()
	d := demo(t)
	t.Run("page", d.showsItsPage)
	ann, bob := d.open("/chat?name=ann"), d.open("/chat?name=bob")
	t.Run("chat", func(t *testing.T) {
		send(t, ann, "hello, bob")
		hears(t, bob, "ann: hello, bob")
		send(t, bob, "hello, ann")
		hears(t, ann, "bob: hello, ann")
	})
	line := d.open("/line")
	t.Run("line service", func(t *testing.T) {
		hears(t, line, "200 bridgehead line service ready")
		send(t, line, "ADD 2 3")
		if got := receive(t, line); got != "250 5" {
			t.Errorf("2 and 3 are %q", got)
		}
	})
	app := d.open("/app?name=ann")
	t.Run("application", func(t *testing.T) {
		hears(t, app, "welcome, ann")
		send(t, app, "hello")
		hears(t, app, "ann, message 1 was 5 characters: hello")
		hears(t, app, "push: it is ")
		_, resp, err := d.dial("/app?name=not+allowed")
		if err == nil || resp == nil || resp.StatusCode != http.StatusForbidden {
			t.Fatalf("a name that is not allowed: %v, %v", resp, err)
		}
		if body, _ := io.ReadAll(resp.Body); !strings.Contains(string(body), "is not allowed") {
			t.Errorf("the refusal says %q", body)
		}
	})
	for _, conn := range []*websocket.Conn{ann, bob, line, app} {
		go conn.ReadMessage() // as a browser reads, and so answers the close
	}
	d.interrupt()
}

// showsItsPage gets the page by both listeners.
func (d *showing) showsItsPage(t *testing.T) {
	want, err := os.ReadFile(filepath.Join("..", "..", "cmd", "bridgehead", "demo", "index.html"))
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: clientTLS(d.roots, "")}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: patience}
	for _, url := range []string{"http://" + d.http + "/", "https://" + d.https + "/"} {
		resp, err := client.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK || string(got) != string(want) {
			t.Errorf("%s: %s, %d bytes, %v", url, resp.Status, len(got), err)
		}
		if kind := resp.Header.Get("Content-Type"); !strings.HasPrefix(kind, "text/html") {
			t.Errorf("%s is of type %q", url, kind)
		}
	}
}

func TestDemoEndsAtOnceWithClientsThatAnswerNothing(t *testing.T) {
	t.Parallel()
	d := demo(t)
	for _, path := range []string{"/chat", "/line", "/app"} {
		conn := d.open(path)
		receive(t, conn) // the bridge is up to the backend; nothing is read any more
	}
	d.interrupt()
}

func TestDemosThatStartAtOncePickTheirOwnPorts(t *testing.T) {
	t.Parallel()
	var all []*showing
	for range 3 { // each finds the familiar ports free, and one gets them
		all = append(all, beginDemo(t))
	}
	seen := map[string]bool{}
	for _, d := range all {
		d.follow()
		if seen[d.http] || seen[d.https] {
			t.Errorf("two demos are said to be at %s and %s", d.http, d.https)
		}
		seen[d.http], seen[d.https] = true, true
		hears(t, d.open("/line"), "200 ") // each with its own authority and backends
	}
	for _, d := range all {
		d.interrupt()
	}
}

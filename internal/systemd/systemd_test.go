package systemd

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"bridgehead/internal/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

func env(pairs ...string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for _, pair := range pairs {
			if value, ok := strings.CutPrefix(pair, name+"="); ok {
				return value, true
			}
		}
		return "", false
	}
}

// manager is one that listens, and how it is told.
func manager(t *testing.T, more ...string) (*Manager, *net.UnixConn) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("unixgram is not for Windows")
	}
	dir, err := os.MkdirTemp("", "bh") // shorter than t.TempDir: the path of a socket is bounded
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	m := newManager(env(append(more, "NOTIFY_SOCKET="+path)...), 42)
	if m == nil {
		t.Fatal("no manager")
	}
	return m, conn
}

func hear(t *testing.T, conn *net.UnixConn) []string {
	t.Helper()
	buf := make([]byte, 4096)
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(string(buf[:n]), "\n")
}

func TestTheManagerIsTold(t *testing.T) {
	t.Parallel()
	m, conn := manager(t)
	m.Ready("two\nlines")
	if got := hear(t, conn); !reflect.DeepEqual(got, []string{"READY=1", "STATUS=two lines"}) {
		t.Error(got)
	}
	m.Reloading()
	got := hear(t, conn)
	at, err := strconv.ParseInt(strings.TrimPrefix(got[1], "MONOTONIC_USEC="), 10, 64)
	if got[0] != "RELOADING=1" || err != nil || runtime.GOOS == "linux" && at <= 0 {
		t.Error(got, err)
	}
	m.Stopping(9500 * time.Millisecond)
	if got := hear(t, conn); !reflect.DeepEqual(got, []string{"STOPPING=1", "STATUS=draining", "EXTEND_TIMEOUT_USEC=9500000"}) {
		t.Error(got)
	}
}

func TestTheWatchdogHearsAgainAndAgain(t *testing.T) {
	t.Parallel()
	m, conn := manager(t, "WATCHDOG_USEC=2000", "WATCHDOG_PID=42")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		m.Watch(ctx)
	}()
	for range 3 {
		if got := hear(t, conn); got[0] != "WATCHDOG=1" {
			t.Error(got)
		}
	}
	cancel()
	<-ended
}

func TestNobodyIsTold(t *testing.T) {
	t.Parallel()
	for _, m := range []*Manager{
		nil, newManager(env(), 42), newManager(env("NOTIFY_SOCKET="), 42), newManager(env("NOTIFY_SOCKET=vsock:2:1"), 42),
	} {
		if m != nil {
			t.Errorf("%+v", m)
		}
		m.Ready("")
		m.Reloading()
		m.Stopping(0)
		m.Watch(t.Context())
	}
	gone := newManager(env("NOTIFY_SOCKET=/nowhere", "WATCHDOG_USEC=1000000", "WATCHDOG_PID=1"), 42)
	gone.Ready("")
	gone.Watch(t.Context()) // it is another process that the watchdog asks
}

func TestNames(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		env  []string
		want []string
		says string
	}{
		{nil, nil, ""},
		{[]string{"LISTEN_PID=42", "LISTEN_FDS=2", "LISTEN_FDNAMES=web:admin"}, []string{"web", "admin"}, ""},
		{[]string{"LISTEN_PID=42", "LISTEN_FDS=2"}, []string{"unknown", "unknown"}, ""},
		{[]string{"LISTEN_PID=42", "LISTEN_FDS=1", "LISTEN_FDNAMES="}, []string{""}, ""},
		{[]string{"LISTEN_PID=41", "LISTEN_FDS=2", "LISTEN_FDNAMES=web:admin"}, nil, ""},
		{[]string{"LISTEN_FDS=2"}, nil, ""},
		{[]string{"LISTEN_PID=42", "LISTEN_FDS=0", "LISTEN_FDNAMES="}, []string{}, ""},
		{[]string{"LISTEN_PID=42", "LISTEN_FDS=two"}, nil, `$LISTEN_FDS is "two"`},
		{[]string{"LISTEN_PID=42", "LISTEN_FDS=-1"}, nil, `$LISTEN_FDS is "-1"`},
		{[]string{"LISTEN_PID=42", "LISTEN_FDS=2", "LISTEN_FDNAMES=web"}, nil, "1 names for the 2 sockets"},
	} {
		got, err := names(env(c.env...), 42)
		if !reflect.DeepEqual(got, c.want) || (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q: %q, %v", c.env, got, err)
		}
	}
}

func TestASocketThatWasNotHandedOver(t *testing.T) {
	t.Parallel()
	if _, err := Listen("web"); err == nil || !strings.Contains(err.Error(), "no sockets; a socket unit") {
		t.Error(err)
	}
	if got := others([]handed{{name: "a"}, {name: "b"}}, "web"); got != `no socket "web", but "a", "b"` {
		t.Error(got)
	}
}

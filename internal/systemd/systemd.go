// Package systemd speaks with the service manager that started the program: it takes the sockets that it hands over
// (sd_listen_fds(3)), and tells it how the program is (sd_notify(3)).
package systemd

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A Manager is told how the program is. Nothing is told to a nil Manager. Its methods may be called from any goroutine; a manager
// that does not listen is no reason to fail, so that they return nothing.
type Manager struct {
	address  *net.UnixAddr
	watchdog time.Duration // how often it wants to hear; 0: never
}

// NewManager finds the manager of this process in its environment; nil: it has none. Programs that this one starts do not find it.
func NewManager() *Manager {
	m := newManager(os.LookupEnv, os.Getpid())
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		os.Unsetenv(name)
	}
	return m
}

func newManager(lookup func(string) (string, bool), pid int) *Manager {
	path, _ := lookup("NOTIFY_SOCKET")
	if path == "" || path[0] != '/' && path[0] != '@' { // there are others, for virtual machines
		return nil
	}
	m := &Manager{address: &net.UnixAddr{Name: path, Net: "unixgram"}}
	if of, ok := lookup("WATCHDOG_PID"); !ok || of == strconv.Itoa(pid) {
		microseconds, _ := lookup("WATCHDOG_USEC")
		if n, err := strconv.ParseInt(microseconds, 10, 64); err == nil && n > 0 {
			m.watchdog = time.Duration(n) * time.Microsecond
		}
	}
	return m
}

func (m *Manager) tell(lines ...string) {
	if m == nil {
		return
	}
	conn, err := net.DialUnix("unixgram", nil, m.address)
	if err != nil {
		return
	}
	defer conn.Close()
	_ = conn.SetWriteDeadline(time.Now().Add(time.Second)) // it may have stopped reading
	_, _ = conn.Write([]byte(strings.Join(lines, "\n")))
}

// Ready says that the program serves, at first or again after Reloading. The status is for people, in one line.
func (m *Manager) Ready(status string) { m.tell("READY=1", "STATUS="+oneLine(status)) }

// Reloading says that a configuration is read again. Ready must follow, whatever comes of it.
func (m *Manager) Reloading() {
	m.tell("RELOADING=1", "MONOTONIC_USEC="+strconv.FormatInt(monotonic().Microseconds(), 10), "STATUS=reloading")
}

// Stopping says that the program is about to end, and may take so long for it.
func (m *Manager) Stopping(atMost time.Duration) {
	m.tell("STOPPING=1", "STATUS=draining", "EXTEND_TIMEOUT_USEC="+strconv.FormatInt(atMost.Microseconds(), 10))
}

// Watch tells the manager that the program lives, as often as it wants to hear it, until ctx ends.
func (m *Manager) Watch(ctx context.Context) {
	if m == nil || m.watchdog == 0 {
		return
	}
	tick := time.NewTicker(m.watchdog / 2)
	defer tick.Stop()
	for {
		m.tell("WATCHDOG=1")
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// A handed is a socket that the manager has opened.
type handed struct {
	name string
	file *os.File
}

// firstDescriptor is that of the first socket that is handed over.
const firstDescriptor = 3

// handedOver are the sockets of this process. Their files stay open as long as it lives: a listener that a reload closes may be
// opened again.
var handedOver = sync.OnceValues(func() (all []handed, err error) {
	names, err := names(os.LookupEnv, os.Getpid())
	for i, name := range names {
		all = append(all, handed{name, inherit(firstDescriptor + i)})
	}
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"} {
		os.Unsetenv(name)
	}
	return all, err
})

// names are those of the sockets that were handed over, in the order of their descriptors.
func names(lookup func(string) (string, bool), pid int) ([]string, error) {
	count, ok := lookup("LISTEN_FDS")
	if of, _ := lookup("LISTEN_PID"); !ok || of != strconv.Itoa(pid) { // it is meant for another process
		return nil, nil
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 || n > 1<<16 {
		return nil, fmt.Errorf("$LISTEN_FDS is %q, and should be a number of sockets", count)
	}
	all := make([]string, n)
	list, named := lookup("LISTEN_FDNAMES")
	given := strings.Split(list, ":")
	if named && n > 0 && len(given) != n {
		return nil, fmt.Errorf("$LISTEN_FDNAMES has %d names for the %d sockets of $LISTEN_FDS", len(given), n)
	}
	for i := range all {
		all[i] = "unknown" // as sd_listen_fds_with_names has it
		if named {
			all[i] = given[i]
		}
	}
	return all, nil
}

// Listen gives the listeners that were handed over under a name (FileDescriptorName= of the socket unit): one for each of its
// addresses. Those of one call are closed apart from those of others.
func Listen(name string) ([]net.Listener, error) {
	all, err := handedOver()
	if err != nil {
		return nil, err
	}
	var found []net.Listener
	for _, h := range all {
		if h.name != name {
			continue
		}
		l, err := net.FileListener(h.file)
		if err != nil {
			for _, l := range found {
				l.Close()
			}
			return nil, fmt.Errorf("systemd's socket %q: %w; its unit has to say ListenStream= and Accept=no", name, err)
		}
		found = append(found, l)
	}
	if found == nil {
		return nil, fmt.Errorf("systemd has handed over %s; a socket unit does that: Sockets= in the service, FileDescriptorName=%s in the socket",
			others(all, name), name)
	}
	return found, nil
}

func others(all []handed, name string) string {
	if len(all) == 0 {
		return "no sockets"
	}
	text := make([]string, len(all))
	for i, h := range all {
		text[i] = strconv.Quote(h.name)
	}
	return fmt.Sprintf("no socket %q, but %s", name, strings.Join(text, ", "))
}

// Package demo holds what `bridgehead demo` puts behind the bridge, one small backend of each kind and a page to try them:
//
//   - a chat that speaks WebSocket, for a `websocket` route,
//   - a line service on TCP that speaks first, for a `tcp` route,
//   - an HTTP application that verifies signatures, answers messages and pushes, for a `webhook` route,
//   - a page, for a `files` route.
//
// All of it listens on loopback alone, remembers nothing, is bounded everywhere and ends with the context of Start.
package demo

import (
	"context"
	"crypto/rand"
	_ "embed" // the page
	"encoding/base64"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// grace is how long backends may take to say goodbye once the demo ends.
const grace = 250 * time.Millisecond

//go:embed index.html
var page []byte

// Backends are the running backends. Their fields may be changed until Config is called, and only read afterwards.
type Backends struct {
	// Dir is a temporary directory for the page and for the bridge's state. It is removed when the demo has ended.
	Dir string

	// Chat, Line and App are the addresses of the backends, host:port.
	Chat, Line, App string

	// HTTPS, HTTP, Push and Admin are addresses for the bridge's own listeners: the familiar port where it was free a moment ago,
	// else any that the system chooses.
	HTTPS, HTTP, Push, Admin string

	// Secret signs the bridge's requests to the application (Standard Webhooks, whsec_…); PushToken lets the application push.
	// Both are new in each run.
	Secret, PushToken string

	wg sync.WaitGroup // the backends, and the removal of Dir
}

// Start starts the backends. They end when ctx does; Wait waits for it.
func Start(ctx context.Context, log *slog.Logger) (*Backends, error) {
	listeners, err := listen(3)
	if err != nil {
		return nil, err
	}
	dir, err := writePage()
	if err != nil {
		closeAll(listeners)
		return nil, err
	}
	b := &Backends{
		Dir:  dir,
		Chat: listeners[0].Addr().String(), Line: listeners[1].Addr().String(), App: listeners[2].Addr().String(),
		HTTPS: free("8443"), HTTP: free("8080"), Push: free("9901"), Admin: free("9900"),
		Secret: "whsec_" + random(), PushToken: random(),
	}
	app, err := newApp(b.Secret, b.PushToken, log.With("backend", "app"))
	if err != nil {
		closeAll(listeners)
		return nil, err
	}
	b.run(ctx,
		func() { newChat(log.With("backend", "chat")).serve(ctx, listeners[0]) },
		func() { newLines(log.With("backend", "line")).serve(ctx, listeners[1]) },
		func() { app.serve(ctx, listeners[2]) },
	)
	return b, nil
}

// Wait returns when the backends have ended and Dir is gone, within a second of the end of Start's context.
func (b *Backends) Wait() { b.wg.Wait() }

// run runs the backends and, when all have ended with ctx, removes the directory.
func (b *Backends) run(ctx context.Context, backends ...func()) {
	var running sync.WaitGroup
	for _, backend := range backends {
		running.Go(backend)
	}
	b.wg.Go(func() {
		<-ctx.Done()
		running.Wait()
		os.RemoveAll(b.Dir)
	})
}

// writePage makes the temporary directory and puts the page into it, where a `files` route finds it.
func writePage() (dir string, err error) {
	dir, err = os.MkdirTemp("", "bridgehead-demo-")
	if err != nil {
		return "", fmt.Errorf("make a directory for the demo: %w", err)
	}
	www := filepath.Join(dir, "www")
	if err = os.Mkdir(www, 0o700); err == nil {
		err = os.WriteFile(filepath.Join(www, "index.html"), page, 0o600)
	}
	if err != nil {
		os.RemoveAll(dir)
		return "", fmt.Errorf("write the demo's page: %w", err)
	}
	return dir, nil
}

// listen opens n listeners on ports of the system's choice.
func listen(n int) ([]net.Listener, error) {
	var all []net.Listener
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			closeAll(all)
			return nil, fmt.Errorf("listen for the demo's backends: %w", err)
		}
		all = append(all, l)
	}
	return all, nil
}

func closeAll(listeners []net.Listener) {
	for _, l := range listeners {
		l.Close()
	}
}

// anyPort is a loopback address whose port the system chooses.
const anyPort = "127.0.0.1:0"

// AnyPorts leaves all ports of the bridge to the system, for a demo whose ports were taken after it had found them free.
func (b *Backends) AnyPorts() { b.HTTPS, b.HTTP, b.Push, b.Admin = anyPort, anyPort, anyPort, anyPort }

// free is a loopback address with the port wanted if nobody listens there at this moment, else with any.
func free(port string) string {
	address := net.JoinHostPort("127.0.0.1", port)
	l, err := net.Listen("tcp", address)
	if err != nil {
		return anyPort
	}
	l.Close()
	return address
}

// random is a secret of 32 random bytes.
func random() string {
	key := make([]byte, 32)
	rand.Read(key) // never fails
	return base64.StdEncoding.EncodeToString(key)
}

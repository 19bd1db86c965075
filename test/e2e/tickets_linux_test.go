package e2e

import (
	"crypto/tls"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/gorilla/websocket"
)

// A ticket that a client was given resumes its session, on a socket that is carried as every other: by both drivers, in both versions
// of TLS, with a server behind that gives us tickets too, which come while the socket is carried.
func TestSessionsAreResumed(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"loops", "goroutines"} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(driver+", "+tls.VersionName(version), func(t *testing.T) {
				t.Parallel()
				dir := room(t)
				address, cert := secureEcho(t, version)
				write(t, dir, "up.pem", cert)
				e := startIn(t, dir, strings.Replace(own, driverLine, "driver: "+driver+"\n", 1)+`
certificates: {internal: true}
listeners: [{name: wss, tls: true, address: "127.0.0.1:0"}]
upstreams: {far: {servers: ["wss://`+address+`"], tls: {ca: up.pem, server_name: localhost}}}
routes: [{host: localhost, websocket: {to: far}}]
`)
				config := clientTLS(e.roots, "localhost")
				config.MinVersion, config.MaxVersion, config.ClientSessionCache = version, version, tls.NewLRUClientSessionCache(4)
				d := e.anyHost()
				d.TLSClientConfig = config
				for i := range 4 {
					conn, _, err := d.Dial("wss://localhost/", nil)
					if err != nil {
						t.Fatal(err)
					}
					send(t, conn, "hello")
					if got := receive(t, conn); got != "hello" {
						t.Fatalf("got %q", got)
					}
					state := conn.NetConn().(*tls.Conn).ConnectionState()
					if state.DidResume != (i > 0) || state.Version != version {
						t.Errorf("socket %d: resumed is %t, by %s", i, state.DidResume, tls.VersionName(state.Version))
					}
					conn.Close()
				}
			})
		}
	}
}

// secureEcho is a wss server with a certificate of its own for localhost.
func secureEcho(t *testing.T, version uint16) (address, cert string) {
	t.Helper()
	pem, key := makePair(t, 1, "localhost")
	pair, err := tls.X509KeyPair(pem, key)
	if err != nil {
		t.Fatal(err)
	}
	l := tls.NewListener(listen(t), &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: version, MaxVersion: version})
	upgrader := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer conn.Close()
		echo(conn, r)
	})}
	var serving sync.WaitGroup
	serving.Go(func() { s.Serve(l) })
	t.Cleanup(func() { s.Close(); serving.Wait() })
	return l.Addr().String(), string(pem)
}

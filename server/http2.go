package server

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"time"

	_ "bridgehead/internal/xconnect" // without it clients do not learn that sockets may come over HTTP/2
	"bridgehead/proxy/pump"
	"bridgehead/ws"
)

// blocked is how long a client of HTTP/2 may take nothing: an answer, as long as nobody has set another time for it, and a connection
// for which there is something to send. The latter is closed.
const blocked = 10 * time.Second

// limits2 bounds what one connection can hold. A stream's window is what net/http keeps for it while nobody reads it: that is how a
// client is pushed back. Clients may send 64 KiB before they learn of another size (RFC 9113, section 6.9.3), so it is no smaller.
var limits2 = &http.HTTP2Config{
	MaxConcurrentStreams:          250,
	MaxReceiveBufferPerStream:     64 << 10,
	MaxReceiveBufferPerConnection: 4<<20 - 1, // the most that net/http knows: the sockets of 64 backends that do not read
	MaxReadFrameSize:              16 << 10,
	WriteByteTimeout:              blocked,
}

// addHTTP2 lets a front speak HTTP/2 too. The server for it is one of its own: its clients can be told to go while those of the first,
// whose connections die after a request anyway, are served to the end.
func (f *front) addHTTP2() {
	first := f.server
	f.second = &http.Server{
		Protocols: new(http.Protocols), HTTP2: limits2, ErrorLog: first.ErrorLog,
		ReadTimeout: first.ReadTimeout, IdleTimeout: first.IdleTimeout, MaxHeaderBytes: first.MaxHeaderBytes,
	}
	if f.secure {
		f.second.Protocols.SetHTTP2(true)
	} else {
		first.Protocols.SetUnencryptedHTTP2(true)
		f.second.Protocols.SetUnencryptedHTTP2(true)
	}
	_ = f.second.Serve(nowhere{}) // ends at once, and has made ready for the connections of others
	first.TLSNextProto = make(map[string]func(*http.Server, *tls.Conn, http.Handler))
	for protocol, serve := range f.second.TLSNextProto {
		first.TLSNextProto[protocol] = func(_ *http.Server, c *tls.Conn, h http.Handler) { serve(f.second, c, &entrance{h, f.secure}) }
	}
}

// sendAway tells the clients of HTTP/2 to open no more streams on their connections (GOAWAY; RFC 9113, section 6.8). Each connection
// ends a second after its last stream, sockets included.
func (f *front) sendAway() {
	if f.second != nil {
		_ = f.second.Shutdown(context.Background()) // it has no connections of its own to wait for
	}
}

// nowhere is a listener that is closed.
type nowhere struct{}

// Accept is net.Listener's.
func (nowhere) Accept() (net.Conn, error) { return nil, net.ErrClosed }

// Close is net.Listener's.
func (nowhere) Close() error { return nil }

// Addr is net.Listener's.
func (nowhere) Addr() net.Addr { return new(net.TCPAddr) }

// An entrance is where the requests of one HTTP/2 connection come in: they are made to look as those of HTTP/1.1 do, for all behind it.
type entrance struct {
	http.Handler      // of the first server, for this connection
	secure       bool // it has TLS
}

// BaseContext is asked for by net/http: it has what is known of the connection.
func (e *entrance) BaseContext() context.Context {
	if h, ok := e.Handler.(interface{ BaseContext() context.Context }); ok {
		return h.BaseContext()
	}
	return context.Background()
}

// ServeHTTP is http.Handler's.
func (e *entrance) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	err := ws.FromHTTP2(r, e.secure && r.TLS == nil) // which net/http sets where :scheme is https
	out := pump.NewStreamWriter(w, ws.IsUpgrade(r), blocked)
	defer out.Finish()
	if err != nil {
		http.Error(out, "malformed request: "+err.Error(), http.StatusBadRequest)
		return
	}
	e.Handler.ServeHTTP(out, r)
}

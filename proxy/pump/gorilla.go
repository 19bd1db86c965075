package pump

import (
	"bufio"
	"net"
	"net/http"
	"sync"

	"github.com/gorilla/websocket"
)

const (
	readBuffer  = 1 << 10 // held by each socket while it waits
	writeBuffer = 4 << 10 // borrowed for each write
)

// writeBuffers is lent to gorilla for as long as a write takes.
var writeBuffers sync.Pool

// serverConn gives gorilla's Conn over a connection that is already upgraded. Gorilla makes one only by upgrading, so it is
// shown a handshake, and its answer is dropped.
func serverConn(conn net.Conn) *websocket.Conn {
	upgrader := websocket.Upgrader{
		ReadBufferSize: readBuffer, WriteBufferSize: writeBuffer, WriteBufferPool: &writeBuffers,
		CheckOrigin: func(*http.Request) bool { return true }, // the policies have decided
	}
	handshake := &http.Request{Method: http.MethodGet, Header: http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"},
		"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"AAAAAAAAAAAAAAAAAAAAAA=="},
	}}
	c, err := upgrader.Upgrade(hijacked{conn: &answered{Conn: conn}}, handshake, nil)
	if err != nil {
		panic(err) // the handshake above is constant and the write is dropped: nothing is left to fail
	}
	return c
}

// hijacked is the ResponseWriter of the handshake that gorilla is shown.
type hijacked struct {
	http.ResponseWriter
	conn net.Conn
}

func (h hijacked) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return h.conn, bufio.NewReadWriter(bufio.NewReaderSize(h.conn, 16), bufio.NewWriterSize(h.conn, 16)), nil
}

// answered drops the first write: the 101 that the client has already got.
type answered struct {
	net.Conn
	done bool
}

func (a *answered) Write(p []byte) (int, error) {
	if !a.done {
		a.done = true
		return len(p), nil
	}
	return a.Conn.Write(p)
}

// observed is the connection as gorilla sees it: early bytes first, and every read is a sign of life.
type observed struct {
	net.Conn
	early []byte
	seen  func()
}

func (o *observed) Read(p []byte) (int, error) {
	if len(o.early) > 0 {
		n := copy(p, o.early)
		o.early = o.early[n:]
		return n, nil
	}
	n, err := o.Conn.Read(p)
	if n > 0 {
		o.seen()
	}
	return n, err
}

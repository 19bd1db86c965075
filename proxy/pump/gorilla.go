package pump

import (
	"bufio"
	"net"
	"net/http"
	"sync"

	"github.com/gorilla/websocket"

	"bridgehead/ws"
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

// A screened connection is what gorilla reads: early bytes first, and all of it past the socket's filter, which counts frames and
// bounds messages before gorilla keeps any of them. What offends is an error behind all that came before it.
type screened struct {
	net.Conn
	early  []byte
	filter ws.Filter
	offend error // the rest of what there is to read

	before func() error     // called before each read; its error ends the reading
	bound  func(*ws.Filter) // called between a read and what is made of it
	passed func(ws.Passed)  // told what came of it
}

// Read gives whatever has passed, and waits if that is nothing. p has room for what the filter keeps back, and more: gorilla reads into
// nothing smaller than what it leaves free in its buffer.
func (s *screened) Read(p []byte) (n int, err error) {
	for n == 0 && err == nil && len(p) > 0 {
		n, err = s.read(p)
	}
	return n, err
}

func (s *screened) read(p []byte) (int, error) {
	if s.offend != nil {
		return 0, s.offend
	}
	if err := s.before(); err != nil {
		return 0, err
	}
	held := s.filter.Held(p)
	n, err := s.readConn(p[held:])
	if n == 0 {
		return 0, err
	}
	s.bound(&s.filter)
	var passed ws.Passed
	passed, s.offend = s.filter.Pass(p[:held+n])
	s.passed(passed)
	return copy(p, passed.Out), err // nothing is left out before it, so it lies there already
}

func (s *screened) readConn(p []byte) (n int, err error) {
	if len(s.early) == 0 {
		return s.Conn.Read(p)
	}
	n = copy(p, s.early)
	s.early = s.early[n:]
	return n, nil
}

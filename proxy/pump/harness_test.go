package pump

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bridgehead/internal/leak"
	"bridgehead/internal/unit"
	"bridgehead/ws"
)

func TestMain(m *testing.M) { leak.Main(onLoops{m}) }

// loops carry what the tests of the loops start; nil where there are none.
var loops *Loops

// onLoops gives the tests loops for as long as they run.
type onLoops struct{ m *testing.M }

func (o onLoops) Run() int {
	loops, _ = NewLoops(2)
	defer loops.Close()
	return o.m.Run()
}

// bothDrivers runs a test with each driver: newLinkRig finds in the name of the test which it is to be.
func bothDrivers(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	t.Run("goroutines", test)
	if loops != nil {
		t.Run(byLoops, test)
	}
}

const byLoops = "loops"

// A probe reaches into a Link where tests need it.
type probe interface {
	insertFrame(to side, frame []byte)                   // as a ping of ours
	onControl(from side, f func(ws.Opcode, []byte) bool) // instead of what is done with control frames; before Start
}

func (l *copyLink) insertFrame(to side, frame []byte) { l.ends[to].sink.insert(frame) }

func (l *copyLink) onControl(from side, f func(ws.Opcode, []byte) bool) {
	l.ends[from].filter.Control = f
}

// patience ends a test that would hang. Nothing is expected to take as long.
const patience = 20 * time.Second

// A frame is one frame on the wire, read and written by code of its own, so that it can disagree with package ws.
type frame struct {
	fin     bool
	op      ws.Opcode
	masked  bool
	key     [4]byte
	payload string // unmasked
}

func (f frame) String() string {
	text := f.payload
	if len(text) > 40 {
		text = text[:40] + "…"
	}
	return fmt.Sprintf("{fin %v op %x masked %v %d bytes %q}", f.fin, f.op, f.masked, len(f.payload), text)
}

// closing gives the code and reason of a Close frame; code 1005 if it has none.
func (f frame) closing() (ws.Code, string) {
	if f.op != ws.Close {
		return 0, ""
	}
	if len(f.payload) < 2 {
		return ws.CodeNoStatus, ""
	}
	return ws.Code(binary.BigEndian.Uint16([]byte(f.payload))), f.payload[2:]
}

func (f frame) append(dst []byte) []byte {
	first, second, n := byte(f.op), byte(0), len(f.payload)
	if f.fin {
		first |= 0x80
	}
	if f.masked {
		second = 0x80
	}
	switch {
	case n < 126:
		dst = append(dst, first, second|byte(n))
	case n < 1<<16:
		dst = append(dst, first, second|126, byte(n>>8), byte(n))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, first, second|127), uint64(n))
	}
	if f.masked {
		dst = append(dst, f.key[:]...)
	}
	for i := range n {
		b := f.payload[i]
		if f.masked {
			b ^= f.key[i%4]
		}
		dst = append(dst, b)
	}
	return dst
}

func readFrame(r io.Reader) (frame, error) {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:2]); err != nil {
		return frame{}, err
	}
	if head[0]&0x70 != 0 {
		return frame{}, fmt.Errorf("reserved bits in % x", head[:2])
	}
	f := frame{fin: head[0]&0x80 != 0, op: ws.Opcode(head[0] & 15), masked: head[1]&0x80 != 0}
	n := uint64(head[1] & 0x7F)
	if n >= 126 {
		long := head[6:]
		if n == 127 {
			long = head[:]
		}
		clear(head[:])
		if _, err := io.ReadFull(r, long); err != nil {
			return f, noEOF(err)
		}
		n = binary.BigEndian.Uint64(head[:])
	}
	if n > 64<<20 {
		return f, fmt.Errorf("frame of %d bytes: this is no header", n)
	}
	if f.masked {
		if _, err := io.ReadFull(r, f.key[:]); err != nil {
			return f, noEOF(err)
		}
	}
	payload := make([]byte, n)
	k, err := io.ReadFull(r, payload)
	for i := range payload[:k] {
		payload[i] ^= f.key[i%4]
	}
	f.payload = string(payload[:k])
	return f, noEOF(err)
}

// noEOF tells the end inside a frame from the end between two.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// A peer is the far end of one of the two connections.
type peer struct {
	net.Conn
	t      testing.TB
	r      *bufio.Reader
	masked bool // what it sends
}

func newPeer(t testing.TB, conn net.Conn, masked bool) *peer {
	return &peer{Conn: conn, t: t, r: bufio.NewReader(conn), masked: masked}
}

// impatient makes reads fail that take too long, but on a pipe, which may run on fake time.
func (p *peer) impatient(k kind) {
	if k != pipe {
		p.SetReadDeadline(time.Now().Add(patience))
	}
}

// frame is a frame as this peer sends it.
func (p *peer) frame(fin bool, op ws.Opcode, payload string) frame {
	f := frame{fin: fin, op: op, masked: p.masked, payload: payload}
	if p.masked {
		f.key = [4]byte{1, 0xA7, 77, byte(len(payload))}
	}
	return f
}

func (p *peer) send(fin bool, op ws.Opcode, payload string) {
	p.t.Helper()
	p.write(p.frame(fin, op, payload).append(nil))
}

func (p *peer) write(b []byte) {
	p.t.Helper()
	if _, err := p.Write(b); err != nil {
		p.t.Errorf("a peer writes: %v", err)
	}
}

func (p *peer) sendClose(code ws.Code, reason string) {
	p.t.Helper()
	p.send(true, ws.Close, closePayload(code, reason))
}

func closePayload(code ws.Code, reason string) string {
	return string(binary.BigEndian.AppendUint16(nil, uint16(code))) + reason
}

// next reads a frame, which there must be.
func (p *peer) next() frame {
	p.t.Helper()
	for {
		f, err := readFrame(p.r)
		if err != nil {
			p.t.Fatalf("a peer waits for a frame: got %v, %v", f, err)
		}
		if !strings.HasPrefix(f.payload, pinged) {
			return f
		}
	}
}

// want reads a frame that must be as said.
func (p *peer) want(fin bool, op ws.Opcode, payload string) {
	p.t.Helper()
	if f := p.next(); f.fin != fin || f.op != op || f.payload != payload || f.masked == p.masked {
		p.t.Fatalf("got %v, want fin %v op %x %q", f, fin, op, payload)
	}
}

// wantClose reads a Close that must be as said; code 0 means none, but the end of the connection.
func (p *peer) wantClose(code ws.Code, reason string) {
	p.t.Helper()
	if code == 0 {
		p.wantEnd()
		return
	}
	f := p.next()
	if c, text := f.closing(); c != code || text != reason || f.masked == p.masked {
		p.t.Fatalf("got %v, code %d reason %q; want a Close with %d %q", f, c, text, code, reason)
	}
}

// wantEnd reads the end of the connection, between two frames, and ends the peer's half as well.
func (p *peer) wantEnd() {
	p.t.Helper()
	if f, err := readFrame(p.r); err != io.EOF {
		p.t.Fatalf("got %v, %v; want the end of the connection", f, err)
	}
	p.Close()
}

// wantCut reads the end of the connection inside a frame of which the beginning has come.
func (p *peer) wantCut(beginning string) {
	p.t.Helper()
	f, err := readFrame(p.r)
	if (err != io.ErrUnexpectedEOF && !isReset(err)) || f.payload != beginning {
		p.t.Fatalf("got %v, %v; want the end behind %q", f, err, beginning)
	}
}

func isReset(err error) bool {
	_, ok := errors.AsType[*net.OpError](err)
	return ok && !errors.Is(err, os.ErrDeadlineExceeded)
}

// stuff writes until nothing is taken any more.
func (p *peer) stuff(b []byte) {
	for {
		p.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		if _, err := p.Write(b); err != nil {
			return
		}
	}
}

// A kind is a kind of connection.
type kind string

const (
	plain kind = "tcp"
	tight kind = "tcp with small buffers" // which keep the kernel from taking megabytes at once and then nothing for as long as they last
	unix  kind = "unix"
	tls12 kind = "tls 1.2"
	tls13 kind = "tls 1.3"
	http2 kind = "http/2"
	pipe  kind = "pipe" // no half-close, no deadline of the operating system
)

// pair gives both ends of a connection: ours and the peer's. With TLS we are the server if serves, else the client.
func (k kind) pair(t testing.TB, serves bool) (ours, theirs net.Conn) {
	t.Helper()
	switch k {
	case pipe:
		ours, theirs = net.Pipe()
	case http2:
		ours, theirs = newTunnels(t).open()
	case unix:
		ours, theirs = dial(t, "unix", filepath.Join(t.TempDir(), "s"))
	default:
		ours, theirs = dial(t, "tcp", "127.0.0.1:0")
	}
	if k == tight {
		for _, conn := range []net.Conn{ours, theirs} {
			tcp := conn.(*net.TCPConn)
			if err := errors.Join(tcp.SetReadBuffer(64<<10), tcp.SetWriteBuffer(64<<10)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if k == tls12 || k == tls13 {
		ours, theirs = withTLS(t, k, ours, theirs, serves)
	}
	return ours, theirs
}

func dial(t testing.TB, network, address string) (ours, theirs net.Conn) {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if theirs, err = net.Dial(network, l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if ours, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return ours, theirs
}

func withTLS(t testing.TB, k kind, ours, theirs net.Conn, serves bool) (_, _ net.Conn) {
	t.Helper()
	version := map[kind]uint16{tls12: tls.VersionTLS12, tls13: tls.VersionTLS13}[k]
	server := &tls.Config{Certificates: []tls.Certificate{certificate()}, MaxVersion: version, DynamicRecordSizingDisabled: true}
	client := &tls.Config{InsecureSkipVerify: true, MaxVersion: version, DynamicRecordSizingDisabled: true}
	var a, b *tls.Conn
	ours, theirs = NewWire(ours), &tapped{TCPConn: theirs.(*net.TCPConn)}
	if serves {
		a, b = tls.Server(ours, server), tls.Client(theirs, client)
	} else {
		a, b = tls.Client(ours, client), tls.Server(theirs, server)
	}
	shaken := make(chan error, 1)
	go func() { shaken <- b.Handshake() }()
	if err := errors.Join(a.Handshake(), <-shaken); err != nil {
		t.Fatal(err)
	}
	return a, b
}

var certificate = sync.OnceValue(func() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
})

// A rig is one socket as package proxy would hold it, with a peer at each far end.
type rig struct {
	t       testing.TB
	socket  *Socket
	link    Link      // nil when Messages carry it
	msgs    *Messages // nil when a Link carries it
	client  *peer
	backend *peer
	theirs  net.Conn // to the client
	ours    net.Conn // to the backend

	options atomic.Pointer[Options]
	once    sync.Once
	cause   ws.Cause      // the first
	driven  chan struct{} // closed when there is a driver, as after proxy.Session.Start
	ending  Signal        // that End was called
	closed  chan struct{} // closed when Close has returned
}

// quiet are options without clocks; tests turn on what they are about.
func quiet() Options {
	return Options{
		MessageSize: 16 * unit.MiB, BackendMessageSize: 16 * unit.MiB, WriteTimeout: patience, CloseTimeout: patience,
	}
}

func newRig(t testing.TB, o Options, clients kind) *rig {
	t.Helper()
	r := &rig{t: t, driven: make(chan struct{}), closed: make(chan struct{})}
	r.options.Store(&o)
	ours, theirs := clients.pair(t, true)
	r.client = newPeer(t, theirs, true)
	r.client.impatient(clients)
	r.theirs = ours
	r.socket = &Socket{
		Conn: ours, Options: r.options.Load, Counters: NewCounters(nil), Outbox: new(Outbox),
		Log: slog.New(slog.DiscardHandler), End: r.end, Ending: &r.ending,
	}
	t.Cleanup(r.finish)
	return r
}

// newLinkRig prepares a Link between two peers. The test calls link.Start.
func newLinkRig(t testing.TB, o Options, clients, backends kind, to Backend) *rig {
	t.Helper()
	r := newRig(t, o, clients)
	var theirs net.Conn
	r.ours, theirs = backends.pair(t, false)
	r.backend = newPeer(t, theirs, false)
	r.backend.impatient(backends)
	to.Conn = r.ours
	if strings.Contains(t.Name(), "/"+byLoops) {
		r.socket.Loops = loops
	}
	r.link = NewLink(r.socket, to)
	close(r.driven)
	return r
}

// startLink is a Link between two WebSocket peers over TCP, under way.
func startLink(t testing.TB, o Options) *rig {
	t.Helper()
	r := newLinkRig(t, o, plain, plain, Backend{})
	r.link.Start()
	return r
}

// startStream is a Link between a WebSocket client and a byte stream over TCP, under way.
func startStream(t testing.TB, o Options, to Backend) *rig {
	t.Helper()
	to.Stream = true
	r := newLinkRig(t, o, plain, plain, to)
	r.link.Start()
	return r
}

// end does what proxy.Client does: the first cause wins and Close runs on a goroutine of its own.
func (r *rig) end(cause ws.Cause) {
	r.once.Do(func() {
		r.cause = cause
		r.ending.Give()
		go func() {
			defer close(r.closed)
			<-r.driven
			if r.link != nil {
				r.link.Close(cause)
			} else {
				r.msgs.Close(cause)
			}
			r.socket.Outbox.Close()
		}()
	})
}

// finish ends what a test left open.
func (r *rig) finish() {
	r.client.Close()
	if r.backend != nil {
		r.backend.Close()
	}
	r.end(ws.Cause{Kind: ws.Kicked})
	select {
	case <-r.closed:
	case <-time.After(patience):
		r.t.Errorf("not closed %v after the test; the cause was %v", patience, r.cause)
		return
	}
	for _, conn := range []net.Conn{r.theirs, r.ours} {
		if conn != nil && conn.SetDeadline(time.Now()) == nil {
			r.t.Error("a connection was left open")
		}
	}
}

// push sends m as others than the bridge do.
func (r *rig) push(m ws.Message) error {
	if err := r.socket.Outbox.Put(m); err != nil {
		return err
	}
	if r.link != nil {
		r.link.Flush()
	} else {
		r.msgs.Flush()
	}
	return nil
}

// eventually waits for a state that nothing tells of.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for by := time.Now().Add(patience); !ok(); <-time.After(time.Millisecond) {
		if time.Now().After(by) {
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

// wantCause waits until the socket has ended and Close has returned.
func (r *rig) wantCause(kind ws.Kind) {
	r.t.Helper()
	r.wantClosed()
	if r.cause.Kind != kind {
		r.t.Errorf("ended for %v (%+v), want %v", r.cause, r.cause, kind)
	}
}

// wantClosed waits until Close has returned.
func (r *rig) wantClosed() {
	r.t.Helper()
	select {
	case <-r.closed:
	case <-time.After(patience):
		r.t.Fatalf("not closed after %v; the cause was %v", patience, r.cause)
	}
}

// wantCounts compares the counters.
func (r *rig) wantCounts(messagesIn, bytesIn, messagesOut, bytesOut int64) {
	r.t.Helper()
	var got [4]int64
	got[0], got[1], got[2], got[3] = r.socket.Counters.Sum()
	if want := [4]int64{messagesIn, bytesIn, messagesOut, bytesOut}; got != want {
		r.t.Errorf("counted %v, want %v (messages and bytes in, messages and bytes out)", got, want)
	}
}

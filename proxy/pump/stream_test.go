package pump

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"bridgehead/ws"
)

// read reads what a stream was sent, as far as n bytes.
func (p *peer) read(n int) string {
	p.t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(p.r, b); err != nil {
		p.t.Fatalf("a stream waits for %d bytes: %v", n, err)
	}
	return string(b)
}

// message joins the frames of the next message.
func (p *peer) message() (op ws.Opcode, payload string) {
	p.t.Helper()
	f := p.next()
	op, payload = f.op, f.payload
	for !f.fin {
		f = p.next()
		payload += f.payload
	}
	return op, payload
}

// Toward a stream payload goes without frames, whatever the frames were; each read of it is a message.
func TestStreamGetsPayloadAlone(t *testing.T) { bothDrivers(t, testStreamGetsPayloadAlone) }

func testStreamGetsPayloadAlone(t *testing.T) {
	t.Parallel()
	for _, kinds := range [][2]kind{{plain, plain}, {tls13, unix}, {plain, tls13}, {http2, plain}, {pipe, pipe}} {
		t.Run(fmt.Sprint(kinds), func(t *testing.T) {
			t.Parallel()
			r := newLinkRig(t, quiet(), kinds[0], kinds[1], Backend{Stream: true, Message: ws.Binary})
			r.link.Start()
			up := traffic(7, true)
			go r.client.dribble(wire(up), 8)
			var want strings.Builder
			for _, f := range up {
				if !f.op.IsControl() {
					want.WriteString(f.payload)
				}
			}
			go discard(r.client) // the pongs
			if got := r.backend.read(want.Len()); got != want.String() {
				t.Error("the payload came changed")
			}
		})
	}
}

func TestStreamReadsBecomeMessages(t *testing.T) { bothDrivers(t, testStreamReadsBecomeMessages) }

func testStreamReadsBecomeMessages(t *testing.T) {
	t.Parallel()
	for _, kinds := range [][2]kind{{plain, plain}, {tls13, unix}, {plain, tls13}, {http2, plain}, {pipe, pipe}} {
		t.Run(fmt.Sprint(kinds), func(t *testing.T) {
			t.Parallel()
			early := strings.Repeat("early", 20000) // more than a chunk
			r := newLinkRig(t, quiet(), kinds[0], kinds[1], Backend{Stream: true, Message: ws.Binary, Early: []byte(early)})
			r.link.Start()
			b := make([]byte, 1<<20)
			rand.NewChaCha8([32]byte{1}).Read(b)
			go r.backend.dribble(b, 9)
			want := early + string(b)
			var got strings.Builder
			messages := int64(0)
			for ; got.Len() < len(want); messages++ {
				op, payload := r.client.message()
				if op != ws.Binary || payload == "" {
					t.Fatalf("a message of type %x with %d bytes", op, len(payload))
				}
				got.WriteString(payload)
			}
			if got.String() != want {
				t.Error("the bytes came changed")
			}
			r.backend.Close()
			r.client.wantClose(1000, "")
			r.client.Close()
			r.wantCause(ws.BackendClosed)
			r.wantCounts(0, 0, messages, int64(len(want)))
		})
	}
}

// As text each message is UTF-8 however the stream was cut, and nothing but what is no text is changed.
func TestStreamAsText(t *testing.T) { bothDrivers(t, testStreamAsText) }

func testStreamAsText(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ sent, want string }{
		"text":                       {strings.Repeat("aé€😀", 5000), strings.Repeat("aé€😀", 5000)},
		"a byte that is none":        {"a\xffb", "a\uFFFDb"},
		"a rune cut off by the next": {"a\xe2\x82b", "a\uFFFDb"},
		"a rune cut off by the end":  {"euro: \xe2\x82", "euro: \uFFFD"},
		"nothing but half a rune":    {"\xf0", "\uFFFD"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := startStream(t, quiet(), Backend{Message: ws.Text})
			go func() {
				for i := range len(c.sent) {
					r.backend.Write([]byte{c.sent[i]})
				}
				r.backend.Close()
			}()
			var got strings.Builder
			for {
				f := r.client.next()
				if f.op == ws.Close {
					break
				}
				if f.op != ws.Text || !f.fin || !utf8.ValidString(f.payload) {
					t.Errorf("%v is not a text message", f)
				}
				got.WriteString(f.payload)
			}
			if got.String() != c.want {
				t.Errorf("%d bytes %.40q came, want %d bytes %.40q ", got.Len(), got.String(), len(c.want), c.want)
			}
			r.client.sendClose(1000, "")
			r.client.wantEnd()
			r.wantCause(ws.BackendClosed)
		})
	}
}

// Any cut of the same bytes gives the same text (without a socket).
func FuzzText(f *testing.F) {
	f.Add([]byte("aé€😀b"), uint8(1))
	f.Add([]byte("\xf0\x9f\x98\xff\xe2\x82"), uint8(2))
	f.Fuzz(func(t *testing.T, sent []byte, step uint8) {
		var cut text
		var got []byte
		buf := make([]byte, headroom+256)
		for rest := sent; len(rest) > 0; {
			n := copy(buf[headroom:], rest[:min(len(rest), 1+int(step))])
			rest = rest[n:]
			message := cut.message(buf, n)
			if !utf8.Valid(message) {
				t.Fatalf("message %q is not UTF-8", message)
			}
			got = append(got, message...)
		}
		got = append(got, cut.rest()...)
		if utf8.Valid(sent) && !bytes.Equal(got, sent) {
			t.Fatalf("%q became %q", sent, got)
		}
	})
}

func TestClientTextTowardAStreamMustBeUTF8(t *testing.T) {
	bothDrivers(t, testClientTextTowardAStreamMustBeUTF8)
}

func testClientTextTowardAStreamMustBeUTF8(t *testing.T) {
	t.Parallel()
	r := startStream(t, quiet(), Backend{Message: ws.Binary})
	r.client.send(false, ws.Text, "good \xe2")
	r.client.send(true, ws.Continuation, "\x82\xac bad \xff")
	if got := r.backend.read(13); got != "good € bad " {
		t.Errorf("before the offence %q passed", got)
	}
	r.client.wantClose(1007, "text is not UTF-8")
	r.client.Close()
	r.wantCause(ws.ClientEncoding)
}

// A stream has no pings: ours is the answer.
func TestPingsOfAStreamsClientAreAnswered(t *testing.T) {
	bothDrivers(t, testPingsOfAStreamsClientAreAnswered)
}

func testPingsOfAStreamsClientAreAnswered(t *testing.T) {
	t.Parallel()
	r := startStream(t, quiet(), Backend{Message: ws.Binary})
	r.client.send(true, ws.Ping, "are you there")
	r.client.want(true, ws.Pong, "are you there")
	r.client.send(true, ws.Pong, "unasked")
	r.client.send(true, ws.Binary, "data")
	if got := r.backend.read(4); got != "data" {
		t.Errorf("the stream got %q", got)
	}
}

// The client's Close ends our half of the stream, which may go on delivering; its end is the answer.
func TestHalfClose(t *testing.T) { bothDrivers(t, testHalfClose) }

func testHalfClose(t *testing.T) {
	t.Parallel()
	for _, kind := range []kind{plain, unix, tls12, tls13} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			r := newLinkRig(t, quiet(), plain, kind, Backend{Stream: true, Message: ws.Binary, Linger: patience})
			r.link.Start()
			r.client.send(true, ws.Binary, "question")
			r.client.sendClose(1000, "that is all")
			if got, err := io.ReadAll(r.backend.r); string(got) != "question" || err != nil {
				t.Fatalf("the stream got %q, %v", got, err)
			}
			r.backend.write([]byte("answer"))
			r.client.want(true, ws.Binary, "answer")
			r.backend.Close()
			r.client.wantClose(1000, "that is all")
			r.client.wantEnd()
			r.wantCause(ws.ClientClosed)
		})
	}
}

func TestLingerEnds(t *testing.T) { bothDrivers(t, testLingerEnds) }

func testLingerEnds(t *testing.T) {
	t.Parallel()
	for _, linger := range []time.Duration{0, 100 * time.Millisecond} {
		t.Run(fmt.Sprint(linger), func(t *testing.T) {
			t.Parallel()
			r := startStream(t, quiet(), Backend{Message: ws.Binary, Linger: linger})
			r.client.sendClose(1000, "")
			r.client.wantClose(1000, "")
			r.client.wantEnd()
			r.wantCause(ws.ClientClosed) // though the stream goes on
		})
	}
}

func TestStreamsThatEnd(t *testing.T) { bothDrivers(t, testStreamsThatEnd) }

func testStreamsThatEnd(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		end  func(r *rig)
		want ws.Kind
		code ws.Code
	}{
		{"in order", func(r *rig) { r.backend.Close() }, ws.BackendClosed, 1000},
		{"by a reset", func(r *rig) { abort(r.backend.Conn) }, ws.BackendReset, 1011},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := startStream(t, quiet(), Backend{Message: ws.Binary})
			r.backend.write([]byte("last words"))
			r.client.want(true, ws.Binary, "last words")
			c.end(r)
			r.client.wantClose(c.code, told[c.want].reason)
			r.client.send(true, ws.Binary, "for nobody") // discarded until the Close
			r.client.send(true, ws.Binary, "again")
			r.client.sendClose(c.code, "")
			r.client.wantEnd()
			r.wantCause(c.want)
			r.wantCounts(0, 0, 1, 10)
		})
	}
}

func TestStreamEndNamesTheCause(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		want ws.Kind
	}{
		{io.EOF, ws.BackendClosed},
		{os.NewSyscallError("read", syscall.ECONNRESET), ws.BackendReset},
		{os.NewSyscallError("write", syscall.EPIPE), ws.BackendReset},
		{fmt.Errorf("write: %w", os.ErrDeadlineExceeded), ws.BackendSlow},
		{errors.New("host unreachable"), ws.BackendGone},
	} {
		if got := StreamEnd(c.err); got.Kind != c.want {
			t.Errorf("%v means %v, want %v", c.err, got, c.want)
		}
	}
}

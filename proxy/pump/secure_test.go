package pump

import (
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	"bridgehead/ws"
)

// notify ends what a peer sends by close_notify alone: TCP stays open in both directions.
func (p *peer) notify() {
	p.t.Helper()
	if err := p.Conn.(*tls.Conn).CloseWrite(); err != nil {
		p.t.Errorf("close_notify: %v", err)
	}
}

// notified checks that the last record that came was close_notify. crypto/tls takes the end of TCP for as good.
func (p *peer) notified() {
	p.t.Helper()
	if !p.Conn.(*tls.Conn).NetConn().(*tapped).alerted() {
		p.t.Error("the connection ended without close_notify")
	}
}

// A tapped is the connection below a peer's TLS. It knows the last record that was read.
type tapped struct {
	*net.TCPConn

	head []byte // of the last record, or a part of it
	left int    // of that record's payload
}

func (c *tapped) Read(b []byte) (int, error) {
	n, err := c.TCPConn.Read(b)
	for rest := b[:n]; len(rest) > 0; {
		if c.left > 0 {
			k := min(c.left, len(rest))
			rest, c.left = rest[k:], c.left-k
			continue
		}
		if len(c.head) == recordHead {
			c.head = nil
		}
		c.head, rest = append(c.head, rest[0]), rest[1:]
		if len(c.head) == recordHead {
			c.left = int(binary.BigEndian.Uint16(c.head[3:]))
		}
	}
	return n, err
}

const recordHead = 5

// alerted tells whether the last record is an alert: by its type, which TLS 1.3 hides, or by its length, which no message here has.
func (c *tapped) alerted() bool {
	const alert, hidden, length, sealed = 21, 23, 2 + 1, 16
	return len(c.head) == recordHead &&
		(c.head[0] == alert || c.head[0] == hidden && binary.BigEndian.Uint16(c.head[3:]) == length+sealed)
}

var versions = []kind{tls12, tls13}

// TLS ends by halves as TCP does, without TCP's FIN: each side is told by close_notify that the other has ended, and may go on.
func TestHalfCloseByNotify(t *testing.T) { bothDrivers(t, testHalfCloseByNotify) }

func testHalfCloseByNotify(t *testing.T) {
	t.Parallel()
	for _, version := range versions {
		for _, c := range []struct {
			name string
			want ws.Kind
			run  func(r *rig)
		}{
			{"the client first", ws.ClientClosed, func(r *rig) {
				r.client.send(true, ws.Binary, "question")
				r.client.sendClose(1000, "")
				r.client.notify()
				if got, err := io.ReadAll(r.backend.r); string(got) != "question" || err != nil {
					t.Errorf("the stream got %q, %v", got, err)
				}
				r.backend.notified()
				r.backend.write([]byte("answer"))
				r.backend.notify()
				r.client.want(true, ws.Binary, "answer")
				r.client.wantClose(1000, "")
				r.client.wantEnd()
				r.client.notified()
			}},
			{"the stream first", ws.BackendClosed, func(r *rig) {
				r.backend.write([]byte("all there is"))
				r.backend.notify()
				r.client.want(true, ws.Binary, "all there is")
				r.client.wantClose(1000, "")
				r.client.sendClose(1000, "")
				r.client.wantEnd()
				r.client.notified()
				if got, err := io.ReadAll(r.backend.r); len(got) > 0 || err != nil {
					t.Errorf("the stream got %q, %v", got, err)
				}
				r.backend.notified()
			}},
		} {
			t.Run(fmt.Sprint(version, ", ", c.name), func(t *testing.T) {
				t.Parallel()
				r := newLinkRig(t, quiet(), version, version, Backend{Stream: true, Message: ws.Binary, Linger: patience})
				r.link.Start()
				c.run(r)
				r.wantCause(c.want)
			})
		}
	}
}

// A WebSocket's end by close_notify without a Close is one without a Close, whoever says it, and the other side is told.
func TestNotifyWithoutAClose(t *testing.T) { bothDrivers(t, testNotifyWithoutAClose) }

func testNotifyWithoutAClose(t *testing.T) {
	t.Parallel()
	for _, version := range versions {
		t.Run(string(version), func(t *testing.T) {
			t.Parallel()
			for _, want := range []ws.Kind{ws.ClientGone, ws.BackendGone} {
				r := newLinkRig(t, quiet(), version, version, Backend{})
				r.link.Start()
				who, other, code := r.client, r.backend, told[want].backend
				if want == ws.BackendGone {
					who, other, code = r.backend, r.client, told[want].client
				}
				who.send(true, ws.Text, "last words")
				who.notify()
				other.want(true, ws.Text, "last words")
				answer(other, code, told[want].reason)
				r.wantCause(want)
			}
		})
	}
}

// Headers of every form, fragments and control frames between them, written byte by byte where something begins or ends: over TLS
// each byte is a record.
func TestEachByteAlone(t *testing.T) { bothDrivers(t, testEachByteAlone) }

func testEachByteAlone(t *testing.T) {
	t.Parallel()
	for _, kinds := range [][2]kind{{plain, plain}, {tls12, tls13}, {tls13, tls12}, {http2, plain}, {unix, unix}} {
		t.Run(fmt.Sprint(kinds), func(t *testing.T) {
			t.Parallel()
			r := newLinkRig(t, quiet(), kinds[0], kinds[1], Backend{})
			r.link.Start()
			for _, c := range []struct{ from, to *peer }{{r.client, r.backend}, {r.backend, r.client}} {
				frames := everyForm(c.from)
				go func() {
					for _, f := range frames {
						c.from.nibble(f.append(nil))
					}
				}()
				for _, f := range frames {
					c.to.want(f.fin, f.op, f.payload)
				}
			}
		})
	}
}

// everyForm gives frames of the sizes at which headers change, whole and as the fragments of one message, with control frames between.
func everyForm(from *peer) (frames []frame) {
	sizes := []int{0, 1, 125, 126, 127, 65535, 65536, 1 << 20}
	for i, n := range sizes {
		payload := strings.Repeat(string(rune('a'+i)), n)
		frames = append(frames, from.frame(true, ws.Binary, payload), from.frame(true, ws.Ping, payload[:min(n, 125)]))
	}
	op := ws.Text
	for i, n := range slices.Backward(sizes) {
		frames = append(frames, from.frame(i == 0, op, strings.Repeat("x", n)))
		if i > 0 {
			frames = append(frames, from.frame(true, ws.Pong, "between"), from.frame(true, ws.Ping, ""))
		}
		op = ws.Continuation
	}
	return frames
}

// nibble writes the first and the last bytes each alone, and what is between them at once.
func (p *peer) nibble(b []byte) {
	const edge = 20 // more than a header
	written := 0
	for len(b) > 0 {
		n := 1
		if written == edge && len(b) > edge {
			n = len(b) - edge
		}
		p.write(b[:n])
		b, written = b[n:], written+n
	}
}

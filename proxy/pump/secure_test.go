package pump

import (
	"crypto/tls"
	"fmt"
	"io"
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
				if got, err := io.ReadAll(r.backend.r); string(got) != "question" || err != nil { // no end but close_notify is without an error
					t.Errorf("the stream got %q, %v", got, err)
				}
				r.backend.write([]byte("answer"))
				r.backend.notify()
				r.client.want(true, ws.Binary, "answer")
				r.client.wantClose(1000, "")
				r.client.wantEnd()
			}},
			{"the stream first", ws.BackendClosed, func(r *rig) {
				r.backend.write([]byte("all there is"))
				r.backend.notify()
				r.client.want(true, ws.Binary, "all there is")
				r.client.wantClose(1000, "")
				r.client.sendClose(1000, "")
				r.client.wantEnd()
				if got, err := io.ReadAll(r.backend.r); len(got) > 0 || err != nil {
					t.Errorf("the stream got %q, %v", got, err)
				}
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
	for i, n := 0, 1; i < len(b); i += n {
		if n = 1; i == edge && len(b) > 2*edge {
			n = len(b) - 2*edge
		}
		p.write(b[i : i+n])
	}
}

package pump

import (
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"bridgehead/ws"
)

// Frames of every length around the limits of their headers and of the buffers, cut anywhere, pass whole.
func TestFramesOfEverySize(t *testing.T) { bothDrivers(t, testFramesOfEverySize) }

func testFramesOfEverySize(t *testing.T) {
	t.Parallel()
	for _, kinds := range [][2]kind{{plain, plain}, {tls13, plain}, {plain, tls12}, {http2, plain}} {
		t.Run(string(kinds[0]+" to "+kinds[1]), func(t *testing.T) {
			t.Parallel()
			r := newLinkRig(t, quiet(), kinds[0], kinds[1], Backend{})
			r.link.Start()
			var sizes []int
			for _, edge := range []int{2, 125, 127, 512, 4 << 10, maxRecord, chunkSize, 48 << 10, 1<<16 + 1, 1 << 17} {
				for off := -2; off <= 2; off++ {
					sizes = append(sizes, edge+off)
				}
			}
			for _, c := range []struct{ from, to *peer }{{r.client, r.backend}, {r.backend, r.client}} {
				var frames []frame
				for i, n := range sizes {
					frames = append(frames, c.from.frame(true, ws.Binary, strings.Repeat(string(rune('a'+i%26)), n)))
					frames = append(frames, c.from.frame(true, ws.Ping, "between"))
				}
				go c.from.dribble(wire(frames), 4)
				for _, f := range frames {
					c.to.want(f.fin, f.op, f.payload)
				}
			}
		})
	}
}

// A message in 100,000 pieces, with pings between them, costs no memory and arrives as it was sent.
func TestManyTinyFragments(t *testing.T) { bothDrivers(t, testManyTinyFragments) }

func testManyTinyFragments(t *testing.T) {
	t.Parallel()
	r := startLink(t, quiet())
	const n = 100_000
	go func() {
		var b []byte
		op := ws.Text
		for i := range n {
			b = r.client.frame(i == n-1, op, "x").append(b)
			if op = ws.Continuation; i%1000 == 0 {
				b = r.client.frame(true, ws.Ping, "p").append(b)
			}
		}
		r.client.dribble(b, 5)
	}()
	got, pings := 0, 0
	for f := (frame{}); !f.fin || f.op.IsControl(); {
		if f = r.backend.next(); f.op == ws.Ping {
			pings++
			continue
		}
		got += len(f.payload)
	}
	if got != n || pings != n/1000 {
		t.Errorf("%d bytes and %d pings came", got, pings)
	}
	r.client.sendClose(1000, "")
	r.backend.wantClose(1000, "")
	r.backend.sendClose(1000, "")
	r.wantCause(ws.ClientClosed)
	r.wantCounts(1, n, 0, 0)
}

// Who floods does not keep others of the same loops from their turn.
func TestAFloodBesideAWhisper(t *testing.T) { bothDrivers(t, testAFloodBesideAWhisper) }

func testAFloodBesideAWhisper(t *testing.T) {
	t.Parallel()
	for range 4 {
		r := startLink(t, quiet())
		go r.client.flood(r.client.frame(true, ws.Binary, strings.Repeat("x", 1<<20)).append(nil))
		go io.Copy(io.Discard, r.backend.r)
	}
	whisper := startLink(t, quiet())
	for range 100 {
		whisper.client.send(true, ws.Text, "psst")
		whisper.backend.want(true, ws.Text, "psst")
	}
}

// However what both sides send is cut into writes, the same comes out, and the socket ends for the same cause.
func FuzzCuts(f *testing.F) {
	ping := frame{fin: true, op: ws.Ping, masked: true, payload: "ping"}.append(nil)
	text := frame{fin: true, op: ws.Text, masked: true, payload: strings.Repeat("text ", 60)}.append(nil)
	bye := frame{fin: true, op: ws.Close, masked: true, payload: closePayload(1000, "bye")}.append(nil)
	f.Add(slices.Concat(text, ping, text, bye), uint64(1))
	f.Add(slices.Concat(text, []byte{0x82, 0xFF, 0, 0}), uint64(2))
	f.Add([]byte{0x81, 0x01, 'x'}, uint64(3))
	f.Fuzz(func(t *testing.T, sent []byte, seed uint64) {
		want, wantCause := throughLink(t, func(p *peer) { p.Write(sent) }, nil)
		got, cause := throughLink(t, func(p *peer) {
			rnd := rand.New(rand.NewPCG(seed, 6))
			for rest := sent; len(rest) > 0; {
				n := 1 + rnd.IntN(len(rest))
				if _, err := p.Write(rest[:n]); err != nil {
					return
				}
				rest = rest[n:]
			}
		}, loops)
		if got != want || cause != wantCause {
			t.Errorf("%q and %v, by the other driver in one piece %q and %v", got, cause, want, wantCause)
		}
	})
}

// throughLink gives what a backend reads of what a client sends, and why the socket ended.
func throughLink(t *testing.T, send func(*peer), on *Loops) (string, ws.Kind) {
	t.Helper()
	r := newRig(t, quiet(), unix)
	ours, theirs := unix.pair(t, false)
	r.ours, r.backend = ours, newPeer(t, theirs, false)
	r.socket.Loops = on
	r.link = NewLink(r.socket, Backend{Conn: ours})
	close(r.driven)
	r.link.Start()
	go func() {
		send(r.client)
		r.client.Conn.(interface{ CloseWrite() error }).CloseWrite()
		io.Copy(io.Discard, r.client.r)
	}()
	go func() { // it hangs up as soon as it is told to
		<-r.ending.Done()
		r.client.Close()
	}()
	r.backend.impatient(unix)
	got, _ := io.ReadAll(&untilClose{r: r.backend})
	r.backend.Close()
	<-r.closed
	return string(got), r.cause.Kind
}

// untilClose gives the bytes of frames up to a Close that is not the client's own words: what we say of the end.
type untilClose struct {
	r    *peer
	rest []byte
}

func (u *untilClose) Read(p []byte) (int, error) {
	if len(u.rest) == 0 {
		f, err := readFrame(u.r.r)
		if err != nil || f.op == ws.Close {
			return 0, io.EOF
		}
		f.masked, f.key = false, [4]byte{}
		u.rest = f.append(nil)
	}
	n := copy(p, u.rest)
	u.rest = u.rest[n:]
	return n, nil
}

package pump

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"

	"bridgehead/ws"
)

// Whatever the two ends send reaches the other end frame by frame as it was sent, in order, once; messages from the outbox stand
// between messages, and pings of ours between frames. What comes out is read by a parser that knows nothing of package ws.
func TestFramesPassAsTheyCome(t *testing.T) { bothDrivers(t, testFramesPassAsTheyCome) }

func testFramesPassAsTheyCome(t *testing.T) {
	t.Parallel()
	for _, kinds := range [][2]kind{
		{plain, plain}, {plain, unix}, {tls13, plain}, {plain, tls13}, {tls12, tls13}, {tls13, tls12}, {pipe, pipe},
	} {
		t.Run(fmt.Sprintf("%s to %s", kinds[0], kinds[1]), func(t *testing.T) {
			t.Parallel()
			relayBothWays(t, kinds[0], kinds[1])
		})
	}
}

// The prefixes of payloads that the peers did not send.
const (
	pushed = "push "
	pinged = "own "
)

const relayed = 400 // messages each way

func relayBothWays(t *testing.T, clients, backends kind) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	up, down := traffic(seed, true), traffic(seed+1, false)
	early := wire(down)[:50000] // more than a chunk
	r := newLinkRig(t, quiet(), clients, backends, Backend{Early: bytes.Clone(early)})
	gotUp, gotDown := make(chan []frame, 1), make(chan []frame, 1)
	go func() { gotUp <- r.backend.collect(seed) }()
	go func() { gotDown <- r.client.collect(seed) }()
	r.link.Start()
	var sending, wg sync.WaitGroup
	sending.Go(func() { r.client.dribble(wire(up), seed+2) })
	sending.Go(func() { r.backend.dribble(wire(down)[len(early):], seed+3) })
	sent := make(chan struct{})
	var pushes int64
	wg.Go(func() { pushes = r.pushUntil(sent) })
	wg.Go(func() { r.pingUntil(sent) })
	sending.Wait()
	close(sent)
	wg.Wait()
	up, down = append(up, r.client.frame(true, ws.Text, "end")), append(down, r.backend.frame(true, ws.Text, "end"))
	r.client.send(true, ws.Text, "end")
	r.backend.send(true, ws.Text, "end")

	compare(t, "backend", up, <-gotUp)
	compare(t, "client", down, <-gotDown)
	r.client.sendClose(4001, "enough")
	r.backend.wantClose(4001, "enough")
	r.backend.sendClose(4001, "enough")
	r.client.wantClose(4001, "enough")
	if clients != pipe {
		r.client.wantEnd()
		r.backend.wantEnd()
	}
	r.wantCause(ws.ClientClosed)
	messagesIn, bytesIn := sum(up)
	messagesOut, bytesOut := sum(down)
	r.wantCounts(messagesIn, bytesIn, messagesOut+pushes, bytesOut+pushBytes(pushes))
}

// traffic is a random sequence of messages and control frames.
func traffic(seed uint64, masked bool) (frames []frame) {
	rnd := rand.New(rand.NewPCG(seed, 1))
	add := func(fin bool, op ws.Opcode, payload string) {
		f := frame{fin: fin, op: op, masked: masked, payload: payload}
		if masked {
			f.key = [4]byte{byte(rnd.Uint32()), byte(rnd.Uint32()), byte(rnd.Uint32()), byte(rnd.Uint32())}
		}
		frames = append(frames, f)
	}
	for i := range relayed {
		op := ws.Opcode(1 + rnd.IntN(2))
		fragments := 1 + max(0, rnd.IntN(8)-4)
		for k := range fragments {
			if rnd.IntN(4) == 0 {
				add(true, ws.Ping+ws.Opcode(rnd.IntN(2)), fmt.Sprint("control ", i, k))
			}
			size := []int{0, 1, 10, 100, 125, 126, 200, 1000, 5000, 70000}[rnd.IntN(20)*rnd.IntN(20)/40]
			add(k == fragments-1, op, fmt.Sprint(i, " ", k, strings.Repeat("x", size)))
			op = ws.Continuation
		}
	}
	return frames
}

func wire(frames []frame) (b []byte) {
	for _, f := range frames {
		b = f.append(b)
	}
	return b
}

func sum(frames []frame) (messages, bytes int64) {
	for _, f := range frames {
		if f.op.IsControl() {
			continue
		}
		bytes += int64(len(f.payload))
		if f.fin {
			messages++
		}
	}
	return messages, bytes
}

func pushBytes(pushes int64) (n int64) {
	for i := range pushes {
		n += int64(len(pushed) + len(strconv.FormatInt(i, 10)))
	}
	return n
}

// dribble writes b in pieces of random length.
func (p *peer) dribble(b []byte, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 2))
	for len(b) > 0 {
		n := 1 + rnd.IntN([]int{3, 100, 5000, 50000}[rnd.IntN(4)])
		n = min(n, len(b))
		p.write(b[:n])
		b = b[n:]
	}
}

// collect reads until the text "end" has come. It checks the grammar of frames and messages, and gives what is not ours: pushes and
// pings.
func (p *peer) collect(seed uint64) (frames []frame) {
	for open, next := false, 0; ; {
		f, err := readFrame(p.r)
		if err != nil {
			p.t.Errorf("after %d frames, seed %d: %v", len(frames), seed, err)
			return frames
		}
		if f.masked == p.masked {
			p.t.Errorf("%v: both directions are masked alike", f)
		}
		switch {
		case f.op.IsControl():
			if !strings.HasPrefix(f.payload, pinged) {
				frames = append(frames, f)
			}
			continue
		case (f.op == ws.Continuation) != open:
			p.t.Errorf("%v while a message is open: %v", f, open)
			return frames
		case strings.HasPrefix(f.payload, pushed):
			if want := pushed + strconv.Itoa(next); f.payload != want || !f.fin {
				p.t.Errorf("pushed %v, want %q", f, want)
			}
			next++
			continue
		}
		frames = append(frames, f)
		open = !f.fin
		if f.payload == "end" {
			return frames
		}
	}
}

func compare(t *testing.T, who string, want, got []frame) {
	t.Helper()
	for i := range min(len(want), len(got)) {
		if want[i] != got[i] {
			t.Fatalf("frame %d at the %s is %v, was sent as %v", i, who, got[i], want[i])
		}
	}
	if len(want) != len(got) {
		t.Fatalf("%d frames came to the %s, %d were sent", len(got), who, len(want))
	}
}

// pushUntil sends numbered messages, a few at a time, and waits until all have been sent.
func (r *rig) pushUntil(enough <-chan struct{}) (pushes int64) {
	room := make(chan struct{}, 3)
	for more := true; more && pushes < 5000; pushes++ {
		room <- struct{}{}
		m := ws.Message{Op: ws.Text, Data: []byte(pushed + strconv.FormatInt(pushes, 10)), Done: func(err error) {
			if err != nil {
				r.t.Errorf("a push is done with %v", err)
			}
			<-room
		}}
		if err := r.push(m); err != nil {
			r.t.Errorf("push %d: %v", pushes, err)
		}
		select {
		case <-enough:
			more = false
		default:
		}
	}
	for range cap(room) {
		room <- struct{}{}
	}
	return pushes
}

// pingUntil sends pings of ours to both sides.
func (r *rig) pingUntil(enough <-chan struct{}) {
	for i := range 5000 {
		for to := range sides {
			r.link.(probe).insertFrame(to, ws.AppendFrame(nil, ws.Ping, []byte(pinged+strconv.Itoa(i)), to == backend))
		}
		select {
		case <-enough:
			return
		default:
		}
	}
}

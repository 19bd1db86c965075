package pump

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"bridgehead/ws"
)

// Who does not take what is sent to it ends the socket after the write timeout, whichever way it is sent.
func TestSlowSides(t *testing.T) { bothDrivers(t, testSlowSides) }

func testSlowSides(t *testing.T) {
	t.Parallel()
	o := quiet()
	o.WriteTimeout, o.CloseTimeout = 200*time.Millisecond, 200*time.Millisecond
	large := strings.Repeat("x", 1<<20)
	for _, c := range []struct {
		name   string
		stream bool
		send   func(r *rig)
		want   ws.Kind
	}{
		{"the client, of a backend", false, func(r *rig) { r.backend.flood(r.backend.frame(true, ws.Binary, large).append(nil)) }, ws.ClientSlow},
		{"the client, of a stream", true, func(r *rig) { r.backend.flood([]byte(large)) }, ws.ClientSlow},
		{"the client, of pushes", false, func(r *rig) {
			for {
				r.push(ws.Message{Op: ws.Binary, Data: make([]byte, 64<<10)})
				select {
				case <-r.ending.Done():
					return
				default:
				}
			}
		}, ws.ClientSlow},
		{"the backend", false, func(r *rig) { r.client.flood(r.client.frame(true, ws.Binary, large).append(nil)) }, ws.BackendSlow},
		{"the stream", true, func(r *rig) { r.client.flood(r.client.frame(true, ws.Binary, large).append(nil)) }, ws.BackendSlow},
	} {
		for _, kinds := range [][2]kind{{plain, plain}, {tls13, tls13}, {http2, plain}} {
			t.Run(fmt.Sprint(c.name, " ", kinds), func(t *testing.T) {
				t.Parallel()
				r := newLinkRig(t, o, kinds[0], kinds[1], Backend{Stream: c.stream, Message: ws.Binary})
				r.link.Start()
				c.send(r)
				r.wantCause(c.want)
			})
		}
	}
}

// A peer that takes a large message slowly, but takes it, is not ended however long it takes.
func TestSlowIsNotStuck(t *testing.T) { bothDrivers(t, testSlowIsNotStuck) }

func testSlowIsNotStuck(t *testing.T) {
	t.Parallel()
	o := quiet()
	o.WriteTimeout = 2 * time.Second
	const size = 4 << 20
	read := func(t *testing.T, r *rig) {
		start := time.Now()
		got := 0
		for got < size {
			b := make([]byte, size/25)
			n, err := r.client.r.Read(b[:min(len(b), size-got)])
			if err != nil {
				t.Fatalf("after %d bytes, %v: %v", got, time.Since(start), err)
			}
			if got += n; time.Since(start) < 2*o.WriteTimeout {
				<-time.After(time.Duration(n) * 2 * o.WriteTimeout / size) // as slow as that
			}
		}
	}
	push := ws.Message{Op: ws.Binary, Data: make([]byte, size)}
	t.Run("Link", func(t *testing.T) {
		t.Parallel()
		r := newLinkRig(t, o, tight, plain, Backend{})
		r.link.Start()
		r.push(push)
		read(t, r)
	})
	t.Run("Messages", func(t *testing.T) {
		t.Parallel()
		r := startMessagesOver(t, o, tight, nil, nothing)
		r.push(push)
		read(t, r)
	})
}

// What a slow side is offered is not hoarded. (Not parallel: it looks at the memory of the whole process.)
func TestMemoryStaysFlat(t *testing.T) { bothDrivers(t, testMemoryStaysFlat) }

func testMemoryStaysFlat(t *testing.T) {
	const sockets = 8
	var rigs [sockets]*rig
	for i := range rigs {
		rigs[i] = startLink(t, quiet())
	}
	large := rigs[0].backend.frame(true, ws.Binary, strings.Repeat("x", 16<<20)).append(nil)
	before := heap()
	for _, r := range rigs {
		r.backend.stuff(large)
	}
	if grown := (heap() - before) / sockets; grown > 160<<10 { // one read of 128 KiB, and what a link is
		t.Errorf("a blocked socket holds %d KiB", grown>>10)
	}
	runtime.KeepAlive(large)
}

// heap is the memory in use, without what pools may drop.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

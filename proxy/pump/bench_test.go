package pump

import (
	"fmt"
	"io"
	"testing"

	"bridgehead/ws"
)

// A message goes from the client through the link to a backend that sends it back: two relayed messages an operation. Nothing is
// allocated for them on plain connections.
func BenchmarkEcho(b *testing.B) {
	for _, kinds := range [][2]kind{{plain, plain}, {tls13, plain}} {
		for _, size := range []int{64, 16 << 10, 1 << 20} {
			b.Run(fmt.Sprint(kinds[0], " to ", kinds[1], " ", size), func(b *testing.B) {
				r := newLinkRig(b, DefaultOptions(), kinds[0], kinds[1], Backend{})
				r.link.Start()
				there, back := size+8, size+4
				if size >= 1<<16 {
					there, back = size+14, size+10
				}
				if size < 126 {
					there, back = size+6, size+2
				}
				go bounce(r.backend, there, r.backend.frame(true, ws.Binary, string(make([]byte, size))).append(nil))
				request := r.client.frame(true, ws.Binary, string(make([]byte, size))).append(nil)
				answer := make([]byte, back)
				echoes(b, r.client, request, answer)
			})
		}
	}
}

// The same with a byte stream as the backend.
func BenchmarkStreamEcho(b *testing.B) {
	for _, message := range []ws.Opcode{ws.Binary, ws.Text} {
		b.Run(fmt.Sprint(message), func(b *testing.B) {
			r := newLinkRig(b, DefaultOptions(), plain, plain, Backend{Stream: true, Message: message})
			r.link.Start()
			const size = 64
			go bounce(r.backend, size, make([]byte, size))
			request := r.client.frame(true, ws.Binary, string(make([]byte, size))).append(nil)
			echoes(b, r.client, request, make([]byte, size+2))
		})
	}
}

func BenchmarkMessagesEcho(b *testing.B) {
	r := startMessages(b, DefaultOptions(), echo)
	const size = 64
	request := r.client.frame(true, ws.Binary, string(make([]byte, size))).append(nil)
	echoes(b, r.client, request, make([]byte, size+2))
}

// bounce answers each request of n bytes.
func bounce(p *peer, n int, answer []byte) {
	request := make([]byte, n)
	for {
		if _, err := io.ReadFull(p.Conn, request); err != nil {
			return
		}
		if _, err := p.Write(answer); err != nil {
			return
		}
	}
}

func echoes(b *testing.B, p *peer, request, answer []byte) {
	b.SetBytes(int64(len(request) + len(answer)))
	b.ReportAllocs()
	for b.Loop() {
		p.write(request)
		if _, err := io.ReadFull(p.Conn, answer); err != nil {
			b.Fatal(err)
		}
	}
}

// The benchmark's claim as a test.
func TestNothingIsAllocatedForAMessage(t *testing.T) {
	bothDrivers(t, testNothingIsAllocatedForAMessage)
}

func testNothingIsAllocatedForAMessage(t *testing.T) {
	for name, to := range map[string]Backend{"relay": {}, "stream": {Stream: true, Message: ws.Text}} {
		t.Run(name, func(t *testing.T) {
			r := newLinkRig(t, DefaultOptions(), plain, plain, to)
			r.link.Start()
			n, answer := 64, make([]byte, 64)
			if !to.Stream {
				n, answer = 64+6, r.backend.frame(true, ws.Text, string(answer)).append(nil)
			}
			go bounce(r.backend, n, answer)
			request := r.client.frame(true, ws.Binary, string(make([]byte, 64))).append(nil)
			got := make([]byte, 64+2)
			allocs := testing.AllocsPerRun(2000, func() {
				r.client.write(request)
				if _, err := io.ReadFull(r.client.Conn, got); err != nil {
					t.Fatal(err)
				}
			})
			if allocs != 0 {
				t.Errorf("%v allocations for a message there and back", allocs)
			}
		})
	}
}

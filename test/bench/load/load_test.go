//go:build linux

package load

import (
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"bridgehead/internal/leak"
	"bridgehead/test/bench/echo"
	"bridgehead/test/bench/frame"
	"bridgehead/ws"
)

func TestMain(m *testing.M) { leak.Main(m) }

// backend is an echo that ends with the test.
func backend(t *testing.T) *echo.Server {
	t.Helper()
	s, err := echo.Listen()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Serve(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return s
}

func short(s Spec) Spec {
	s.Path, s.Warmup, s.Duration = "/", 10*time.Millisecond, 50*time.Millisecond
	return s
}

// Without a proxy between, load and echo get along at every size.
func TestEcho(t *testing.T) {
	t.Parallel()
	address := backend(t).WebSocket
	for _, s := range []Spec{
		{Connections: 1, Size: 1, Burst: 1},
		{Connections: 70, Size: 64, Burst: 1},
		{Connections: 3, Size: 64, Burst: 16},
		{Connections: 3, Size: 16 << 10, Burst: 2},
		{Connections: 2, Size: 1 << 20, Burst: 1},
	} {
		s = short(s)
		s.Kind, s.Address = Echo, address
		s.Stall = 10 * time.Second // for machines that are busy
		got, err := Run(t.Context(), s)
		if err != nil {
			t.Errorf("%d sockets of %d x %d bytes: %v", s.Connections, s.Burst, s.Size, err)
			continue
		}
		if got.Trips%s.Burst != 0 || got.Elapsed < 50*time.Millisecond || got.P50 <= 0 || got.P99 < got.P50 || got.Load <= 0 {
			t.Errorf("%d sockets of %d x %d bytes: %+v", s.Connections, s.Burst, s.Size, got)
		}
	}
}

func TestHandshakes(t *testing.T) {
	t.Parallel()
	got, err := Run(t.Context(), short(Spec{Kind: Handshake, Address: backend(t).WebSocket, Connections: 4}))
	if err != nil || got.Trips == 0 || got.P50 <= 0 {
		t.Errorf("%+v, %v", got, err)
	}
}

// liar answers a handshake, and every read with the same bytes.
func liar(t *testing.T, answer []byte) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { l.Close(); wg.Wait() })
	wg.Go(func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		buffer := make([]byte, 64<<10)
		n, err := conn.Read(buffer)
		if err != nil {
			return
		}
		_, key, _ := strings.Cut(string(buffer[:n]), "Sec-WebSocket-Key: ")
		key, _, _ = strings.Cut(key, "\r\n")
		for write := ws.AppendAnswer(nil, key, ws.Answer{}); err == nil; _, err = conn.Read(buffer) {
			if _, err := conn.Write(write); err != nil {
				return
			}
			write = answer
		}
	})
	return l.Addr().String()
}

// A proxy that breaks something is told, not timed.
func TestFaults(t *testing.T) {
	t.Parallel()
	honest := newPayload(0, 8, 1).want
	for _, test := range []struct {
		fault  string
		answer []byte
		want   string
	}{
		{"other bytes", ws.AppendFrame(nil, ws.Binary, []byte("garbage!"), false), "the echo differs"},
		{"too many bytes", ws.AppendFrame(nil, ws.Binary, append(honest, 'x'), false), "the echo differs"},
		{"too few bytes", ws.AppendFrame(nil, ws.Binary, honest[:7], false), "1 of 1 sockets had no echo in"},
		{"a close", ws.AppendCloseFrame(nil, ws.CodeTooBig, "too big", false), "closed with 1009 too big"},
	} {
		t.Run(test.fault, func(t *testing.T) {
			t.Parallel()
			s := short(Spec{Kind: Echo, Address: liar(t, test.answer), Connections: 1, Size: 8, Burst: 1})
			s.Warmup = 0
			if got, err := Run(t.Context(), s); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%+v, %v; want %q", got, err, test.want)
			}
		})
	}
}

// A socket that is forgotten while others are served spoils the measurement.
func TestForgotten(t *testing.T) {
	t.Parallel()
	l, err := open(t.Context(), &dialer{}, Spec{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	began := time.Now()
	l.conns = []*conn{{began: began.Add(-time.Second)}, {began: began.Add(time.Second)}}
	s := Spec{Duration: time.Millisecond, Stall: time.Millisecond}
	if err := l.runAll(t.Context(), began, s); err == nil || !strings.HasPrefix(err.Error(), "1 of 2 sockets had no echo in ") {
		t.Errorf("%v", err)
	}
	l.conns = l.conns[1:]
	if err := l.runAll(t.Context(), began, s); err != nil {
		t.Errorf("all were served: %v", err)
	}
}

// A refusal is quoted.
func TestRefusal(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { l.Close(); wg.Wait() })
	wg.Go(func() {
		if conn, err := l.Accept(); err == nil {
			io.WriteString(conn, "HTTP/1.1 403 Forbidden\r\n\r\n")
			io.Copy(io.Discard, conn)
			conn.Close()
		}
	})
	_, err = Run(t.Context(), short(Spec{Kind: Echo, Address: l.Addr().String(), Connections: 1, Size: 8, Burst: 1}))
	if err == nil || !strings.Contains(err.Error(), "403 Forbidden") {
		t.Errorf("%v does not tell the status", err)
	}
}

// What a socket sends are masked messages of the size and number asked for, and other ones than its neighbour's.
func TestPayload(t *testing.T) {
	t.Parallel()
	p := newPayload(1, 300, 3)
	var got []byte
	messages := 0
	for rest := p.frames; len(rest) > 0; messages++ {
		h, n := frame.Parse(rest)
		if !h.Fin || h.Opcode != ws.Binary || !h.Masked || h.Length != 300 {
			t.Fatalf("message %d has the header %+v", messages, h)
		}
		part := bytes.Clone(rest[n : n+300])
		ws.Mask(part, h.Mask, 0)
		got, rest = append(got, part...), rest[n+300:]
	}
	if messages != 3 || !bytes.Equal(got, p.want) {
		t.Errorf("%d messages, whose payload is as expected: %t", messages, bytes.Equal(got, p.want))
	}
	if bytes.Equal(p.want, newPayload(2, 300, 3).want) {
		t.Error("two sockets send the same")
	}
}

func TestHistogram(t *testing.T) {
	t.Parallel()
	var h Histogram
	for i := range 1000 {
		h.Add(time.Duration(i+1) * time.Microsecond)
	}
	for q, want := range map[float64]time.Duration{0: time.Microsecond, 0.5: 500 * time.Microsecond, 0.99: 990 * time.Microsecond, 1: time.Millisecond} {
		if got := h.Quantile(q); got > want || got < want-want/60 {
			t.Errorf("quantile %v is %s, want %s or a little less", q, got, want)
		}
	}
	if got := new(Histogram).Quantile(0.5); got != 0 {
		t.Errorf("the median of nothing is %s", got)
	}
	for _, n := range []uint64{0, 1, 63, 64, 65, 127, 128, 1000, 1 << 40, 1<<63 - 1} {
		if low, high := floor(bucket(n)), floor(bucket(n)+1); n < low || n >= high || float64(high-low) > max(1, float64(n)/60) {
			t.Errorf("%d is counted among %d to %d", n, low, high)
		}
	}
}

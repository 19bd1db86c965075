package frame

import (
	"bytes"
	"slices"
	"testing"

	"bridgehead/ws"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for _, length := range []int64{0, 1, 125, 126, 65535, 65536, 1 << 40} {
		for _, masked := range []bool{false, true} {
			want := ws.Header{Fin: true, Opcode: ws.Binary, Masked: masked, Length: length}
			if masked {
				want.Mask = [4]byte{1, 2, 3, 4}
			}
			p := ws.AppendHeader(nil, want)
			if got, n := Parse(append(slices.Clone(p), "payload"...)); got != want || n != len(p) {
				t.Errorf("length %d: %+v in %d bytes, want %+v in %d", length, got, n, want, len(p))
			}
			for cut := range p {
				if _, n := Parse(p[:cut]); n != 0 {
					t.Errorf("length %d: %d bytes of %d are taken for a header", length, cut, len(p))
				}
			}
		}
	}
}

// stream is what a client may send, and what it is answered.
func stream() (sent, answer []byte) {
	for _, m := range []struct {
		op, answer ws.Opcode
		payload    []byte
	}{
		{ws.Text, ws.Text, []byte("hello")},
		{ws.Binary, ws.Binary, nil},
		{ws.Ping, ws.Pong, []byte("are you there?")},
		{ws.Binary, ws.Binary, bytes.Repeat([]byte("0123456789"), 7000)},
		{ws.Pong, ws.Pong, []byte("x")},
		{ws.Close, ws.Close, []byte("\x03\xe8bye")},
	} {
		sent = ws.AppendFrame(sent, m.op, m.payload, true)
		answer = ws.AppendFrame(answer, m.answer, m.payload, false)
	}
	return append(sent, "what follows a Close is nobody's"...), answer
}

// However the stream is cut, the answer is the same.
func TestMirror(t *testing.T) {
	t.Parallel()
	sent, want := stream()
	for _, size := range []int{1, 2, 3, 5, 13, 14, 64, 1000, 65536, len(sent)} {
		var m Mirror
		var got, rest []byte
		for chunk := range slices.Chunk(slices.Clone(sent), size) {
			var answer []byte
			answer, rest = m.Reflect(slices.Concat(rest, chunk))
			got = append(got, answer...)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("chunks of %d: %d bytes are answered by %d, want %d, the first difference is at %d",
				size, len(sent), len(got), len(want), difference(got, want))
		}
		if !m.Closed {
			t.Errorf("chunks of %d: not closed", size)
		}
	}
}

func difference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

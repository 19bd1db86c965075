package ws

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
)

func TestHeaderBytes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		h    Header
		wire string
	}{
		{Header{Fin: true, Opcode: Text, Length: 5}, "81 05"},
		{Header{Opcode: Binary, RSV1: true}, "42 00"},
		{Header{Fin: true, Opcode: Ping, Masked: true, Mask: [4]byte{1, 2, 3, 4}, Length: 125}, "89 fd 01 02 03 04"},
		{Header{Fin: true, Opcode: Binary, Length: 126}, "82 7e 00 7e"},
		{Header{Fin: true, Opcode: Binary, Length: 65535}, "82 7e ff ff"},
		{Header{Opcode: Continuation, Length: 65536}, "00 7f 00 00 00 00 00 01 00 00"},
		{Header{Fin: true, Opcode: Binary, Masked: true, Mask: [4]byte{9}, Length: 1<<63 - 1}, "82 ff 7f ff ff ff ff ff ff ff 09 00 00 00"},
	} {
		wire := AppendHeader(nil, c.h)
		if !bytes.Equal(wire, unhex(t, c.wire)) {
			t.Errorf("%+v is written as %x, want %s", c.h, wire, c.wire)
		}
		for cut := range wire {
			var h Header
			if size, err := h.parse(wire[:cut]); size != 0 || err != nil {
				t.Errorf("%x: parsed as %+v, %v", wire[:cut], h, err)
			}
		}
		h := Header{Mask: [4]byte{5, 6, 7, 8}} // of a frame before
		if size, err := h.parse(append(wire, 0xFF)); h != c.h || size != len(wire) || err != nil {
			t.Errorf("%x: parsed as %+v, size %d, %v", wire, h, size, err)
		}
	}
}

func FuzzHeader(f *testing.F) {
	f.Add([]byte{0x81, 0x05})
	f.Add([]byte{0x82, 0xFF, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4})
	f.Fuzz(func(t *testing.T, b []byte) {
		var h Header
		size, err := h.parse(b)
		if err != nil || size == 0 {
			return
		}
		if wire := AppendHeader(nil, h); !bytes.Equal(wire, b[:size]) {
			t.Errorf("%x was read as %+v, which is written %x", b[:size], h, wire)
		}
	})
}

// RFC 6455, section 5.7, has examples; section 5.3 asks for a key that cannot be foretold.
func TestAppendFrame(t *testing.T) {
	t.Parallel()
	if got := AppendFrame([]byte{7}, Text, []byte("Hello"), false); !bytes.Equal(got, unhex(t, "07 81 05 48 65 6c 6c 6f")) {
		t.Errorf("unmasked: %x", got)
	}
	keys := map[string]bool{}
	for range 100 {
		frame := AppendFrame(nil, Ping, []byte("Hello"), true)
		var h Header
		size, err := h.parse(frame)
		if err != nil || !h.Masked || !h.Fin || h.Opcode != Ping || h.Length != 5 {
			t.Fatalf("%x: %+v, %v", frame, h, err)
		}
		keys[string(h.Mask[:])] = true
		if Mask(frame[size:], h.Mask, 0); string(frame[size:]) != "Hello" {
			t.Fatalf("unmasked to %q", frame[size:])
		}
	}
	if len(keys) < 95 {
		t.Errorf("%d keys for 100 frames", len(keys))
	}
}

// RFC 6455, section 5.3: octet i of the payload is XORed with octet i modulo 4 of the key, wherever a chunk begins.
func TestMask(t *testing.T) {
	t.Parallel()
	key := [4]byte{0x12, 0x34, 0x56, 0x78}
	for length := range 140 {
		for pos := range 4 {
			p := make([]byte, length)
			for i := range p {
				p[i] = byte(rand.Uint32())
			}
			want := bytes.Clone(p)
			for i := range want {
				want[i] ^= key[(pos+i)%4]
			}
			half := length / 3
			next := Mask(p[half:], key, Mask(p[:half], key, pos))
			if !bytes.Equal(p, want) || next != (pos+length)%4 {
				t.Fatalf("%d bytes at %d: %x, next %d; want %x", length, pos, p, next, want)
			}
		}
	}
}

func BenchmarkMask(b *testing.B) {
	for _, size := range []int{64, 16 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			p := make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				Mask(p, [4]byte{1, 2, 3, 4}, 1)
			}
		})
	}
}

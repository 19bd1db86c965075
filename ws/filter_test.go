package ws

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// swallow is a Control as a driver has it: pongs of ours do not pass.
func swallow(op Opcode, payload []byte) bool { return op != Pong || len(payload)%2 == 0 }

// drive runs a stream through a filter in chunks whose sizes cut gives, and checks on the way what holds for each chunk.
func drive(t *testing.T, f Filter, stream []byte, cut func() int, want outcome) outcome {
	t.Helper()
	var got outcome
	if f.Control != nil {
		inner := f.Control
		f.Control = func(op Opcode, payload []byte) bool {
			got.events = append(got.events, fmt.Sprintf("%d %q", op, payload))
			return inner(op, payload)
		}
	}
	buf := make([]byte, MaxHeaderSize+MaxControlPayload+len(stream))
	for len(stream) > 0 {
		held := f.Held(buf)
		if held > MaxHeaderSize+MaxControlPayload {
			t.Fatalf("%d bytes held", held)
		}
		n := copy(buf[held:], stream[:min(max(cut(), 1), len(stream))])
		stream = stream[n:]
		p, err := f.Pass(buf[:held+n])
		before := len(got.out)
		got.out = append(got.out, p.Out...)
		got.messages += p.Messages
		got.counted += p.Frames
		got.bytes += p.Bytes
		if p.Frame != last(want.frames, before, len(got.out)) || p.Message != last(want.places, before, len(got.out)) {
			t.Fatalf("Frame %d, Message %d for Out %d to %d; frames end at %v, messages at %v",
				p.Frame, p.Message, before, len(got.out), want.frames, want.places)
		}
		if p.Close != nil {
			got.closed += fmt.Sprintf("%d %q", p.Close.Code, p.Close.Reason)
		}
		if err != nil && got.err == "" {
			got.err = err.Error()
		}
		clear(buf) // other sockets use it in between
	}
	got.midFrame, got.midMessage = f.MidFrame(), f.MidMessage()
	got.frames, got.places = want.frames, want.places
	return got
}

// last is the offset of the last place in (from, to], counted from the former.
func last(places []int, from, to int) int {
	for _, at := range slices.Backward(places) {
		if at > from && at <= to {
			return at - from
		}
	}
	return -1
}

// compare drives a stream whole, byte by byte and in random pieces, and compares each outcome with the reference's.
func compare(t *testing.T, f Filter, stream []byte, seed uint64) {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 0))
	want := expect(f, stream, f.Control)
	for name, cut := range map[string]func() int{
		"whole":        func() int { return len(stream) },
		"byte by byte": func() int { return 1 },
		"small pieces": func() int { return random.IntN(9) },
		"large pieces": func() int { return random.IntN(300) },
	} {
		if got := drive(t, f, stream, cut, want); fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
			t.Fatalf("%s: %s\nstream %x\ngot  %+v\nwant %+v", name, settings(f), stream, got, want)
		}
	}
}

func settings(f Filter) string {
	return fmt.Sprintf("FromClient %t, Deflate %t, MaxMessage %d, MaxFragments %d, Strip %t, CheckText %t, Only %d, Control %t",
		f.FromClient, f.Deflate, f.MaxMessage, f.MaxFragments, f.Strip, f.CheckText, f.Only, f.Control != nil)
}

// filterOf makes the settings that some bits stand for.
func filterOf(bits uint16) Filter {
	f := Filter{
		FromClient: bits&1 != 0,
		Strip:      bits&2 != 0,
		CheckText:  bits&12 == 4,
		Deflate:    bits&12 == 8,
		MaxMessage: []int64{0, 0, 20, 200}[bits>>4&3],
		Only:       []Opcode{0, 0, 0, 0, 0, 0, Text, Binary}[bits>>6&7],
	}
	f.MaxFragments = []int32{0, 0, 1, 3}[bits>>10&3]
	if bits>>9&1 != 0 {
		f.Control = swallow
	}
	return f
}

// Any split of the input gives the same output, events and errors, and they are what a plain decoder of the whole gives.
func TestFilterAgainstReference(t *testing.T) {
	t.Parallel()
	for seed := range uint64(1000) {
		random := rand.New(rand.NewPCG(seed, 1))
		f := filterOf(uint16(random.Uint32()))
		compare(t, f, randomStream(random, f), seed)
	}
}

func FuzzFilter(f *testing.F) {
	for seed := range uint64(64) {
		random := rand.New(rand.NewPCG(seed, 2))
		bits := uint16(random.Uint32())
		f.Add(randomStream(random, filterOf(bits)), bits, seed)
	}
	f.Fuzz(func(t *testing.T, stream []byte, bits uint16, seed uint64) {
		compare(t, filterOf(bits), stream[:min(len(stream), 4096)], seed)
	})
}

// randomStream writes frames such as a peer may send, mostly in order, and breaks a rule now and then.
func randomStream(random *rand.Rand, f Filter) []byte {
	var stream []byte
	inside := false
	for range random.IntN(12) {
		h := Header{Fin: random.IntN(3) > 0, Masked: f.FromClient, Opcode: Text + Opcode(random.IntN(2))}
		payload := randomPayload(random)
		switch {
		case random.IntN(3) == 0:
			h.Opcode, h.Fin = []Opcode{Ping, Pong, Pong, Ping, Close}[random.IntN(5)], true
			payload = payload[:min(len(payload), random.IntN(127))]
		case inside:
			h.Opcode, inside = Continuation, !h.Fin
		default:
			h.RSV1 = f.Deflate && random.IntN(2) == 0
			inside = !h.Fin
		}
		if h.Opcode == Close && random.IntN(3) > 0 {
			payload = AppendClose(nil, Code(1000+random.IntN(16)), "bye")
		}
		if random.IntN(60) == 0 {
			h.Opcode = Opcode(random.IntN(16))
		}
		if random.IntN(80) == 0 {
			h.Masked = !h.Masked
		}
		stream = appendRandom(random, stream, h, payload)
	}
	if len(stream) > 0 && random.IntN(8) == 0 {
		stream[random.IntN(len(stream))] ^= 1 << random.IntN(8)
	}
	return stream[:len(stream)-min(len(stream), random.IntN(20)*random.IntN(2))]
}

func appendRandom(random *rand.Rand, stream []byte, h Header, payload []byte) []byte {
	if h.Masked {
		h.Mask = [4]byte{byte(random.Uint32()), byte(random.Uint32()), 0, byte(random.Uint32())}
	}
	h.Length = int64(len(payload))
	stream = AppendHeader(stream, h)
	start := len(stream)
	stream = append(stream, payload...)
	Mask(stream[start:], h.Mask, 0)
	return stream
}

func randomPayload(random *rand.Rand) []byte {
	text := strings.Repeat("aé€😀\u0000", 1+random.IntN(30))
	text = text[:random.IntN(len(text)+1)]
	payload := []byte(text)
	if len(payload) > 0 && random.IntN(10) == 0 {
		payload[random.IntN(len(payload))] = byte(random.Uint32())
	}
	return payload
}

// unhex reads bytes written in groups.
func unhex(t *testing.T, s string) []byte {
	t.Helper()
	var b []byte
	if _, err := fmt.Sscanf(strings.ReplaceAll(s, " ", ""), "%x", &b); err != nil && s != "" {
		t.Fatal(err)
	}
	return b
}

func TestFilterRules(t *testing.T) {
	t.Parallel()
	client := Filter{FromClient: true}
	for _, c := range []struct {
		rule string
		f    Filter
		in   string // from a server unless the filter says FromClient
		out  string
		code Code
	}{
		{"5.2: RSV2 is reserved", Filter{}, "a1 00", "", 1002},
		{"5.2: RSV3 is reserved", Filter{Deflate: true}, "91 00", "", 1002},
		{"5.2: RSV1 is reserved without permessage-deflate", Filter{}, "c1 00", "", 1002},
		{"RFC 7692 6: RSV1 on the first frame of a message", Filter{Deflate: true}, "41 01 61 80 00", "41 01 61 80 00", 0},
		{"RFC 7692 6: no RSV1 on a continuation", Filter{Deflate: true}, "41 01 61 c0 00", "41 01 61", 1002},
		{"RFC 7692 6: no RSV1 on a control frame", Filter{Deflate: true}, "c9 00", "", 1002},
		{"5.2: opcode 3 is reserved", Filter{}, "83 00", "", 1002},
		{"5.2: opcode B is reserved", Filter{}, "8b 00", "", 1002},
		{"5.1: a client masks", client, "81 01 61", "", 1002},
		{"5.1: a client masks its control frames too", client, "89 00", "", 1002},
		{"5.1: a server does not mask", Filter{}, "81 81 00 00 00 00 61", "", 1002},
		{"5.1: a masked frame passes as it came", client, "81 82 01 02 03 04 60 60", "81 82 01 02 03 04 60 60", 0},
		{"5.5: control frames have at most 125 bytes", Filter{}, "89 7e 00 7e", "", 1002},
		{"5.5: control frames are not fragmented", Filter{}, "09 00", "", 1002},
		{"5.4: control frames may stand between fragments", Filter{}, "01 00 89 00 80 00", "01 00 89 00 80 00", 0},
		{"5.4: a continuation needs a beginning", Filter{}, "80 00", "", 1002},
		{"5.4: after the last fragment comes a new message", Filter{}, "01 00 80 00 80 00", "01 00 80 00", 1002},
		{"5.4: no new message inside a fragmented one", Filter{}, "01 00 81 00", "01 00", 1002},
		{"5.2: the top bit of a length is clear", Filter{}, "82 7f 80 00 00 00 00 00 00 00", "", 1002},
		{"5.2: 125 needs no two bytes", Filter{}, "82 7e 00 7d", "", 1002},
		{"5.2: 65535 needs no eight bytes", Filter{}, "82 7f 00 00 00 00 00 00 ff ff", "", 1002},
		{"5.5.1: half a close code", Filter{}, "88 01 03", "", 1002},
		{"5.5.1: a close reason is UTF-8", Filter{}, "88 03 03 e8 ff", "", 1007},
		{"5.5.1: nothing follows a Close", Filter{}, "88 00 81 01 61", "88 00", 0},
		{"7.4.1: 1005 passes as an empty Close", Filter{}, "88 02 03 ed", "88 00", 0},
		{"7.4.1: 1006 with a reason passes as an empty Close", Filter{}, "88 03 03 ee 61", "88 00", 0},
		{"7.4.2: 999 passes as an empty Close, masked as it came", client, "88 82 01 02 03 04 02 e5", "88 80 01 02 03 04", 0},
		{"8.1: text is UTF-8", Filter{CheckText: true}, "81 02 61 ff", "81 02 61", 1007},
		{"8.1: a rune may span fragments", Filter{CheckText: true}, "01 01 c3 80 01 a9", "01 01 c3 80 01 a9", 0},
		{"8.1: a rune must not be cut", Filter{CheckText: true}, "81 01 c3", "81 01 c3", 1007},
		{"8.1: binary need not be text", Filter{CheckText: true}, "82 01 ff", "82 01 ff", 0},
		{"a declared length too big lets no byte pass", Filter{MaxMessage: 2}, "82 03 01 02 03", "", 1009},
		{"fragments are added up", Filter{MaxMessage: 2}, "02 01 01 80 02 02 03", "02 01 01", 1009},
		{"a message of the greatest size passes", Filter{MaxMessage: 2}, "02 01 01 80 01 02 82 02 03 04", "02 01 01 80 01 02 82 02 03 04", 0},
		{"one fragment too many passes not a byte", Filter{MaxFragments: 2}, "01 00 89 00 00 01 61 80 01 62", "01 00 89 00 00 01 61", 1008},
		{"each message has its fragments", Filter{MaxFragments: 2}, "01 00 80 00 01 00 80 00 82 00", "01 00 80 00 01 00 80 00 82 00", 0},
		{"text where only binary is taken", Filter{Only: Binary}, "82 00 81 00", "82 00", 1003},
		{"binary where only text is taken", Filter{Only: Text}, "81 00 82 00", "81 00", 1003},
		{"Strip: payload alone, unmasked", Filter{FromClient: true, Strip: true},
			"02 82 01 02 03 04 60 60 89 80 00 00 00 00 80 81 01 00 00 00 62", "61 62 63", 0},
	} {
		t.Run(c.rule, func(t *testing.T) {
			t.Parallel()
			p, err := c.f.Pass(unhex(t, c.in))
			var broken *ProtocolError
			if errors.As(err, &broken) != (c.code != 0) || broken != nil && broken.Code != c.code {
				t.Errorf("error %v, want code %d", err, c.code)
			}
			if want := unhex(t, c.out); !bytes.Equal(p.Out, want) {
				t.Errorf("out %x, want %x", p.Out, want)
			}
			again, err2 := c.f.Pass([]byte{0x89, 0x00})
			if err != nil && (len(again.Out) > 0 || err2 != err) {
				t.Errorf("after the error: out %x, error %v", again.Out, err2)
			}
		})
	}
}

// A driver learns from each chunk where it may put a frame of its own.
func TestFilterBoundaries(t *testing.T) {
	t.Parallel()
	f := Filter{Control: func(op Opcode, _ []byte) bool { return op == Ping }}
	for _, step := range []struct {
		name, in             string
		frame, message       int
		midFrame, midMessage bool
	}{
		{"a fragment and a beginning", "01 01 61 80", 3, -1, false, true},
		{"the held byte and a part", "80 02 62", -1, -1, true, true},
		{"the rest", "63", 1, 1, false, false},
		{"a ping between messages is a place for both", "89 00", 2, 2, false, false},
		{"a pong that does not pass moves nothing", "8a 00", -1, -1, false, false},
		{"whole messages, the last one cut", "82 01 61 82 01 62 82 05 63", 6, 6, true, true},
	} {
		held := make([]byte, MaxHeaderSize+MaxControlPayload)
		in := unhex(t, step.in)
		if n := f.Held(held); n > 0 && !bytes.HasPrefix(in, held[:n]) {
			t.Fatalf("%s: held %x", step.name, held[:n])
		}
		p, err := f.Pass(in)
		if err != nil || p.Frame != step.frame || p.Message != step.message {
			t.Errorf("%s: frame %d, message %d, error %v; want %d, %d", step.name, p.Frame, p.Message, err, step.frame, step.message)
		}
		if f.MidFrame() != step.midFrame || f.MidMessage() != step.midMessage {
			t.Errorf("%s: inside a frame %t, a message %t", step.name, f.MidFrame(), f.MidMessage())
		}
	}
}

func TestFilterAllocatesNothing(t *testing.T) {
	for _, f := range []Filter{
		{FromClient: true, MaxMessage: 1 << 20, Control: swallow},
		{FromClient: true, CheckText: true, Control: swallow},
		{FromClient: true, CheckText: true, Strip: true},
	} {
		var burst []byte
		for range 16 {
			burst = AppendFrame(burst, Text, bytes.Repeat([]byte("a"), 64), true)
			burst = AppendFrame(burst, Pong, []byte("odd"), true)
		}
		chunk := make([]byte, len(burst))
		got := testing.AllocsPerRun(100, func() {
			copy(chunk, burst)
			if _, err := f.Pass(chunk); err != nil {
				t.Fatal(err)
			}
		})
		if got != 0 {
			t.Errorf("%s: %v allocations for a burst", settings(f), got)
		}
	}
}

func BenchmarkFilterPass(b *testing.B) {
	for _, c := range []struct {
		name   string
		size   int
		frames int
		f      Filter
	}{
		{"relay 64 B", 64, 1, Filter{FromClient: true, MaxMessage: 1 << 20}},
		{"relay 16 x 64 B", 64, 16, Filter{FromClient: true, MaxMessage: 1 << 20}},
		{"relay 16 KiB", 16 << 10, 1, Filter{FromClient: true, MaxMessage: 1 << 20}},
		{"relay 16 KiB text checked", 16 << 10, 1, Filter{FromClient: true, MaxMessage: 1 << 20, CheckText: true}},
		{"strip 64 B", 64, 1, Filter{FromClient: true, Strip: true}},
		{"strip 16 x 64 B", 64, 16, Filter{FromClient: true, Strip: true}},
		{"strip 16 KiB", 16 << 10, 1, Filter{FromClient: true, Strip: true}},
	} {
		b.Run(c.name, func(b *testing.B) {
			var in []byte
			for range c.frames { // with a key of zeros, so that unmasking in place leaves the input as it is
				in = AppendHeader(in, Header{Fin: true, Opcode: Text, Masked: true, Length: int64(c.size)})
				in = append(in, bytes.Repeat([]byte("a"), c.size)...)
			}
			chunk := slices.Clone(in)
			b.SetBytes(int64(c.size * c.frames))
			b.ReportAllocs()
			for b.Loop() {
				if c.f.Strip && c.frames > 1 {
					copy(chunk, in) // it is compacted in place
				}
				if _, err := c.f.Pass(chunk); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

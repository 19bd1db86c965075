package ws

import (
	"encoding/binary"
	"fmt"
	"slices"
	"unicode/utf8"
)

// An outcome is all that a Filter makes of a stream, over all chunks.
type outcome struct {
	out             []byte
	events          []string // the calls of Control
	frames, places  []int    // offsets in out where a control frame, a data message may be put
	messages, bytes int
	counted         int // frames
	closed          string
	err             string
	midFrame        bool
	midMessage      bool
}

// A reference decodes a whole stream at once in the plainest way, byte by byte: what the Filter is compared with.
type reference struct {
	Filter // the settings alone
	got    outcome
	open   Opcode // the type of the open message
	inside bool   // a message is open
	text   []byte // of the open message
	size   int64
	pieces int32 // of the open message
}

// expect tells what a filter with these settings is to make of the stream. Control lets passes decide.
func expect(settings Filter, stream []byte, passes func(op Opcode, payload []byte) bool) outcome {
	r := reference{Filter: settings}
	r.Control = passes
	for r.got.err == "" && r.got.closed == "" {
		n := r.one(stream)
		if n == 0 {
			break
		}
		stream = stream[n:]
	}
	r.got.midMessage = r.inside && !r.Strip
	return r.got
}

func (r *reference) fail(code Code, format string, args ...any) {
	r.got.err = (&ProtocolError{code, fmt.Sprintf(format, args...)}).Error()
}

// one decodes the frame at the front of b and returns its size; 0 if it is cut or in error.
func (r *reference) one(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	fin, rsv, op, masked, n := b[0]>>7 == 1, b[0]>>4&7, Opcode(b[0]&15), b[1]>>7 == 1, uint64(b[1]&127)
	control := op >= 8
	switch {
	case rsv&3 != 0:
		r.fail(1002, "reserved bit set")
	case slices.Contains([]Opcode{3, 4, 5, 6, 7, 11, 12, 13, 14, 15}, op):
		r.fail(1002, "reserved opcode 0x%X", byte(op))
	case rsv == 4 && op != 1 && op != 2:
		r.fail(1002, "compression bit on a control or continuation frame")
	case control && !fin:
		r.fail(1002, "fragmented control frame")
	case control && n > 125:
		r.fail(1002, "control frame longer than 125 bytes")
	}
	if r.got.err != "" {
		return 0
	}
	lengths := map[uint64]int{126: 2, 127: 8}[n]
	head := 2 + lengths
	if masked {
		head += 4
	}
	if len(b) < head {
		return 0
	}
	if lengths == 2 {
		n = uint64(binary.BigEndian.Uint16(b[2:]))
	} else if lengths == 8 {
		n = binary.BigEndian.Uint64(b[2:])
	}
	r.rules(op, n, lengths, masked, rsv == 4)
	if r.got.err != "" {
		return 0
	}
	key := []byte{0, 0, 0, 0}
	if masked {
		key = b[head-4 : head]
	}
	available := min(n, uint64(len(b)-head))
	payload := make([]byte, available)
	for i := range payload {
		payload[i] = b[head+i] ^ key[i%4]
	}
	if control {
		if available < n {
			return 0
		}
		r.control(op, b[:head], payload, b[:head+int(n)])
	} else {
		r.data(op, fin, b[:head], payload, b[head:head+int(available)], available == n)
		if available < n {
			return 0
		}
	}
	return head + int(n)
}

// rules are those that need the whole header.
func (r *reference) rules(op Opcode, n uint64, lengths int, masked, compressed bool) {
	switch {
	case n >= 1<<63:
		r.fail(1002, "frame length with its top bit set")
	case lengths == 2 && n < 126, lengths == 8 && n < 65536:
		r.fail(1002, "frame length %d in %d bytes, which is not the shortest form", n, lengths)
	case masked && !r.FromClient:
		r.fail(1002, "masked frame from a server")
	case !masked && r.FromClient:
		r.fail(1002, "unmasked frame from a client")
	case compressed && !r.Deflate:
		r.fail(1002, "compression bit set, but compression was not negotiated")
	case op >= 8:
	case op == 0 && !r.inside:
		r.fail(1002, "continuation of no message")
	case op != 0 && r.inside:
		r.fail(1002, "new message inside a fragmented one")
	case op == 1 && r.Only == 2:
		r.fail(1003, "text message where only binary is taken")
	case op == 2 && r.Only == 1:
		r.fail(1003, "binary message where only text is taken")
	case r.MaxFragments > 0 && op == 0 && r.pieces == r.MaxFragments:
		r.fail(1008, "message of more than %d fragments", r.MaxFragments)
	case r.MaxMessage > 0 && int64(n) > r.MaxMessage-r.size:
		r.fail(1009, "message longer than %d bytes", r.MaxMessage)
	}
}

func (r *reference) control(op Opcode, head, payload, frame []byte) {
	r.got.counted++
	if op != Close {
		passes := r.Control == nil
		if r.Control != nil {
			r.got.events = append(r.got.events, fmt.Sprintf("%d %q", op, payload))
			passes = r.Control(op, payload)
		}
		if passes && !r.Strip {
			r.got.out = append(r.got.out, frame...)
			r.boundary()
		}
		return
	}
	code, reason := CodeNoStatus, ""
	switch {
	case len(payload) == 1:
		r.fail(1002, "close frame with half a code")
		return
	case len(payload) > 1 && !utf8.Valid(payload[2:]):
		r.fail(1007, "close reason is not UTF-8")
		return
	case len(payload) > 1:
		code, reason = Code(payload[0])<<8|Code(payload[1]), string(payload[2:])
		if !code.Sendable() {
			code, reason = CodeNoStatus, ""
			frame = append([]byte{head[0], head[1] & 0x80}, head[2:]...)
		}
	}
	r.got.closed = fmt.Sprintf("%d %q", code, reason)
	if !r.Strip {
		r.got.out = append(r.got.out, frame...)
	}
}

func (r *reference) data(op Opcode, fin bool, head, payload, wire []byte, whole bool) {
	if op != Continuation {
		r.open, r.text, r.pieces = op, nil, 0
	}
	r.got.counted++
	r.pieces++
	r.inside = true
	if !r.Strip {
		r.got.out = append(r.got.out, head...)
	} else {
		wire = payload
	}
	for i, b := range payload {
		r.text = append(r.text, b)
		if r.CheckText && r.open == Text && !canBecomeText(r.text) {
			r.fail(1007, "text is not UTF-8")
			r.got.midFrame = !r.Strip
			return
		}
		r.got.out = append(r.got.out, wire[i])
		r.got.bytes++
	}
	r.size += int64(len(payload))
	if !whole {
		r.got.midFrame = !r.Strip
		return
	}
	if fin {
		r.inside, r.size = false, 0
		if r.CheckText && r.open == Text && !utf8.Valid(r.text) {
			r.fail(1007, "text ends inside a UTF-8 sequence")
			return
		}
		r.got.messages++
	}
	r.boundary()
}

func (r *reference) boundary() {
	if r.Strip {
		return
	}
	r.got.frames = append(r.got.frames, len(r.got.out))
	if !r.inside {
		r.got.places = append(r.got.places, len(r.got.out))
	}
}

// canBecomeText tries whether some bytes behind p make it valid UTF-8.
func canBecomeText(p []byte) bool {
	for len(p) > 0 {
		r, size := utf8.DecodeRune(p)
		if r == utf8.RuneError && size == 1 {
			break
		}
		p = p[size:]
	}
	var beginning [utf8.UTFMax]byte
	return len(p) == 0 || len(p) < utf8.UTFMax && canBecomeRune(beginning, copy(beginning[:], p))
}

func canBecomeRune(r [utf8.UTFMax]byte, n int) bool {
	for _, b := range []byte{0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF} {
		r[n] = b
		if utf8.Valid(r[:n+1]) || n+1 < utf8.UTFMax && canBecomeRune(r, n+1) {
			return true
		}
	}
	return false
}

package ws

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"math/bits"
)

// Sizes of RFC 6455, section 5.2 and 5.5.
const (
	MaxHeaderSize     = 14  // the longest frame header: two bytes, a 64-bit length and a mask
	MaxControlPayload = 125 // the longest payload of a ping, a pong or a Close
)

// The bits of a frame's first two bytes, and the values of the length that announce a longer field.
const (
	finBit     = 0x80
	rsv1Bit    = 0x40
	rsv23Bits  = 0x30
	opcodeBits = 0x0F
	maskBit    = 0x80
	lengthBits = 0x7F

	length16 = 126
	length64 = 127
)

// A Header is the head of one frame.
type Header struct {
	Fin    bool
	RSV1   bool // the message is compressed (RFC 7692, section 6)
	Opcode Opcode
	Masked bool
	Mask   [4]byte
	Length int64 // of the payload, in bytes
}

// AppendHeader appends h in its shortest encoding.
func AppendHeader(dst []byte, h Header) []byte {
	first, second := byte(h.Opcode)&opcodeBits, byte(0)
	if h.Fin {
		first |= finBit
	}
	if h.RSV1 {
		first |= rsv1Bit
	}
	if h.Masked {
		second = maskBit
	}
	switch {
	case h.Length <= MaxControlPayload:
		dst = append(dst, first, second|byte(h.Length))
	case h.Length <= 0xFFFF:
		dst = binary.BigEndian.AppendUint16(append(dst, first, second|length16), uint16(h.Length))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, first, second|length64), uint64(h.Length))
	}
	if h.Masked {
		dst = append(dst, h.Mask[:]...)
	}
	return dst
}

// AppendFrame appends a whole message in one frame, or a control frame. A masked one, for a server, gets a fresh key from the
// system's random source (RFC 6455, section 5.3).
func AppendFrame(dst []byte, op Opcode, payload []byte, masked bool) []byte {
	h := Header{Fin: true, Opcode: op, Masked: masked, Length: int64(len(payload))}
	if !masked {
		return append(AppendHeader(dst, h), payload...)
	}
	dst = AppendHeader(dst, h)
	key := [4]byte{}
	rand.Read(dst[len(dst)-len(key):])
	copy(key[:], dst[len(dst)-len(key):])
	start := len(dst)
	dst = append(dst, payload...)
	Mask(dst[start:], key, 0)
	return dst
}

// Mask masks or unmasks p in place. Pos is the place of p[0] in the frame's payload; Mask returns that of the byte behind p. Both
// count modulo 4 (RFC 6455, section 5.3).
func Mask(p []byte, key [4]byte, pos int) int {
	end := (pos + len(p)) & 3
	word := bits.RotateLeft32(binary.LittleEndian.Uint32(key[:]), -8*(pos&3))
	wide := uint64(word)<<32 | uint64(word)
	for len(p) >= 32 {
		q := p[:32]
		binary.LittleEndian.PutUint64(q[0:], binary.LittleEndian.Uint64(q[0:])^wide)
		binary.LittleEndian.PutUint64(q[8:], binary.LittleEndian.Uint64(q[8:])^wide)
		binary.LittleEndian.PutUint64(q[16:], binary.LittleEndian.Uint64(q[16:])^wide)
		binary.LittleEndian.PutUint64(q[24:], binary.LittleEndian.Uint64(q[24:])^wide)
		p = p[32:]
	}
	for len(p) >= 8 {
		binary.LittleEndian.PutUint64(p, binary.LittleEndian.Uint64(p)^wide)
		p = p[8:]
	}
	for i := range p {
		p[i] ^= byte(wide >> (8 * i))
	}
	return end
}

// parse reads the header at the front of b and returns its size, or 0 if it is not complete yet. It checks what can be checked
// without knowing what came before.
func (h *Header) parse(b []byte) (int, error) {
	if len(b) < 2 {
		return 0, nil
	}
	first, second := b[0], b[1]
	h.Fin = first&finBit != 0
	h.RSV1 = first&rsv1Bit != 0
	h.Opcode = Opcode(first & opcodeBits)
	h.Masked = second&maskBit != 0
	h.Length = int64(second & lengthBits)
	if err := h.check(first&rsv23Bits != 0); err != nil {
		return 0, err
	}
	lengthEnd := 2
	switch h.Length {
	case length16:
		lengthEnd += 2
	case length64:
		lengthEnd += 8
	}
	size := lengthEnd
	if h.Masked {
		size += len(h.Mask)
	}
	if len(b) < size {
		return 0, nil
	}
	if lengthEnd > 2 {
		if err := h.readLength(b[2:lengthEnd]); err != nil {
			return 0, err
		}
	}
	h.Mask = [4]byte{}
	if h.Masked {
		h.Mask = [4]byte(b[lengthEnd:])
	}
	return size, nil
}

// check applies the rules for the first two bytes: reserved bits and opcodes (RFC 6455, section 5.2), control frames short and
// in one piece (section 5.5), compression marked on the first frame of a message alone (RFC 7692, section 6).
func (h *Header) check(rsv23 bool) error {
	switch {
	case rsv23:
		return protocolError("reserved bit set")
	case h.Opcode > Binary && h.Opcode < Close || h.Opcode > Pong:
		return protocolError(fmt.Sprintf("reserved opcode 0x%X", byte(h.Opcode)))
	case h.RSV1 && h.Opcode != Text && h.Opcode != Binary:
		return protocolError("compression bit on a control or continuation frame")
	case h.Opcode.IsControl() && !h.Fin:
		return protocolError("fragmented control frame")
	case h.Opcode.IsControl() && h.Length > MaxControlPayload:
		return protocolError("control frame longer than 125 bytes")
	}
	return nil
}

// readLength reads the longer length fields: in network byte order, in as few bytes as possible, with the top bit clear.
func (h *Header) readLength(b []byte) error {
	var n, least uint64
	if len(b) == 2 {
		n, least = uint64(binary.BigEndian.Uint16(b)), length16
	} else {
		n, least = binary.BigEndian.Uint64(b), 1<<16
	}
	switch {
	case n>>63 != 0:
		return protocolError("frame length with its top bit set")
	case n < least:
		return protocolError(fmt.Sprintf("frame length %d in %d bytes, which is not the shortest form", n, len(b)))
	}
	h.Length = int64(n)
	return nil
}

// Package frame reads and turns around WebSocket frames for the two ends of a benchmark, which know what to expect and check no
// more than that.
package frame

import (
	"encoding/binary"

	"bridgehead/ws"
)

// Parse reads the frame header (RFC 6455, section 5.2) at the front of p. Its length is 0 if p holds but a part of it.
func Parse(p []byte) (h ws.Header, length int) {
	if len(p) < 2 {
		return h, 0
	}
	h = ws.Header{Fin: p[0]&0x80 != 0, RSV1: p[0]&0x40 != 0, Opcode: ws.Opcode(p[0] & 0x0f), Masked: p[1]&0x80 != 0}
	length = 2
	switch short := p[1] & 0x7f; short {
	case 126:
		length += 2
	case 127:
		length += 8
	default:
		h.Length = int64(short)
	}
	lengthEnd := length
	if h.Masked {
		length += len(h.Mask)
	}
	if len(p) < length {
		return h, 0
	}
	switch lengthEnd {
	case 4:
		h.Length = int64(binary.BigEndian.Uint16(p[2:]))
	case 10:
		h.Length = int64(binary.BigEndian.Uint64(p[2:]))
	}
	copy(h.Mask[:], p[lengthEnd:length])
	return h, length
}

// A Mirror turns the frames of a client into the same frames as a server sends them, in place and while they stream: a message of
// any length needs no more memory than the chunk it comes in. Pings become pongs. The zero value is ready.
type Mirror struct {
	Closed bool // the client's Close has passed: the answer to it is the last that is sent

	op   ws.Opcode // of the frame that is passing
	left int64     // of its payload
	key  [4]byte
	pos  int
}

// Reflect gives the answer to a chunk, and what remains of it: a header that is cut short, which belongs at the front of the next
// chunk. Both alias the chunk.
func (m *Mirror) Reflect(chunk []byte) (answer, rest []byte) {
	answer = chunk[:0] // it never overtakes what is still to be read: a server's header is shorter than a client's
	for len(chunk) > 0 && !m.Closed {
		if m.left == 0 {
			h, length := Parse(chunk)
			if length == 0 {
				return answer, chunk
			}
			chunk = chunk[length:]
			answer = m.begin(answer, h)
		}
		n := int(min(m.left, int64(len(chunk))))
		answer = append(answer, chunk[:n]...)
		m.pos = ws.Mask(answer[len(answer)-n:], m.key, m.pos)
		m.left -= int64(n)
		chunk = chunk[n:]
		m.Closed = m.op == ws.Close && m.left == 0
	}
	return answer, nil
}

// begin answers a header.
func (m *Mirror) begin(answer []byte, h ws.Header) []byte {
	m.op, m.left, m.key, m.pos = h.Opcode, h.Length, h.Mask, 0
	h.Masked = false
	if h.Opcode == ws.Ping {
		h.Opcode = ws.Pong
	}
	return ws.AppendHeader(answer, h)
}

package pump

import (
	"bytes"
	"unicode/utf8"

	"bridgehead/ws"
)

// frameAround puts a header in front of payload, in place when payload lies in buf behind the headroom.
func frameAround(buf, payload []byte, op ws.Opcode) []byte {
	at := cap(buf) - cap(payload) // where payload begins, if it lies in buf
	if at < ws.MaxHeaderSize || &buf[:at+1][at] != &payload[0] {
		return ws.AppendFrame(nil, op, payload, false)
	}
	var space [ws.MaxHeaderSize]byte
	header := ws.AppendHeader(space[:0], ws.Header{Fin: true, Opcode: op, Length: int64(len(payload))})
	copy(buf[at-len(header):at], header)
	return buf[at-len(header) : at+len(payload)]
}

// wholeMessage is what passes when payload, which may lie in buf, becomes a message.
func wholeMessage(buf, payload []byte, op ws.Opcode) ws.Passed {
	frame := frameAround(buf, payload, op)
	return ws.Passed{Out: frame, Frame: len(frame), Message: len(frame), Messages: 1, Bytes: len(payload)}
}

// replacement stands for bytes that are no text.
var replacement = []byte(string(utf8.RuneError))

// text cuts a byte stream into valid UTF-8 messages (RFC 6455, section 8.1): a rune that a read cut goes to the next message,
// and what cannot be text becomes U+FFFD.
type text struct {
	carry [utf8.UTFMax]byte
	n     int
}

// message gives the message for the n bytes behind the headroom of buf.
func (t *text) message(buf []byte, n int) []byte {
	payload := buf[headroom-t.n : headroom+n]
	copy(payload, t.carry[:t.n])
	t.n = copy(t.carry[:], payload[len(payload)-cutRune(payload):])
	payload = payload[:len(payload)-t.n]
	if !utf8.Valid(payload) {
		payload = bytes.ToValidUTF8(payload, replacement)
	}
	return payload
}

// rest gives the last message, when the stream has ended: a rune that it cut short cannot be text any more.
func (t *text) rest() []byte {
	if t.n == 0 {
		return nil
	}
	return replacement
}

// cutRune is the number of bytes at the end of p that begin a rune and do not end it.
func cutRune(p []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(p); n++ {
		if tail := p[len(p)-n:]; utf8.RuneStart(tail[0]) {
			if utf8.FullRune(tail) {
				return 0
			}
			return n
		}
	}
	return 0
}

package ws

import (
	"encoding/binary"
	"strings"
	"unicode/utf8"
)

// maxReason is the longest reason, in bytes: what a control frame has room for behind the code.
const maxReason = MaxControlPayload - 2

// A CloseFrame is what a peer said in its Close.
type CloseFrame struct {
	Code   Code // CodeNoStatus if the frame was empty, or its code may not be sent
	Reason string
}

// Sendable reports whether c may stand in a Close frame: the registered codes but for those that describe an end without one,
// and the ranges for libraries and applications (RFC 6455, section 7.4, and the IANA registry of close codes).
func (c Code) Sendable() bool {
	switch {
	case c >= 1000 && c <= 1003, c >= 1007 && c <= 1014, c >= 3000 && c <= 4999:
		return true
	}
	return false
}

// ParseClose reads the payload of a Close frame (RFC 6455, section 5.5.1). An empty one, and one whose code may not be sent,
// gives CodeNoStatus. The error is a *ProtocolError.
func ParseClose(payload []byte) (Code, string, error) {
	if len(payload) == 0 {
		return CodeNoStatus, "", nil
	}
	if len(payload) == 1 {
		return 0, "", protocolError("close frame with half a code")
	}
	if !utf8.Valid(payload[2:]) {
		return 0, "", &ProtocolError{CodeInvalidPayload, "close reason is not UTF-8"}
	}
	code := Code(binary.BigEndian.Uint16(payload))
	if !code.Sendable() {
		return CodeNoStatus, "", nil
	}
	return code, string(payload[2:]), nil
}

// AppendClose appends the payload of a Close frame. A code that may not be sent gives an empty payload. A reason that is too
// long is cut to 123 bytes between two runes; what is not UTF-8 in it is replaced.
func AppendClose(dst []byte, code Code, reason string) []byte {
	if !code.Sendable() {
		return dst
	}
	reason = strings.ToValidUTF8(reason, "\uFFFD")
	if len(reason) > maxReason {
		end := maxReason
		for !utf8.RuneStart(reason[end]) {
			end--
		}
		reason = reason[:end]
	}
	return append(binary.BigEndian.AppendUint16(dst, uint16(code)), reason...)
}

// AppendCloseFrame appends a whole Close frame, see AppendClose and AppendFrame.
func AppendCloseFrame(dst []byte, code Code, reason string, masked bool) []byte {
	var room [MaxControlPayload]byte
	return AppendFrame(dst, Close, AppendClose(room[:0], code, reason), masked)
}

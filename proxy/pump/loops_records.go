//go:build linux && (amd64 || arm64)

package pump

import (
	"bytes"
	"crypto/tls"
	"reflect"
	"sync"
	"unsafe"
)

// A tls.Conn keeps the memory in which it gathers records for good: 18 KiB, once it was sent a large one. Package crypto/tls has no word
// for it, so its fields are looked for by name and type. On a loop their memory is lent while they hold something. Where crypto/tls is
// built otherwise, it keeps what it has.
var records = findRecords(reflect.TypeFor[tls.Conn]())

// A recordLayout says where a tls.Conn has its buffers.
type recordLayout struct {
	known bool
	raw   uintptr // a bytes.Buffer: records as they came
	hand  uintptr // a bytes.Buffer: messages of handshakes
	input uintptr // a bytes.Reader: what was decrypted, in the memory of raw
}

func findRecords(conn reflect.Type) recordLayout {
	l := recordLayout{known: true}
	find := func(name string, want reflect.Type) uintptr {
		f, ok := conn.FieldByName(name)
		l.known = l.known && ok && f.Type == want && len(f.Index) == 1
		return f.Offset
	}
	l.raw = find("rawInput", reflect.TypeFor[bytes.Buffer]())
	l.hand = find("hand", reflect.TypeFor[bytes.Buffer]())
	l.input = find("input", reflect.TypeFor[bytes.Reader]())
	return l
}

// field is where a field of a connection is. It may be used where the connection may be read.
func field[T any](conn *tls.Conn, at uintptr) *T { return (*T)(unsafe.Add(unsafe.Pointer(conn), at)) }

// lent is the memory for records that nobody uses.
var lent = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// borrow gives the connection memory for what it is about to read, unless it has some.
func (s *secure) borrow() {
	if !records.known {
		return
	}
	if raw := field[bytes.Buffer](s.conn, records.raw); raw.Cap() == 0 {
		s.lent = lent.Get().(*bytes.Buffer)
		*raw = *s.lent
	}
}

// giveBack takes the memory of what has been read to its end, and what the handshake has left.
func (s *secure) giveBack() {
	if !records.known {
		return
	}
	raw, input := field[bytes.Buffer](s.conn, records.raw), field[bytes.Reader](s.conn, records.input)
	if raw.Len()+input.Len() > 0 {
		return
	}
	if s.lent != nil {
		*s.lent = *raw
		s.lent.Reset()
		lent.Put(s.lent)
	}
	s.lent, *raw, *input = nil, bytes.Buffer{}, bytes.Reader{}
	if hand := field[bytes.Buffer](s.conn, records.hand); hand.Len() == 0 {
		*hand = bytes.Buffer{}
	}
}

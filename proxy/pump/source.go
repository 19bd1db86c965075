package pump

import (
	"io"
	"net"
	"sync"
)

// chunkSize is the largest piece that one read takes; large messages pass in such pieces.
const chunkSize = 32 << 10

// waitSize is the buffer in which a connection waits that cannot tell when it is readable: TLS, and systems without raw reads. A
// read that fills it promises more; so it is a little larger than the blocks that programs like to write.
const waitSize = 4<<10 + 1

// headroom is what stands free before each chunk that a source gives: a frame header can be put in front without a copy, and
// the bytes that a filter kept back fit there.
const headroom = 256

// chunks are the buffers that connections borrow while bytes flow.
var chunks = sync.Pool{New: func() any { return new([headroom + chunkSize]byte) }}

// maxRecord is the most that one read of a TLS connection gives (RFC 8446, section 5.1).
const maxRecord = 16 << 10

// A taker is given each chunk: n bytes behind the headroom of buf, which is lent until it returns whether it wants more.
type taker func(buf []byte, n int) (more bool)

// each gives every chunk that conn brings to take. It returns nil when take wants no more, io.EOF at the end, or the error of
// the read. A read deadline ends it also while bytes are still coming.
func each(conn net.Conn, early []byte, take taker) error {
	for len(early) > 0 {
		buf := chunks.Get().(*[headroom + chunkSize]byte)
		n := copy(buf[headroom:], early)
		more := take(buf[:], n)
		chunks.Put(buf)
		if !more {
			return nil
		}
		early = early[n:]
	}
	if handled, err := eachReady(conn, take); handled {
		return err
	}
	return eachBlocking(conn, take)
}

// eachBlocking waits in a small buffer, and uses a large one for what does not fit.
func eachBlocking(conn net.Conn, take taker) error {
	small := make([]byte, headroom+waitSize)
	for {
		n, err := conn.Read(small[headroom:])
		if n > 0 && !take(small, n) {
			return nil
		}
		if err != nil {
			return eof(err)
		}
		if n == waitSize {
			if more, err := drain(conn, take); !more || err != nil {
				return eof(err)
			}
		}
	}
}

// drain reads into a large buffer what the small one had no room for. It goes on while reads, or TLS records, come full, for then
// there is most likely more; else the next read would most likely wait, and hold the large buffer as long.
func drain(conn net.Conn, take taker) (more bool, err error) {
	buf := chunks.Get().(*[headroom + chunkSize]byte)
	defer chunks.Put(buf)
	for record := waitSize; ; record = 0 {
		n, err := conn.Read(buf[headroom:])
		if n > 0 && !take(buf[:], n) {
			return false, nil
		}
		if record += n; err != nil || record != maxRecord && n != chunkSize {
			return true, err
		}
	}
}

func eof(err error) error {
	if err == io.ErrUnexpectedEOF { // TLS ended without close_notify
		return io.EOF
	}
	return err
}

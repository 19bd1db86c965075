package pump

import (
	"io"
	"net"
	"sync"
)

// chunkSize is the largest piece that one read takes; large messages pass in such pieces.
const chunkSize = 32 << 10

// waitSize is the buffer in which a connection waits that cannot tell when it is readable: TLS, and systems without raw reads.
const waitSize = 4 << 10

// headroom is what stands free before each chunk that a source gives: a frame header can be put in front without a copy, and
// the bytes that a filter kept back fit there.
const headroom = 256

// chunks are the buffers that connections borrow while bytes flow.
var chunks = sync.Pool{New: func() any { return new([headroom + chunkSize]byte) }}

// A taker is given each chunk. Before the read, held puts what belongs in front of the chunk behind the headroom's start and
// returns its length.
type taker func(buf []byte, n int) (more bool)

// each gives every chunk that conn brings to take, in a buffer that is lent until take returns: its first headroom bytes are
// free, then come n bytes. It returns nil when take wants no more, io.EOF at the end, or the error of the read.
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

// eachBlocking waits in a small buffer, and uses a large one for as long as reads fill it.
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

// drain reads with a large buffer until a read fits the small one again.
func drain(conn net.Conn, take taker) (more bool, err error) {
	buf := chunks.Get().(*[headroom + chunkSize]byte)
	defer chunks.Put(buf)
	for {
		n, err := conn.Read(buf[headroom:])
		if n > 0 && !take(buf[:], n) {
			return false, nil
		}
		if err != nil || n < waitSize {
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

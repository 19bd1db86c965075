package pump

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"testing"
	"time"
)

// Early bytes come first, then all that the connection brings, whatever it is.
func TestEachGivesEveryByteOnce(t *testing.T) {
	t.Parallel()
	for _, kind := range []kind{plain, unix, tls12, tls13, http2, pipe} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			sent := make([]byte, 1<<20)
			rand.NewChaCha8([32]byte{2}).Read(sent)
			const early = 3*chunkSize + 5
			ours, theirs := kind.pair(t, true)
			go func() {
				p := newPeer(t, theirs, false)
				p.dribble(sent[early:], 3)
				p.Close()
			}()
			var got []byte
			err := each(ours, sent[:early], func(buf []byte, n int) bool {
				clear(buf[:headroom]) // is ours to write
				got = append(got, buf[headroom:headroom+n]...)
				return true
			})
			if err != io.EOF || !bytes.Equal(got, sent) {
				t.Errorf("%d of %d bytes, equal %v, %v", len(got), len(sent), bytes.Equal(got, sent), err)
			}
			ours.Close()
		})
	}
}

func TestEachStopsWhenToldSo(t *testing.T) {
	t.Parallel()
	for _, early := range []string{"", "early"} {
		ours, theirs := plain.pair(t, true)
		theirs.Write([]byte("late"))
		calls := 0
		err := each(ours, []byte(early), func([]byte, int) bool { calls++; return false })
		if err != nil || calls != 1 {
			t.Errorf("early %q: %d calls, %v", early, calls, err)
		}
		ours.Close()
		theirs.Close()
	}
}

// A deadline ends the reading of a peer that always has more.
func TestDeadlineEndsAFlood(t *testing.T) {
	t.Parallel()
	for _, kind := range []kind{plain, unix, tls13, http2} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			ours, theirs := kind.pair(t, true)
			defer ours.Close()
			defer theirs.Close()
			more := func([]byte, int) bool { _, err := theirs.Write([]byte("more")); return err == nil }
			more(nil, 0)
			ours.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
			if err := each(ours, nil, more); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error(err)
			}
		})
	}
}

// Over TLS a connection waits for the next message in the small buffer, and it is given every byte before it waits.
func TestWaitsInTheSmallBuffer(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 4 << 10, 8<<10 + 14, 16<<10 + 8, 20000, 64<<10 + 8, 100000} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			inner, theirs := tls13.pair(t, true)
			ours := &sizing{Conn: inner}
			go theirs.Write(make([]byte, size))
			got, large := 0, false
			each(ours, nil, func(_ []byte, n int) bool {
				large = large || n > waitSize
				if got += n; got == size {
					time.AfterFunc(50*time.Millisecond, func() { inner.Close() }) // it waits by then
				}
				return true
			})
			if last := ours.sizes[len(ours.sizes)-1]; got != size || last != waitSize {
				t.Errorf("got %d bytes, waited with a buffer of %d; reads %v", got, last, ours.sizes)
			}
			if large != (size > 2*waitSize) {
				t.Errorf("large buffer used: %v; reads %v", large, ours.sizes)
			}
			if size > 60000 && !slices.Contains(ours.sizes, chunkSize) {
				t.Errorf("no read with a large buffer: %v", ours.sizes)
			}
			theirs.Close()
		})
	}
}

// sizing notes the sizes of the buffers that are read into.
type sizing struct {
	net.Conn
	sizes []int
}

func (s *sizing) Read(p []byte) (int, error) {
	s.sizes = append(s.sizes, len(p))
	return s.Conn.Read(p)
}

package pump

import (
	"bytes"
	"crypto/tls"
	"io"
	"math/rand/v2"
	"testing"
)

// On a loop crypto/tls is fed piece by piece, is told to come again in between, and makes the same of it however it is cut.
func TestAFedWireNeverWaits(t *testing.T) {
	t.Parallel()
	for _, kind := range []kind{tls12, tls13} {
		for _, step := range []int{1, 5, 100, 1 << 20} {
			ours, theirs := kind.pair(t, true)
			wire := ours.(*tls.Conn).NetConn().(*Wire)
			below := wire.Conn
			sent := make([]byte, 100_000)
			rand.NewChaCha8([32]byte{3}).Read(sent)
			go func() {
				theirs.Write(sent)
				theirs.(*tls.Conn).CloseWrite()
				theirs.(*tls.Conn).NetConn().(interface{ CloseWrite() error }).CloseWrite()
			}()
			sealed, err := io.ReadAll(below)
			if err != nil {
				t.Fatal(err)
			}
			wire.enter()
			if got := drip(t, ours, wire, sealed, step); !bytes.Equal(got, sent) {
				t.Errorf("%s by %d: %d of %d bytes", kind, step, len(got), len(sent))
			}
			if _, err := ours.Write([]byte("sealed")); err != nil || len(wire.sealed) == 0 {
				t.Errorf("%s: write: %v", kind, err)
			}
			below.Close()
			theirs.Close()
		}
	}
}

// drip feeds a wire step bytes at a time, until TLS has ended.
func drip(t *testing.T, conn io.Reader, wire *Wire, sealed []byte, step int) (got []byte) {
	t.Helper()
	buf := make([]byte, 5000)
	for {
		n, err := conn.Read(buf)
		got = append(got, buf[:n]...)
		switch {
		case err == io.EOF:
			return got
		case err != nil && err != errLater:
			t.Fatal(err)
		case err == errLater && len(sealed) == 0:
			t.Fatal("all was fed, and TLS has not ended")
		case err == errLater:
			k := min(step, len(sealed))
			wire.feed, sealed = sealed[:k], sealed[k:]
		}
	}
}

package ws

import (
	"testing"
	"unicode/utf8"
)

// edges are the bytes at which the rules of UTF-8 change (RFC 3629, section 4).
const edges = "\x00\x7f\x80\x8f\x90\x9f\xa0\xbf\xc0\xc1\xc2\xdf\xe0\xe1\xec\xed\xee\xef\xf0\xf1\xf3\xf4\xf5\xff"

// Every sequence of four such bytes is judged as the standard library judges it, whole and byte by byte; and the text is given up
// at the first byte behind which nothing could mend it.
func TestUTF8Edges(t *testing.T) {
	t.Parallel()
	var p [4]byte
	for n := range len(edges) * len(edges) * len(edges) * len(edges) {
		for i := range p {
			p[i] = edges[n%len(edges)]
			n /= len(edges)
		}
		if p[0] < 0xE0 && p[3] > 0 {
			continue // three bytes show all there is
		}
		checkUTF8(t, p[:], 4)
		checkUTF8(t, p[:], 1)
	}
}

func checkUTF8(t *testing.T, p []byte, piece int) {
	t.Helper()
	var u UTF8
	fed := 0
	for start := 0; start < len(p); start += piece {
		part := p[start:min(start+piece, len(p))]
		n := u.feed(part)
		fed += n
		if n < len(part) {
			break
		}
	}
	switch {
	case fed < len(p) && canBecomeText(p[:fed+1]):
		t.Fatalf("% x in pieces of %d: given up at %d", p, piece, fed)
	case fed > 0 && !canBecomeText(p[:fed]):
		t.Fatalf("% x in pieces of %d: not given up before %d", p, piece, fed)
	case fed == len(p) && u.Complete() != utf8.Valid(p):
		t.Fatalf("% x in pieces of %d: complete %t", p, piece, !utf8.Valid(p))
	}
}

func TestUTF8IsReadyAgain(t *testing.T) {
	t.Parallel()
	var u UTF8
	if !u.Valid([]byte("a\xe2\x82")) || u.Complete() {
		t.Error("a cut rune is complete")
	}
	if !u.Valid([]byte("b")) || !u.Complete() {
		t.Error("the next text suffers from the last one")
	}
	if u.Valid([]byte("c\x80")) {
		t.Error("a lone continuation byte is valid")
	}
}

func FuzzUTF8(f *testing.F) {
	f.Add([]byte("aé€😀"), uint8(2))
	f.Add([]byte("\xed\xa0\x80"), uint8(1))
	f.Fuzz(func(t *testing.T, p []byte, piece uint8) {
		p = p[:min(len(p), 200)]
		checkUTF8(t, p, int(piece)+1)
	})
}

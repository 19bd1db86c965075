package ws

import "unicode/utf8"

// A UTF8 validates text that comes in pieces. The zero value is ready. It is not safe for concurrent use.
type UTF8 struct {
	cut [utf8.UTFMax]byte // the beginning of a rune at the end of what was fed
	n   uint8             // how many bytes of cut are in use
}

// Valid feeds p. It returns false as soon as the text cannot be valid however it goes on; the validator is spent then.
func (u *UTF8) Valid(p []byte) bool { return u.feed(p) == len(p) }

// Complete reports, at the end of a text, whether its last rune is whole, and makes the validator ready for another text.
func (u *UTF8) Complete() bool {
	whole := u.n == 0
	u.n = 0
	return whole
}

// feed feeds p and returns how many bytes of it can belong to a valid text: all, or those before the first that cannot.
func (u *UTF8) feed(p []byte) int {
	fed := 0
	for u.n > 0 && fed < len(p) {
		u.cut[u.n] = p[fed]
		r := u.cut[:u.n+1]
		switch {
		case !utf8.FullRune(r):
			u.n++
		case !utf8.Valid(r):
			return fed
		default:
			u.n = 0
		}
		fed++
	}
	whole := p[fed:]
	tail := cutRune(whole)
	whole = whole[:len(whole)-len(tail)]
	if !utf8.Valid(whole) {
		return fed + offence(whole)
	}
	if len(tail) > 0 {
		u.n = uint8(copy(u.cut[:], tail))
	}
	return len(p)
}

// cutRune returns the bytes at the end of p that begin a rune which may become whole.
func cutRune(p []byte) []byte {
	for i := len(p) - 1; i >= 0 && i > len(p)-utf8.UTFMax; i-- {
		if utf8.RuneStart(p[i]) {
			if utf8.FullRune(p[i:]) {
				return nil
			}
			return p[i:]
		}
	}
	return nil
}

// offence returns the place of the first byte in p with which no text can go on. There is one.
func offence(p []byte) int {
	start := 0
	for {
		r, size := utf8.DecodeRune(p[start:])
		if r == utf8.RuneError && size == 1 {
			break
		}
		start += size
	}
	end := start
	for !utf8.FullRune(p[start : end+1]) {
		end++
	}
	return end
}

package unit

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// A Size is a number of bytes, written `64KiB`, `1.5MB` or `1000`. Zero, written `off`, is no limit.
type Size int64

// The binary units of a Size.
const (
	KiB Size = 1 << 10
	MiB Size = 1 << 20
	GiB Size = 1 << 30
)

// suffixes are the units of a size, longest first, in lower case.
var suffixes = []struct {
	name  string
	bytes Size
}{
	{"kib", KiB}, {"mib", MiB}, {"gib", GiB},
	{"kb", 1e3}, {"mb", 1e6}, {"gb", 1e9},
	{"b", 1}, {"", 1},
}

// ParseSize reads a size.
func ParseSize(s string) (Size, error) {
	if isOff(s) {
		return 0, nil
	}
	lower := strings.ToLower(s)
	for _, u := range suffixes {
		number, ok := strings.CutSuffix(lower, u.name)
		if !ok {
			continue
		}
		n, err := parseNumber(strings.TrimSpace(number))
		if err != nil {
			break
		}
		bytes := n * float64(u.bytes)
		if bytes != math.Trunc(bytes) || bytes >= math.MaxInt64 {
			return 0, fmt.Errorf("%q is not a whole number of bytes that can be counted", s)
		}
		return Size(bytes), nil
	}
	return 0, fmt.Errorf("%q is not a size: write 64KiB, 1MiB, 1000 or off", s)
}

// UnmarshalText reads a size.
func (s *Size) UnmarshalText(text []byte) error {
	size, err := ParseSize(string(text))
	if err != nil {
		return err
	}
	*s = size
	return nil
}

// String prints the size in the largest unit that leaves no fraction.
func (s Size) String() string {
	switch {
	case s == 0:
		return "off"
	case s%GiB == 0:
		return strconv.FormatInt(int64(s/GiB), 10) + "GiB"
	case s%MiB == 0:
		return strconv.FormatInt(int64(s/MiB), 10) + "MiB"
	case s%KiB == 0:
		return strconv.FormatInt(int64(s/KiB), 10) + "KiB"
	}
	return strconv.FormatInt(int64(s), 10)
}

// MarshalText prints the size as [Size.String] does.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// isOff tells whether s switches a limit off. `off` may arrive as `false` when a tool has rewritten the file.
func isOff(s string) bool { return s == "off" || s == "false" || s == "0" }

// parseNumber reads digits with at most one decimal point: no sign, no exponent, no words such as Inf.
func parseNumber(s string) (float64, error) {
	if s == "" || strings.Trim(s, "0123456789.") != "" {
		return 0, errors.New("not a number")
	}
	return strconv.ParseFloat(s, 64)
}

package unit

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// A Rate bounds how often something may happen. It is written `50/s`, `600/m`, `10/h` or `4MiB/s`, which allows as many at
// once as the number says, or as a mapping, `{rate: 50/s, burst: 200}`. The zero Rate, written `off`, is no limit.
type Rate struct {
	// How often, as `50/s`, `600/m`, `10/h` or `4MiB/s`.
	Rate float64 `yaml:"rate,short"` // per second
	// How many at once after a pause. Default: the number in `rate`.
	Burst int `yaml:"burst"`
}

// periods are the units of time of a rate.
var periods = []struct {
	name string
	span time.Duration
}{{"s", time.Second}, {"m", time.Minute}, {"h", time.Hour}}

// surelyBytes is from where on a round number of KiB is printed as a size. Numbers of messages seldom get there.
const surelyBytes = 64 * KiB

// ParseRate reads a rate.
func ParseRate(s string) (Rate, error) {
	if isOff(s) {
		return Rate{}, nil
	}
	number, period, _ := strings.Cut(s, "/")
	for _, p := range periods {
		if strings.TrimSpace(period) != p.name {
			continue
		}
		n, err := parseCount(strings.TrimSpace(number))
		if err != nil {
			break
		}
		if n <= 0 || n > math.MaxInt32*1024 {
			return Rate{}, fmt.Errorf("%q is out of range: a rate lies between 0 and 2TiB a second; `off` is no limit", s)
		}
		return Rate{Rate: n / p.span.Seconds(), Burst: burst(n)}, nil
	}
	return Rate{}, fmt.Errorf("%q is not a rate: write 50/s, 600/m, 10/h, 4MiB/s or off", s)
}

// parseCount reads a number of things, or of bytes with a unit.
func parseCount(s string) (float64, error) {
	if n, err := parseNumber(s); err == nil {
		return n, nil
	}
	size, err := ParseSize(s)
	return float64(size), err
}

// burst is how many of n a period may come at once.
func burst(n float64) int { return max(1, int(math.Ceil(n))) }

// UnmarshalText reads a rate.
func (r *Rate) UnmarshalText(text []byte) error {
	rate, err := ParseRate(string(text))
	if err != nil {
		return err
	}
	*r = rate
	return nil
}

// IsOff tells whether the rate is no limit.
func (r Rate) IsOff() bool { return r.Rate == 0 }

// String prints the rate; the burst is left to the mapping if it is not what the rate implies.
func (r Rate) String() string {
	if r.IsOff() {
		return "off"
	}
	for _, p := range periods {
		if n := r.per(p.span); burst(n) == r.Burst {
			return formatCount(n) + "/" + p.name
		}
	}
	return formatCount(r.per(time.Second)) + "/s"
}

// MarshalText prints the rate as [Rate.String] does.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// per is the number in a span, rounded where only the division by the span made it uneven.
func (r Rate) per(span time.Duration) float64 {
	n := r.Rate * span.Seconds()
	if whole := math.Round(n); math.Abs(n-whole) < 1e-9*n {
		return whole
	}
	return n
}

func formatCount(n float64) string {
	if size := Size(n); float64(size) == n && size >= surelyBytes && size%KiB == 0 {
		return size.String()
	}
	return strconv.FormatFloat(n, 'f', -1, 64)
}

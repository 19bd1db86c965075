package unit_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"bridgehead/internal/unit"
)

func TestSizesReadAndPrintBack(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		text  string
		size  unit.Size
		print string // "" if it is the text
	}{
		{"64KiB", 64 << 10, ""},
		{"1MiB", 1 << 20, ""},
		{"2GiB", 2 << 30, ""},
		{"1000", 1000, ""},
		{"off", 0, ""},
		{"false", 0, "off"}, // what Helm makes of off
		{"0", 0, "off"},
		{"16 KiB", 16 << 10, "16KiB"},
		{"1mib", 1 << 20, "1MiB"},
		{"64KB", 64_000, "64000"},
		{"1.5KiB", 1536, "1536"},
		{"12B", 12, "12"},
		{"2048", 2048, "2KiB"},
	} {
		size, err := unit.ParseSize(test.text)
		if err != nil || size != test.size {
			t.Errorf("ParseSize(%q) = %d, %v; want %d", test.text, size, err, test.size)
		}
		if test.print == "" {
			test.print = test.text
		}
		if got := size.String(); got != test.print {
			t.Errorf("%q prints as %q, want %q", test.text, got, test.print)
		}
	}
}

func TestRatesReadAndPrintBack(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		text  string
		rate  unit.Rate
		print string
	}{
		{"50/s", unit.Rate{Rate: 50, Burst: 50}, ""},
		{"600/m", unit.Rate{Rate: 10, Burst: 600}, ""},
		{"7/h", unit.Rate{Rate: 7. / 3600, Burst: 7}, ""},
		{"49/m", unit.Rate{Rate: 49. / 60, Burst: 49}, ""},
		{"4MiB/s", unit.Rate{Rate: 4 << 20, Burst: 4 << 20}, ""},
		{"2048/s", unit.Rate{Rate: 2048, Burst: 2048}, ""},
		{"0.5/s", unit.Rate{Rate: 0.5, Burst: 1}, ""},
		{"50 / s", unit.Rate{Rate: 50, Burst: 50}, "50/s"},
		{"off", unit.Rate{}, ""},
		{"0", unit.Rate{}, "off"},
	} {
		rate, err := unit.ParseRate(test.text)
		if err != nil || rate != test.rate {
			t.Errorf("ParseRate(%q) = %+v, %v; want %+v", test.text, rate, err, test.rate)
		}
		if test.print == "" {
			test.print = test.text
		}
		if got := rate.String(); got != test.print {
			t.Errorf("%q prints as %q, want %q", test.text, got, test.print)
		}
	}
}

func TestWhatIsNoQuantityIsRefusedWithAnExample(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "x", "-1", "+1", "64K", "64 foo", "1e3", "NaN", "Inf", "0x10", "1.1.1", ".", "1.0001KB", "9999999999GiB"} {
		if size, err := unit.ParseSize(text); err == nil {
			t.Errorf("ParseSize(%q) = %d, want an error", text, size)
		} else if !strings.Contains(err.Error(), fmt.Sprintf("%q", text)) {
			t.Errorf("ParseSize(%q): %v, which does not quote it", text, err)
		}
	}
	for _, text := range []string{"", "50", "/s", "50/", "50/d", "-5/s", "0/s", "x/s", "50/s/s", "9999999999999/s", "Inf/s"} {
		if rate, err := unit.ParseRate(text); err == nil {
			t.Errorf("ParseRate(%q) = %+v, want an error", text, rate)
		} else if !strings.Contains(err.Error(), fmt.Sprintf("%q", text)) {
			t.Errorf("ParseRate(%q): %v, which does not quote it", text, err)
		}
	}
}

func FuzzRate(f *testing.F) {
	for _, s := range []string{"50/s", "600/m", "10/h", "4MiB/s", "off", "0.001/h"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		rate, err := unit.ParseRate(s)
		if err != nil {
			return
		}
		if rate.Rate < 0 || (rate.Burst < 1) != rate.IsOff() {
			t.Fatalf("%q is %+v", s, rate)
		}
		again, err := unit.ParseRate(rate.String())
		if diff := again.Rate - rate.Rate; err != nil || diff > 1e-6*rate.Rate || diff < -1e-6*rate.Rate {
			t.Fatalf("%q is %+v, prints as %q, which is %+v, %v", s, rate, rate, again, err)
		}
	})
}

func FuzzSize(f *testing.F) {
	for _, s := range []string{"64KiB", "1.5MB", "off", "9223372036854775807"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		size, err := unit.ParseSize(s)
		if err != nil {
			return
		}
		if again, err := unit.ParseSize(size.String()); err != nil || again != size || size < 0 {
			t.Fatalf("%q is %d, prints as %q, which is %d, %v", s, size, size, again, err)
		}
	})
}

func TestNoWayOfPrintingShowsASecret(t *testing.T) {
	t.Parallel()
	const content = "hunter2"
	holder := struct {
		Key  unit.Secret
		Keys []unit.Secret
	}{content, []unit.Secret{content}}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%t"} {
		fmt.Fprintf(&out, verb+"\n", holder)
		fmt.Fprintf(&out, verb+"\n", holder.Key)
	}
	json.NewEncoder(&out).Encode(holder)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "secret", holder.Key, "all", holder)
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "secret", holder.Key, "all", holder)
	if strings.Contains(out.String(), content) || strings.Contains(out.String(), fmt.Sprintf("%x", content)) {
		t.Errorf("the secret shows:\n%s", out.String())
	}
	if got := holder.Key.Reveal(); got != content {
		t.Errorf("Reveal() = %q, want %q", got, content)
	}
	if got := unit.Secret("").String(); got != "" {
		t.Errorf("no secret prints as %q, want nothing", got)
	}
}

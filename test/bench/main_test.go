//go:build linux

package main

import (
	"bytes"
	"errors"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"bridgehead/internal/leak"
	"bridgehead/test/bench/load"
	"bridgehead/test/bench/proxies"
)

// The smoke test runs the program, which runs itself as load and as echo.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && (os.Args[1] == roleLoad || os.Args[1] == roleEcho) {
		main()
	}
	leak.Main(m)
}

// One tiny scenario, end to end, with the product of this tree.
func TestSmoke(t *testing.T) {
	t.Parallel()
	var stdout, stderr bytes.Buffer
	args := []string{"-run", "^ws-64$", "-peers", "^$", "-rounds", "1", "-duration", "50ms", "-warmup", "10ms"}
	if code := run(t.Context(), args, &stdout, &stderr); code != exitOK {
		t.Fatalf("exit code %d: %s%s", code, stdout.String(), stderr.String())
	}
	for _, want := range []string{
		`(?m)^ws-64 +bridgehead +[\d.]+ µs +[\d.]+/s +[\d.]+ [µm]s +[\d.]+ [µm]s +\d+ % +\d+ % +\d+ %$`,
		`(?m)^ +no proxy +[\d.]+/s +[\d.]+ [µm]s +[\d.]+ [µm]s +\d+ % +\d+ %$`,
	} {
		if !regexp.MustCompile(want).MatchString(stdout.String()) {
			t.Errorf("no line is like %s in:\n%s", want, stdout.String())
		}
	}
}

// The scenario of policies compares the product with itself.
func TestSmokeOfPolicies(t *testing.T) {
	t.Parallel()
	var stdout, stderr bytes.Buffer
	args := []string{"-run", "^policies-ws-64$", "-peers", "^$", "-rounds", "1", "-duration", "50ms", "-warmup", "10ms"}
	if code := run(t.Context(), args, &stdout, &stderr); code != exitOK {
		t.Fatalf("exit code %d: %s%s", code, stdout.String(), stderr.String())
	}
	want := `(?m)^policies-ws-64 +policies off +[\d.]+ µs +1.00 .*\n +policies on +[\d.]+ µs +[\d.]+ .*$`
	if !regexp.MustCompile(want).MatchString(stdout.String()) {
		t.Errorf("no lines are like %s in:\n%s", want, stdout.String())
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"-run", "nothing"}, `no scenario is like "nothing"; there are ws-64, `},
		{[]string{"-run", "("}, "missing closing )"},
		{[]string{"-rounds", "0"}, "must be greater than 0"},
		{[]string{"-also", "old"}, `"old" is not name=path`},
		{[]string{"more"}, `"more" is not expected`},
	} {
		var stderr bytes.Buffer
		if code := run(t.Context(), test.args, &stderr, &stderr); code != exitUsage || !strings.Contains(stderr.String(), test.want) {
			t.Errorf("%q: exit code %d, %s; want %q", test.args, code, stderr.String(), test.want)
		}
	}
}

// Each proxy is measured with what it can do, and a variant where it differs.
func TestSuits(t *testing.T) {
	t.Parallel()
	want := map[string]string{
		"ws-64":         "bridgehead, nginx, haproxy, caddy",
		"wss-16k":       "bridgehead, nginx, nginx 64k, haproxy, caddy",
		"tcp-64":        "bridgehead, websockify",
		"webhook-64":    "bridgehead, pushpin",
		"handshake-wss": "bridgehead, nginx, haproxy, caddy",
		"idle-ws":       "bridgehead, nginx, nginx 64k, haproxy, caddy",

		"idle-webhook-ws": "bridgehead, pushpin", "idle-webhook-wss": "bridgehead",
		"policies-ws-64": "policies off, policies on",
	}
	all := append([]proxies.Proxy{proxies.Ours(product, "")}, proxies.Peers()...)
	all = append(all, proxies.Policies("")...)
	for _, sc := range scenarios {
		var some []string
		for _, p := range all {
			if sc.suits(p) {
				some = append(some, strings.Replace(p.Name, ", 64 KiB buffers", " 64k", 1))
			}
		}
		if got := strings.Join(some, ", "); want[sc.name] != "" && got != want[sc.name] {
			t.Errorf("%s is measured with %s, want %s", sc.name, got, want[sc.name])
		}
	}
}

// The proxy gets a core for itself as soon as there are two.
func TestShare(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		available []int
		alone     int
		what      string
	}{
		{[]int{3}, -1, "all processes share the only core: rates and latencies say little"},
		{[]int{0, 1}, 1, "the proxy on core 1, load and echo on core 0"},
		{[]int{2, 4, 6, 7}, 7, "the proxy on core 7, the load on core 2, the echo on core 4"},
	} {
		got := share(test.available)
		if got.alone != test.alone || got.what != test.what {
			t.Errorf("of cores %v: %q, the proxy alone on %d; want %q, %d", test.available, got.what, got.alone, test.what, test.alone)
		}
		if mixed := got.proxy == got.load || got.proxy == got.echo; mixed != (test.alone < 0) {
			t.Errorf("of cores %v: the proxy shares its core: %t", test.available, mixed)
		}
	}
}

func TestMedian(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		f    figure
		want float64
	}{{figure{7}, 7}, {figure{9, 1, 5}, 5}, {figure{4, 1, 3, 2}, 2.5}} {
		before := slices.Clone(test.f)
		if got := test.f.median(); got != test.want {
			t.Errorf("the median of %v is %v, want %v", test.f, got, test.want)
		}
		if !slices.Equal(test.f, before) {
			t.Errorf("%v was sorted in place to %v", before, test.f)
		}
	}
}

func TestNumbers(t *testing.T) {
	t.Parallel()
	for got, want := range map[string]string{
		duration(0):         "0.00 ns",
		duration(994):       "994 ns",
		duration(999.9):     "1.00 µs",
		duration(9_996):     "10.0 µs",
		duration(99_960):    "100 µs",
		duration(1_234_567): "1.23 ms",
		duration(2.5e9):     "2.50 s",
		size(1536):          "1.5 KiB",
		size(-100):          "-0.1 KiB",
		rate(39758.3):       "39758/s",
		ratio(0.994):        "0.99",
		share100(0.996):     "100 %",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// A ratio is of the same round; the median is taken of ratios, so that a round in which everything was slow does not count.
func TestRelate(t *testing.T) {
	t.Parallel()
	some := []row{
		{name: product, cost: figure{20, 30, 400}},
		{name: proxies.Nginx, cost: figure{10, 20, 400}},
		{name: "caddy", err: errors.New("gone")},
		{name: direct},
	}
	relate(some)
	if want := (figure{2, 1.5, 1}); !slices.Equal(some[0].ratio, want) {
		t.Errorf("ratios %v, want %v", some[0].ratio, want)
	}
	for _, r := range some[2:] {
		if len(r.ratio) > 0 {
			t.Errorf("%s has ratios %v", r.name, r.ratio)
		}
	}
	alone := []row{{name: product, cost: figure{20}}}
	if relate(alone); len(alone[0].ratio) > 0 {
		t.Errorf("without nginx there are ratios: %v", alone[0].ratio)
	}
}

// measured is a report with a line of every sort.
func measured() report {
	traffic := &contender{name: product, running: &proxies.Running{}, results: []load.Result{
		{Trips: 1000, Elapsed: 1e9, P50: 1e6, P99: 2e6, Proxy: 10e6, Load: 20e6, Echo: 30e6, Others: 40e6},
		{Trips: 2000, Elapsed: 1e9, P50: 2e6, P99: 3e6, Proxy: 24e6, Load: 20e6, Echo: 30e6, Others: 50e6},
	}}
	nginx := &contender{name: proxies.Nginx, running: traffic.running, results: []load.Result{
		{Trips: 1000, Elapsed: 1e9, P99: 4e6, Proxy: 20e6}, {Trips: 1000, Elapsed: 1e9, P99: 3e6, Proxy: 20e6},
	}}
	failed := &contender{name: "caddy", err: errors.New("it ended")}
	without := &contender{name: direct, results: []load.Result{{Trips: 5000, Elapsed: 1e9, P50: 5e5, P99: 6e5}}}
	resting := &contender{name: product, results: []load.Result{{Trips: 100, Before: 1 << 20, Opened: 1<<20 + 200<<10, Used: 1<<20 + 300<<10}}}
	r := report{machine: []string{"a machine"}, before: "0.10 0.20 0.30", after: "0.40 0.50 0.60"}
	r.rows = rows(scenarios[0], []*contender{traffic, nginx, failed, without}, true)
	r.rows = append(r.rows, rows(scenario{name: "idle-ws", what: "memory", kind: load.Idle}, []*contender{resting}, true)...)
	return r
}

func TestTable(t *testing.T) {
	t.Parallel()
	for name, markdown := range map[string]bool{"testdata/table.txt": false, "testdata/table.md": true} {
		r := measured()
		var got bytes.Buffer
		if err := r.print(&got, markdown); err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(name)
		if err != nil {
			t.Error(err)
		}
		if got.String() != string(want) {
			t.Errorf("%s differs; it would be\n%s", name, got.String())
		}
	}
}

// A benchmark of something broken is a failure; a broken peer is only told.
func TestFailure(t *testing.T) {
	t.Parallel()
	r := measured()
	if err := r.failure(); err != nil {
		t.Errorf("a peer's failure counts: %v", err)
	}
	r.rows = append(r.rows, row{scenario: "ws-1m", name: product, err: errors.New("the echo differs")})
	if err := r.failure(); err == nil || err.Error() != "ws-1m: the echo differs" {
		t.Errorf("the product's failure gives %v", err)
	}
}

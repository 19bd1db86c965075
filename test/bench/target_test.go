//go:build linux

package main

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"bridgehead/test/bench/proxies"
)

// Every target is of a scenario and of rows that there are: what cannot be measured would never be missed.
func TestTargetsAreMeasured(t *testing.T) {
	t.Parallel()
	all := append([]proxies.Proxy{proxies.Ours(product, "")}, proxies.Peers()...)
	for _, target := range targets {
		i := slices.IndexFunc(scenarios, func(s scenario) bool {
			return s.name == strings.TrimSuffix(target.scenario, "-used")
		})
		if i < 0 {
			t.Errorf("there is no scenario %s", target.scenario)
			continue
		}
		names := []string{""}
		if scenarios[i].loops {
			names = append(names, byLoops(1), byLoops(2))
		}
		for _, p := range all {
			if scenarios[i].suits(p) {
				names = append(names, p.Name)
			}
		}
		if !slices.Contains(names, target.of) || !slices.Contains(names, target.name) {
			t.Errorf("%s: %q beside %q is not among %q", target.scenario, target.name, target.of, names)
		}
	}
}

// A target is judged by the median of the ratios within each round, and not at all if a row is missing or failed.
func TestTarget(t *testing.T) {
	t.Parallel()
	rows := []row{
		{scenario: "a", name: product, cost: figure{20, 30, 400}, p99: figure{8, 8, 8}},
		{scenario: "a", name: "peer", cost: figure{10, 20, 400}, p99: figure{10, 10, 10}},
		{scenario: "a", name: "broken", err: errors.New("gone"), cost: figure{1, 1, 1}},
		{scenario: "b", name: "other", cost: figure{2048}},
	}
	for _, c := range []struct {
		target target
		want   string
	}{
		{target{scenario: "a", figure: cost, of: "peer", most: 1.49}, "a, cost, peer, 1.50, <= 1.49, missed"},
		{target{scenario: "a", figure: cost, of: "peer", most: 1.5}, "a, cost, peer, 1.50, <= 1.50, reached"},
		{target{scenario: "a", figure: latency, of: "peer", most: 0.85}, "a, p99, peer, 0.80, <= 0.85, reached"},
		{target{scenario: "a", figure: cost, of: "broken", most: 1}, "a, cost, broken, , <= 1.00, not measured"},
		{target{scenario: "a", figure: cost, of: "absent", most: 1}, "a, cost, absent, , <= 1.00, not measured"},
		{target{scenario: "b", name: "other", figure: cost, most: 1024}, "b, cost, , 2.0 KiB, <= 1.0 KiB, missed"},
	} {
		if got := strings.Join(c.target.cells(rows), ", "); got != c.want {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
}

// What was not asked for is not told to be missing.
func TestSummary(t *testing.T) {
	t.Parallel()
	r := report{rows: []row{{scenario: "idle-ws", name: product, cost: figure{100}}}}
	if lines := r.summary(); len(lines) != 2 || lines[1][0] != "idle-ws" || lines[1][5] != "reached" {
		t.Errorf("%q", lines)
	}
	var text strings.Builder
	if (&report{rows: []row{{scenario: "ws-64-many"}}}).printSummary(&text, false); text.Len() > 0 {
		t.Errorf("without a target: %q", &text)
	}
}

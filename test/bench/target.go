//go:build linux

package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"bridgehead/test/bench/proxies"
)

// A target is a figure of the product's that is to be reached: at most so much of another program's in the same round, or at most so
// much.
type target struct {
	scenario string
	name     string // of the row; "": the product
	figure   string
	of       string // the other row; "": none
	most     float64
}

// The figures that targets are about.
const (
	cost    = "cost"
	latency = "p99"
)

// targets are all of them, in the order of the scenarios. Memory is in bytes.
var targets = []target{
	{scenario: "ws-64", figure: cost, of: proxies.Nginx, most: 1.00},
	{scenario: "ws-64", figure: cost, of: proxies.HAProxy, most: 0.91},
	{scenario: "ws-64", figure: cost, of: proxies.Caddy, most: 0.75},
	{scenario: "ws-64", figure: latency, of: proxies.Nginx, most: 0.85},
	{scenario: "ws-64-pipelined", figure: cost, of: proxies.Nginx, most: 1.00},
	{scenario: "ws-16k", figure: cost, of: proxies.Nginx, most: 0.19},
	{scenario: "ws-16k", figure: cost, of: proxies.Large, most: 1.00},
	{scenario: loops, name: byLoops(2), figure: cost, of: byLoops(1), most: 1 / 0.85}, // 0.85 of linear
	{scenario: "ws-1m", figure: cost, of: proxies.Nginx, most: 0.14},
	{scenario: "ws-1m", figure: cost, of: proxies.Large, most: 1.00},
	{scenario: "wss-64", figure: cost, of: proxies.Nginx, most: 1.00},
	{scenario: "wss-16k", figure: cost, of: proxies.Nginx, most: 0.42},
	{scenario: "wss-1m", figure: cost, of: proxies.Nginx, most: 0.33},
	{scenario: "tcp-64", figure: cost, of: proxies.Websockify, most: 0.12},
	{scenario: "webhook-64", figure: cost, of: proxies.Pushpin, most: 0.05},
	{scenario: "handshake-ws", figure: cost, of: proxies.Nginx, most: 1.60},
	{scenario: "handshake-wss", figure: cost, of: proxies.Nginx, most: 1.10},
	{scenario: "idle-ws", figure: cost, most: 800},
	{scenario: "idle-ws-used", figure: cost, most: 800},
	{scenario: "idle-wss", figure: cost, most: 6000},
	{scenario: "idle-wss-used", figure: cost, most: 24000},
	{scenario: "idle-webhook-ws", figure: cost, most: 8000},
	{scenario: "idle-webhook-wss", figure: cost, most: 14000},
}

// measure is the target's figure in each round; empty if one of the rows is missing or failed.
func (t target) measure(rows []row) figure {
	find := func(name string) figure {
		i := slices.IndexFunc(rows, func(r row) bool { return r.scenario == t.scenario && r.name == name && r.err == nil })
		switch {
		case i < 0:
			return nil
		case t.figure == latency:
			return rows[i].p99
		default:
			return rows[i].cost
		}
	}
	name := t.name
	if name == "" {
		name = product
	}
	if t.of == "" {
		return find(name)
	}
	return over(find(name), find(t.of))
}

// cells are a line of the summary.
func (t target) cells(rows []row) []string {
	unit := size
	if t.of != "" {
		unit = ratio
	}
	f := t.measure(rows)
	verdict := "missed"
	switch {
	case len(f) == 0:
		verdict = "not measured"
	case f.median() <= t.most:
		verdict = "reached"
	}
	return []string{t.scenario, t.figure, t.of, median(f, unit), "<= " + unit(t.most), verdict}
}

// summary is a line for each target whose scenario was measured, below the heads.
func (r *report) summary() [][]string {
	lines := [][]string{{"scenario", "figure", "divided by that of", "measured", "to reach", "verdict"}}
	for _, t := range targets {
		if slices.ContainsFunc(r.rows, func(row row) bool { return row.scenario == t.scenario }) {
			lines = append(lines, t.cells(r.rows))
		}
	}
	return lines
}

// printSummary writes it with aligned columns, or as Markdown; nothing if there is no target.
func (r *report) printSummary(w io.Writer, markdown bool) {
	lines := r.summary()
	if len(lines) == 1 {
		return
	}
	fmt.Fprintln(w)
	if markdown {
		for i, line := range lines {
			fmt.Fprintf(w, "| %s |\n", strings.Join(line, " | "))
			if i == 0 {
				fmt.Fprintln(w, "| --- | --- | --- | ---: | ---: | --- |")
			}
		}
		return
	}
	var widths [6]int
	for _, line := range lines {
		for i, cell := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, line := range lines {
		for i := range widths {
			if i == 3 || i == 4 { // numbers
				line[i] = fmt.Sprintf("%*s", widths[i], line[i])
			} else {
				line[i] = fmt.Sprintf("%-*s", widths[i], line[i])
			}
		}
		fmt.Fprintln(w, strings.TrimRight(strings.Join(line, "  "), " "))
	}
}

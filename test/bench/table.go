//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"bridgehead/test/bench/proxies"
)

// A report is what the program prints.
type report struct {
	machine       []string
	before, after string // load averages
	rows          []row
}

// columns are the heads of the table. The first two columns are words.
var columns = []string{
	"scenario", "proxy", "cost", "least..most", "of nginx's", "rate", "p50", "p99", "CPU proxy", "CPU load", "CPU echo",
}

// print writes the machine, the table and how to read it, as text or Markdown.
func (r *report) print(w io.Writer, markdown bool) error {
	machine := append(slices.Clone(r.machine), fmt.Sprintf("load average before %s, after %s", r.before, r.after))
	if others := r.others(); others != "" {
		machine = append(machine, others)
	}
	bullet, table := "", r.plain
	if markdown {
		bullet, table = "- ", r.markdown
	}
	var text strings.Builder
	for _, line := range machine {
		fmt.Fprintln(&text, bullet+line)
	}
	fmt.Fprintln(&text)
	table(&text)
	r.printSummary(&text, markdown)
	fmt.Fprintln(&text)
	for _, line := range r.legend() {
		fmt.Fprintln(&text, bullet+line)
	}
	_, err := io.WriteString(w, text.String())
	return err
}

// failure is an error if the product failed anywhere: a benchmark of something broken is none.
func (r *report) failure() error {
	var errs []error
	for _, row := range r.rows {
		if row.err != nil && (slices.Contains([]string{product, proxies.PoliciesOff, proxies.PoliciesOn}, row.name) || row.scenario == loops) {
			errs = append(errs, fmt.Errorf("%s: %w", row.scenario, row.err))
		}
	}
	return errors.Join(errs...)
}

// others says how much somebody else disturbed the measurements.
func (r *report) others() string {
	var all figure
	for _, row := range r.rows {
		all = append(all, row.others...)
	}
	if len(all) == 0 {
		return ""
	}
	return fmt.Sprintf("other processes used %s of the proxy's core in the median measurement, %s in the worst", share100(all.median()), share100(slices.Max(all)))
}

// legend explains the columns, and the scenarios that were measured.
func (r *report) legend() []string {
	lines := []string{
		"cost: processor time of the proxy for one message there and back, or for one socket's life; or its memory for one socket",
		"the cost is the median of all rounds, beside the least and the most; `of nginx's` is the median of the ratios within each round",
		"to reach: the figure of the product, divided by that of another in the same round; the median of all rounds",
		"rate and latency are those of the slowest of proxy, load and echo, whose shares of a core tell which; compare costs first",
	}
	seen := ""
	for _, row := range r.rows {
		if row.scenario != seen {
			seen = row.scenario
			lines = append(lines, fmt.Sprintf("%s: %s", row.scenario, row.what))
		}
	}
	return lines
}

// plain writes the table with aligned columns, and each scenario's name once.
func (r *report) plain(w io.Writer) {
	table := r.cells()
	widths := make([]int, len(columns))
	for _, line := range table {
		for i, cell := range line {
			if i < 2 || len(line) == len(columns) { // the reason of a failure runs on
				widths[i] = max(widths[i], utf8.RuneCountInString(cell))
			}
		}
	}
	previous := ""
	for _, line := range table {
		if line[0] == previous {
			line[0] = ""
		} else {
			previous = line[0]
		}
		for i, cell := range line {
			space := strings.Repeat(" ", max(0, widths[i]-utf8.RuneCountInString(cell)))
			if i < 2 || len(line) < len(columns) {
				line[i] = cell + space
			} else {
				line[i] = space + cell
			}
		}
		fmt.Fprintln(w, strings.TrimRight(strings.Join(line, "  "), " "))
	}
}

func (r *report) markdown(w io.Writer) {
	for i, line := range r.cells() {
		for len(line) < len(columns) {
			line = append(line, "")
		}
		for k, cell := range line {
			line[k] = strings.ReplaceAll(cell, "|", `\|`)
		}
		fmt.Fprintf(w, "| %s |\n", strings.Join(line, " | "))
		if i == 0 {
			fmt.Fprintf(w, "| --- | --- |%s\n", strings.Repeat(" ---: |", len(columns)-2))
		}
	}
}

// cells are the table as words; a failure has but three.
func (r *report) cells() [][]string {
	table := [][]string{slices.Clone(columns)}
	for _, row := range r.rows {
		if row.err != nil {
			table = append(table, []string{row.scenario, row.name, "failed: " + row.err.Error()})
			continue
		}
		cost := duration
		if row.memory {
			cost = size
		}
		spread := ""
		if len(row.cost) > 1 {
			spread = cost(slices.Min(row.cost)) + ".." + cost(slices.Max(row.cost))
		}
		table = append(table, []string{
			row.scenario, row.name, median(row.cost, cost), spread, median(row.ratio, ratio), median(row.rate, rate), median(row.p50, duration),
			median(row.p99, duration), median(row.proxy, share100), median(row.load, share100), median(row.echo, share100),
		})
	}
	return table
}

// median writes that of a figure, and nothing for one that was not measured.
func median(f figure, unit func(float64) string) string {
	if len(f) == 0 {
		return ""
	}
	return unit(f.median())
}

// duration writes nanoseconds with three digits.
func duration(ns float64) string {
	for _, unit := range []struct {
		name string
		size time.Duration
	}{{"s", time.Second}, {"ms", time.Millisecond}, {"µs", time.Microsecond}} {
		if ns >= 0.9995*float64(unit.size) {
			return digits(ns/float64(unit.size)) + " " + unit.name
		}
	}
	return digits(ns) + " ns"
}

// size writes bytes in KiB.
func size(bytes float64) string { return fmt.Sprintf("%.1f KiB", bytes/1024) }

func rate(perSecond float64) string { return digits(perSecond) + "/s" }

func ratio(r float64) string { return fmt.Sprintf("%.2f", r) }

func share100(share float64) string { return fmt.Sprintf("%.0f %%", 100*share) }

// digits writes a number with three digits at least.
func digits(x float64) string {
	switch {
	case x < 9.995:
		return fmt.Sprintf("%.2f", x)
	case x < 99.95:
		return fmt.Sprintf("%.1f", x)
	default:
		return fmt.Sprintf("%.0f", x)
	}
}

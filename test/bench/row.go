//go:build linux

package main

import (
	"cmp"
	"slices"

	"bridgehead/test/bench/load"
	"bridgehead/test/bench/proxies"
)

// A row is a line of the table: what one contender did in one scenario. Its figures have a value for each round.
type row struct {
	scenario, what, name string
	err                  error // instead of all figures

	cost   figure // nanoseconds of processor time a round trip, or bytes a socket; empty without a proxy
	memory bool   // the cost is bytes
	ratio  figure // of the cost to nginx's, or that of `policies off`, in the same round; empty if that is not known

	rate              figure // round trips a second
	p50, p99          figure // nanoseconds
	proxy, load, echo figure // shares of a core
	others            figure // the share of the proxy's core that is nobody's of ours; empty if nobody knows
}

// A figure is one quantity, measured in each round.
type figure []float64

// median is the value in the middle, or between the two in the middle.
func (f figure) median() float64 {
	sorted := slices.Sorted(slices.Values(f))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// rows are what the contenders of a scenario measured; two each if it is memory.
func rows(sc scenario, all []*contender, alone bool) []row {
	steps := []func(*contender) row{func(c *contender) row { return c.row(sc, alone) }}
	if sc.kind == load.Idle {
		steps = []func(*contender) row{
			func(c *contender) row { return c.memory(sc.name, sc.what, opened) },
			func(c *contender) row { return c.memory(sc.name+"-used", "idle again after a message of 16 KiB", used) },
		}
	}
	var table []row
	for _, step := range steps {
		some := make([]row, len(all))
		for i, c := range all {
			some[i] = step(c)
		}
		relate(some)
		table = append(table, some...)
	}
	return table
}

// row is what a contender did with traffic.
func (c *contender) row(sc scenario, alone bool) row {
	r := row{scenario: sc.name, what: sc.what, name: c.name, err: c.err}
	for _, m := range c.results {
		trips, elapsed := float64(m.Trips), float64(m.Elapsed)
		if c.running != nil {
			r.cost = append(r.cost, float64(m.Proxy)/trips)
			r.proxy = append(r.proxy, float64(m.Proxy)/elapsed)
			if alone {
				r.others = append(r.others, float64(m.Others)/elapsed)
			}
		}
		r.rate = append(r.rate, trips/m.Elapsed.Seconds())
		r.p50 = append(r.p50, float64(m.P50))
		r.p99 = append(r.p99, float64(m.P99))
		r.load = append(r.load, float64(m.Load)/elapsed)
		r.echo = append(r.echo, float64(m.Echo)/elapsed)
	}
	return r
}

func opened(m load.Result) int64 { return m.Opened }
func used(m load.Result) int64   { return m.Used }

// memory is what a contender's sockets cost it at one step.
func (c *contender) memory(name, what string, step func(load.Result) int64) row {
	r := row{scenario: name, what: what, name: c.name, err: c.err, memory: true}
	for _, m := range c.results {
		r.cost = append(r.cost, float64(step(m)-m.Before)/float64(m.Trips))
	}
	return r
}

// relate sets the ratios of rows of one scenario to its row of nginx, or of the product without policies, if there is one.
func relate(some []row) {
	i := slices.IndexFunc(some, func(r row) bool { return (r.name == proxies.Nginx || r.name == proxies.PoliciesOff) && r.err == nil })
	if i < 0 {
		return
	}
	for k := range some {
		some[k].ratio = over(some[k].cost, some[i].cost)
	}
}

// over divides one figure by another, round by round.
func over(f, by figure) (ratio figure) {
	for round := range min(len(f), len(by)) {
		ratio = append(ratio, f[round]/cmp.Or(by[round], 1))
	}
	return ratio
}

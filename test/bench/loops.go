//go:build linux

package main

import (
	"bridgehead/test/bench/process"
	"bridgehead/test/bench/proxies"
)

// loops is the scenario that tells whether the product's loops hold each other up. There are hardly ever cores enough for N loops, a
// load and an echo that keep them all busy; so nobody is pinned, and what is compared is not the rate but the processor time a message
// with two loops and with one. What locks, shared cache lines and wake-ups cost shows in that; time spent asleep does not.
const loops = "ws-64-loops"

// byLoops names the row of the product with n loops.
func byLoops(n int) string { return product + ", " + plural(n, "loop") }

// byItsLoops is the suite of that scenario: the product with one loop and with two, and nobody has a core for himself.
func (s *suite) byItsLoops() *suite {
	variant := *s
	variant.cores = s.shared
	variant.proxies = []proxies.Proxy{proxies.Ours(byLoops(1), s.product, "workers: 1"), proxies.Ours(byLoops(2), s.product, "workers: 2")}
	return &variant
}

// shared has every process use all the cores.
func shared(available []int) cores {
	all := process.Of(available...)
	return cores{proxy: all, load: all, echo: all, alone: -1}
}

// Package memory gives back to the system what a burst of clients has left, once it is over.
package memory

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// interval is how often Keep looks.
	interval = time.Second
	// least is how much is worth a collection.
	least = 2 << 20
	// rest is how long the program would take, at its pace, to use again what could be given back.
	rest = time.Minute
	// share bounds the cost: a collection is followed by so many times as long without one.
	share = 100
)

// Keep gives memory back until ctx ends. The runtime would do so by itself, but late: what handshakes have left is found by a collection,
// and a program that rests has none for minutes.
func Keep(ctx context.Context) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	var next time.Time
	for before := read(); ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		now := read()
		if began := time.Now(); now.rests(before) && began.After(next) {
			debug.FreeOSMemory()
			next = began.Add(share * time.Since(began))
		}
		before = now
	}
}

// A usage is what the runtime tells of the heap, in bytes.
type usage struct {
	allocated uint64 // since the program began
	objects   uint64 // hold so much, garbage among them
	live      uint64 // so much of it was found to be none by the last collection
	free      uint64 // holds no object, and was not given back
}

// read asks for the usage, which stops nothing.
func read() usage {
	samples := [...]metrics.Sample{
		{Name: "/gc/heap/allocs:bytes"}, {Name: "/memory/classes/heap/objects:bytes"}, {Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
	}
	metrics.Read(samples[:])
	var values [len(samples)]uint64
	for i, s := range samples {
		if s.Value.Kind() == metrics.KindUint64 { // a runtime that does not know it any more
			values[i] = s.Value.Uint64()
		}
	}
	return usage{values[0], values[1], values[2], values[3]}
}

// rests tells whether there is something to give back that will not be needed soon. What is live may be more by now than the last
// collection has found: then the next one gives back less.
func (u usage) rests(before usage) bool {
	spare := u.objects - min(u.live, u.objects) + u.free
	return spare >= least && (u.allocated-before.allocated)*uint64(rest/interval) < spare
}

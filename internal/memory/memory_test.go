package memory

import (
	"context"
	"runtime/debug"
	"testing"
	"time"

	"bridgehead/internal/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

func TestRests(t *testing.T) {
	t.Parallel()
	const mega = 1 << 20
	for name, c := range map[string]struct {
		allocated uint64 // in an interval
		now       usage
		want      bool
	}{
		"nothing to give back":      {0, usage{objects: 50 * mega, live: 49 * mega}, false},
		"garbage":                   {0, usage{objects: 50 * mega, live: 40 * mega}, true},
		"free":                      {0, usage{objects: 50 * mega, live: 50 * mega, free: 10 * mega}, true},
		"a little of both":          {0, usage{objects: 50 * mega, live: 49 * mega, free: mega}, true},
		"nothing was collected yet": {0, usage{objects: 3 * mega}, true},
		"less than was live":        {0, usage{objects: 40 * mega, live: 50 * mega}, false},
		"needed within a minute":    {mega, usage{objects: 50 * mega, live: 10 * mega}, false},
		"needed after more":         {mega / 2, usage{objects: 50 * mega, live: 10 * mega}, true},
	} {
		before := usage{allocated: 7}
		c.now.allocated = before.allocated + c.allocated
		if got := c.now.rests(before); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// The runtime itself is told to collect nothing meanwhile.
func TestKeep(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	const size = 64 << 20
	for range size >> 20 {
		garbage = make([]byte, 1<<20)
	}
	garbage = nil
	if u := read(); u.objects < size {
		t.Fatalf("%+v where %d bytes are garbage", u, size)
	}
	ctx, cancel := context.WithCancel(t.Context())
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		Keep(ctx)
	}()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(20 * time.Second); ; <-tick.C {
		u := read()
		if u.objects+u.free < size/2 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%+v was not given back", u)
		}
	}
	cancel()
	<-kept
}

// garbage is where the compiler cannot leave it out.
var garbage []byte

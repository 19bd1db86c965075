package pump

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"runtime/debug"
	"sync/atomic"
	"time"

	"bridgehead/internal/metrics"
	"bridgehead/policy"
	"bridgehead/ws"
)

// A Socket is the client's end, upgraded and admitted, as the drivers see it.
type Socket struct {
	Conn    net.Conn
	Early   []byte // what the client sent right behind its handshake; read before Conn
	Deflate bool   // permessage-deflate was negotiated

	Options  func() *Options // the values in force now; they may change while the socket lives
	Grant    *policy.Grant   // the limits this client was admitted under; nil: none
	Counters *Counters
	Outbox   *Outbox // what others than the bridge send to the client; nil: nothing
	Log      *slog.Logger
	Loops    *Loops // to carry it on, if its connections can be; nil: by goroutines

	// End starts the end of the socket. It returns at once, may be called often and from any goroutine; the first cause wins,
	// and then somebody calls Close on the driver.
	End func(ws.Cause)

	// Ending is given when End is first called.
	Ending *Signal
}

// Counters count what passed, for one socket and at once for its route. In is from the client, Out is to it.
type Counters struct {
	in, out tally
	route   *metrics.Route
}

type tally struct{ messages, bytes atomic.Int64 }

// NewCounters gives counters that feed the metrics of a route, which may be nil.
func NewCounters(route *metrics.Route) *Counters { return &Counters{route: route} }

// In counts data messages and their bytes from the client.
func (c *Counters) In(messages, bytes int) {
	c.in.messages.Add(int64(messages))
	c.in.bytes.Add(int64(bytes))
	c.route.In(messages, bytes)
}

// Out counts data messages and their bytes to the client.
func (c *Counters) Out(messages, bytes int) {
	c.out.messages.Add(int64(messages))
	c.out.bytes.Add(int64(bytes))
	c.route.Out(messages, bytes)
}

// Sum is what was counted so far.
func (c *Counters) Sum() (messagesIn, bytesIn, messagesOut, bytesOut int64) {
	return c.in.messages.Load(), c.in.bytes.Load(), c.out.messages.Load(), c.out.bytes.Load()
}

// count counts what came from a side.
func (s *Socket) count(from side, messages, bytes int) {
	switch {
	case messages == 0 && bytes == 0:
	case from == client:
		s.Counters.In(messages, bytes)
	default:
		s.Counters.Out(messages, bytes)
	}
}

// bound tells the filter of a side what one message may be now.
func (s *Socket) bound(f *ws.Filter, from side) {
	o := s.Options()
	if from == backend {
		f.MaxMessage = int64(o.BackendMessageSize)
		return
	}
	b := s.Grant.Bounds(policy.Bounds{MessageSize: int64(o.MessageSize)})
	f.MaxMessage, f.MaxFragments = b.MessageSize, int32(min(b.Fragments, math.MaxInt32))
}

// trafficOf is what a chunk from the client counts for.
func trafficOf(p ws.Passed) policy.Traffic {
	return policy.Traffic{Frames: p.Frames, Messages: p.Messages, Bytes: p.Bytes}
}

// Go runs f in a goroutine of the socket's. A panic in it is logged and ends this socket alone.
func (s *Socket) Go(f func()) {
	go func() {
		defer s.recover()
		f()
	}()
}

// recover is deferred in every goroutine of a socket.
func (s *Socket) recover() {
	if v := recover(); v != nil {
		s.Log.Error("panic in a socket's goroutine", "panic", v, "stack", string(debug.Stack()))
		s.End(ws.Cause{Kind: ws.InternalFailure, Err: fmt.Errorf("panic: %v", v)})
	}
}

// EndBy starts the end of the socket for an error: the ws.Cause that it is, or else a failure of what stands behind the socket.
func (s *Socket) EndBy(err error) { s.End(causeOf(err)) }

func causeOf(err error) ws.Cause {
	if cause, ok := errors.AsType[ws.Cause](err); ok {
		return cause
	}
	return ws.Cause{Kind: ws.BackendFailed, Err: err}
}

// charge counts what one read brought against the limits of the client, and waits as long as these ask for. Its error is the
// ws.Cause to end with when a limit says so.
func (s *Socket) charge(t policy.Traffic, now time.Time, life *life) error {
	pause, err := s.Grant.Charge(t, now)
	if err != nil {
		return ws.Cause{Kind: ws.ClientRate, Err: err}
	}
	if pause > 0 {
		s.Counters.route.Throttled()
		life.busy[client].Store(true)
		s.pause(now.Add(pause))
		life.busy[client].Store(false)
	}
	return nil
}

// lookAgain is how often a client that is throttled asks whether it still has to be: limits may change meanwhile.
const lookAgain = 500 * time.Millisecond

// pause waits until then, or until the client is out of debt if that is sooner.
func (s *Socket) pause(until time.Time) {
	for {
		now := time.Now()
		left := min(until.Sub(now), s.Grant.Debt(now))
		if left <= 0 || !s.sleep(min(left, lookAgain)) {
			return
		}
	}
}

// sleep waits, and returns false when the socket ends meanwhile.
func (s *Socket) sleep(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.Ending.Done():
		return false
	}
}

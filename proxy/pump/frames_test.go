package pump

import (
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"bridgehead/internal/unit"
	"bridgehead/policy"
	"bridgehead/ws"
)

// ways are all that carry a socket: both drivers of frames, toward a WebSocket server and toward a stream, and messages.
var ways = []string{"goroutines", byLoops, "goroutines to a stream", byLoops + " to a stream", "Messages"}

// eachWay runs a test of a client under a rule, over sockets of the system. The backend takes whatever comes.
func eachWay(t *testing.T, rule policy.Rule, test func(t *testing.T, r *rig)) {
	t.Parallel()
	for _, way := range ways {
		if strings.HasPrefix(way, byLoops) && loops == nil {
			continue
		}
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			if way == "Messages" {
				r := newRig(t, quiet(), plain)
				r.socket.Grant = admitUnder(t, rule)
				r.msgs = NewMessages(r.socket)
				close(r.driven)
				go func() { r.socket.End(r.msgs.Serve(func(ws.Message) error { return nil })) }()
				test(t, r)
				return
			}
			stream := strings.HasSuffix(way, "stream")
			r := newLinkRig(t, quiet(), plain, plain, Backend{Stream: stream, Message: ws.Binary})
			r.socket.Grant = admitUnder(t, rule)
			r.link.Start()
			go r.backend.drain(stream)
			test(t, r)
		})
	}
}

// drain reads until the Close, or until the end, and ends too.
func (p *peer) drain(stream bool) {
	defer p.Close()
	if stream {
		_, _ = io.Copy(io.Discard, p.r)
		return
	}
	for f, err := readFrame(p.r); err == nil && f.op != ws.Close; {
		f, err = readFrame(p.r)
	}
}

// endsFor wants a Close for the client, past pongs, and the end of the socket for the cause.
func (r *rig) endsFor(cause ws.Kind, code ws.Code, reason string) {
	r.t.Helper()
	f := r.client.next()
	for f.op == ws.Pong {
		f = r.client.next()
	}
	if c, text := f.closing(); c != code || text != reason {
		r.t.Errorf("got %v, want a Close with %d %q", f, code, reason)
	}
	r.client.Close()
	r.wantCause(cause)
}

func TestFramesClose(t *testing.T) {
	rule := policy.Rule{Frames: unit.Rate{Rate: 1, Burst: 5}, OnExceed: policy.Close}
	eachWay(t, rule, func(t *testing.T, r *rig) {
		for range 100 {
			if _, err := r.client.Write(r.client.frame(true, ws.Ping, "p").append(nil)); err != nil {
				break // it has been closed already
			}
		}
		r.endsFor(ws.ClientRate, 1008, "rate limit exceeded")
	})
}

// Fragments of nothing are frames too, and pongs that nobody asked for.
func TestEveryFrameCounts(t *testing.T) {
	rule := policy.Rule{Frames: unit.Rate{Rate: 1. / 3600, Burst: 8}, OnExceed: policy.Close}
	eachWay(t, rule, func(t *testing.T, r *rig) {
		r.client.send(false, ws.Text, "")
		for range 3 {
			r.client.send(false, ws.Continuation, "")
			r.client.send(true, ws.Pong, "p")
		}
		r.client.send(true, ws.Continuation, "") // the eighth
		if r.msgs == nil {
			eventually(t, "eight pass", func() bool { n, _, _, _ := r.socket.Counters.Sum(); return n == 1 })
		}
		r.client.send(true, ws.Pong, "p")
		r.endsFor(ws.ClientRate, 1008, "rate limit exceeded")
	})
}

func TestTooManyFragments(t *testing.T) {
	eachWay(t, policy.Rule{Fragments: 3}, func(t *testing.T, r *rig) {
		for range 2 { // each message has its own
			r.client.send(false, ws.Binary, "a")
			r.client.send(false, ws.Continuation, "b")
			r.client.send(true, ws.Ping, "p")
			r.client.send(true, ws.Continuation, "c")
		}
		r.client.send(false, ws.Binary, "a")
		r.client.send(false, ws.Continuation, "")
		r.client.send(false, ws.Continuation, "")
		r.client.send(true, ws.Continuation, "")
		r.endsFor(ws.ClientFragments, 1008, "too many fragments")
		if n, _, _, _ := r.socket.Counters.Sum(); n != 2 {
			t.Errorf("%d messages passed, want 2", n)
		}
	})
}

func TestMessageSizeOfARule(t *testing.T) {
	eachWay(t, policy.Rule{MessageSize: 10}, func(t *testing.T, r *rig) {
		r.client.send(true, ws.Text, "ten bytes!")
		r.client.send(false, ws.Text, "ten")
		r.client.write(ws.AppendHeader(nil, ws.Header{Opcode: ws.Continuation, Masked: true, Length: 8})) // not a byte of it follows
		r.endsFor(ws.ClientTooBig, 1009, "message too big")
	})
}

// A client of pings is not read while it owes. What stands behind them comes in its turn, and the clocks are those of a client that is
// not read.
func TestFramesThrottle(t *testing.T) {
	t.Parallel()
	const each = 100 * time.Second
	for _, way := range []string{"Link", "Messages"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				seen := make(chan string, 10)
				var r *rig
				if way == "Link" {
					r = newLinkRig(t, pinging(), pipe, pipe, Backend{})
					r.link.Start()
					go func() {
						for f, err := readFrame(r.backend.r); err == nil; f, err = readFrame(r.backend.r) {
							if f.op == ws.Ping && len(f.payload) == 8 { // ours
								r.backend.Write(r.backend.frame(true, ws.Pong, f.payload).append(nil))
							}
							if f.op == ws.Text {
								seen <- f.payload
							}
						}
					}()
				} else {
					r = newRig(t, pinging(), pipe)
					r.msgs = NewMessages(r.socket)
					close(r.driven)
				}
				r.socket.Grant = admitUnder(t, policy.Rule{Frames: one(each)})
				if r.msgs != nil {
					go func() {
						r.socket.End(r.msgs.Serve(func(m ws.Message) error { seen <- string(m.Data); return nil }))
					}()
				}
				start := time.Now()
				go func() {
					for _, ping := range []string{"one", "two", "three"} {
						r.client.Write(r.client.frame(true, ws.Ping, ping).append(nil))
					}
					r.client.Write(r.client.frame(true, ws.Text, "behind").append(nil))
				}()
				go func() {
					for f, err := readFrame(r.client.r); err == nil; f, err = readFrame(r.client.r) {
						if f.op == ws.Ping {
							t.Errorf("pinged after %v", time.Since(start))
						}
					}
				}()
				if got := <-seen; got != "behind" {
					t.Errorf("got %q", got)
				}
				wantAfter(t, start, 2*each, "the message behind three pings passed") // one is free, two passes by debt
				time.Sleep(each / 2)
				r.socket.End(ws.Cause{Kind: ws.Kicked})
				r.client.Close()
				if r.backend != nil {
					r.backend.Close()
				}
				r.wantCause(ws.Kicked)
				wantAfter(t, start, 5*each/2, "ended")
			})
		})
	}
}

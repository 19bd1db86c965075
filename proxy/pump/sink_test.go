package pump

import (
	"bytes"
	"errors"
	"net"
	"slices"
	"testing"
	"time"

	"bridgehead/hub"
	"bridgehead/ws"
)

// recorder is a connection that keeps what is written to it.
type recorder struct {
	net.Conn
	wrote []byte
	hook  func() // called once, while a write is under way
}

func (r *recorder) Write(b []byte) (int, error) {
	if hook := r.hook; hook != nil {
		r.hook = nil
		hook()
	}
	r.wrote = append(r.wrote, b...)
	return len(b), nil
}

func (r *recorder) SetWriteDeadline(time.Time) error { return nil }

// whole is what passes when one frame, a message of its own, has come.
func whole(f frame) ws.Passed {
	out := f.append(nil)
	return ws.Passed{Out: out, Frame: len(out), Message: len(out)}
}

func newRecorded() (*sink, *recorder) {
	o := quiet()
	conn := new(recorder)
	s := newSink(conn, func() *Options { return &o })
	s.finish = func(m ws.Message, err error) { m.Finish(err) }
	s.outbox = new(Outbox)
	return s, conn
}

// Once we are to close, nothing that the other side sends comes before our Close, not even its own.
func TestOurCloseComesFirst(t *testing.T) {
	t.Parallel()
	s, conn := newRecorded()
	s.close(1001, "", time.Now())
	p := whole(frame{fin: true, op: ws.Close})
	p.Close = &ws.CloseFrame{Code: ws.CodeNoStatus}
	if took, err := s.write(p); took || err != nil {
		t.Errorf("took %v, %v", took, err)
	}
	s.nudge()
	if want := (frame{fin: true, op: ws.Close, payload: closePayload(1001, "")}).append(nil); !bytes.Equal(conn.wrote, want) {
		t.Errorf("wrote % x, want % x", conn.wrote, want)
	}
}

// What is said while somebody writes is written by that one, whatever it writes.
func TestNewsDuringAWriteIsNotLost(t *testing.T) {
	t.Parallel()
	ping := frame{fin: true, op: ws.Ping}.append(nil)
	push := frame{fin: true, op: ws.Text, payload: "push"}.append(nil)
	passing := frame{fin: true, op: ws.Text, payload: "passing"}
	insert := func(s *sink) { s.insert(ping) }
	send := func(s *sink) { s.outbox.Put(ws.Message{Op: ws.Text, Data: []byte("push")}); s.nudge() }
	for _, c := range []struct {
		name       string
		first, say func(s *sink)
		want       []byte
	}{
		{"a ping while a frame passes", func(s *sink) { s.write(whole(passing)) }, insert, slices.Concat(passing.append(nil), ping)},
		{"a push while a frame passes", func(s *sink) { s.write(whole(passing)) }, send, slices.Concat(passing.append(nil), push)},
		{"a ping while a ping is sent", insert, insert, slices.Concat(ping, ping)},
		{"a push while a ping is sent", insert, send, slices.Concat(ping, push)},
		{"a ping while a push is sent", send, insert, slices.Concat(push, ping)},
		{"a push while a push is sent", send, send, slices.Concat(push, push)},
	} {
		s, conn := newRecorded()
		conn.hook = func() { c.say(s) }
		c.first(s)
		if !bytes.Equal(conn.wrote, c.want) {
			t.Errorf("%s: wrote %q, want %q", c.name, conn.wrote, c.want)
		}
	}
}

// A panic in the midst of writing does not keep the turn, which would be waited for at the end.
func TestPanicEndsTheTurn(t *testing.T) {
	t.Parallel()
	s, conn := newRecorded()
	conn.hook = func() {
		s.insert(ws.AppendFrame(nil, ws.Pong, nil, false))
		panic("a fault")
	}
	func() {
		defer func() { recover() }()
		s.insert(ws.AppendFrame(nil, ws.Ping, nil, false))
	}()
	if said, may := s.said(); said || !may {
		t.Errorf("said %v, may %v", said, may)
	}
}

// Control frames that cannot be sent are not hoarded.
func TestControlFramesAreBounded(t *testing.T) {
	t.Parallel()
	s, conn := newRecorded()
	half := ws.Passed{Out: []byte{0x82, 5, 'h', 'a'}, Frame: -1, Message: -1}
	s.write(half)
	ping := ws.AppendFrame(nil, ws.Ping, make([]byte, 100), false)
	for range 1000 {
		if s.insert(ping) {
			t.Fatal("sent inside a frame")
		}
	}
	s.write(ws.Passed{Out: []byte("lf."), Frame: 3, Message: 3})
	if n := len(conn.wrote); n < maxControl || n > 2*maxControl {
		t.Errorf("%d bytes were written", n)
	}
	if !s.insert(ping) {
		t.Error("not sent between two frames")
	}
}

// Whoever sends as fast as the outbox takes it does not keep the bridge, or our Close, from its turn.
func TestPushesDoNotStarveTheBridge(t *testing.T) { bothDrivers(t, testPushesDoNotStarveTheBridge) }

func testPushesDoNotStarveTheBridge(t *testing.T) {
	t.Parallel()
	r := startLink(t, quiet())
	var again func(error)
	again = func(err error) {
		if err == nil {
			r.push(ws.Message{Op: ws.Text, Data: []byte("push"), Done: again})
		}
	}
	again(nil)
	r.client.want(true, ws.Text, "push")
	r.backend.send(true, ws.Text, "of the bridge")
	for r.client.next().payload == "push" {
	}
	r.socket.End(ws.Cause{Kind: ws.Kicked})
	f := r.client.next()
	for f.payload == "push" {
		f = r.client.next()
	}
	if f.op != ws.Close {
		t.Errorf("got %v", f)
	}
}

func TestOutboxIsBounded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ size, fit int }{{0, outboxMessages}, {outboxBytes / 4, 4}, {10 * outboxBytes, 1}} {
		var o Outbox
		done := 0
		m := ws.Message{Data: make([]byte, c.size), Done: func(error) { done++ }}
		for i := range c.fit {
			if err := o.Put(m); err != nil {
				t.Fatalf("message %d of %d bytes: %v", i, c.size, err)
			}
		}
		if err := o.Put(m); !errors.Is(err, hub.ErrSlow) || done != 1 {
			t.Errorf("message %d of %d bytes: %v, done %d", c.fit, c.size, err, done)
		}
		if _, ok := o.take(); !ok {
			t.Error("nothing to take")
		}
		if err := o.Put(m); err != nil {
			t.Errorf("after one was taken: %v", err)
		}
	}
}

func TestClosedOutbox(t *testing.T) {
	t.Parallel()
	var o Outbox
	var told []error
	m := ws.Message{Done: func(err error) { told = append(told, err) }}
	o.Put(m)
	o.Put(m)
	o.take()
	o.Close()
	o.Put(m)
	o.Close()
	if _, ok := o.take(); ok || o.waiting() {
		t.Error("there is something to take after Close")
	}
	if len(told) != 2 || !errors.Is(told[0], hub.ErrClosed) || !errors.Is(told[1], hub.ErrClosed) {
		t.Errorf("told %v", told)
	}
}

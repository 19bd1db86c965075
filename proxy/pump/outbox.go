package pump

import (
	"sync"

	"bridgehead/hub"
	"bridgehead/ws"
)

// The greatest load of an outbox. A single larger message passes alone.
const (
	outboxMessages = 256
	outboxBytes    = 1 << 20
)

// An Outbox holds what others than the bridge send to a client, until the driver writes it between the bridge's own messages.
// Its zero value is ready; its methods may be called at once. A nil Outbox, where nothing may be put, is always empty.
type Outbox struct {
	mu     sync.Mutex // guards the following
	queue  []ws.Message
	bytes  int
	closed bool
}

// Put queues m. When it cannot, m is finished with the error that Put returns: hub.ErrSlow or hub.ErrClosed.
func (o *Outbox) Put(m ws.Message) error {
	err := o.put(m)
	if err != nil {
		m.Finish(err)
	}
	return err
}

func (o *Outbox) put(m ws.Message) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.closed:
		return hub.ErrClosed
	case len(o.queue) >= outboxMessages, len(o.queue) > 0 && o.bytes+len(m.Data) > outboxBytes:
		return hub.ErrSlow
	}
	o.queue = append(o.queue, m)
	o.bytes += len(m.Data)
	return nil
}

// take removes and gives the oldest message.
func (o *Outbox) take() (ws.Message, bool) {
	if o == nil {
		return ws.Message{}, false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.queue) == 0 {
		return ws.Message{}, false
	}
	m := o.queue[0]
	o.queue[0] = ws.Message{}
	o.queue = o.queue[1:]
	o.bytes -= len(m.Data)
	if len(o.queue) == 0 {
		o.queue = nil
	}
	return m, true
}

// waiting reports whether there is anything to take.
func (o *Outbox) waiting() bool {
	if o == nil {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.queue) > 0
}

// Close finishes all that waits, and all that is yet to come, with hub.ErrClosed.
func (o *Outbox) Close() {
	if o == nil {
		return
	}
	o.mu.Lock()
	queue := o.queue
	o.queue, o.closed = nil, true
	o.mu.Unlock()
	for _, m := range queue {
		m.Finish(hub.ErrClosed)
	}
}

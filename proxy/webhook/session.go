package webhook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"bridgehead/proxy"
	"bridgehead/proxy/pump"
	"bridgehead/proxy/upstream"
	"bridgehead/ws"
)

// closeTimeout is how long one attempt to deliver a `close` may take: nobody waits for it but the end of the program.
const closeTimeout = 15 * time.Second

// A session is one client's conversation with the application. The client's messages queue; while there are any, one goroutine
// sends the queue and does what the replies ask for before it sends again, so that a client that does not read stops its own
// requests. A full queue stops the reading of the socket.
type session struct {
	bridge     *Bridge
	lease      *upstream.Lease
	at         way                 // where requests go
	ways       map[string]*url.URL // where they would go at other servers, by their keys
	log        *slog.Logger
	since      time.Time
	connection connection // as of the handshake
	welcome    []action   // what the reply to `connect` asks for

	client   *proxy.Client // nil before Start
	messages *pump.Messages

	ctx  context.Context // of the requests; ends when they have had their time after the end of the socket
	stop context.CancelFunc

	seq atomic.Int64 // of the next event

	mu     sync.Mutex // guards the following
	queue  []event
	bytes  int           // in queue
	room   chan struct{} // closed when the queue is not full any more; nil: nobody waits for that
	sender chan struct{} // closed when the sender has ended; nil: there is none
	over   bool          // nothing more is queued
}

// Start begins to read the client.
func (s *session) Start(c *proxy.Client) {
	s.client, s.messages = c, pump.NewMessages(&c.Socket)
	c.Attach(s.messages)
	if len(s.welcome) > 0 {
		s.mu.Lock()
		s.startSenderLocked()
		s.mu.Unlock()
	}
	c.Go(func() { c.End(s.messages.Serve(s.take)) })
	s.lease.Carry(c)
}

// Close ends the client's side and delivers what it had sent.
func (s *session) Close(cause ws.Cause) {
	defer s.stop()
	defer s.lease.Release()
	var hangUp sync.WaitGroup
	defer hangUp.Wait()
	if s.messages != nil {
		hangUp.Go(func() { s.messages.Close(cause) })
		s.flush()
	}
}

// setup is what holds for the session now.
func (s *session) setup() *setup { return s.bridge.current.Load() }

// event completes an event of this moment.
func (s *session) event(kind string, e event) event {
	e.Seq, e.Type, e.Time = s.seq.Add(1)-1, kind, stamp(time.Now())
	e.ID = s.connection.ID + "-" + strconv.FormatInt(e.Seq, 10)
	return e
}

// request makes the request for some events; they are of one type.
func (s *session) request(timeout time.Duration, events ...event) (*request, error) {
	connection := s.connection
	if s.client != nil {
		connection.User, connection.State = s.client.User(), s.client.State()
	}
	body, err := encode(s.setup().Route, connection, events)
	if err != nil {
		return nil, err
	}
	r := &request{op: events[0].Type, id: requestID(events), body: body, timeout: timeout}
	if s.lease != nil {
		r.elsewhere = s.elsewhere(new(upstream.Tried))
		s.at.server = s.lease.Target() // which a reload may have changed
		if !s.lease.Well() {
			r.elsewhere(nil)
		}
	}
	r.to = s.at
	return r, nil
}

// elsewhere leads the session to servers that were not tried before. From then on it stays there.
func (s *session) elsewhere(tried *upstream.Tried) func(error) (way, bool) {
	return func(err error) (way, bool) {
		for s.lease.Move(tried, err) {
			server := s.lease.Target()
			to := s.ways[server.Key()]
			if server.Key() == s.at.server.Key() { // another address of the same name
				to = s.at.url
			}
			if to != nil {
				s.at = way{server, to}
				return s.at, true
			}
			err = nil // it was not this server's
		}
		return way{}, false
	}
}

// take queues a message of the client, and returns when the queue has room for another.
func (s *session) take(m ws.Message) error {
	if room := s.enqueue(m); room != nil {
		select {
		case <-room:
		case <-s.client.Ending.Done():
		}
	}
	return nil
}

// enqueue adds a message to the queue, and if that is full now gives the channel that is closed when there is room.
func (s *session) enqueue(m ws.Message) (room <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return nil
	}
	e := s.event(typeMessage, event{message: newMessage(m)})
	s.queue = append(s.queue, e)
	s.bytes += e.size()
	if s.sender == nil {
		s.startSenderLocked()
	}
	if s.fullLocked() && s.room == nil {
		s.room = make(chan struct{})
	}
	return s.room
}

func (s *session) fullLocked() bool {
	q := &s.setup().options.Queue
	return len(s.queue) >= q.Messages || q.Bytes > 0 && s.bytes >= int(q.Bytes)
}

// next takes the events of the next request out of the queue: as many as it may carry. When there are none the sender is over.
func (s *session) next() []event {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, size, limit := 0, 0, int(s.setup().options.Queue.Bytes)
	for n < len(s.queue) {
		size += s.queue[n].size()
		if n > 0 && limit > 0 && size > limit {
			break
		}
		n++
	}
	batch := s.queue[:n:n]
	s.queue = s.queue[n:]
	for _, e := range batch {
		s.bytes -= e.size()
	}
	if n == 0 {
		s.queue, s.sender = nil, nil
	}
	if s.room != nil && !s.fullLocked() {
		close(s.room)
		s.room = nil
	}
	return batch
}

// startSenderLocked starts the one sender.
func (s *session) startSenderLocked() {
	ended := make(chan struct{})
	s.sender = ended
	s.client.Go(func() {
		defer close(ended)
		s.send()
	})
}

// send does what the application asked for and delivers the queue, in turn, until it is empty.
func (s *session) send() {
	s.run(s.welcome)
	s.welcome = nil
	for batch := s.next(); len(batch) > 0; batch = s.next() {
		actions, err := s.deliver(batch)
		if err != nil {
			s.fail(err, len(batch))
			return
		}
		s.run(actions)
	}
}

// deliver posts events until they are taken, and gives what the application asks for. Its error, a ws.Cause, ends the socket.
func (s *session) deliver(batch []event) ([]action, error) {
	o := &s.setup().options
	r, err := s.request(o.Timeout, batch...)
	if err != nil {
		return nil, ws.Cause{Kind: ws.InternalFailure, Err: err}
	}
	resp, err := s.setup().app.insist(s.ctx, s.log, r)
	if err != nil {
		return nil, ws.Cause{Kind: ws.BackendFailed, Err: err}
	}
	s.lease.Reached()
	switch judge(resp.status) {
	case done:
		return s.asked(r, &resp), nil
	case disowned:
		return nil, ws.Cause{Kind: ws.BackendDisowned, Err: resp.err()}
	case refused:
		if o.OnRefused == dropRefused {
			s.log.Warn("messages refused and dropped", "request", r.id, "count", len(batch), "error", resp.err())
			return nil, nil
		}
	}
	return nil, ws.Cause{Kind: ws.BackendFailed, Err: resp.err()}
}

// asked is what a reply asks for: nothing, if it makes no sense. The events were taken all the same, and are not sent again.
func (s *session) asked(r *request, resp *response) []action {
	answer, err := resp.reply()
	if err != nil {
		s.log.Error("reply not understood", "request", r.id, "error", err)
	}
	return answer.actions
}

// fail ends the socket, and with it the queue.
func (s *session) fail(cause error, lost int) {
	s.mu.Lock()
	lost += len(s.queue)
	s.queue, s.over = nil, true
	s.mu.Unlock()
	s.log.Warn("messages lost", "count", lost, "error", cause)
	s.end(cause)
}

// end ends the socket; err is a ws.Cause.
func (s *session) end(err error) {
	if cause, ok := errors.AsType[ws.Cause](err); ok {
		s.client.End(cause)
	}
}

// run does what the application asked for, in order, as far as `close`. Once the socket ends the client hears nothing more.
func (s *session) run(actions []action) {
	for _, a := range actions {
		switch {
		case a.set != nil:
			s.set(a.set)
		case a.send != nil && !s.client.Ending.Given():
			s.write(*a.send)
		case a.close != nil:
			s.bid(a.close)
			return
		}
	}
}

func (s *session) set(c *change) {
	if c.User != nil {
		s.client.SetUser(*c.User)
	}
	if c.State != nil {
		s.client.SetState(kept(c.State))
	}
}

// write sends a message and waits until the client's socket has taken it.
func (s *session) write(m ws.Message) {
	if limit := s.client.Options().BackendMessageSize; limit > 0 && len(m.Data) > int(limit) {
		s.end(ws.Cause{Kind: ws.BackendTooBig, Err: fmt.Errorf("a message of %d bytes; backend_message_size is %s", len(m.Data), limit)})
		return
	}
	if err := s.messages.Write(m); err != nil {
		s.end(err)
	}
}

// bid closes the socket as the application wants it.
func (s *session) bid(f *farewell) {
	code, ok := f.code()
	if !ok {
		s.log.Error("close code may not be sent; the Close frame is empty", "code", f.Code)
	}
	s.end(ws.Cause{Kind: ws.BackendClosed, Code: code, Reason: f.Reason})
}

// flush gives the queue the time of one request to reach the application. Afterwards nobody sends any more.
func (s *session) flush() {
	s.mu.Lock()
	s.over = true
	sender := s.sender
	s.mu.Unlock()
	if sender == nil {
		return
	}
	timer := time.AfterFunc(s.setup().options.Timeout, s.stop)
	defer timer.Stop()
	<-sender
}

// Report tells the application that the connection is gone. It gets no retries beyond those of a message: what is not told by
// then is only logged.
func (s *session) Report(cause ws.Cause) {
	c := newClosing(cause, time.Since(s.since))
	if s.client != nil {
		c.MessagesIn, c.BytesIn, c.MessagesOut, c.BytesOut = s.client.Counters.Sum()
	}
	r, err := s.request(closeTimeout, s.event(typeClose, event{closing: c}))
	if err == nil {
		_, err = s.setup().app.insist(context.Background(), s.log, r)
	}
	if err != nil {
		s.log.Warn("the application was not told of the end", "error", err)
	}
}

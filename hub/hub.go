// Package hub keeps the live connections: it finds them for pushes, lists them for operators, and drains them. It knows them
// as an interface alone.
package hub

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"bridgehead/ws"
)

// What Conn.Send may answer.
var (
	ErrSlow   = errors.New("the client does not keep up")
	ErrClosed = errors.New("the connection is closed")
	ErrNoPush = errors.New("connections of this route take no pushes")
)

// A Conn is a live connection. All methods may be called at once from any goroutine and never block on the network.
type Conn interface {
	ID() string
	Info() Info
	Send(ws.Message) error // queues; ErrSlow, ErrClosed or ErrNoPush, and then the message's Done was called with it
	End(ws.Cause)          // starts the end; the first cause wins
}

// Info is what is known of a connection at one moment.
type Info struct {
	ID          string          `json:"id"`
	Route       string          `json:"route"`
	Kind        string          `json:"kind"` // the bridge: websocket, tcp or webhook
	Client      string          `json:"client"`
	User        string          `json:"user,omitempty"`
	Certificate string          `json:"certificate,omitempty"` // the subject of the client's own
	Subprotocol string          `json:"subprotocol,omitempty"`
	Claims      map[string]any  `json:"claims,omitempty"` // sub and jti of a token, and what backends are told; not to be changed
	ConnectedAt time.Time       `json:"connected_at"`
	MessagesIn  int64           `json:"messages_in"`
	MessagesOut int64           `json:"messages_out"`
	BytesIn     int64           `json:"bytes_in"`
	BytesOut    int64           `json:"bytes_out"`
	State       json.RawMessage `json:"state,omitempty"`
}

// A Hub holds the live connections of one program. Its methods may be called at once.
type Hub struct {
	mu      sync.RWMutex // guards the following
	conns   map[string]Conn
	pending int                // handshakes under way, and ends that are still being told
	calls   Entry              // of EndAll so far
	recent  []call             // the last of them, as long as something is pending
	drain   *ws.Cause          // set once a drain has begun
	empty   context.Context    // ends when a drain has begun and nothing is left or pending
	isEmpty context.CancelFunc // ends it
}

// New gives an empty hub.
func New() *Hub { return &Hub{conns: make(map[string]Conn)} }

// An Entry is the moment at which a handshake began, counted in calls of EndAll.
type Entry uint64

// A call is one of EndAll.
type call struct {
	selects func(Info) bool
	cause   ws.Cause
}

// mostCalls bounds those that are remembered for handshakes under way.
const mostCalls = 1000

// tryAgain ends a connection that more calls may have meant than are remembered.
var tryAgain = ws.Cause{Kind: ws.Kicked, Code: ws.CodeTryAgainLater, Reason: "try again"}

// Enter announces a handshake that may lead to a connection, until Leave; so a drain waits for it. During a drain it is refused.
func (h *Hub) Enter() (since Entry, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.drain != nil {
		return 0, false
	}
	h.pending++
	return h.calls, true
}

// Leave ends what Enter or Retire began. The connection of a handshake, if there is one, was added before.
func (h *Hub) Leave() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.pending--; h.pending == 0 {
		h.recent = nil
	}
	h.tellEmptyLocked()
}

// Add registers c, whose handshake began at since, until Retire. During a drain it is ended at once, and so it is if a call of EndAll
// since then means it.
func (h *Hub) Add(c Conn, since Entry) {
	h.mu.Lock()
	h.conns[c.ID()] = c
	drain, missed := h.drain, int(h.calls-since)
	calls := h.recent[max(0, len(h.recent)-missed):]
	h.mu.Unlock()
	if drain != nil {
		c.End(*drain)
	}
	for _, call := range calls {
		if call.selects(c.Info()) {
			c.End(call.cause)
			return
		}
	}
	if missed > len(calls) {
		c.End(tryAgain)
	}
}

// EndAll ends with cause the connections that are selected, and gives their number. One that is not here yet, since its handshake is
// under way, meets the same when it is added, if it is selected then: nobody slips through who had authenticated just before. selects
// may be called from any goroutine.
func (h *Hub) EndAll(selects func(Info) bool, cause ws.Cause) (ended int) {
	h.mu.Lock()
	h.calls++
	if h.pending > 0 {
		if len(h.recent) == mostCalls {
			h.recent = h.recent[1:] // others may be reading it: append moves it when its room is used up
		}
		h.recent = append(h.recent, call{selects, cause})
	}
	h.mu.Unlock()
	for _, c := range h.All() {
		if selects(c.Info()) {
			c.End(cause)
			ended++
		}
	}
	return ended
}

// Retire takes c out; a drain waits for it until Leave, since somebody may have to be told of its end. It may be called for a
// connection that is not there.
func (h *Hub) Retire(c Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.conns, c.ID())
	h.pending++
}

// Get finds a connection by its id.
func (h *Hub) Get(id string) (Conn, bool) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	c, ok := h.conns[id]
	return c, ok
}

// Len counts the connections.
func (h *Hub) Len() int {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return len(h.conns)
}

// All gives the connections of this moment, ordered by id.
func (h *Hub) All() []Conn {
	h.mu.RLock()
	all := make([]Conn, 0, len(h.conns))
	for _, c := range h.conns {
		all = append(all, c)
	}
	h.mu.RUnlock()
	slices.SortFunc(all, func(a, b Conn) int { return strings.Compare(a.ID(), b.ID()) })
	return all
}

// socketsPerSecond is the pace of a drain whose window has room for it: clients that come back all at once would be a herd, and
// a few need no long window.
const socketsPerSecond = 200

// Drain ends every connection with cause, each at a random moment of the window, and newcomers at once. The window shrinks
// when there are few connections. Drain returns nil when none is left, or the error of ctx.
func (h *Hub) Drain(ctx context.Context, window time.Duration, cause ws.Cause) error {
	empty := h.beginDrain(cause)
	spreading, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(empty, cancel)()
	Spread(spreading, h.All(), window, cause)
	select {
	case <-empty.Done():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Spread ends connections with cause, each at a random moment of the window, which shrinks when there are few. It returns when all
// were told to end, or when ctx ends.
func Spread(ctx context.Context, conns []Conn, window time.Duration, cause ws.Cause) {
	window = min(window, time.Duration(len(conns))*time.Second/socketsPerSecond)
	moments := make([]time.Duration, len(conns))
	for i := range moments {
		moments[i] = rand.N(window + 1)
	}
	slices.Sort(moments)
	begin := time.Now()
	for i, j := range rand.Perm(len(conns)) {
		if !sleepUntil(ctx, begin.Add(moments[i])) {
			return
		}
		conns[j].End(cause)
	}
}

func (h *Hub) beginDrain(cause ws.Cause) context.Context {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.drain == nil {
		h.drain = &cause
		h.empty, h.isEmpty = context.WithCancel(context.Background())
		h.tellEmptyLocked()
	}
	return h.empty
}

// tellEmptyLocked ends empty when the last connection of a drain has gone.
func (h *Hub) tellEmptyLocked() {
	if h.drain != nil && len(h.conns)+h.pending == 0 {
		h.isEmpty()
	}
}

// sleepUntil waits for t, and returns false when ctx has ended before.
func sleepUntil(ctx context.Context, t time.Time) bool {
	if d := time.Until(t); d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	return ctx.Err() == nil
}

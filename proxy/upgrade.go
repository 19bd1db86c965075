package proxy

import (
	"bytes"
	"net"
	"net/http"
	"time"

	"bridgehead/internal/door"
	"bridgehead/proxy/pump"
	"bridgehead/ws"
)

// An upgraded connection is out of net/http's hands.
type upgraded struct {
	conn  net.Conn
	early []byte     // what the client sent right behind its handshake
	pass  *door.Pass // to be left when conn is closed; nil over HTTP/2, where the connection is not the socket's
}

// upgrade answers a handshake and takes the connection out of net/http (RFC 6455, section 4.2.2). Over HTTP/2 the request and its
// answer are the connection from then on (RFC 8441, section 5). What is behind the answer goes out with it. The time by which all has
// to be written may be zero, for none. With an error the connection is there too, unless nobody could have it.
func upgrade(w http.ResponseWriter, h *Handshake, answer ws.Answer, behind []byte, by time.Time) (up upgraded, err error) {
	if h.Request.ProtoMajor > 1 {
		up.conn = pump.NewStream(w, h.Request)
		_ = up.conn.SetWriteDeadline(by)
		answer.Set(w.Header(), h.Offer.Key)
		_, err = up.conn.Write(behind)
		return up, err
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil { // whoever wrapped w has hidden it
		w.WriteHeader(http.StatusInternalServerError)
		return up, err
	}
	early, _ := buffered.Reader.Peek(buffered.Reader.Buffered())
	up = upgraded{door.Bare(conn), bytes.Clone(early), door.From(h.Request.Context()).Pass()}
	_ = conn.SetWriteDeadline(by)
	_, err = conn.Write(append(ws.AppendAnswer(buffered.AvailableBuffer(), h.Offer.Key, answer), behind...))
	return up, err
}

// after is the time when d has passed, zero if d is none.
func after(d time.Duration) (by time.Time) {
	if d > 0 {
		by = time.Now().Add(d)
	}
	return by
}

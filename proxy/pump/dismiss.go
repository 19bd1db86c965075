package pump

import (
	"bytes"
	"context"
	"io"
	"net"
	"time"

	"bridgehead/ws"
)

// maxDiscarded is what the client of a dismissed socket may still say, in bytes: a page that knows of no refusal yet may send a whole
// message as soon as its socket is open.
const maxDiscarded = 1 << 20

// Dismiss ends a socket that was sent a Close right behind its handshake. It waits for the client's Close and discards what comes
// before, until ctx ends; then comes TCP's end, as in HangUp, or RST at once for a client that says too much. early is what was read
// of the socket already.
func Dismiss(ctx context.Context, conn net.Conn, early []byte) {
	rest := &io.LimitedReader{R: io.MultiReader(bytes.NewReader(early), conn), N: maxDiscarded}
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	awaitClose(rest)
	stop()
	if rest.N <= 0 {
		abort(conn)
		return
	}
	HangUp(conn)
}

// awaitClose reads until a Close has come, or nothing can come that is worth waiting for.
func awaitClose(from io.Reader) {
	filter := ws.Filter{FromClient: true}
	buf := make([]byte, 4<<10)
	for {
		held := filter.Held(buf)
		n, failed := from.Read(buf[held:])
		passed, offence := filter.Pass(buf[:held+n])
		if passed.Close != nil || offence != nil || failed != nil {
			return
		}
	}
}

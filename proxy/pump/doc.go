// Package pump joins two ends and carries bytes between them.
//
// A Link carries frames: between a client and an upstream socket, or between a client and a byte stream. Frames pass as they
// come and no buffer is held while nothing flows. Messages carries whole messages for bridges that need them; it is the home of
// gorilla/websocket's server side. Both drive the same Socket, run the same clocks, obey the same limits, and close the same way.
//
// A Link has two drivers, which do the same. Event loops carry connections of the operating system, and TLS on top of them, where
// there are loops: all that belongs to a socket runs on one of them, and nothing may wait there. Goroutines carry everything else:
// one per direction, over any net.Conn.
package pump

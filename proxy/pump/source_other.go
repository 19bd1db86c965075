//go:build !unix

package pump

import "net"

// eachReady knows no connection that can wait without a buffer on this system.
func eachReady(net.Conn, taker) (handled bool, err error) { return false, nil }

//go:build linux

package load

import "net"

// An adapter is the transport under crypto/tls. At first it is an ordinary connection; without one it works on memory: what Read
// gives was put there by the loop, and an empty Read is no error for good; what Write takes is for the loop to send.
type adapter struct {
	net.Conn

	in, out []byte
}

func (a *adapter) Read(p []byte) (int, error) {
	if a.Conn != nil {
		return a.Conn.Read(p)
	}
	if len(a.in) == 0 {
		return 0, wouldBlock{}
	}
	n := copy(p, a.in)
	a.in = a.in[n:]
	return n, nil
}

func (a *adapter) Write(p []byte) (int, error) {
	if a.Conn != nil {
		return a.Conn.Write(p)
	}
	a.out = append(a.out, p...)
	return len(p), nil
}

// wouldBlock is a net.Error that crypto/tls does not keep, because it is temporary.
type wouldBlock struct{}

func (wouldBlock) Error() string   { return "nothing to read for now" }
func (wouldBlock) Timeout() bool   { return false }
func (wouldBlock) Temporary() bool { return true }

//go:build !linux || !(amd64 || arm64)

package pump

import "errors"

// Loops are the event loops, which this system does not have.
type Loops struct{}

// NewLoops fails with errors.ErrUnsupported.
func NewLoops(int) (*Loops, error) { return nil, errors.ErrUnsupported }

// Close does nothing.
func (*Loops) Close() {}

func (*Loops) link(*Socket, Backend) (Link, bool) { return nil, false }

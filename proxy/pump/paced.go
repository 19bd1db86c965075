package pump

import (
	"net"
	"sync"
	"time"
)

// pieceSize is what is written under one deadline: any chunk, with what its filter kept back, is one piece.
const pieceSize = headroom + chunkSize

// A paced connection applies the write timeout to each piece of a write: a peer that takes a large message slowly is not one
// that takes nothing.
type paced struct {
	net.Conn
	options func() *Options

	mu  sync.Mutex // guards the following, and that the deadline of Conn is what it says
	end time.Time  // no write lasts longer; zero: none is set
}

// Write writes b in pieces.
func (p *paced) Write(b []byte) (n int, err error) {
	for {
		p.arm()
		k, err := p.Conn.Write(b[:min(len(b), pieceSize)])
		n += k
		b = b[k:]
		if err != nil || len(b) == 0 {
			return n, err
		}
	}
}

// SetWriteDeadline does nothing: Write sets its own.
func (p *paced) SetWriteDeadline(time.Time) error { return nil }

// endBy bounds the write that waits at this moment and all that follow, whatever the write timeout says.
func (p *paced) endBy(by time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.end = by
	p.Conn.SetWriteDeadline(by)
}

func (p *paced) arm() {
	p.mu.Lock()
	defer p.mu.Unlock()
	by := p.end
	if timeout := p.options().WriteTimeout; timeout > 0 {
		by = sooner(by, time.Now().Add(timeout))
	}
	p.Conn.SetWriteDeadline(by)
}

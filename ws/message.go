package ws

// An Opcode is the type of a frame (RFC 6455, section 5.2).
type Opcode byte

// The opcodes of RFC 6455, section 11.8.
const (
	Continuation Opcode = 0x0
	Text         Opcode = 0x1
	Binary       Opcode = 0x2
	Close        Opcode = 0x8
	Ping         Opcode = 0x9
	Pong         Opcode = 0xA
)

// IsControl reports whether frames of this type may stand between the fragments of a message (RFC 6455, section 5.5).
func (o Opcode) IsControl() bool { return o&0x8 != 0 }

// A Message is one whole text or binary message.
type Message struct {
	Op   Opcode // Text or Binary
	Data []byte // owned by whoever holds the message; never changed after it was sent

	// Done, if set, is called exactly once: with nil when the message was handed to the socket, else with the reason why it
	// never will be. It must not block.
	Done func(error)
}

// Finish calls Done if there is one.
func (m Message) Finish(err error) {
	if m.Done != nil {
		m.Done(err)
	}
}

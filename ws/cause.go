package ws

import "fmt"

// A Code is the status of a Close frame (RFC 6455, section 7.4 and the IANA registry).
type Code uint16

// The registered codes that matter to us.
const (
	CodeNormal          Code = 1000
	CodeGoingAway       Code = 1001
	CodeProtocolError   Code = 1002
	CodeUnsupportedData Code = 1003
	CodeNoStatus        Code = 1005 // never on the wire: stands for an empty Close frame
	CodeAbnormal        Code = 1006 // never on the wire: stands for a connection that vanished
	CodeInvalidPayload  Code = 1007
	CodePolicyViolation Code = 1008
	CodeTooBig          Code = 1009
	CodeInternalError   Code = 1011
	CodeServiceRestart  Code = 1012
	CodeTryAgainLater   Code = 1013
	CodeBadGateway      Code = 1014
)

// An Initiator says who ended a socket.
type Initiator string

// Who may end a socket. The words appear in logs and in the webhook `close` event.
const (
	ByClient   Initiator = "client"
	ByBackend  Initiator = "backend"
	ByGateway  Initiator = "gateway"
	ByLimit    Initiator = "limit"
	ByShutdown Initiator = "shutdown"
)

// A Kind names why a socket ended. The table below gives each its initiator and what both sides are told.
type Kind uint8

// The kinds of causes.
const (
	ClientClosed    Kind = iota + 1 // the client sent a Close
	ClientGone                      // the client's connection vanished without a Close
	ClientDead                      // the client answered no ping
	ClientSlow                      // the client did not take what was sent to it
	ClientProtocol                  // the client broke RFC 6455
	ClientOpcode                    // the client sent text where binary is asked for, or the reverse
	ClientEncoding                  // the client's text is not UTF-8
	ClientContent                   // the client's message holds what its framing forbids
	ClientTooBig                    // the client's message is too big
	ClientRate                      // the client exceeded a rate of what it sends whose rule says close
	ClientBarred                    // the client's address is not allowed any more
	ClientFragments                 // the client's message has too many fragments
	ClientUnproven                  // what the client has proven, such as its certificate, is not accepted any more
	BackendClosed                   // the backend ended in good order
	BackendGone                     // the backend's connection vanished without a Close
	BackendReset                    // the backend reset its stream
	BackendDead                     // the backend answered no ping
	BackendSlow                     // the backend did not take what was sent to it
	BackendProtocol                 // the backend broke RFC 6455
	BackendTooBig                   // the backend's message is too big
	BackendFailed                   // the backend failed for good: a webhook out of retries, a codec error
	BackendDisowned                 // a webhook answered 410: not its connection
	IdleTimeout                     // no message either way for too long
	LifetimeReached                 // the socket reached its greatest age
	TokenExpired                    // the token that let the client in has expired
	Unauthorized                    // who let the client in does so no more
	Kicked                          // somebody closed it by the API
	RouteRemoved                    // its route is gone or changed
	ShuttingDown                    // the program ends
	InternalFailure                 // a fault of ours: a panic in the socket's goroutine
)

// effect is one row of the table of causes: its name in logs and metrics, who ended the socket, what each side is told. Code 0
// means that this side is told nothing more: it is gone or closed first.
type effect struct {
	name            string
	by              Initiator
	client, backend Code
	reason          string
}

// effects is the one table from cause to close code (for both directions of all bridges).
var effects = [...]effect{
	ClientClosed:    {"client closed", ByClient, CodeNormal, CodeNormal, ""},
	ClientGone:      {"client gone", ByClient, 0, CodeGoingAway, "client gone"},
	ClientDead:      {"client dead", ByGateway, CodeGoingAway, CodeGoingAway, "no answer to ping"},
	ClientSlow:      {"client slow", ByLimit, CodeTryAgainLater, CodeGoingAway, "client too slow"},
	ClientProtocol:  {"client protocol error", ByGateway, CodeProtocolError, CodeGoingAway, "protocol error"},
	ClientOpcode:    {"client opcode", ByGateway, CodeUnsupportedData, CodeGoingAway, "wrong message type"},
	ClientEncoding:  {"client encoding", ByGateway, CodeInvalidPayload, CodeGoingAway, "text is not UTF-8"},
	ClientContent:   {"client content", ByGateway, CodePolicyViolation, CodeGoingAway, "message not allowed"},
	ClientTooBig:    {"client message too big", ByLimit, CodeTooBig, CodeGoingAway, "message too big"},
	ClientRate:      {"client rate", ByLimit, CodePolicyViolation, CodeGoingAway, "rate limit exceeded"},
	ClientBarred:    {"client barred", ByGateway, CodePolicyViolation, CodeGoingAway, "address not allowed"},
	ClientFragments: {"client fragments", ByLimit, CodePolicyViolation, CodeGoingAway, "too many fragments"},
	ClientUnproven:  {"client unproven", ByGateway, CodePolicyViolation, CodeGoingAway, "credentials no longer accepted"},
	BackendClosed:   {"backend closed", ByBackend, CodeNormal, CodeNormal, ""},
	BackendGone:     {"backend gone", ByBackend, CodeBadGateway, 0, "backend gone"},
	BackendReset:    {"backend reset", ByBackend, CodeInternalError, 0, "backend reset the connection"},
	BackendDead:     {"backend dead", ByGateway, CodeBadGateway, CodeGoingAway, "no answer to ping"},
	BackendSlow:     {"backend slow", ByGateway, CodeInternalError, CodeTryAgainLater, "backend too slow"},
	BackendProtocol: {"backend protocol error", ByGateway, CodeInternalError, CodeProtocolError, "protocol error"},
	BackendTooBig:   {"backend message too big", ByLimit, CodeGoingAway, CodeTooBig, "message too big"},
	BackendFailed:   {"backend failed", ByBackend, CodeInternalError, CodeInternalError, "backend failed"},
	BackendDisowned: {"backend disowned", ByBackend, CodeGoingAway, CodeGoingAway, ""},
	IdleTimeout:     {"idle", ByGateway, CodeGoingAway, CodeGoingAway, "idle"},
	LifetimeReached: {"lifetime", ByGateway, CodeGoingAway, CodeGoingAway, "lifetime reached"},
	TokenExpired:    {"token expired", ByGateway, CodePolicyViolation, CodeGoingAway, "authentication expired"},
	Unauthorized:    {"authorization withdrawn", ByGateway, CodePolicyViolation, CodeGoingAway, "authentication withdrawn"},
	Kicked:          {"closed by API", ByGateway, CodeNormal, CodeGoingAway, ""},
	RouteRemoved:    {"route changed", ByShutdown, CodeServiceRestart, CodeServiceRestart, "route changed"},
	ShuttingDown:    {"shutdown", ByShutdown, CodeGoingAway, CodeGoingAway, "shutting down"},
	InternalFailure: {"internal failure", ByGateway, CodeInternalError, CodeInternalError, "internal error"},
}

// A Cause says why a socket ended. The first cause wins.
type Cause struct {
	Kind Kind

	// Code and Reason are what the closing peer, or whoever used the API, wrote; they replace the table's code and reason for
	// the client. CodeNoStatus asks for an empty Close frame. 0 leaves it to the table.
	Code   Code
	Reason string

	Err error // for the log alone, never on the wire
}

// String names the kind, for logs and metrics: a bounded set of words.
func (k Kind) String() string {
	if int(k) < len(effects) && k > 0 {
		return effects[k].name
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// By says who ended the socket.
func (c Cause) By() Initiator { return effects[c.Kind].by }

// Client is the close code and reason for the client; code 0 means that it is told nothing.
func (c Cause) Client() (Code, string) {
	if c.Code != 0 {
		return c.Code, c.Reason
	}
	return effects[c.Kind].client, effects[c.Kind].reason
}

// Backend is the close code and reason for an upstream socket; code 0 means that it is told nothing. A side that closed gets its
// own code back (RFC 6455, section 5.5.1).
func (c Cause) Backend() (Code, string) {
	if c.Code != 0 && (c.Kind == ClientClosed || c.Kind == BackendClosed) {
		return c.Code, c.Reason
	}
	return effects[c.Kind].backend, effects[c.Kind].reason
}

// Error makes a Cause usable as an error on the way to whoever ends the socket.
func (c Cause) Error() string {
	if c.Err != nil {
		return fmt.Sprintf("%s: %v", c.Kind, c.Err)
	}
	return c.Kind.String()
}

// Unwrap gives the error behind the cause.
func (c Cause) Unwrap() error { return c.Err }

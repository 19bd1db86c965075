package connect

import (
	"cmp"
	"fmt"

	"bridgehead/ws"
)

// codes are the names of the registered close codes (IANA, WebSocket Close Code Number Registry), and of those that gateways and
// applications use by custom: 4000 and a status of HTTP.
var codes = map[ws.Code]string{
	1000: "normal closure",
	1001: "going away",
	1002: "protocol error",
	1003: "unsupported data",
	1005: "no code",
	1006: "no close",
	1007: "invalid payload",
	1008: "policy violation",
	1009: "message too big",
	1010: "extension missing",
	1011: "internal error",
	1012: "service restart",
	1013: "try again later",
	1014: "bad gateway",
	3000: "unauthorized",
	3003: "forbidden",
	3008: "timeout",
	4401: "unauthorized",
	4403: "forbidden",
	4429: "too many requests",
}

// describe shows a Close with the name of its code and its reason.
func describe(c ws.CloseFrame) string {
	text := fmt.Sprintf("%d %s", c.Code, cmp.Or(codes[c.Code], owner(c.Code)))
	if c.Reason != "" {
		text += fmt.Sprintf(", %q", c.Reason)
	}
	return text
}

// owner says who gives a meaning to a code that is not registered (RFC 6455, section 7.4.2).
func owner(c ws.Code) string {
	switch {
	case c >= 4000 && c < 5000:
		return "the application's own"
	case c >= 3000 && c < 4000:
		return "a library's own"
	default:
		return "unknown"
	}
}

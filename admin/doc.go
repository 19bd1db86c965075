// Package admin is what operators and applications ask of a running program over HTTP: its health and metrics, which sockets
// are open, and calls that send to sockets and end them.
//
// Two listeners serve it. The one for operators has these calls:
//
//	GET    /                     this list
//	GET    /healthz              200 while the program runs
//	GET    /readyz               200, or 503 with the reason why no sockets are taken
//	GET    /metrics              Prometheus metrics
//
// Both have these, the one for applications these alone:
//
//	POST   /v1/send              send a message to a socket, or to all of a route
//	GET    /v1/connections       the open sockets, page by page: ?route=, user=, limit=, cursor=
//	GET    /v1/connections/{id}  one socket
//	DELETE /v1/connections/{id}  end a socket: ?code=, reason=
//
// Bodies and answers are JSON; an answer that is not 2xx is {"error": ".."} and says what to do about it.
package admin

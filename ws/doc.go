// Package ws holds the WebSocket protocol (RFC 6455) as functions and state machines that do no I/O: handshakes, frames,
// masking, UTF-8, close codes, keep-alive, and the causes for which a socket ends. They take bytes and give bytes; time is an
// argument. The drivers in proxy/pump move the bytes.
package ws

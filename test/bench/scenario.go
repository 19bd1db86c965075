//go:build linux

package main

import (
	"time"

	"bridgehead/test/bench/load"
	"bridgehead/test/bench/proxies"
)

// A scenario is one kind of traffic that every proxy is measured with.
type scenario struct {
	name, what string

	kind    string // of load
	secure  bool
	stream  bool // toward a byte stream
	webhook bool // toward an HTTP application
	loops   bool // the product alone, by the number of its loops; all processes use all cores

	policies bool // the product with every policy beside the product without any, and nobody else

	connections, size, burst int
}

// idleSize is the message that each idle socket has once.
const idleSize = 16 << 10

// stall is how long a socket may wait for its first echo beyond the duration: on a busy machine a process may sleep for a while.
const stall = 5 * time.Second

// scenarios are all of them, in the order of the table.
var scenarios = []scenario{
	{name: "ws-64", what: "64 B, 64 sockets", kind: load.Echo, connections: 64, size: 64, burst: 1},
	{name: "ws-64-many", what: "64 B, 512 sockets", kind: load.Echo, connections: 512, size: 64, burst: 1},
	{name: "ws-64-pipelined", what: "64 B, 64 sockets, 16 messages sent at once", kind: load.Echo, connections: 64, size: 64, burst: 16},
	{name: "ws-16k", what: "16 KiB, 64 sockets", kind: load.Echo, connections: 64, size: 16 << 10, burst: 1},
	{name: loops, what: "64 B, 64 sockets, every process on all cores: does a message cost more with more loops?", kind: load.Echo, loops: true, connections: 64, size: 64, burst: 1},
	{name: "ws-1m", what: "1 MiB, 8 sockets", kind: load.Echo, connections: 8, size: 1 << 20, burst: 1},
	{name: "wss-64", what: "64 B, 64 sockets", kind: load.Echo, secure: true, connections: 64, size: 64, burst: 1},
	{name: "wss-16k", what: "16 KiB, 64 sockets", kind: load.Echo, secure: true, connections: 64, size: 16 << 10, burst: 1},
	{name: "wss-1m", what: "1 MiB, 8 sockets", kind: load.Echo, secure: true, connections: 8, size: 1 << 20, burst: 1},
	{name: "tcp-64", what: "ws to a TCP stream, 64 B, 64 sockets", kind: load.Echo, stream: true, connections: 64, size: 64, burst: 1},
	{name: "webhook-64", what: "ws to an HTTP application, 64 B, a POST a message", kind: load.Echo, webhook: true, connections: 64, size: 64, burst: 1},
	{name: "webhook-64-pipelined", what: "the same, 16 messages at once", kind: load.Echo, webhook: true, connections: 64, size: 64, burst: 16},
	{
		name: "policies-ws-64", what: "64 B, 64 sockets, with every limit and a token, beside none; the ratio is to `policies off`", kind: load.Echo,
		policies: true, connections: 64, size: 64, burst: 1,
	},
	{name: "handshake-ws", what: "open, 101, Close, end; 8 at a time", kind: load.Handshake, connections: 8},
	{name: "handshake-wss", what: "the same with a full TLS handshake", kind: load.Handshake, secure: true, connections: 8},
	{name: "idle-ws", what: "memory of a socket and its backend connection", kind: load.Idle, size: idleSize, burst: 1},
	{name: "idle-wss", what: "the same with TLS", kind: load.Idle, secure: true, size: idleSize, burst: 1},
	{name: "idle-webhook-ws", what: "memory of a socket whose events are POSTs", kind: load.Idle, webhook: true, size: idleSize, burst: 1},
	{name: "idle-webhook-wss", what: "the same with TLS", kind: load.Idle, webhook: true, secure: true, size: idleSize, burst: 1},
}

func names() (all []string) {
	for _, s := range scenarios {
		all = append(all, s.name)
	}
	return all
}

// scenarios are those that the flags pick.
func (o *options) scenarios() (picked []scenario) {
	for _, s := range scenarios {
		if o.run.MatchString(s.name) {
			picked = append(picked, s)
		}
	}
	return picked
}

// suits reports whether a proxy can be measured with the scenario, and differs there from what it is a variant of.
func (s scenario) suits(p proxies.Proxy) bool {
	switch {
	case s.policies || p.Policies:
		return s.policies && p.Policies
	case s.stream:
		return p.Stream
	case s.webhook:
		return p.Webhook && (p.Relay || !s.secure)
	case p.Large:
		return s.size > 64
	default:
		return p.Relay
	}
}

// spec is the load of the scenario.
func (s scenario) spec(o options) load.Spec {
	spec := load.Spec{
		Kind: s.kind, Path: "/", Connections: s.connections, Size: s.size, Burst: s.burst,
		Token: s.token(), Warmup: o.warmup, Duration: o.duration, Stall: stall, Settle: o.settle,
	}
	switch {
	case s.stream:
		spec.Path = "/stream"
	case s.webhook:
		spec.Path = "/webhook"
	}
	if s.kind == load.Idle {
		spec.Connections = o.idle
	}
	return spec
}

// token lets the clients in where the product asks who they are.
func (s scenario) token() string {
	if !s.policies {
		return ""
	}
	return proxies.Token(time.Now().Add(time.Hour))
}

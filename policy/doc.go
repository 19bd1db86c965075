// Package policy decides who may come in and how much: which origins, how many sockets, handshakes, messages and bytes per
// client. Origins checks the Origin header; a Store holds what each client used of its limits; Networks tell the true client
// behind trusted proxies. Values of a handshake, and texts made of them, are what limits count by and what headers are made of.
package policy

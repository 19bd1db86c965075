// Package reactor runs sockets on a few event loops: epoll on Linux, and nothing elsewhere.
//
// Each loop is one goroutine that keeps its thread. All that belongs to a socket is done by its loop, one thing after another, so
// that handlers need no locks; whoever comes from another goroutine leaves a function by [Loop.Post]. Nothing that runs on a loop
// may wait. An idle socket costs its Socket alone: it has no goroutine, and borrows the loop's buffer to read.
package reactor

//go:build linux && (amd64 || arm64)

package reactor

import (
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// A bed is where a loop sleeps. Epoll descriptors can be waited for as any other, so it is the runtime's own poller that does: no thread
// sleeps in the kernel with a processor of the program's, which the scheduler would have to find out and take away.
type bed struct {
	loop  *Loop
	file  *os.File // of the loop's epoll
	raw   syscall.RawConn
	look  func(uintptr) bool
	found int       // what look has
	alarm time.Time // the deadline of file, if it is known; zero: there is none
	known bool

	asleep atomic.Bool // or about to be
}

// make makes the bed of a loop, whose epoll is the bed's from now on.
func (b *bed) make(l *Loop) (err error) {
	if err := syscall.SetNonblock(l.epoll, true); err != nil { // by this os knows that it can be waited for
		syscall.Close(l.epoll)
		return os.NewSyscallError("fcntl", err)
	}
	b.loop, b.file, b.look = l, os.NewFile(uintptr(l.epoll), "epoll"), b.ready
	if b.raw, err = b.file.SyscallConn(); err == nil {
		err = b.setAlarm(time.Time{})
	}
	if err != nil {
		b.file.Close()
	}
	return err
}

func (b *bed) close() { b.file.Close() }

// ready asks for events, and tells whether there is something to do.
func (b *bed) ready(uintptr) bool {
	b.found = b.loop.poll()
	return b.found > 0 || b.loop.posted.Load()
}

// sleep returns at an event, a task, the time of the next timer, or for no reason. It gives the number of events.
func (b *bed) sleep() int {
	b.asleep.Store(true) // before the tasks are looked at, as those who post look here after
	defer b.asleep.Store(false)
	next := b.loop.timers.next()
	if sooner := !next.IsZero() && (b.alarm.IsZero() || next.Before(b.alarm)); sooner || !b.known { // one too early does no harm
		if err := b.setAlarm(next); err != nil {
			panic(err) // it has worked before
		}
	}
	b.found = 0
	if err := b.raw.Read(b.look); err != nil { // the alarm has gone off, or somebody has set it off
		b.known = false
		b.found = b.loop.poll()
	}
	return b.found
}

func (b *bed) setAlarm(at time.Time) error {
	b.alarm, b.known = at, true
	return b.file.SetReadDeadline(at)
}

// wake ends the sleep of the loop. Any goroutine may call it after it has left what there is to do.
func (b *bed) wake() {
	if b.asleep.Load() {
		_ = b.file.SetReadDeadline(past) // it has worked before
	}
}

// past sets off an alarm at once.
var past = time.Unix(1, 0)

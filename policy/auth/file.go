package auth

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"

	"bridgehead/internal/watch"
)

// A list is what stands in a file, a line for each of its entries, and is read again when the file changes. One that is broken stays
// what it was.
type list[T any] struct {
	path    string
	parse   func(line string) (name string, entry T, err error)
	log     *slog.Logger
	entries atomic.Pointer[map[string]T]
	stop    func()
}

// openList reads a file and begins to watch it.
func openList[T any](path string, with Setup, parse func(line string) (string, T, error)) (*list[T], error) {
	l := &list[T]{path: path, parse: parse, log: with.Log, stop: func() {}}
	if !with.Still {
		stop, err := watch.Files(with.Log, l.reload, path)
		if err != nil {
			return nil, err
		}
		l.stop = stop
	}
	if err := l.read(); err != nil {
		l.stop()
		return nil, err
	}
	return l, nil
}

// get finds an entry.
func (l *list[T]) get(name string) (entry T, ok bool) {
	entry, ok = (*l.entries.Load())[name]
	return entry, ok
}

func (l *list[T]) reload() {
	if err := l.read(); err != nil {
		l.log.Error("not read again, the old entries stay", "error", err)
		return
	}
	l.log.Info("read again", "file", l.path, "entries", len(*l.entries.Load()))
}

// largestList is the largest file that is read.
const largestList = 16 << 20

func (l *list[T]) read() error {
	data, err := os.ReadFile(l.path)
	if err != nil {
		return fmt.Errorf("file: %w", err)
	}
	if len(data) > largestList {
		return fmt.Errorf("file: %s is larger than 16MiB", l.path)
	}
	entries, number := make(map[string]T), 0
	for line := range strings.Lines(string(data)) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		name, entry, err := l.parse(line)
		if err != nil { // without the line, which may hold a secret
			return fmt.Errorf("%s:%d: %w", l.path, number, err)
		}
		if _, twice := entries[name]; twice {
			return fmt.Errorf("%s:%d: this entry stands there already", l.path, number)
		}
		entries[name] = entry
	}
	l.entries.Store(&entries)
	return nil
}

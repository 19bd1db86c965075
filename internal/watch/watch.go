// Package watch tells when files change. It is the home of fsnotify.
//
// It watches directories, not files: editors and certificate tools replace files by renaming, and Kubernetes swaps the
// directory behind a symbolic link, after which a watch on the file itself would look at the old one for ever.
package watch

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	quiet    = 100 * time.Millisecond // a change is told when nothing has moved for so long,
	patience = time.Second            // or, where something always moves, after so long
	poll     = 10 * time.Second       // how often the files are looked at anyhow: network mounts give no events
	maxLinks = 40                     // symbolic links followed for one path, as in Linux
)

// Files calls changed after any of the files was written, replaced, removed or made again, also through symbolic links and
// renamed directories; many changes at once are one call. A file need not exist yet. Calls come one at a time, from one
// goroutine.
//
// Call Files before the files are first read, so that no change falls in between. stop ends the watch and waits until changed,
// if it is running, has returned; it must not be called from changed. It may be called again.
func Files(log *slog.Logger, changed func(), paths ...string) (stop func(), err error) {
	w := &watcher{
		log: log, changed: changed, done: make(chan struct{}),
		watched: make(map[string]bool), failed: make(map[string]bool),
	}
	for _, path := range paths {
		abs, err := filepath.Abs(path)
		if err != nil {
			return nil, fmt.Errorf("watch %s: %w", path, err)
		}
		w.paths = append(w.paths, abs)
	}
	w.fs, err = fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watch files: %w (on Linux, fs.inotify.max_user_instances may be too low)", err)
	}
	w.follow()
	w.last = states(w.paths)

	var wg sync.WaitGroup
	wg.Go(w.run)
	return sync.OnceFunc(func() {
		close(w.done)
		wg.Wait()
	}), nil
}

// A watcher belongs to its goroutine, run, once that has begun.
type watcher struct {
	log     *slog.Logger
	changed func()
	paths   []string
	fs      *fsnotify.Watcher
	done    chan struct{}

	watched map[string]bool // directories
	failed  map[string]bool // directories that cannot be watched; that is said once
	last    []fs.FileInfo   // what was last seen at paths; nil: nothing
}

func (w *watcher) run() {
	defer w.fs.Close()
	polls := time.NewTicker(poll)
	defer polls.Stop()
	var settled <-chan time.Time // nil: nothing moved
	var since time.Time
	for {
		select {
		case <-w.done:
			return
		case <-w.fs.Events:
		case err := <-w.fs.Errors: // such as a queue that overflowed: something moved
			w.log.Debug("watch files", "error", err)
		case <-polls.C:
			if settled == nil {
				w.look()
			}
			continue
		case <-settled:
			settled = nil
			w.look()
			continue
		}
		if settled == nil {
			since = time.Now()
		}
		if time.Since(since) < patience {
			settled = time.After(quiet)
		}
	}
}

// look calls changed if a file is not what it was.
func (w *watcher) look() {
	w.follow() // before the files are looked at: what changes later makes an event
	now := states(w.paths)
	if slices.EqualFunc(now, w.last, same) {
		return
	}
	w.last = now
	w.changed()
}

// follow brings the watched directories up to date with where the paths lead now.
func (w *watcher) follow() {
	wanted := make(map[string]bool)
	for _, path := range w.paths {
		for _, dir := range directories(path) {
			wanted[dir] = true
		}
	}
	for dir := range w.watched {
		if !wanted[dir] {
			delete(w.watched, dir)
			_ = w.fs.Remove(dir) // it may be gone already, and its watch with it
		}
	}
	for dir := range wanted {
		err := w.fs.Add(dir) // each time anew: another directory may have taken the name
		if err == nil {
			w.watched[dir] = true
			delete(w.failed, dir)
			continue
		}
		if !errors.Is(err, fs.ErrNotExist) && !w.failed[dir] {
			w.failed[dir] = true
			w.log.Warn("cannot watch a directory; its files are looked at every "+poll.String(), "dir", dir, "error", err)
		}
	}
}

// directories returns those in which a change can make path lead to another file: the one that holds it, those that hold a
// symbolic link on the way, or, while it does not exist, the one in which the way breaks off. path is absolute.
func directories(path string) []string {
	var found []string
	dir, rest := split(path)
	for links := 0; ; {
		next := filepath.Join(dir, rest[0])
		info, err := os.Lstat(next)
		if err != nil {
			return append(found, dir)
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			if len(rest) == 1 {
				return append(found, dir)
			}
			dir, rest = next, rest[1:]
			continue
		}
		found = append(found, dir)
		target, err := os.Readlink(next)
		if links++; err != nil || links > maxLinks {
			return found
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(dir, target)
		}
		dir, rest = split(filepath.Join(append([]string{target}, rest[1:]...)...))
	}
}

// split cuts an absolute path into its root and the names below; there is always one.
func split(path string) (root string, names []string) {
	root = filepath.VolumeName(path) + string(filepath.Separator)
	return root, strings.Split(strings.TrimPrefix(path, root), string(filepath.Separator))
}

func states(paths []string) []fs.FileInfo {
	infos := make([]fs.FileInfo, len(paths))
	for i, path := range paths {
		if info, err := os.Stat(path); err == nil {
			infos[i] = info
		}
	}
	return infos
}

func same(a, b fs.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.Size() == b.Size() && a.Mode() == b.Mode() && a.ModTime().Equal(b.ModTime())
}

package watch

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"bridgehead/internal/leak"

	"github.com/fsnotify/fsnotify"
)

func TestMain(m *testing.M) { leak.Main(m) }

// A scene is a directory in which names and contents are given without error handling.
type scene struct {
	*testing.T
	dir string
}

func newScene(t *testing.T) scene { return scene{t, t.TempDir()} }

func (s scene) path(name string) string { return filepath.Join(s.dir, filepath.FromSlash(name)) }

func (s scene) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s scene) write(name, content string) {
	s.Helper()
	s.must(os.MkdirAll(filepath.Dir(s.path(name)), 0o755))
	s.must(os.WriteFile(s.path(name), []byte(content), 0o644))
}

func (s scene) replace(name, content string) {
	s.Helper()
	s.write(name+".new", content)
	s.rename(name+".new", name)
}

func (s scene) rename(from, to string) { s.Helper(); s.must(os.Rename(s.path(from), s.path(to))) }
func (s scene) removeAll(name string)  { s.Helper(); s.must(os.RemoveAll(s.path(name))) }

// link makes name a symbolic link to target, in one step even if it is one already.
func (s scene) link(target, name string) {
	s.Helper()
	s.must(os.Symlink(filepath.FromSlash(target), s.path(name+".new")))
	s.rename(name+".new", name)
}

// watch watches the names and counts the calls of changed in the channel.
func (s scene) watch(names ...string) <-chan struct{} {
	s.Helper()
	var paths []string
	for _, name := range names {
		paths = append(paths, s.path(name))
	}
	calls := make(chan struct{}, 100)
	stop, err := Files(slog.New(slog.DiscardHandler), func() { calls <- struct{}{} }, paths...)
	s.must(err)
	s.Cleanup(stop)
	return calls
}

func (s scene) await(calls <-chan struct{}) {
	s.Helper()
	select {
	case <-calls:
	case <-time.After(poll - time.Second): // so that looking regularly cannot pass for having noticed
		s.Fatal("changed was not called")
	}
}

func TestEachOfTheseIsAChange(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		before func(s scene)
		change func(s scene)
	}{
		{"written in place", func(s scene) { s.write("f", "old") }, func(s scene) { s.write("f", "new!") }},
		{"replaced by renaming", func(s scene) { s.write("f", "old") }, func(s scene) { s.replace("f", "new") }},
		{"removed", func(s scene) { s.write("f", "old") }, func(s scene) { s.removeAll("f") }},
		{"made later", func(scene) {}, func(s scene) { s.write("f", "new") }},
		{"made readable", func(s scene) { s.write("f", "old"); s.must(os.Chmod(s.path("f"), 0o200)) },
			func(s scene) { s.must(os.Chmod(s.path("f"), 0o600)) }},
		{"a link that is turned elsewhere", // certbot: live/x/fullchain.pem -> ../../archive/x/fullchain2.pem
			func(s scene) { s.write("archive/1", "old"); s.write("archive/2", "new"); s.link("archive/1", "f") },
			func(s scene) { s.link("archive/2", "f") }},
		{"the target of a link written in place",
			func(s scene) { s.write("archive/1", "old"); s.link("archive/1", "f") },
			func(s scene) { s.write("archive/1", "new!") }},
		{"a link that leads nowhere until later",
			func(s scene) { s.link("archive/1", "f") },
			func(s scene) { s.write("archive/1", "new") }},
		{"a Kubernetes volume that is swapped",
			func(s scene) {
				s.write("..2024/f", "old")
				s.link("..2024", "..data")
				s.link("..data/f", "f")
			},
			func(s scene) {
				s.write("..2025/f", "new")
				s.link("..2025", "..data")
				s.removeAll("..2024")
			}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			test.before(s)
			calls := s.watch("f")
			test.change(s)
			s.await(calls)
		})
	}
}

func TestAChangeOfTheDirectoriesOnTheWayIsAChange(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		before func(s scene)
		change func(s scene)
	}{
		{"the directory is a link that is turned elsewhere",
			func(s scene) { s.write("v1/f", "old"); s.write("v2/f", "new"); s.link("v1", "certs") },
			func(s scene) { s.link("v2", "certs") }},
		{"the directory is made later, with another above it", func(scene) {}, func(s scene) { s.write("certs/f", "new") }},
		{"the directory is renamed away and another takes its name",
			func(s scene) { s.write("certs/f", "old"); s.write("next/f", "new") },
			func(s scene) { s.rename("certs", "last"); s.rename("next", "certs") }},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			test.before(s)
			calls := s.watch("certs/f")
			test.change(s)
			s.await(calls)
		})
	}
}

func TestTheWatchGoesOnAfterTheDirectoryWasAway(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.write("certs/f", "old")
	calls := s.watch("certs/f")
	for range 3 {
		s.removeAll("certs")
		s.await(calls)
		s.write("certs/f", "back")
		s.await(calls)
		s.replace("certs/f", "and changed")
		s.await(calls)
	}
}

func TestTheWatchGoesOnAfterAReplacement(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.write("f", "0")
	calls := s.watch("f")
	for range 3 {
		s.replace("f", "1")
		s.await(calls)
	}
}

func TestNeighboursDoNotCount(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.write("f", "old")
	s.write("g", "old")
	calls := s.watch("f", "g")
	s.write("neighbour", "x")
	s.replace("neighbour", "y")
	<-time.After(3 * quiet) // the neighbour has been looked at
	s.replace("g", "new")
	s.await(calls)
	if extra := len(calls); extra > 0 {
		t.Errorf("%d calls too many", extra)
	}
}

func TestManyChangesAtOnceAreOneCall(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	var names []string
	for c := range 20 {
		names = append(names, string(rune('a'+c)))
		s.write(names[c], "old")
	}
	calls := s.watch(names...)
	for _, name := range names {
		s.replace(name, "new")
	}
	s.await(calls)
	<-time.After(3 * quiet)
	if extra := len(calls); extra > 0 {
		t.Errorf("%d calls too many", extra)
	}
}

func TestADirectoryThatNeverRestsHidesNoChange(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.write("f", "old")
	calls := s.watch("f")
	stop := make(chan struct{})
	defer func() { stop <- struct{}{} }()
	go func() {
		for tick := time.Tick(quiet / 10); ; {
			select {
			case <-stop:
				return
			case now := <-tick:
				_ = os.WriteFile(s.path("log"), []byte(now.String()), 0o644)
			}
		}
	}()
	s.replace("f", "new")
	s.await(calls)
}

func TestStopWaitsForChangedAndMayBeCalledAgain(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	var ended atomic.Bool
	began := make(chan struct{})
	stop, err := Files(slog.New(slog.DiscardHandler), func() {
		close(began)
		<-time.After(quiet)
		ended.Store(true)
	}, s.path("f"))
	s.must(err)
	s.write("f", "new")
	<-began
	stop()
	if !ended.Load() {
		t.Error("stop returned while changed was running")
	}
	stop()
}

func TestLookingFindsWhatNoEventTold(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.write("f", "old")
	events, err := fsnotify.NewWatcher()
	s.must(err)
	defer events.Close()
	calls := 0
	w := &watcher{
		log: slog.New(slog.DiscardHandler), changed: func() { calls++ }, paths: []string{s.path("f")}, fs: events,
		watched: map[string]bool{}, failed: map[string]bool{}, last: states([]string{s.path("f")}),
	}
	w.look()
	s.replace("f", "new")
	w.look()
	w.look()
	if calls != 1 {
		t.Errorf("changed was called %d times, want once", calls)
	}
}

func TestLinksInACircleEnd(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.link("g", "f")
	s.link("f", "g")
	if got := directories(s.path("f")); !slices.Contains(got, filepath.Dir(s.path("f"))) {
		t.Errorf("directories: %q", got)
	}
}

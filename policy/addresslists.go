package policy

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"

	"bridgehead/internal/watch"
)

const (
	largestAddresses = 16 << 20 // bytes of a file
	mostAddresses    = 500_000  // lines of a file
)

// AddressLists are those of one configuration. Routes with equal options share one, and each file is read once for all. A file that is
// broken stays what it was.
type AddressLists struct {
	lists   map[string]*AddressList // by their options
	files   map[string]*addressFile // by path
	log     *slog.Logger
	changed func()
	stop    func()

	reading sync.Mutex // held while files are read
}

// ReadAddresses reads the files that are named, once. The error names the file and the line.
func ReadAddresses(all []Addresses) (*AddressLists, error) {
	s := newAddressLists(all)
	return s, s.open(nil)
}

// WatchAddresses is ReadAddresses for a program that runs: files are read again when they change, and changed is called when they hold
// something else then. The lists before, which may be nil, are taken over as a whole if nothing differs, and otherwise stay as they are;
// a file that is broken now holds what it held there.
func WatchAddresses(all []Addresses, was *AddressLists, log *slog.Logger, changed func()) (*AddressLists, error) {
	s := newAddressLists(all)
	if was != nil && maps.EqualFunc(s.lists, was.lists, func(_, _ *AddressList) bool { return true }) {
		return was, nil
	}
	s.log, s.changed = log, changed
	if len(s.files) > 0 {
		stop, err := watch.Files(log, s.reload, s.paths()...)
		if err != nil {
			return nil, err
		}
		s.stop = stop
	}
	if err := s.open(was); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Close stops watching the files and waits until that has ended. It may be called again; the lists stay usable.
func (s *AddressLists) Close() {
	if s != nil {
		s.stop()
	}
}

// List is what routes with these options ask; nil: they let everybody in.
func (s *AddressLists) List(o Addresses) *AddressList {
	if o.IsZero() {
		return nil
	}
	return s.lists[o.key()]
}

// key is the same for equal options.
func (o *Addresses) key() string {
	return fmt.Sprintf("%v %v %q %q", o.Allow, o.Deny, o.AllowFiles, o.DenyFiles)
}

func newAddressLists(all []Addresses) *AddressLists {
	s := &AddressLists{lists: make(map[string]*AddressList), files: make(map[string]*addressFile), stop: func() {}}
	for i := range all {
		o := &all[i]
		if o.IsZero() || s.lists[o.key()] != nil {
			continue
		}
		l := new(AddressList)
		if len(o.Allow) > 0 {
			l.allow = append(l.allow, newRegister("addresses.allow", o.Allow))
		}
		if len(o.Deny) > 0 {
			l.deny = append(l.deny, newRegister("addresses.deny", o.Deny))
		}
		for _, path := range o.AllowFiles {
			f := s.file(path)
			f.allows = true
			l.allow = append(l.allow, &f.register)
		}
		for _, path := range o.DenyFiles {
			l.deny = append(l.deny, &s.file(path).register)
		}
		s.lists[o.key()] = l
	}
	return s
}

func (s *AddressLists) file(path string) *addressFile {
	f, ok := s.files[path]
	if !ok {
		f = &addressFile{register: register{place: path}}
		s.files[path] = f
	}
	return f
}

func (s *AddressLists) paths() []string { return slices.Sorted(maps.Keys(s.files)) }

// open reads each file for the first time.
func (s *AddressLists) open(was *AddressLists) error {
	s.reading.Lock()
	defer s.reading.Unlock()
	for _, path := range s.paths() {
		f := s.files[path]
		if _, err := f.read(); err != nil {
			if was == nil || was.files[path] == nil || f.allows && !was.files[path].allows {
				return fmt.Errorf("addresses: %w", err)
			}
			f.current.Store(was.files[path].current.Load())
			s.log.Error("addresses not read again, the old entries stay", "error", err)
		}
	}
	return nil
}

// reload is called when a file has changed.
func (s *AddressLists) reload() {
	if s.readAgain() {
		s.changed()
	}
}

func (s *AddressLists) readAgain() (changed bool) {
	s.reading.Lock()
	defer s.reading.Unlock()
	for _, path := range s.paths() {
		f := s.files[path]
		switch read, err := f.read(); {
		case err != nil:
			s.log.Error("addresses not read again, the old entries stay", "error", err)
		case read:
			s.log.Info("addresses read again", "file", path, "networks", len(f.current.Load().entries))
			changed = true
		}
	}
	return changed
}

// An addressFile is a file of addresses.
type addressFile struct {
	register
	allows bool              // it lists who may come in, somewhere
	seen   [sha256.Size]byte // what it held when it was last read, good or bad
}

// read puts what the file holds now in force; it does nothing if that is what was seen last, good or bad.
func (f *addressFile) read() (changed bool, err error) {
	text, err := readWhole(f.place)
	seen := sha256.Sum256(fmt.Appendf(text, "%v", err))
	if seen == f.seen {
		return false, nil
	}
	f.seen = seen
	if err != nil {
		return false, err
	}
	entries, err := parseEntries(f.place, text)
	if err != nil {
		return false, err
	}
	if f.allows && len(entries) == 0 {
		return false, fmt.Errorf("%s holds no address, and it is to say who may come in: write an address or a CIDR in a line", f.place)
	}
	f.current.Store(newRoster(entries))
	return true, nil
}

// readWhole reads a file that is not too large, and nothing that never ends.
func readWhole(path string) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, largestAddresses+1))
	if err == nil && len(text) > largestAddresses {
		err = fmt.Errorf("%s is larger than 16MiB: list networks in place of single addresses", path)
	}
	return text, err
}

// parseEntries reads the lines of a file.
func parseEntries(path string, text []byte) ([]entry, error) {
	text = bytes.TrimPrefix(text, []byte("\xEF\xBB\xBF")) // the mark that some editors begin with
	if bytes.Count(text, []byte("\n")) > mostAddresses {
		return nil, fmt.Errorf("%s has more than %d lines: list networks in place of single addresses", path, mostAddresses)
	}
	var entries []entry
	number := 0
	for line := range bytes.Lines(text) {
		number++
		line, _, _ = bytes.Cut(line, []byte("#"))
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		var n Network
		if err := n.UnmarshalText(line); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, number, err)
		}
		for _, p := range n.prefixes {
			entries = append(entries, entry{p, int32(number)})
		}
	}
	return entries, nil
}

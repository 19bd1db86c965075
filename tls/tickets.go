package tls

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
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
)

// The life of a key of session tickets. A client may resume its session for a day at least, and one and a half at most, after its
// last handshake: long enough for every restart, and no longer than that is a stolen key of use.
const (
	keyTerm = 12 * time.Hour // that it seals tickets
	keyLife = 36 * time.Hour // that it opens them; both from when it was made
	keyLook = time.Hour      // how often the keys are looked after, so that those of another process are seen

	clockSkew = 5 * time.Minute // a key may come from the future by so much
	maxKeys   = 16              // of a file
)

// ticketFile holds the keys, below the state directory.
const ticketFile = "session-tickets"

// Tickets seal and open the session tickets of all listeners, so that a client which comes back need not shake hands in full, also
// after a restart: the keys lie in the state directory, where other processes that share it find them. Its methods may be called
// from any goroutine.
type Tickets struct {
	path string
	log  *slog.Logger
	tls  *tls.Config // does the cryptography

	mu     sync.Mutex // guards the following
	keys   []ticketKey
	failed string // why the keys could not be kept, as it was told last

	done chan struct{}
	wg   sync.WaitGroup
}

// A ticketKey is what one key is made of (32 bytes, of which crypto/tls derives its own) and when that was.
type ticketKey struct {
	made   time.Time
	secret [32]byte
}

// OpenTickets reads the keys from the state directory, or makes some, and renews them until Close. It never fails: a file that
// cannot be used is replaced, and keys that cannot be kept serve until the process ends; the log tells of both.
func OpenTickets(state string, log *slog.Logger) *Tickets {
	t := newTickets(state, log)
	t.wg.Go(t.run)
	return t
}

func newTickets(state string, log *slog.Logger) *Tickets {
	t := &Tickets{path: filepath.Join(state, ticketFile), log: log, tls: new(tls.Config), done: make(chan struct{})}
	t.renew(time.Now())
	return t
}

// Close stops renewing the keys. They stay usable.
func (t *Tickets) Close() {
	close(t.done)
	t.wg.Wait()
}

func (t *Tickets) run() {
	looks := time.NewTicker(keyLook)
	defer looks.Stop()
	for {
		select {
		case <-t.done:
			return
		case now := <-looks.C:
			t.renew(now)
		}
	}
}

// renew takes over what the file has, drops what is too old, and makes a key if the newest has served its term.
func (t *Tickets) renew(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	kept, err := readKeys(t.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.log.Warn("the keys of TLS session tickets cannot be read and are replaced: clients shake hands in full once",
			"file", t.path, "error", err)
	} else if err == nil {
		warnIfReadable(t.path, 0o077, t.log)
	}
	t.keys = current(slices.Concat(t.keys, kept), now)
	if len(t.keys) == 0 || now.Sub(t.keys[0].made) >= keyTerm {
		t.keys = slices.Insert(t.keys, 0, newTicketKey(now))
	}
	secrets := make([][32]byte, len(t.keys))
	for i, k := range t.keys {
		secrets[i] = k.secret
	}
	t.tls.SetSessionTicketKeys(secrets)
	if !slices.Equal(t.keys, kept) {
		t.keepLocked()
	}
}

// keepLocked writes the keys. That it fails is told once for each reason.
func (t *Tickets) keepLocked() {
	failed := ""
	if err := replaceFile(t.path, formatKeys(t.keys)); err != nil {
		failed = err.Error()
	}
	if failed != "" && failed != t.failed {
		t.log.Warn("the keys of TLS session tickets cannot be kept: after a restart clients shake hands in full; "+
			"let this user write in `state`", "file", t.path, "error", failed)
	}
	t.failed = failed
}

// newTicketKey makes a key. Files hold its time in seconds.
func newTicketKey(now time.Time) ticketKey {
	k := ticketKey{made: now.UTC().Truncate(time.Second)}
	_, _ = rand.Read(k.secret[:]) // it never fails
	return k
}

// current are the keys that still open tickets, each once, the newest first.
func current(keys []ticketKey, now time.Time) []ticketKey {
	keys = slices.DeleteFunc(keys, func(k ticketKey) bool {
		age := now.Sub(k.made)
		return age >= keyLife || age < -clockSkew
	})
	slices.SortFunc(keys, func(a, b ticketKey) int {
		if c := b.made.Compare(a.made); c != 0 {
			return c
		}
		return bytes.Compare(a.secret[:], b.secret[:])
	})
	keys = slices.Compact(keys)
	return keys[:min(len(keys), maxKeys)]
}

// readKeys reads a file of keys, as formatKeys writes it.
func readKeys(path string) ([]ticketKey, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return parseKeys(string(text))
}

// formatKeys has a line for each key: when it was made, and the key in base64.
func formatKeys(keys []ticketKey) []byte {
	var b bytes.Buffer
	for _, k := range keys {
		fmt.Fprintf(&b, "%s %s\n", k.made.Format(time.RFC3339), base64.StdEncoding.EncodeToString(k.secret[:]))
	}
	return b.Bytes()
}

// parseKeys is all or nothing. Its errors hold nothing of the text, which is secret.
func parseKeys(text string) ([]ticketKey, error) {
	var keys []ticketKey
	for line := range strings.Lines(text) {
		made, secret, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		at, err := time.Parse(time.RFC3339, made)
		raw, errSecret := base64.StdEncoding.DecodeString(secret)
		k := ticketKey{made: at.UTC()}
		if err != nil || errSecret != nil || len(raw) != len(k.secret) {
			return nil, fmt.Errorf("line %d is no key", len(keys)+1)
		}
		if len(keys) == maxKeys {
			return nil, fmt.Errorf("there are more than %d keys", maxKeys)
		}
		copy(k.secret[:], raw)
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, errors.New("it is empty")
	}
	return keys, nil
}

// replaceFile puts a file for this user alone in the place of another at once.
func replaceFile(path string, content []byte) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+"-*.tmp") // 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// seal is for tls.Config.WrapSession: the ticket holds for the same binding alone.
func (t *Tickets) seal(cs tls.ConnectionState, session *tls.SessionState, binding []byte) ([]byte, error) {
	session.Extra = append(session.Extra, binding)
	return t.tls.EncryptTicket(cs, session)
}

// open is for tls.Config.UnwrapSession: nil is no session, and a full handshake.
func (t *Tickets) open(ticket []byte, cs tls.ConnectionState, binding []byte) (*tls.SessionState, error) {
	session, err := t.tls.DecryptTicket(ticket, cs)
	if err != nil || session == nil {
		return nil, err
	}
	if !slices.ContainsFunc(session.Extra, func(extra []byte) bool { return bytes.Equal(extra, binding) }) {
		return nil, nil
	}
	return session, nil
}

package tls

import (
	"crypto/tls"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func openTickets(t *testing.T, state string, l *logs) *Tickets {
	t.Helper()
	tickets := OpenTickets(state, l.logger())
	t.Cleanup(tickets.Close)
	return tickets
}

// A restart is other Tickets over the same state, and another listener.
func restart(t *testing.T, c *Certs, state string, l *logs) *tls.Config {
	t.Helper()
	tickets := openTickets(t, state, l)
	return ServerTLS(Setup{Certs: func() *Certs { return c }, Tickets: func() *Tickets { return tickets }})
}

func resuming(t *testing.T, c *Certs, name string, version uint16) *tls.Config {
	t.Helper()
	client := trusting(t, c, name)
	client.MaxVersion = version
	client.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	return client
}

func TestARestartResumesSessions(t *testing.T) {
	t.Parallel()
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			t.Parallel()
			state := t.TempDir()
			c := newCerts(t, Options{Internal: true}, nil, state, newLogs())
			client := resuming(t, c, "localhost", version)
			handshakeWith(t, restart(t, c, state, newLogs()), client)
			if !handshakeWith(t, restart(t, c, state, newLogs()), client).DidResume {
				t.Error("the session was not resumed")
			}
			if handshakeWith(t, restart(t, c, t.TempDir(), newLogs()), client).DidResume {
				t.Error("a session was resumed by a program that has other keys")
			}
			info, err := os.Stat(filepath.Join(state, ticketFile))
			if err != nil || info.Mode().Perm() != 0o600 && runtime.GOOS != "windows" {
				t.Errorf("the keys have mode %v, %v", info.Mode(), err)
			}
			if entries, err := filepath.Glob(filepath.Join(state, "*.tmp")); err != nil || len(entries) > 0 {
				t.Errorf("files were left: %v", entries)
			}
		})
	}
}

// What bounds a ticket is the life of the key that sealed it. The client here never gets another one: each try is a copy of the first.
func TestKeysOfTicketsAreRotated(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		state, l := t.TempDir(), newLogs()
		c := newCerts(t, Options{Internal: true}, nil, state, l)
		server := restart(t, c, state, l)
		time.Sleep(11 * time.Hour)
		client := resuming(t, c, "localhost", tls.VersionTLS13)
		handshakeWith(t, server, client)
		first, _ := client.ClientSessionCache.Get("localhost")
		resumes := func() bool {
			client.ClientSessionCache.Put("localhost", first)
			return handshakeWith(t, server, client).DidResume
		}
		oldKeys := mustRead(t, filepath.Join(state, ticketFile))
		time.Sleep(3 * time.Hour)
		if newKeys := mustRead(t, filepath.Join(state, ticketFile)); strings.Count(newKeys, "\n") != 2 || !strings.HasSuffix(newKeys, oldKeys) {
			t.Error("after 14h there is no second key, which stands before the first")
		}
		time.Sleep(21 * time.Hour) // 35h
		if !resumes() {
			t.Error("after 24h a ticket is not taken")
		}
		time.Sleep(3 * time.Hour) // 38h
		if resumes() {
			t.Error("a ticket is taken whose key is older than 36h")
		}
		time.Sleep(20 * 24 * time.Hour)
		if n := strings.Count(mustRead(t, filepath.Join(state, ticketFile)), "\n"); n != 3 {
			t.Errorf("%d keys are kept, want 3", n)
		}
	})
}

func mustRead(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	must(t, err)
	return string(text)
}

// Two processes that share a state, as at an upgrade, come to have the keys of both.
func TestKeysAreShared(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		state, l := t.TempDir(), newLogs()
		c := newCerts(t, Options{Internal: true}, nil, state, l)
		old, client := restart(t, c, state, l), resuming(t, c, "localhost", tls.VersionTLS13)
		must(t, os.Remove(filepath.Join(state, ticketFile)))
		next := restart(t, c, state, l)
		handshakeWith(t, old, client)
		if handshakeWith(t, next, client).DidResume {
			t.Fatal("there are no two keys to share")
		}
		time.Sleep(2*time.Hour + 30*time.Minute) // each has looked twice
		for _, server := range []*tls.Config{old, next, old} {
			if !handshakeWith(t, server, client).DidResume {
				t.Error("a session with the other process is not resumed")
			}
		}
	})
}

func TestABrokenFileOfKeysIsReplaced(t *testing.T) {
	t.Parallel()
	whole := string(formatKeys([]ticketKey{newTicketKey(time.Now())}))
	for name, content := range map[string]string{
		"empty": "", "cut": whole[:len(whole)-9], "short": "2026-01-02T03:04:05Z c2hvcnQ=\n", "other": "not a key\n",
		"one of two": whole + "x\n", "too many": strings.Repeat(whole, maxKeys+1),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			state, l := t.TempDir(), newLogs()
			path := filepath.Join(state, ticketFile)
			must(t, os.WriteFile(path, []byte(content), 0o600))
			openTickets(t, state, l)
			if l.count("cannot be read and are replaced") != 1 || l.count(path) == 0 {
				t.Errorf("the log does not tell of it:\n%s", l)
			}
			if secret := strings.Fields(whole)[1]; l.count(secret[:10]) > 0 {
				t.Error("the log holds a key")
			}
			if keys, err := parseKeys(mustRead(t, path)); err != nil || len(keys) != 1 {
				t.Errorf("the file was not replaced: %v", err)
			}
		})
	}
}

func TestKeysOutOfTimeAreDropped(t *testing.T) {
	t.Parallel()
	state, now := t.TempDir(), time.Now()
	var keys []ticketKey
	for _, age := range []time.Duration{-24 * time.Hour, time.Hour, 35 * time.Hour, 37 * time.Hour} {
		keys = append(keys, newTicketKey(now.Add(-age)))
	}
	path := filepath.Join(state, ticketFile)
	must(t, os.WriteFile(path, formatKeys(keys), 0o600))
	l := newLogs()
	openTickets(t, state, l)
	if got, want := mustRead(t, path), string(formatKeys(keys[1:3])); got != want {
		t.Errorf("the file has %d lines:\n%s", strings.Count(got, "\n"), l)
	}
}

func TestKeysThatCannotBeKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		state, l := filepath.Join(t.TempDir(), "file"), newLogs()
		must(t, os.WriteFile(state, nil, 0o600)) // where a directory should be
		c := newCerts(t, Options{Internal: true}, nil, t.TempDir(), l)
		server, client := restart(t, c, state, l), resuming(t, c, "localhost", tls.VersionTLS13)
		handshakeWith(t, server, client)
		if !handshakeWith(t, server, client).DidResume {
			t.Error("the session was not resumed")
		}
		time.Sleep(48 * time.Hour)
		if n := l.count("cannot be kept"); n != 1 {
			t.Errorf("told %d times:\n%s", n, l)
		}
	})
}

func FuzzTicketKeys(f *testing.F) {
	f.Add("")
	f.Add("2026-01-02T03:04:05Z AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n")
	f.Add(string(formatKeys([]ticketKey{newTicketKey(time.Now()), newTicketKey(time.Now().Add(time.Hour))})))
	f.Fuzz(func(t *testing.T, text string) {
		keys, err := parseKeys(text)
		if err != nil {
			return
		}
		again, err := parseKeys(string(formatKeys(keys)))
		if err != nil || len(again) != len(keys) {
			t.Fatalf("%q comes back as %v, %v", text, again, err)
		}
		for i := range keys {
			if !again[i].made.Equal(keys[i].made.Truncate(time.Second)) || again[i].secret != keys[i].secret {
				t.Errorf("key %d of %q is another when it comes back", i, text)
			}
		}
	})
}

// RFC 6066, section 3: a session of one name is none of another.
func TestASessionIsOfOneHost(t *testing.T) {
	t.Parallel()
	c := newCerts(t, Options{Internal: true}, []string{"a.example.com", "b.example.com"}, t.TempDir(), newLogs())
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		server := restart(t, c, t.TempDir(), newLogs())
		client := resuming(t, c, "a.example.com", version)
		handshakeWith(t, server, client)
		session, _ := client.ClientSessionCache.Get("a.example.com")
		client.ClientSessionCache.Put("b.example.com", session)
		client.InsecureSkipVerify, client.ServerName = true, "b.example.com" // such a client brings the session to the other host
		if handshakeWith(t, server, client).DidResume {
			t.Errorf("%s: a session of one host is resumed at another", tls.VersionName(version))
		}
		client.ClientSessionCache.Put("A.example.com", session)
		client.ServerName = "A.example.com"
		if !handshakeWith(t, server, client).DidResume {
			t.Errorf("%s: the case of the host counts", tls.VersionName(version))
		}
	}
}

func TestAGoneListenerEndsNothingWithAPanic(t *testing.T) {
	t.Parallel()
	c := newCerts(t, Options{Internal: true}, nil, t.TempDir(), newLogs())
	tickets := OpenTickets(t.TempDir(), slog.New(slog.DiscardHandler))
	t.Cleanup(tickets.Close)
	now, sealing := c, tickets
	server := ServerTLS(Setup{Certs: func() *Certs { return now }, Tickets: func() *Tickets { return sealing }})
	client := resuming(t, c, "localhost", tls.VersionTLS13)
	handshakeWith(t, server, client)
	now, sealing = nil, nil
	if _, err := tryHandshake(server, client); err == nil {
		t.Error("a session is resumed without certificates")
	}
}

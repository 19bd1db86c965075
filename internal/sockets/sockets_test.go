package sockets

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"bridgehead/internal/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

func room(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "bh") // shorter than t.TempDir: the path of a socket is bounded
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestListenGivesTheSocketToThoseWhoMayConnect(t *testing.T) {
	t.Parallel()
	path := filepath.Join(room(t), "s")
	// Every user may give a file to itself and its own group.
	me := Owner{strconv.Itoa(os.Getuid()), strconv.Itoa(os.Getgid())}
	if runtime.GOOS == "windows" {
		me = Owner{}
	}
	l, err := Listen(path, Access{0o620, me})
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || runtime.GOOS != "windows" && info.Mode() != fs.ModeSocket|0o620 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if again, err := Listen(path, Private); err == nil {
		again.Close()
		t.Error("a second listener took the socket of the first")
	} else if !strings.Contains(err.Error(), "another program answers there") {
		t.Error(err)
	}
	if err := (Access{Mode: 0o666}).Set(path); err != nil {
		t.Error(err)
	}
	l.Close()
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket stays: %v", err)
	}
}

func TestListenReplacesWhatAKilledProgramLeft(t *testing.T) {
	t.Parallel()
	path := filepath.Join(room(t), "s")
	killed, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	killed.(*net.UnixListener).SetUnlinkOnClose(false)
	killed.Close()
	l, err := Listen(path, Private)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

// When the owner cannot be, nothing stays open.
func TestListenRefusals(t *testing.T) {
	t.Parallel()
	path := filepath.Join(room(t), "s")
	for _, c := range []struct {
		path string
		Access
		says string
	}{
		{path, Access{0o600, Owner{User: "nobody-has-this-name"}}, "nobody-has-this-name"},
		{path, Access{0o600, Owner{Group: "no-group-has-this-name"}}, "no-group-has-this-name"},
		{"", Private, "has no path"},
		{"@abstract", Private, "everybody on this machine"},
		{"/" + strings.Repeat("x", 104), Private, "at most 104 bytes"},
	} {
		l, err := Listen(c.path, c.Access)
		if err == nil {
			l.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q %+v: %v", c.path, c.Access, err)
		}
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a socket stays: %v", err)
	}
}

func TestTexts(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{"0660": "0660", "660": "0660", "0o660": "0660", "0": "0000", "0999": "", "rw": "", "1777": "", "": ""} {
		var m Mode
		err := m.UnmarshalText([]byte(text))
		back, _ := m.MarshalText()
		if (err == nil) != (want != "") || err == nil && string(back) != want {
			t.Errorf("mode %q becomes %q, %v", text, back, err)
		}
	}
	for text, want := range map[string]*Owner{
		"www": {"www", ""}, "www:web": {"www", "web"}, ":web": {"", "web"}, "33": {"33", ""}, "": nil, ":": nil, "www:": nil, "a:b:c": nil,
	} {
		var o Owner
		err := o.UnmarshalText([]byte(text))
		back, _ := o.MarshalText()
		if (err == nil) != (want != nil) || err == nil && (o != *want || string(back) != text) {
			t.Errorf("owner %q becomes %+v, %q, %v", text, o, back, err)
		}
	}
}

// Package sockets opens Unix sockets to listen on.
package sockets

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// maxPath is the longest path of a unix socket, in bytes, that all systems take.
const maxPath = 104

// CheckPath tells what is wrong with the path of a unix socket.
func CheckPath(path string) error {
	switch {
	case path == "":
		return errors.New("has no path: write unix:/path")
	case path[0] == '@':
		return errors.New("is a name and no path: everybody on this machine may connect to such sockets. Write unix:/path")
	case len(path) > maxPath:
		return fmt.Errorf("is too long: the path of a unix socket has at most %d bytes, not %d", maxPath, len(path))
	}
	return nil
}

// Access says who may connect to a unix socket.
type Access struct {
	Mode  Mode
	Owner Owner
}

// Private is for this user alone.
var Private = Access{Mode: 0o600}

// A Mode is the permissions of a file, written in octal: 0660.
type Mode fs.FileMode

// UnmarshalText reads a mode.
func (m *Mode) UnmarshalText(text []byte) error {
	digits := strings.TrimPrefix(string(text), "0o")
	n, err := strconv.ParseUint(digits, 8, 32)
	if err != nil || n > 0o777 {
		return fmt.Errorf("%q is no mode: write three octal digits, such as 0660 for the owner and the group", text)
	}
	*m = Mode(n)
	return nil
}

// MarshalText is the mode as it is written.
func (m Mode) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%04o", uint32(m)), nil }

// An Owner is a user, a group or both: `user`, `user:group` or `:group`, each by name or number. The zero Owner is whoever runs the
// program.
type Owner struct{ User, Group string }

// UnmarshalText reads an owner.
func (o *Owner) UnmarshalText(text []byte) error {
	name, group, both := strings.Cut(string(text), ":")
	if name == "" && group == "" || both && group == "" || strings.Contains(group, ":") {
		return fmt.Errorf("%q is no owner: write user, user:group or :group", text)
	}
	*o = Owner{name, group}
	return nil
}

// MarshalText is the owner as it is written.
func (o Owner) MarshalText() ([]byte, error) {
	if o.Group == "" {
		return []byte(o.User), nil
	}
	return []byte(o.User + ":" + o.Group), nil
}

// ids finds the numbers of an owner; -1 leaves what is.
func (o Owner) ids() (uid, gid int, err error) {
	if uid, err = number(o.User, func(name string) (string, error) {
		u, err := user.Lookup(name)
		if err != nil {
			return "", err
		}
		return u.Uid, nil
	}); err != nil {
		return -1, -1, err
	}
	gid, err = number(o.Group, func(name string) (string, error) {
		g, err := user.LookupGroup(name)
		if err != nil {
			return "", err
		}
		return g.Gid, nil
	})
	return uid, gid, err
}

func number(name string, lookup func(string) (string, error)) (int, error) {
	if name == "" {
		return -1, nil
	}
	if n, err := strconv.Atoi(name); err == nil {
		return n, nil
	}
	id, err := lookup(name)
	if err != nil {
		return -1, err
	}
	return strconv.Atoi(id)
}

// Set gives the socket at a path to those who may connect.
func (a Access) Set(path string) error {
	uid, gid, err := a.Owner.ids()
	if err == nil && (uid >= 0 || gid >= 0) {
		err = os.Lchown(path, uid, gid)
	}
	if err != nil {
		return fmt.Errorf("give it to its owner: %w", err)
	}
	return os.Chmod(path, fs.FileMode(a.Mode))
}

// Listen listens on a unix socket. One that nobody answers on any more is replaced. Closing the listener removes it.
func Listen(path string, a Access) (net.Listener, error) {
	if err := CheckPath(path); err != nil {
		return nil, fmt.Errorf("listen unix:%s: it %w", path, err)
	}
	if err := removeStale(path); err != nil {
		return nil, fmt.Errorf("listen unix:%s: %w", path, err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := a.Set(path); err != nil {
		return nil, errors.Join(fmt.Errorf("listen unix:%s: %w", path, err), l.Close())
	}
	return l, nil
}

// removeStale removes the socket that a program left when it was killed.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return errors.New("a file that is no socket is in the way: remove it, or choose another path")
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		return errors.Join(errors.New("another program answers there: stop it first, or choose another path"), conn.Close())
	case !errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("is the socket that is there in use? %w", err)
	}
	return os.Remove(path)
}

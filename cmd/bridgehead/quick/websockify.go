package quick

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// off is a duration that never passes, in a configuration.
const off = "off"

// Websockify is what a command line of websockify says beside the flags that mean the same here and there.
type Websockify struct {
	Args       []string // [SOURCE_ADDR:]SOURCE_PORT [TARGET_ADDR:TARGET_PORT]
	Wraps      bool     // a program to run follows behind `--`
	UnixTarget string   // the socket that is the target
	SSLTarget  bool     // the target speaks TLS
	SSLOnly    bool     // clients without TLS are refused
}

// given tells whether anything but From and To is used to say where from and where to.
func (w *Websockify) given() bool {
	return len(w.Args) > 0 || w.UnixTarget != "" || w.SSLTarget || w.SSLOnly
}

// Into adds what was said to the options: where clients connect, with TLS if there is a certificate, and where their sockets lead.
func (w *Websockify) Into(o *Options) error {
	if !w.given() {
		return nil
	}
	if o.From != "" || o.To != "" {
		return errors.New("--from and --to say all that the words of websockify say: write the one or the other")
	}
	if w.Wraps {
		return errors.New("a program behind -- is not started: start it yourself, or by a service manager, and name its port as the target")
	}
	if len(w.Args) == 0 {
		return errors.New("the port for clients is missing: write it as in quick 6080 localhost:5900")
	}
	scheme := "ws://"
	if o.Cert != "" || w.SSLOnly {
		scheme = "wss://"
	}
	o.From = scheme + w.Args[0]
	if !strings.Contains(w.Args[0], ":") {
		o.From = scheme + ":" + w.Args[0]
	}
	return w.target(o)
}

func (w *Websockify) target(o *Options) error {
	targets := w.Args[1:]
	if w.UnixTarget != "" {
		targets = append(targets, "unix:"+w.UnixTarget)
	}
	switch {
	case len(targets) == 0:
		return errors.New("the target is missing: write it as in quick 6080 localhost:5900")
	case len(targets) > 1:
		return fmt.Errorf("%q: there is a target already, %s; several are listed in a file, which bridgehead serve takes", targets[1], targets[0])
	case w.SSLTarget && w.UnixTarget != "":
		return errors.New("--ssl-target is for host:port: a Unix socket is reached without TLS")
	case w.SSLTarget:
		o.To = "tls://" + targets[0]
	default:
		o.To = targets[0]
	}
	return nil
}

// Ping is the option of that name for a number of seconds, of which 0 is never.
func Ping(seconds int) string {
	if seconds <= 0 {
		return off
	}
	return strconv.Itoa(seconds) + "s"
}

// An Unknown is an option of websockify that is not known here.
type Unknown struct {
	Name, Short string
	Switch      bool   // it has no value
	Instead     string // what to do
}

// Told is what to tell who gives it.
func (u Unknown) Told() error {
	return fmt.Errorf("--%s is not known here: %s", u.Name, u.Instead)
}

// What is told of several options.
const (
	useFile    = "write a file with a route for each target, as bridgehead quick --print shows one, and run it by bridgehead serve"
	useService = "run it by a service manager, such as systemd, which keeps it running and keeps its log"
	useProxy   = "let a proxy in front ask who is there"
	keepLog    = "the log goes to standard error: lead it where it should go, as in 2>quick.log"
	modernTLS  = "TLS is 1.2 or 1.3 with forward secret ciphers, always"
)

// Unknowns are the options of websockify that lead to an error, and what to do instead.
func Unknowns() []Unknown {
	return []Unknown{
		{Name: "token-plugin", Instead: useFile},
		{Name: "token-source", Instead: useFile},
		{Name: "host-token", Switch: true, Instead: useFile},
		{Name: "target-config", Instead: useFile},
		{Name: "daemon", Short: "D", Switch: true, Instead: useService},
		{Name: "inetd", Switch: true, Instead: useService},
		{Name: "run-once", Switch: true, Instead: "--idle-timeout SEC ends it when nobody is connected"},
		{Name: "timeout", Instead: "--idle-timeout SEC ends it when nobody is connected"},
		{Name: "wrap-mode", Instead: "start the program yourself, or by a service manager, and name its port as the target"},
		{Name: "record", Instead: "nothing is recorded; --verbose logs each socket"},
		{Name: "traffic", Switch: true, Instead: "frames are not logged; --verbose logs each socket"},
		{Name: "auth-plugin", Instead: useProxy},
		{Name: "auth-source", Instead: useProxy},
		{Name: "web-auth", Switch: true, Instead: useProxy},
		{Name: "log-file", Instead: keepLog},
		{Name: "syslog", Instead: keepLog},
		{Name: "legacy-syslog", Switch: true, Instead: keepLog},
		{Name: "ssl-version", Instead: modernTLS},
		{Name: "ssl-ciphers", Instead: modernTLS},
		{Name: "key-password", Instead: "write the key without its password, as openssl pkey -in key.pem -out plain.pem does"},
		{Name: "verify-client", Switch: true, Instead: "let a proxy in front ask for client certificates"},
		{Name: "cafile", Instead: "let a proxy in front ask for client certificates"},
		{Name: "unix-listen", Instead: "clients connect by TCP: name a port, on 127.0.0.1 if only this machine may"},
		{Name: "unix-listen-mode", Instead: "clients connect by TCP: name a port, on 127.0.0.1 if only this machine may"},
		{Name: "libserver", Switch: true, Instead: "leave it out: there is one server, and it needs no Python"},
	}
}

// A Habit is a switch of websockify for what is so here anyway.
type Habit struct{ Name, Short string }

// Habits are those that are taken and change nothing.
func Habits() []Habit { return []Habit{{Name: "file-only"}, {Name: "auto-pong"}, {"prefer-ipv6", "6"}} }

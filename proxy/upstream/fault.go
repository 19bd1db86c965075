package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"io/fs"
	"net"
	"strings"
)

// A Fault is an error on the way to a server, with what to do about it.
type Fault struct {
	Address string // of the server; [Target.Fault] sets it
	Kind    string // of the error, for whoever counts
	Err     error

	// Mend says what to do; "" if nobody knows. Until [Target.Fault] has seen it, {where} in it stands for the key that holds the
	// server's URL, {group} for the entry of upstreams that has its options, {named} for how to have one, {other} for the URL's
	// scheme with TLS if it has none, and without if it has, and {or} for the question whether that is the right one.
	Mend string
}

func (f *Fault) Error() string {
	if f.Mend == "" {
		return f.Err.Error()
	}
	return f.Err.Error() + "; " + f.Mend
}

func (f *Fault) Unwrap() error { return f.Err }

// Key is the same for all errors that have the same cause; their texts may differ by a port.
func (f *Fault) Key() string { return f.Address + " " + f.Kind }

// Fault finds out what to do about an error on the way to the server. What it returns holds a [*Fault], err's own if it has one.
func (t *Target) Fault(err error) error {
	f, ok := errors.AsType[*Fault](err)
	if !ok {
		f = diagnose(err)
		err = f
	}
	if f.Address == "" {
		f.Address = t.address
		f.Mend = t.fill(f.Mend)
	}
	return err
}

// fill puts words in the places of a mend.
func (t *Target) fill(mend string) string {
	where, group, named := "`to`", "upstreams.NAME", ", and let `to` say NAME"
	if t.group != "" {
		group, named = "upstreams."+t.group, ""
		where = group + ".servers"
	}
	other, or := others[t.scheme], ""
	if other != "" {
		or = ", or should " + where + " say " + other + "://"
	}
	return strings.NewReplacer("{where}", where, "{group}", group, "{named}", named, "{other}", other, "{or}", or).Replace(mend)
}

// others are the schemes that differ by TLS alone.
var others = map[string]string{
	"ws": "wss", "wss": "ws", "http": "https", "https": "http", "tcp": "tls", "tls": "tcp",
}

const plainServer = "the server does not speak TLS at this port: write {other}:// in {where}"

// diagnoses are tried in this order.
var diagnoses = []struct {
	kind string
	is   func(error) bool
	mend string
}{
	{"unknown name", nobodyKnows, "is the name right in {where}, and known to this machine?"},
	{"DNS", isA[*net.DNSError], "does this machine's DNS work?"},
	{"no TLS", isA[tls.RecordHeaderError], plainServer},
	{"no TLS", says("HTTP response to HTTPS client"), plainServer},
	{"unknown authority", isA[x509.UnknownAuthorityError], "name the authority that signed its certificate in {group}.tls.ca{named}"},
	{"wrong name", isA[x509.HostnameError], "write a name that the certificate holds in {group}.tls.server_name{named}"},
	{"invalid certificate", isA[x509.CertificateInvalidError], "the server's certificate must be renewed"},
	{"client certificate", says("tls: certificate required"), "the server wants to see a certificate: give it {group}.tls.cert and key{named}"},
	{"TLS alert", says("remote error: tls: "), "the server refuses our TLS: see its log, and {group}.tls{named}"},
	{"no answer", dialTimedOut, "nothing answers there: is the address right in {where}, and does no firewall drop what we send?"},
	{"silence", timedOut, "the server takes the connection and says nothing: is it of the kind that the route needs, and is it well?"},
	{"hang-up", hungUp, "the server hangs up without an answer: does it speak another protocol{or}?"},
	{"refused", says("refused"), "does the server run, and does it listen there?"},
	{"no socket", is(fs.ErrNotExist), "does the server run, and is the path right in {where}?"},
	{"no permission", is(fs.ErrPermission), "the user who runs this program may not open the socket: change its mode or its group"},
	{"unreachable", says("unreachable"), "is the address right in {where}, and is there a way to its network?"},
	{"unreachable", says("no route to host"), "is the address right in {where}, and does no firewall refuse us?"},
}

func diagnose(err error) *Fault {
	for _, d := range diagnoses {
		if d.is(err) {
			return &Fault{Kind: d.kind, Mend: d.mend, Err: err}
		}
	}
	return &Fault{Kind: "other", Err: err}
}

func isA[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

func is(target error) func(error) bool { return func(err error) bool { return errors.Is(err, target) } }

// says is for errors that each system has its own number for.
func says(text string) func(error) bool {
	return func(err error) bool { return strings.Contains(err.Error(), text) }
}

func hungUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || says("reset by peer")(err)
}

func nobodyKnows(err error) bool {
	e, ok := errors.AsType[*net.DNSError](err)
	return ok && e.IsNotFound
}

func timedOut(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout() || errors.Is(err, context.DeadlineExceeded)
}

func dialTimedOut(err error) bool {
	e, ok := errors.AsType[*net.OpError](err)
	return ok && e.Op == "dial" && timedOut(err)
}

package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Each way in which a server cannot be reached makes an error that says what to do.
func TestTheErrorNamesTheMend(t *testing.T) {
	t.Parallel()
	pair, cert, _ := testCertificate(t)
	secure := func(config *tls.Config) func(*testing.T) string {
		config.Certificates = []tls.Certificate{pair}
		return func(t *testing.T) string {
			l := listen(t)
			serve(t, l, shaken(config))
			return "wss://" + l.Addr().String()
		}
	}
	for _, c := range []struct {
		name    string
		url     func(*testing.T) string
		options TLS
		kind    string
		want    string
	}{
		{"nobody listens", closed("ws"), TLS{}, "refused", "connect: connection refused; does the server run, and does it listen there?"},
		{"no TLS", plain("wss"), TLS{}, "no TLS", "; the server does not speak TLS at this port: write ws:// in upstreams.chat.servers"},
		{"no TLS for a stream", plain("tls"), TLS{}, "no TLS", "write tcp:// in upstreams.chat.servers"},
		{"no TLS, and it hangs up", hangsUp("wss"), TLS{}, "hang-up",
			"; the server hangs up without an answer: does it speak another protocol, or should upstreams.chat.servers say ws://?"},
		{"an unknown authority", secure(&tls.Config{}), TLS{}, "unknown authority",
			"; name the authority that signed its certificate in upstreams.chat.tls.ca"},
		{"another name", secure(&tls.Config{}), TLS{CA: cert, ServerName: "other.example"}, "wrong name",
			"; write a name that the certificate holds in upstreams.chat.tls.server_name"},
		{"TLS of another age", secure(&tls.Config{MaxVersion: tls.VersionTLS10}), TLS{CA: cert}, "TLS alert",
			"; the server refuses our TLS: see its log, and upstreams.chat.tls"},
		{"no such socket", fixed("unix:" + filepath.Join(t.TempDir(), "s")), TLS{}, "no socket",
			"no such file or directory; does the server run, and is the path right in upstreams.chat.servers?"},
		{"a socket that nobody listens at", leftSocket, TLS{}, "refused",
			"connect: connection refused; does the server run, and does it listen there?"},
		{"silence", silent("wss"), TLS{}, "silence",
			"context deadline exceeded; the server takes the connection and says nothing: is it of the kind that the route needs, and is it well?"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			wait := patience
			if c.kind == "silence" {
				wait = soon
			}
			ctx, cancel := context.WithTimeout(t.Context(), wait)
			defer cancel()
			groups, err := NewGroups(map[string]Options{"chat": {Servers: []Server{{URL: c.url(t)}}, TLS: c.options}}, Setup{Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			target := groups["chat"].Targets()[0]
			_, err = target.Dial(ctx)
			if err == nil || !strings.HasSuffix(err.Error(), c.want) {
				t.Errorf("error %v\nwant %s", err, c.want)
			}
			if fault, ok := errors.AsType[*Fault](err); !ok || fault.Key() != target.Address()+" "+c.kind {
				t.Errorf("%#v, want the kind %s", err, c.kind)
			}
		})
	}
}

// TLS 1.3 tells a client that it had to show a certificate only after the client's handshake is done.
func TestAServerThatWantsACertificate(t *testing.T) {
	t.Parallel()
	pair, cert, _ := testCertificate(t)
	l := listen(t)
	serve(t, l, shaken(&tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAnyClientCert}))
	target := pick(t, "tls://"+l.Addr().String(), TLS{CA: cert})
	conn, err := target.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = conn.Read(make([]byte, 1))
	err = target.Fault(err)
	if want := "; the server wants to see a certificate: give it upstreams.NAME.tls.cert and key, and let `to` say NAME"; !strings.HasSuffix(err.Error(), want) {
		t.Errorf("error %v, want %s", err, want)
	}
}

// States of a network that a test cannot bring about are known by their errors.
func TestFaultsByTheirErrors(t *testing.T) {
	t.Parallel()
	dial := func(err error) error { return &net.OpError{Op: "dial", Net: "tcp", Err: err} }
	for _, c := range []struct {
		err        error
		kind, mend string
	}{
		{dial(os.ErrDeadlineExceeded), "no answer", "nothing answers there: is the address right in `to`, and does no firewall drop what we send?"},
		{dial(&net.DNSError{Err: "no such host", Name: "x", IsNotFound: true}), "unknown name", "is the name right in `to`, and known to this machine?"},
		{dial(&net.DNSError{Err: "server misbehaving", Name: "x", IsTemporary: true}), "DNS", "does this machine's DNS work?"},
		{dial(&net.DNSError{Err: "i/o timeout", Name: "x", IsTimeout: true}), "DNS", "does this machine's DNS work?"},
		{dial(errors.New("connect: network is unreachable")), "unreachable", "is the address right in `to`, and is there a way to its network?"},
		{dial(errors.New("connect: no route to host")), "unreachable", "is the address right in `to`, and does no firewall refuse us?"},
		{dial(os.ErrPermission), "no permission", "the user who runs this program may not open the socket: change its mode or its group"},
		{dial(errors.New("No connection could be made because the target machine actively refused it.")), "refused",
			"does the server run, and does it listen there?"},
		{errors.New("http: server gave HTTP response to HTTPS client"), "no TLS", "the server does not speak TLS at this port: write wss:// in `to`"},
		{x509.CertificateInvalidError{Reason: x509.Expired}, "invalid certificate", "the server's certificate must be renewed"},
		{errors.New("read tcp 127.0.0.1:1->127.0.0.1:2: read: connection reset by peer"), "hang-up",
			"the server hangs up without an answer: does it speak another protocol, or should `to` say wss://?"},
		{errors.New("something else"), "other", ""},
		{context.Canceled, "other", ""},
		{&Fault{Kind: "own", Mend: "say {other} in {where}", Err: io.EOF}, "own", "say wss in `to`"},
	} {
		err := pick(t, "ws://h:1", TLS{}).Fault(c.err)
		f, ok := errors.AsType[*Fault](err)
		if !ok || f.Address != "h:1" || f.Kind != c.kind || f.Mend != c.mend || !errors.Is(err, c.err) {
			t.Errorf("%v:\n%+v, want %s: %s", c.err, f, c.kind, c.mend)
		}
		if again := pick(t, "wss://other:1", TLS{}).Fault(err); again.Error() != err.Error() {
			t.Errorf("seen by another target it is another: %v", again)
		}
	}
	f, _ := errors.AsType[*Fault](pick(t, "unix:/s", TLS{}).Fault(io.EOF))
	if want := "the server hangs up without an answer: does it speak another protocol?"; f.Mend != want {
		t.Errorf("a socket has no scheme to change: %s, want %s", f.Mend, want)
	}
}

func fixed(url string) func(*testing.T) string { return func(*testing.T) string { return url } }

func closed(scheme string) func(*testing.T) string {
	return func(t *testing.T) string {
		l := listen(t)
		l.Close()
		return scheme + "://" + l.Addr().String()
	}
}

func plain(scheme string) func(*testing.T) string {
	return func(t *testing.T) string {
		s := httptest.NewServer(http.NotFoundHandler())
		t.Cleanup(s.Close)
		return scheme + "://" + s.Listener.Addr().String()
	}
}

func hangsUp(scheme string) func(*testing.T) string {
	return func(t *testing.T) string {
		l := listen(t)
		serve(t, l, func(conn net.Conn) error {
			conn.(*net.TCPConn).CloseWrite()
			_, err := io.Copy(io.Discard, conn)
			return err
		})
		return scheme + "://" + l.Addr().String()
	}
}

func silent(scheme string) func(*testing.T) string {
	return func(t *testing.T) string {
		l := listen(t)
		serve(t, l, readAll)
		return scheme + "://" + l.Addr().String()
	}
}

// leftSocket is the file of a server that is gone.
func leftSocket(t *testing.T) string {
	dir, err := os.MkdirTemp("", "bh") // shorter than t.TempDir: the path of a socket is bounded
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	return "unix:" + l.Addr().String()
}

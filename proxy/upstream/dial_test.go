package upstream

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// patience is how long a test waits for what has to come.
const patience = 20 * time.Second

// soon is a deadline that a silent server lets pass. A busy machine must connect within it, or the error is another one.
const soon = 3 * time.Second

// serve runs a server that hands each connection to handle, closes it, and gives what handle gave. It ends with the test.
func serve[T any](t *testing.T, l net.Listener, handle func(net.Conn) T) <-chan T {
	t.Helper()
	results := make(chan T, 10)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(patience))
				results <- handle(conn)
			})
		}
	})
	t.Cleanup(func() { l.Close(); serving.Wait() })
	return results
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// testCertificate is one that net/http/httptest brings: for example.com and 127.0.0.1, signed by itself. cert and key are the
// names of files with its parts.
func testCertificate(t *testing.T) (pair tls.Certificate, cert, key string) {
	t.Helper()
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS()
	pair = s.TLS.Certificates[0]
	s.Close()
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for name, block := range map[string]*pem.Block{
		cert: {Type: "CERTIFICATE", Bytes: pair.Certificate[0]}, key: {Type: "PRIVATE KEY", Bytes: der},
	} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return pair, cert, key
}

// pick makes a group of one server and gives that.
func pick(t *testing.T, url string, o TLS) *Target {
	t.Helper()
	g, err := New(Options{Servers: []Server{{URL: url}}, TLS: o})
	if err != nil {
		t.Fatal(err)
	}
	return g.Targets()[0]
}

// shaken does the server's part of TLS, says hello, and gives what it knows of the client.
func shaken(config *tls.Config) func(net.Conn) tls.ConnectionState {
	return func(conn net.Conn) tls.ConnectionState {
		secure := tls.Server(conn, config)
		if secure.Handshake() == nil {
			io.WriteString(secure, "hello")
			secure.Read(make([]byte, 1)) // until the client hangs up
		}
		return secure.ConnectionState()
	}
}

func TestTLSOfAServer(t *testing.T) {
	t.Parallel()
	pair, cert, key := testCertificate(t)
	unknown := new(x509.UnknownAuthorityError)
	hostname := new(x509.HostnameError)
	for _, c := range []struct {
		name, scheme string
		options      TLS
		alpn         string // that is agreed upon
		shown        bool   // the client shows a certificate
		fails        any    // points to the type of the error; nil: the server is trusted
	}{
		{"an authority that nobody knows", "wss", TLS{}, "", false, unknown},
		{"its authority", "wss", TLS{CA: cert}, "http/1.1", false, nil},
		{"http/1.1 for https too", "https", TLS{CA: cert}, "http/1.1", false, nil},
		{"no protocol for a stream", "tls", TLS{CA: cert}, "", false, nil},
		{"another name that the certificate has", "tls", TLS{CA: cert, ServerName: "example.com"}, "", false, nil},
		{"a name that the certificate does not have", "tls", TLS{CA: cert, ServerName: "other.example"}, "", false, hostname},
		{"not verified", "tls", TLS{Insecure: true, ServerName: "other.example"}, "", false, nil},
		{"a client certificate", "tls", TLS{CA: cert, Cert: cert, Key: key}, "", true, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := listen(t)
			states := serve(t, l, shaken(&tls.Config{
				Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2", "http/1.1"}, ClientAuth: tls.RequestClientCert,
			}))
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			conn, err := pick(t, c.scheme+"://"+l.Addr().String(), c.options).Dial(ctx)
			if c.fails != nil {
				if !errors.As(err, c.fails) || conn != nil {
					t.Fatalf("%v, %v; want %T", conn, err, c.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			io.ReadFull(conn, make([]byte, len("hello")))
			conn.Close()
			state := <-states
			if state.NegotiatedProtocol != c.alpn || (len(state.PeerCertificates) == 1) != c.shown {
				t.Errorf("protocol %q, %d certificates of the client", state.NegotiatedProtocol, len(state.PeerCertificates))
			}
		})
	}
}

func TestTLSFilesThatAreNone(t *testing.T) {
	t.Parallel()
	_, cert, key := testCertificate(t)
	for want, o := range map[string]TLS{
		"ca: open /nowhere: no such file or directory":                                            {CA: "/nowhere"},
		"ca: " + key + " holds no PEM certificate":                                                {CA: key},
		"cert and key: open /nowhere: no such file or directory":                                  {Cert: cert, Key: "/nowhere"},
		"cert and key: tls: found a certificate rather than a key in the PEM for the private key": {Cert: cert, Key: cert},
	} {
		if _, err := New(Options{Servers: []Server{{URL: "wss://h"}}, TLS: o}); err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// The PROXY header precedes TLS, so that whoever takes it needs no certificate (haproxy proxy-protocol.txt, section 2).
func TestThePreambleComesBeforeTLS(t *testing.T) {
	t.Parallel()
	pair, cert, _ := testCertificate(t)
	l := listen(t)
	first := serve(t, l, func(conn net.Conn) string {
		preamble := make([]byte, len("who\n"))
		io.ReadFull(conn, preamble)
		shaken(&tls.Config{Certificates: []tls.Certificate{pair}})(conn)
		return string(preamble)
	})
	conn, err := pick(t, "tls://"+l.Addr().String(), TLS{CA: cert}).DialAfter(t.Context(), func(bare net.Conn) error {
		_, err := io.WriteString(bare, "who\n")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	hello := make([]byte, len("hello"))
	io.ReadFull(conn, hello)
	conn.Close()
	if got := <-first; got != "who\n" || string(hello) != "hello" {
		t.Errorf("the server got %q and said %q", got, hello)
	}
}

func TestAPreambleThatFailsEndsTheConnection(t *testing.T) {
	t.Parallel()
	l := listen(t)
	got := serve(t, l, readAll)
	failure := errors.New("no address")
	var bare net.Conn
	conn, err := pick(t, "tcp://"+l.Addr().String(), TLS{}).DialAfter(t.Context(), func(conn net.Conn) error {
		bare = conn
		return failure
	})
	if conn != nil || !errors.Is(err, failure) || err.Error() != l.Addr().String()+": preamble: no address" {
		t.Errorf("%v, %v", conn, err)
	}
	if _, err := bare.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("it lives on: %v", err)
	}
	if data := <-got; len(data) > 0 {
		t.Errorf("the server got %q", data)
	}
}

func readAll(conn net.Conn) []byte {
	data, err := io.ReadAll(conn)
	if err != nil {
		return []byte(err.Error())
	}
	return data
}

// The context bounds all of it, its end closes the connection, and the error says timeout, so that the client is answered 504.
func TestTheContextBoundsEveryStep(t *testing.T) {
	t.Parallel()
	silent := func(conn net.Conn) error { _, err := conn.Read(make([]byte, 1)); return err }
	for _, c := range []struct {
		name, scheme string
		preamble     func(net.Conn) error
	}{
		{"the TLS handshake", "tls", nil},
		{"the preamble", "tcp", silent},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := listen(t)
			ended := serve(t, l, func(conn net.Conn) error { _, err := io.Copy(io.Discard, conn); return err })
			target := pick(t, c.scheme+"://"+l.Addr().String(), TLS{})

			ctx, cancel := context.WithTimeout(t.Context(), soon)
			defer cancel()
			if conn, err := target.DialAfter(ctx, c.preamble); conn != nil || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v, %v; want the deadline", conn, err)
			}
			if err := <-ended; err != nil {
				t.Errorf("the server's connection was not closed: %v", err)
			}

			left, leave := context.WithCancel(t.Context())
			time.AfterFunc(soon, leave)
			if conn, err := target.DialAfter(left, c.preamble); conn != nil || !errors.Is(err, context.Canceled) {
				t.Errorf("%v, %v; want it to be cancelled", conn, err)
			}
			if err := <-ended; err != nil {
				t.Errorf("the server's connection was not closed: %v", err)
			}
		})
	}
	t.Run("nothing afterwards", func(t *testing.T) {
		t.Parallel()
		l := listen(t)
		got := serve(t, l, readAll)
		ctx, cancel := context.WithCancel(t.Context())
		conn, err := pick(t, "tcp://"+l.Addr().String(), TLS{}).Dial(ctx)
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		io.WriteString(conn, "still there")
		conn.Close()
		if data := <-got; !bytes.Equal(data, []byte("still there")) {
			t.Errorf("the server got %q", data)
		}
	})
	t.Run("not even the end of it at the last moment gives a dead connection", func(t *testing.T) {
		t.Parallel()
		l := listen(t)
		serve(t, l, readAll)
		ctx, cancel := context.WithCancel(t.Context())
		conn, err := pick(t, "tcp://"+l.Addr().String(), TLS{}).DialAfter(ctx, func(net.Conn) error { cancel(); return nil })
		if conn != nil || !errors.Is(err, context.Canceled) {
			t.Errorf("%v, %v; want it to be cancelled", conn, err)
		}
	})
}

func TestNobodyListens(t *testing.T) {
	t.Parallel()
	l := listen(t)
	l.Close()
	conn, err := pick(t, "tcp://"+l.Addr().String(), TLS{}).Dial(t.Context())
	if want := "dial tcp " + l.Addr().String() + ": connect: connection refused; does the server run, and does it listen there?"; conn != nil || err == nil || err.Error() != want {
		t.Errorf("%v, %v; want %s", conn, err, want)
	}
}

func TestUnixSocket(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "bh") // shorter than t.TempDir: the path of a socket is bounded
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	got := serve(t, l, readAll)
	conn, err := pick(t, "unix:"+l.Addr().String(), TLS{}).Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(conn, "by a file")
	conn.Close()
	if data := <-got; string(data) != "by a file" {
		t.Errorf("the server got %q", data)
	}
}

//go:build linux

package load

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"bridgehead/ws"
)

// A dialer opens sockets up to the answer of the handshake.
type dialer struct {
	address string
	request []byte
	key     string
	tls     *tls.Config // nil: without
}

// newDialer prepares a handshake as a browser's page from the same host makes it. All servers get the same choice of cryptography,
// so that none is measured with a stronger one: X25519, and never a resumed session.
func newDialer(s Spec) (*dialer, error) {
	d := &dialer{address: s.Address, key: ws.NewKey()}
	request := ws.Request{Host: s.Address, Target: s.Path, Key: d.key, Header: map[string][]string{"Origin": {"http://" + s.Address}}}
	if s.Token != "" {
		request.Header.Set("Authorization", "Bearer "+s.Token)
	}
	if s.CA != "" {
		pem, err := os.ReadFile(s.CA)
		if err != nil {
			return nil, err
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate", s.CA)
		}
		request.Header.Set("Origin", "https://"+s.Address)
		d.tls = &tls.Config{
			RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"},
			CurvePreferences: []tls.CurveID{tls.X25519}, DynamicRecordSizingDisabled: true,
		}
	}
	d.request = request.Append(nil)
	return d, nil
}

// wireCipher is the cipher suite that every server is made to choose.
const wireCipher = tls.TLS_AES_128_GCM_SHA256

// dial opens a socket. It returns what it speaks through, and the switch below TLS or nil. Deadlines are left set.
func (d *dialer) dial(ctx context.Context) (conn net.Conn, below *adapter, err error) {
	conn, err = (&net.Dialer{Timeout: connectTimeout, KeepAlive: -1}).DialContext(ctx, "tcp", d.address)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			conn.Close()
		}
	}()
	if err := conn.SetDeadline(time.Now().Add(connectTimeout)); err != nil {
		return conn, nil, err
	}
	if d.tls != nil {
		below = &adapter{Conn: conn}
		secure := tls.Client(below, d.tls)
		conn = secure
		if err := secure.HandshakeContext(ctx); err != nil {
			return conn, nil, fmt.Errorf("TLS: %w", err)
		}
		if suite := secure.ConnectionState().CipherSuite; suite != wireCipher {
			return conn, nil, fmt.Errorf("TLS: %s was chosen, which cannot be compared", tls.CipherSuiteName(suite))
		}
	}
	return conn, below, d.upgrade(conn)
}

// upgrade does the opening handshake.
func (d *dialer) upgrade(conn net.Conn) error {
	if _, err := conn.Write(d.request); err != nil {
		return err
	}
	var head []byte
	for buffer := make([]byte, 4096); !bytes.HasSuffix(head, []byte("\r\n\r\n")); {
		n, err := conn.Read(buffer)
		head = append(head, buffer[:n]...)
		if err != nil {
			return fmt.Errorf("read the answer after %q: %w", head, err)
		}
	}
	status, _, _ := bytes.Cut(head, []byte("\r\n"))
	switch {
	case !bytes.HasPrefix(status, []byte("HTTP/1.1 101 ")):
		return fmt.Errorf("the answer is %q", status)
	case !bytes.Contains(head, []byte(ws.AcceptKey(d.key))):
		return errors.New("the answer does not fit the key")
	}
	return nil
}

// goodbye does the closing handshake, up to the end of TCP.
func goodbye(conn net.Conn) error {
	if _, err := conn.Write(ws.AppendCloseFrame(nil, ws.CodeNormal, "", true)); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, conn); err != nil {
		return fmt.Errorf("wait for the end: %w", err)
	}
	return nil
}

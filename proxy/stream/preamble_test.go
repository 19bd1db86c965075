package stream

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"bridgehead/policy"
	"bridgehead/proxy"
)

// written is a connection that keeps what is written to it.
type written struct {
	net.Conn
	bytes []byte
}

func (w *written) Write(p []byte) (int, error) {
	w.bytes = append(w.bytes, p...)
	return len(p), nil
}

// A caller is a client as the handshake shows it.
type caller struct {
	remote string // the peer, as net/http has it
	client string // the true client; default: the peer
	local  net.Addr
	tls    bool
	state  *tls.ConnectionState // when TLS ends here
	cn     string               // of the certificate that the client has proven to be its own
}

func (c caller) handshake() *proxy.Handshake {
	r := httptest.NewRequest("GET", "/", nil)
	r.Host, r.RemoteAddr, r.TLS = "vnc.example:8443", c.remote, c.state
	r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, c.local))
	h := &proxy.Handshake{Facts: policy.Facts{Request: r, ConnID: "c_1", Client: policy.Peer(r), TLS: c.tls}}
	if c.client != "" {
		h.Client = netip.MustParseAddr(c.client)
	}
	if c.cn != "" {
		h.Chains = [][]*x509.Certificate{{{Subject: pkix.Name{CommonName: c.cn}}}}
	}
	return h
}

func local(s string) net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(s)) }

// The bytes of haproxy proxy-protocol.txt, sections 2.1 and 2.2. Of the second form the table leaves out the signature, and the
// TLVs that all of them end with or have in their middle: authority and unique id.
func TestPreamble(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		client caller
		v1     string
		v2     string // version and command, family, length, addresses, ports
		ssl    string // the TLV
	}{
		{"IPv4", caller{remote: "192.0.2.7:4711", local: local("10.0.0.1:443")},
			"PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\r\n",
			"21 11 0020 c0000207 0a000001 1267 01bb", ""},
		{"IPv6", caller{remote: "[2001:db8::7]:4711", local: local("[2001:db8::1]:443")},
			"PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n",
			"21 21 0038 20010db8000000000000000000000007 20010db8000000000000000000000001 1267 01bb", ""},
		{"IPv4 on a socket for both", caller{remote: "[::ffff:192.0.2.7]:4711", local: local("[::ffff:10.0.0.1]:443")},
			"PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\r\n",
			"21 11 0020 c0000207 0a000001 1267 01bb", ""},
		{"no zone", caller{remote: "[fe80::7%eth0]:4711", local: local("[fe80::1%eth0]:443")},
			"PROXY TCP6 fe80::7 fe80::1 4711 443\r\n",
			"21 21 0038 fe800000000000000000000000000007 fe800000000000000000000000000001 1267 01bb", ""},
		{"a proxy's client, whose port nobody knows", caller{remote: "10.0.0.9:4711", client: "192.0.2.7", local: local("10.0.0.1:443")},
			"PROXY TCP4 192.0.2.7 10.0.0.1 0 443\r\n",
			"21 11 0020 c0000207 0a000001 0000 01bb", ""},
		{"IPv6 behind a proxy on IPv4", caller{remote: "10.0.0.9:4711", client: "2001:db8::7", local: local("10.0.0.1:443")},
			"PROXY TCP6 2001:db8::7 ::ffff:10.0.0.1 0 443\r\n",
			"21 21 0038 20010db8000000000000000000000007 00000000000000000000ffff0a000001 0000 01bb", ""},
		{"IPv4 behind a proxy on IPv6", caller{remote: "[fd00::9]:4711", client: "192.0.2.7", local: local("[fd00::1]:443")},
			"PROXY TCP6 ::ffff:192.0.2.7 fd00::1 0 443\r\n",
			"21 21 0038 00000000000000000000ffffc0000207 fd000000000000000000000000000001 0000 01bb", ""},
		{"a Unix socket has no addresses", caller{remote: "@", local: &net.UnixAddr{Net: "unix", Name: "/run/b.sock"}},
			"PROXY TCP4 127.0.0.1 0.0.0.0 0 0\r\n",
			"21 11 0020 7f000001 00000000 0000 0000", ""},
		{"TLS", caller{remote: "192.0.2.7:4711", local: local("10.0.0.1:443"), tls: true, state: &tls.ConnectionState{Version: tls.VersionTLS13}},
			"PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\r\n",
			"21 11 0032 c0000207 0a000001 1267 01bb", "20 000f 01 00000001 21 0007 544c5320312e33"},
		{"a client with a certificate",
			caller{remote: "192.0.2.7:4711", local: local("10.0.0.1:443"), tls: true, state: &tls.ConnectionState{Version: tls.VersionTLS13}, cn: "ann"},
			"PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\r\n",
			"21 11 0038 c0000207 0a000001 1267 01bb", "20 0015 07 00000000 21 0007 544c5320312e33 22 0003 616e6e"},
		{"a name longer than one may be",
			caller{remote: "192.0.2.7:4711", local: local("10.0.0.1:443"), tls: true, cn: strings.Repeat("x", 65)},
			"PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\r\n",
			"21 11 0028 c0000207 0a000001 1267 01bb", "20 0005 07 00000000"},
		{"TLS in front of us", caller{remote: "192.0.2.7:4711", local: local("10.0.0.1:443"), tls: true},
			"PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\r\n",
			"21 11 0028 c0000207 0a000001 1267 01bb", "20 0005 01 00000001"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got := string(preamble(t, "proxy-v1", c.client)); got != c.v1 {
				t.Errorf("got  %q\nwant %q", got, c.v1)
			}
			want := unhex(t, "0d0a0d0a000d0a515549540a"+c.v2+"02 000b"+hex.EncodeToString([]byte("vnc.example"))+"05 0003 635f31"+c.ssl)
			if got := preamble(t, "proxy-v2", c.client); !bytes.Equal(got, want) {
				t.Errorf("got  % x\nwant % x", got, want)
			}
			if got := preamble(t, "none", c.client); len(got) > 0 {
				t.Errorf("got %q, want nothing", got)
			}
		})
	}
}

func preamble(t *testing.T, kind string, c caller) []byte {
	t.Helper()
	conn := new(written)
	if err := sendPreamble(conn, kind, c.handshake()); err != nil {
		t.Fatal(err)
	}
	return conn.bytes
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	data, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

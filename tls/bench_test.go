package tls

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"testing"
	"time"
)

// A certificate is found as fast among ten thousand hosts as among ten: `go test ./tls -run ^$ -bench Choice`.
func BenchmarkChoice(b *testing.B) {
	for _, n := range []int{10, 1000, 10_000} {
		names := make([]string, n)
		for i := range names {
			names[i] = fmt.Sprintf("host-%d.example.com", i)
		}
		for source, c := range map[string]*Certs{"files": withPairs(b, names), "authority": withAuthority(b, names)} {
			b.Run(fmt.Sprintf("%s/%d", source, n), func(b *testing.B) {
				near, far := net.Pipe()
				defer near.Close()
				defer far.Close()
				hellos := make([]*tls.ClientHelloInfo, 16) // of all places in the file; the authority keeps what it has made for each
				for i := range hellos {
					hellos[i] = hello(names[i*(n-1)/len(hellos)], far)
					if _, err := c.certificate(hellos[i]); err != nil {
						b.Fatal(err)
					}
				}
				b.ResetTimer()
				for i := range b.N {
					if cert, err := c.certificate(hellos[i%len(hellos)]); cert == nil || err != nil {
						b.Fatal(cert, err)
					}
				}
			})
		}
	}
}

func hello(name string, conn net.Conn) *tls.ClientHelloInfo {
	return &tls.ClientHelloInfo{
		ServerName: name, Conn: conn, SupportedVersions: []uint16{tls.VersionTLS13}, SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256},
		SupportedCurves: []tls.CurveID{tls.X25519}, CipherSuites: []uint16{tls.TLS_AES_128_GCM_SHA256},
	}
}

// withPairs has a pair for each name; the key is one, since to make them is not what is measured.
func withPairs(b *testing.B, names []string) *Certs {
	b.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	t := &table{byName: make(map[string][]*tls.Certificate)}
	for _, name := range names {
		leaf := &x509.Certificate{DNSNames: []string{name}, PublicKey: key.Public(), NotAfter: time.Now().Add(time.Hour)}
		t.add(&tls.Certificate{Certificate: [][]byte{{0}}, PrivateKey: key, Leaf: leaf})
	}
	c := bare(b, names)
	c.pairs = new(pairs)
	c.pairs.current.Store(t)
	c.sources = []source{c.pairs.certificate, c.pairs.fallback}
	return c
}

func withAuthority(b *testing.B, names []string) *Certs {
	b.Helper()
	c, err := New(Options{Internal: true}, Means{State: b.TempDir(), Log: newLogs().logger()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(c.Close)
	return c
}

func bare(b *testing.B, names []string) *Certs {
	b.Helper()
	c, err := New(Options{}, Means{Log: newLogs().logger()})
	if err != nil {
		b.Fatal(err)
	}
	return c
}

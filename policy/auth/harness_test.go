package auth

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"bridgehead/internal/leak"
	"bridgehead/internal/yamlpos"
	"bridgehead/policy"
)

func TestMain(m *testing.M) { leak.Main(m) }

// patience is how long a test waits for what has to come.
const patience = 20 * time.Second

// A book keeps what is logged.
type book struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *book) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *book) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// empty forgets what was logged.
func (b *book) empty() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text.Reset()
}

func (b *book) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// waitFor waits until the log says something.
func (b *book) waitFor(t *testing.T, text string) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if strings.Contains(b.String(), text) {
			return
		}
		timer := time.NewTimer(10 * time.Millisecond)
		<-timer.C
	}
	t.Fatalf("the log does not say %q:\n%s", text, b)
}

// checker makes authenticators ready, of which one, or all, have to let the client in.
func checker(t testing.TB, use Use, require Requirement, options map[string]Options) *Checker {
	t.Helper()
	for name, o := range options {
		if o.CloseCode == 0 {
			o.OnExpiry, o.CloseCode = "close", 4401
			options[name] = o
		}
		doc, _ := yamlpos.Parse("test.yaml", []byte("a: 1"))
		p := doc.Problems()
		o.Validate(yamlpos.Path{name}, p)
		if err := p.Err(); err != nil {
			t.Fatal(err)
		}
	}
	set, err := NewSet(options, nil, Setup{Log: new(book).logger()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { set.Release(nil) })
	c, err := set.Checker(use, require)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// only is a checker of one authenticator.
func only(t testing.TB, o Options) *Checker {
	t.Helper()
	return checker(t, Use{Any: []string{"id"}}, nil, map[string]Options{"id": o})
}

// facts are those of a handshake for a URL, with headers as `Name: value`.
func facts(url string, headers ...string) *policy.Facts {
	r := httptest.NewRequest("GET", url, nil)
	r.RemoteAddr = "192.0.2.7:5000"
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		r.Header[name] = append(r.Header[name], value)
	}
	return &policy.Facts{Request: r, Client: netip.MustParseAddr("192.0.2.7")}
}

// admit wants a client to be let in.
func admit(t testing.TB, c *Checker, f *policy.Facts) *Identity {
	t.Helper()
	id, err := c.Admit(t.Context(), f, nil)
	if err != nil {
		t.Fatalf("%v, want it to be let in", err)
	}
	return id
}

// refuse wants a client not to be let in, for a reason and with a text in the error.
func refuse(t testing.TB, c *Checker, f *policy.Facts, noCookies error, reason, text string) *Denied {
	t.Helper()
	id, err := c.Admit(t.Context(), f, noCookies)
	denied, ok := errors.AsType[*Denied](err)
	if !ok || id != nil || denied.Reason != reason || !strings.Contains(err.Error(), text) {
		t.Fatalf("identity %+v, error %v (%+v); want it refused for %q with %q", id, err, denied, reason, text)
	}
	return denied
}

func write(t testing.TB, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// The keys of the tests are made once: RSA takes its time.
var (
	rsaKey = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	ecKey  = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) })
	edKey  = sync.OnceValue(func() ed25519.PrivateKey { _, k, err := ed25519.GenerateKey(rand.Reader); return must(k, err) })
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func publicPEM(k any) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: must(x509.MarshalPKIXPublicKey(k))}))
}

// selfSignedBy is the certificate of an authority that nobody knows.
func selfSignedBy(k crypto.Signer) []byte {
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	return must(x509.CreateCertificate(rand.Reader, template, template, k.Public(), k))
}

// keySet is a JSON Web Key Set of public keys by their ids.
func keySet(keys map[string]crypto.PublicKey) string {
	var set jose.JSONWebKeySet
	for id, k := range keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: k, KeyID: id, Use: "sig"})
	}
	return string(must(json.Marshal(set)))
}

type claims map[string]any

// with gives the claims of a good token, changed.
func with(changes claims) claims {
	c := claims{"sub": "ann", "iss": "https://id.example.com", "aud": "app", "exp": time.Now().Add(time.Hour).Unix()}
	for name, value := range changes {
		if value == nil {
			delete(c, name)
		} else {
			c[name] = value
		}
	}
	return c
}

// sign makes a token.
func sign(t testing.TB, algorithm jose.SignatureAlgorithm, key any, header map[jose.HeaderKey]any, c claims) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: key}, &jose.SignerOptions{ExtraHeaders: header})
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign(must(json.Marshal(c)))
	if err != nil {
		t.Fatal(err)
	}
	return must(signed.CompactSerialize())
}

// raw makes a token of whatever is written, with a signature that may be none.
func raw(header, payload string, signature []byte) string {
	b := base64.RawURLEncoding
	return b.EncodeToString([]byte(header)) + "." + b.EncodeToString([]byte(payload)) + "." + b.EncodeToString(signature)
}

func bearer(token string) *policy.Facts { return facts("/ws", "Authorization: Bearer "+token) }

func sprint(v any) string { return fmt.Sprintf("%+v", v) }

var background = context.Background

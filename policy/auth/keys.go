package auth

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"

	"github.com/go-jose/go-jose/v4"

	"bridgehead/internal/watch"
)

// errNoKey is met by a token that none of the keys has signed.
var errNoKey = errors.New("no key")

// A keySource has the keys that sign tokens.
type keySource interface {
	// find looks for a key by offering all to try, if need be again when it has got newer ones. The error is errNoKey, or a *Denied if
	// there is no telling.
	find(ctx context.Context, try func([]key) bool) error
	// known tells whether there are keys without asking others.
	known() bool
	close()
}

// A key is one that signs tokens, or checks signatures.
type key struct {
	id        string // "" if it has none: then it is tried for every token
	algorithm string // "" if it is for all that it can do
	key       any
}

// fits tells whether the key may have signed a token: it is the one that the token names, and of the kind that its algorithm needs.
// A public key is never taken for the secret of an HMAC.
func (k key) fits(id, algorithm string) bool {
	if id != "" && k.id != "" && k.id != id || k.algorithm != "" && k.algorithm != algorithm {
		return false
	}
	switch public := k.key.(type) {
	case []byte:
		return strings.HasPrefix(algorithm, "HS")
	case *rsa.PublicKey:
		return strings.HasPrefix(algorithm, "RS") || strings.HasPrefix(algorithm, "PS")
	case *ecdsa.PublicKey:
		return algorithm == map[int]string{256: "ES256", 384: "ES384", 521: "ES512"}[public.Curve.Params().BitSize]
	case ed25519.PublicKey:
		return algorithm == "EdDSA"
	}
	return false
}

// openKeys finds the keys, or begins to.
func (o *JWT) openKeys(with Setup) (keySource, error) {
	switch {
	case len(o.Secret) > 0:
		var keys fixedKeys
		for _, s := range o.Secret {
			keys = append(keys, key{key: []byte(s.Reveal())})
		}
		return keys, nil
	case len(o.KeyFiles) > 0:
		return openKeyFiles(o.KeyFiles, with)
	}
	return openRemote(o, with)
}

// fixedKeys never change.
type fixedKeys []key

func (f fixedKeys) find(_ context.Context, try func([]key) bool) error {
	if !try(f) {
		return errNoKey
	}
	return nil
}

func (f fixedKeys) known() bool { return true }
func (f fixedKeys) close()      {}

// keyFiles are public keys from files that may change.
type keyFiles struct {
	paths   []string
	log     *slog.Logger
	current atomic.Pointer[fixedKeys]
	stop    func()
}

func openKeyFiles(paths []string, with Setup) (*keyFiles, error) {
	f := &keyFiles{paths: paths, log: with.Log, stop: func() {}}
	if !with.Still {
		stop, err := watch.Files(with.Log, f.reload, paths...)
		if err != nil {
			return nil, err
		}
		f.stop = stop
	}
	if err := f.read(); err != nil {
		f.stop()
		return nil, err
	}
	return f, nil
}

func (f *keyFiles) find(ctx context.Context, try func([]key) bool) error {
	return f.current.Load().find(ctx, try)
}

func (f *keyFiles) known() bool { return true }
func (f *keyFiles) close()      { f.stop() }

func (f *keyFiles) reload() {
	if err := f.read(); err != nil {
		f.log.Error("keys not read again, the old ones stay", "error", err)
		return
	}
	f.log.Info("keys read again", "keys", len(*f.current.Load()))
}

func (f *keyFiles) read() error {
	var all fixedKeys
	for _, path := range f.paths {
		data, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("key_files: %w", err)
		}
		keys, err := parseKeys(data)
		if err != nil {
			return fmt.Errorf("key_files: %s: %w", path, err)
		}
		all = append(all, keys...)
	}
	f.current.Store(&all)
	return nil
}

// parseKeys reads a file of public keys: PEM, or JSON.
func parseKeys(data []byte) ([]key, error) {
	if strings.HasPrefix(strings.TrimSpace(string(data)), "{") {
		return parseKeySet(data)
	}
	var keys []key
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		k, err := parseBlock(block)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key{key: k})
	}
	if len(keys) == 0 {
		return nil, errors.New("there is no key in it: write PEM, which begins with -----BEGIN PUBLIC KEY-----, or a JSON Web Key Set")
	}
	return keys, nil
}

func parseBlock(block *pem.Block) (any, error) {
	switch {
	case block.Type == "PUBLIC KEY":
		k, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err == nil {
			err = strong(k)
		}
		return k, err
	case block.Type == "CERTIFICATE":
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		return cert.PublicKey, strong(cert.PublicKey)
	case strings.HasSuffix(block.Type, "PRIVATE KEY"):
		return nil, errors.New("it holds a private key, which belongs to whoever signs: write the public one (openssl pkey -pubout)")
	}
	return nil, fmt.Errorf("it holds a %s, where a PUBLIC KEY is meant", block.Type)
}

// strong tells what is wrong with a public key.
func strong(k any) error {
	switch k := k.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() < 2048 {
			return fmt.Errorf("the RSA key has %d bits, where 2048 are the least", k.N.BitLen())
		}
		return nil
	case *ecdsa.PublicKey, ed25519.PublicKey:
		return nil
	}
	return fmt.Errorf("a %T is no key that signs tokens", k)
}

// mostKeys bounds what one token may have to be tried with.
const mostKeys = 64

// parseKeySet reads a JSON Web Key Set (RFC 7517, section 5), or a single key. Keys that are not for signatures, or of a kind that is
// not known, are passed over; so are secrets, which a set that others can read must not have.
func parseKeySet(data []byte) ([]key, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
		Type string            `json:"kty"`
	}
	if err := json.Unmarshal(data, &set); err != nil {
		return nil, fmt.Errorf("it is no JSON Web Key Set: %w", err)
	}
	if set.Type != "" {
		set.Keys = []json.RawMessage{data}
	}
	var keys []key
	for _, raw := range set.Keys {
		var k jose.JSONWebKey
		if err := json.Unmarshal(raw, &k); err != nil || k.Use != "" && k.Use != "sig" {
			continue
		}
		public := k.Public()
		if strong(public.Key) == nil && len(keys) < mostKeys {
			keys = append(keys, key{k.KeyID, k.Algorithm, public.Key})
		}
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("of its %d keys none is a public key for signatures", len(set.Keys))
	}
	return keys, nil
}

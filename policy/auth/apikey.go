package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"bridgehead/internal/yamlpos"
	"bridgehead/policy"
)

// APIKey are the options of keys.
type APIKey struct {
	// The file with the keys' hashes, a line for each: `NAME sha256:HASH`, and behind it claims as `plan=pro`. `bridgehead auth key
	// NAME` makes a key and its line. The file is read again when it changes.
	File string `yaml:"file"`
	// Where the key may stand, as in `jwt`.
	Token []string `yaml:"token"`
}

// DefaultAPIKey has the values of keys that are not given.
func DefaultAPIKey() APIKey {
	return APIKey{Token: []string{"header.authorization", "header.x-api-key"}}
}

// Validate reports what cannot work.
func (o *APIKey) Validate(at yamlpos.Path, p *yamlpos.Problems) {
	if o.File == "" {
		p.Add(at.Key("file"), "is missing: name the file with the hashes of the keys")
	}
	validatePlaces(o.Token, at.Key("token"), p)
}

// A keyHolder is whose a key is.
type keyHolder struct {
	name   string
	claims policy.Claims
}

// A keyReader is the authenticator of keys.
type keyReader struct {
	where []place
	list  *list[keyHolder] // by hash
}

func (o *APIKey) open(with Setup) (authenticator, error) {
	where, err := parsePlaces(o.Token)
	if err != nil {
		return nil, err
	}
	l, err := openList(o.File, with, parseKeyLine)
	if err != nil {
		return nil, err
	}
	return &keyReader{where, l}, nil
}

func (r *keyReader) places() []place   { return r.where }
func (r *keyReader) headers() []string { return nil }
func (r *keyReader) close()            { r.list.stop() }

// check looks the key up by its hash: how long that takes tells nothing of the keys that there are.
func (r *keyReader) check(_ context.Context, a *ask) (*Identity, error) {
	found, err := seek(a, r.where)
	if err != nil {
		return nil, err
	}
	holder, ok := r.list.get(hashKey(found.token))
	if !ok {
		return nil, deny(reasonInvalid, "the key in %s is none of those in %s", found.place, r.list.path)
	}
	return &Identity{User: holder.name, Claims: holder.claims, Proof: fmt.Sprintf("user %q by the key in %s", holder.name, found.place)}, nil
}

// keyPrefix tells people, and scanners for secrets, what a key is for.
const keyPrefix = "bh_"

// NewKey makes a key and the line of the file that knows it.
func NewKey(name string) (token, line string, err error) {
	if !nameOfKey(name) {
		return "", "", fmt.Errorf("%q cannot be the name of a key: it has no spaces and no #", name)
	}
	token = keyPrefix + strings.ToLower(rand.Text()+rand.Text())
	return token, name + " sha256:" + hashKey(token), nil
}

func nameOfKey(name string) bool { return name != "" && !strings.ContainsAny(name, " \t\r\n#") }

func hashKey(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// parseKeyLine reads `NAME sha256:HASH claim=value ...`.
func parseKeyLine(line string) (hash string, holder keyHolder, err error) {
	words := strings.Fields(line)
	if len(words) < 2 || !nameOfKey(words[0]) {
		return "", holder, errors.New("write a line as NAME sha256:HASH; bridgehead auth key NAME makes one")
	}
	hash, ok := strings.CutPrefix(words[1], "sha256:")
	if raw, err := hex.DecodeString(hash); !ok || err != nil || len(raw) != sha256.Size {
		return "", holder, errors.New("behind the name sha256: and 64 hexadecimal digits are wanted, the hash of the key")
	}
	holder.name = words[0]
	for _, word := range words[2:] {
		name, value, ok := strings.Cut(word, "=")
		if !ok || name == "" || value == "" {
			return "", holder, fmt.Errorf("%q is no claim: write name=value", word)
		}
		if holder.claims == nil {
			holder.claims = policy.Claims{}
		}
		holder.claims[name] = value
	}
	return strings.ToLower(hash), holder, nil
}

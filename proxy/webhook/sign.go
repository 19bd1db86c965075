package webhook

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"bridgehead/internal/unit"
)

// The bounds of a key, in bytes (Standard Webhooks, "Signature scheme").
const (
	keyPrefix = "whsec_"
	minKey    = 24
	maxKey    = 64
)

// A signer signs requests with each of its keys. Without keys it names the request and its moment alone.
type signer []*standardwebhooks.Webhook

// newSigner reads the keys.
func newSigner(secrets []unit.Secret) (signer, error) {
	var s signer
	for i, secret := range secrets {
		key, err := parseKey(secret)
		if err != nil {
			return nil, fmt.Errorf("secret %d: %w", i+1, err)
		}
		s = append(s, key)
	}
	return s, nil
}

// parseKey reads one key. Its errors never show it.
func parseKey(secret unit.Secret) (*standardwebhooks.Webhook, error) {
	encoded, ok := strings.CutPrefix(secret.Reveal(), keyPrefix)
	if !ok {
		return nil, fmt.Errorf("a key begins with %s; make one by `echo %s$(openssl rand -base64 32)`", keyPrefix, keyPrefix)
	}
	key, err := base64.StdEncoding.DecodeString(encoded)
	switch {
	case err != nil:
		return nil, errors.New("what follows " + keyPrefix + " in the key is not base64, with its padding")
	case len(key) < minKey || len(key) > maxKey:
		return nil, fmt.Errorf("the key holds %d bytes; it needs %d to %d", len(key), minKey, maxKey)
	}
	return standardwebhooks.NewWebhookRaw(key)
}

// sign sets the three headers of Standard Webhooks for one attempt: the id stays the same in all of them, the moment does not.
func (s signer) sign(h http.Header, id string, at time.Time, body []byte) error {
	h.Set(standardwebhooks.HeaderWebhookID, id)
	h.Set(standardwebhooks.HeaderWebhookTimestamp, strconv.FormatInt(at.Unix(), 10))
	signatures := make([]string, len(s))
	for i, key := range s {
		var err error
		if signatures[i], err = key.Sign(id, at, body); err != nil {
			return fmt.Errorf("sign: %w", err)
		}
	}
	if len(s) > 0 {
		h.Set(standardwebhooks.HeaderWebhookSignature, strings.Join(signatures, " "))
	}
	return nil
}

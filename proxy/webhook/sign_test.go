package webhook

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"bridgehead/internal/unit"
)

// verifier is what an application has that knows one key.
func verifier(t testing.TB, key unit.Secret) *standardwebhooks.Webhook {
	t.Helper()
	v, err := standardwebhooks.NewWebhook(key.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// While keys are changed, an application passes that knows either of them, and none that knows neither.
func TestRotation(t *testing.T) {
	t.Parallel()
	s, err := newSigner([]unit.Secret{newKey, oldKey})
	if err != nil {
		t.Fatal(err)
	}
	h, body := http.Header{}, []byte(`{"a":"%s%d"}`)
	if err := s.sign(h, "c_1-0", time.Now(), body); err != nil {
		t.Fatal(err)
	}
	for _, key := range []unit.Secret{oldKey, newKey} {
		if err := verifier(t, key).Verify(body, h); err != nil {
			t.Error(err)
		}
	}
	if err := verifier(t, "whsec_"+unit.Secret(strings.Repeat("AAAA", 8))).Verify(body, h); err == nil {
		t.Error("a key that did not sign verifies")
	}
	if err := verifier(t, oldKey).Verify([]byte(`{"a":"b"}`), h); err == nil {
		t.Error("another body verifies")
	}
}

func TestUnsigned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := http.Header{}
		if err := signer(nil).sign(h, "c_1-0", time.Now(), nil); err != nil {
			t.Fatal(err)
		}
		if id, at := h.Get("webhook-id"), h.Get("webhook-timestamp"); id != "c_1-0" || at != "946684800" {
			t.Errorf("id %q at %q", id, at)
		}
		if _, signed := h["Webhook-Signature"]; signed {
			t.Error("signed without a key")
		}
	})
}

// A key that cannot be used is told from others without being shown.
func TestBadKeys(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]string{
		"":                                    "begins with whsec_",
		"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw":    "begins with whsec_",
		"whsk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaL":  "begins with whsec_",
		"whsec_":                              "0 bytes",
		"whsec_c2hvcnQga2V5":                  "9 bytes; it needs 24 to 64",
		"whsec_" + strings.Repeat("QUJD", 22): "66 bytes",
		"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2L_":  "not base64",
		"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2La":  "",
	} {
		if want == "" {
			key += "LaSw" // 24 bytes
		}
		_, err := newSigner([]unit.Secret{oldKey, unit.Secret(key)})
		switch {
		case want == "" && err != nil:
			t.Errorf("a good key: %v", err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "secret 2")):
			t.Errorf("%s: %v; want %q", key, err, want)
		case want != "" && len(key) > 10 && strings.Contains(err.Error(), key[6:10]):
			t.Errorf("%v shows the key %s", err, key)
		}
	}
}

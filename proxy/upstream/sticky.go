package upstream

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"time"

	"bridgehead/policy"
)

// keySize is that of the key that signs cookies, in bytes.
const keySize = 32

// token is what the cookie says of a server: nobody without the key can tell which one it is, or make one for another.
func token(key []byte, group, server string) string {
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "sticky\x00%s\x00%s", group, server)
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:16])
}

// shown is the token that a client brings.
func (s *Sticky) shown(f *policy.Facts) string {
	if s == nil || f.Request == nil {
		return ""
	}
	c, err := f.Request.Cookie(s.Cookie)
	if err != nil {
		return ""
	}
	return c.Value
}

// stuck is the one of some servers that a client was at before; nil if there is none.
func stuck(servers []*server, shown string) *server {
	for _, s := range servers {
		if shown != "" && hmac.Equal([]byte(s.token), []byte(shown)) {
			return s
		}
	}
	return nil
}

// sameSites are the words of the configuration.
var sameSites = map[string]http.SameSite{"lax": http.SameSiteLaxMode, "strict": http.SameSiteStrictMode, "none": http.SameSiteNoneMode}

// Cookie is what leads the client back to the server; nil if it has that already, or if nothing is to.
func (l *Lease) Cookie(f *policy.Facts) *http.Cookie {
	l.group.mu.Lock()
	defer l.group.mu.Unlock()
	o := l.group.rules.sticky
	if o == nil || o.shown(f) == l.server.token {
		return nil
	}
	return &http.Cookie{
		Name: o.Cookie, Value: l.server.token, Path: "/", MaxAge: int(o.TTL / time.Second), Secure: f.TLS, HttpOnly: true,
		SameSite: sameSites[o.SameSite],
	}
}

// LoadKey reads the key that signs cookies from a file, which it makes if it is not there.
func LoadKey(path string) ([]byte, error) {
	key, err := os.ReadFile(path)
	if err == nil && len(key) != keySize {
		return nil, fmt.Errorf("%s does not hold %d bytes: remove it, and another one is made", path, keySize)
	}
	if !os.IsNotExist(err) {
		return key, err
	}
	key = make([]byte, keySize)
	_, _ = rand.Read(key) // it never fails
	return key, os.WriteFile(path, key, 0o600)
}

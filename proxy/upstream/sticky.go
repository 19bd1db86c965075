package upstream

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"strings"
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

// token is what the cookie says of the server: its entry and, if that has a name, its address among those of the name.
func (g *Group) token(s *server) string {
	switch {
	case g.rules.sticky == nil:
		return ""
	case s.addr.IsValid():
		return s.entry.token + "." + token(g.key, g.name, s.key)
	}
	return s.entry.token
}

// near are those of some servers that a client may come to with what it shows: the one that it was at before, or else others of the
// same name, whose server may have another address now, or else all.
func near(servers []*server, shown string) []*server {
	if shown == "" {
		return servers
	}
	name, _, _ := strings.Cut(shown, ".")
	var kin []*server
	for _, s := range servers {
		if hmac.Equal([]byte(s.token), []byte(shown)) {
			return []*server{s}
		}
		if hmac.Equal([]byte(s.entry.token), []byte(name)) {
			kin = append(kin, s)
		}
	}
	if kin == nil {
		return servers
	}
	return kin
}

// Unstuck is the error for a client that came back and that no server could take. It is led back no more: the next time it shall have
// the choice of all.
type Unstuck struct {
	Err    error
	cookie *http.Cookie
}

func (u *Unstuck) Error() string { return u.Err.Error() }

func (u *Unstuck) Unwrap() error { return u.Err }

// Cookie takes away the client's.
func (u *Unstuck) Cookie() *http.Cookie { return u.cookie }

// unstuck makes an error take away the cookie of a client that could not be served.
func (g *Group) unstuck(err error, f *policy.Facts) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if o := g.rules.sticky; o.shown(f) != "" {
		c := o.cookie("", f)
		c.MaxAge = -1
		return &Unstuck{err, c}
	}
	return err
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
	return o.cookie(l.server.token, f)
}

// cookie is the cookie with a value, for one client.
func (s *Sticky) cookie(value string, f *policy.Facts) *http.Cookie {
	return &http.Cookie{
		Name: s.Cookie, Value: value, Path: "/", MaxAge: int(s.TTL / time.Second), Secure: f.TLS, HttpOnly: true,
		SameSite: sameSites[s.SameSite],
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

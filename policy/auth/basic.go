package auth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"time"

	"golang.org/x/crypto/bcrypt"

	"bridgehead/internal/yamlpos"
)

// Basic are the options of users with passwords.
type Basic struct {
	// The file with users and the bcrypt hashes of their passwords, `USER:HASH` in each line, as `htpasswd -B` and `bridgehead auth
	// password USER` write it. It is read again when it changes.
	File string `yaml:"file"`
	// The name that browsers show when they ask for the password.
	Realm string `yaml:"realm"`
}

// DefaultBasic has the values of keys that are not given.
func DefaultBasic() Basic { return Basic{Realm: "bridgehead"} }

// Validate reports what cannot work.
func (o *Basic) Validate(at yamlpos.Path, p *yamlpos.Problems) {
	if o.File == "" {
		p.Add(at.Key("file"), "is missing: name the file with users and the hashes of their passwords")
	}
	if strings.ContainsFunc(o.Realm, func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' }) {
		p.Add(at.Key("realm"), "must have printable ASCII characters alone, without quotes and backslashes")
	}
}

const (
	// longestPassword is what bcrypt can tell apart, in bytes.
	longestPassword = 72
	// costliest is the highest cost of a hash that is taken: a second of a processor, about.
	costliest = 14
	// longestQueue is how long a client waits for its turn.
	longestQueue = 5 * time.Second
	// provenFor is how long a password that was right need not be hashed again.
	provenFor = time.Minute
)

// A doorkeeper is the authenticator of users with passwords.
type doorkeeper struct {
	realm  string
	list   *list[string] // hashes by user
	decoy  []byte        // a hash for users that do not exist, so that these take as long
	atOnce chan struct{} // holds one element per hash under way: each takes a processor for long
	proven *cache
	seal   []byte // of the keys of proven
}

func (o *Basic) open(with Setup) (authenticator, error) {
	l, err := openList(o.File, with, parsePasswordLine)
	if err != nil {
		return nil, err
	}
	d := &doorkeeper{
		realm: o.Realm, list: l, atOnce: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)), proven: newCache(provenFor), seal: make([]byte, 32),
	}
	rand.Read(d.seal)
	d.decoy, err = bcrypt.GenerateFromPassword([]byte(rand.Text()), bcrypt.DefaultCost)
	return d, err
}

// basicPlace is where browsers put users and passwords.
var basicPlace = place{kind: inHeader, name: "Authorization", scheme: "basic"}

func (d *doorkeeper) places() []place   { return []place{basicPlace} }
func (d *doorkeeper) headers() []string { return nil }
func (d *doorkeeper) close()            { d.list.stop() }

// check compares the password with the user's hash. One that was right is remembered for a while, bound to that hash.
func (d *doorkeeper) check(ctx context.Context, a *ask) (*Identity, error) {
	if len(a.Request.Header["Authorization"]) > 1 {
		return nil, deny(reasonAmbiguous, "there are %d Authorization headers", len(a.Request.Header["Authorization"]))
	}
	user, password, ok := a.Request.BasicAuth()
	if !ok {
		return nil, d.challenge(deny(reasonMissing, "there is no user with a password in header.authorization"))
	}
	hash, known := d.list.get(user)
	id := &Identity{User: user, Proof: fmt.Sprintf("user %q by password", user)}
	sum := d.sum(user, password, hash)
	if known && d.proven.get(sum, time.Now()) != nil {
		return id, nil
	}
	right, err := d.compare(ctx, hash, known, password)
	switch {
	case err != nil:
		return nil, err
	case !right:
		return nil, d.challenge(deny(reasonInvalid, "user %.60q and its password do not match", user))
	}
	d.proven.put(sum, new(Identity), time.Now())
	return id, nil
}

// compare takes a processor for a tenth of a second; a few clients have it at once.
func (d *doorkeeper) compare(ctx context.Context, hash string, known bool, password string) (bool, error) {
	select {
	case d.atOnce <- struct{}{}:
		defer func() { <-d.atOnce }()
	case <-ctx.Done():
		return false, ctx.Err()
	case <-time.After(longestQueue):
		return false, unavailable(http.StatusServiceUnavailable, "too many passwords wait to be checked: for more than %s", longestQueue)
	}
	against := []byte(hash)
	if !known {
		against = d.decoy
	}
	long := len(password) > longestPassword
	err := bcrypt.CompareHashAndPassword(against, []byte(password[:min(len(password), longestPassword)]))
	return err == nil && known && !long, nil
}

// sum stands for a user and a password that was right for a hash; without the seal it tells nothing.
func (d *doorkeeper) sum(user, password, hash string) [sha256.Size]byte {
	h := hmac.New(sha256.New, d.seal)
	fmt.Fprintf(h, "%d:%s%d:%s%s", len(user), user, len(password), password, hash)
	return [sha256.Size]byte(h.Sum(nil))
}

// challenge asks browsers for a password (RFC 7617, section 2).
func (d *doorkeeper) challenge(denied *Denied) *Denied {
	denied.Header = http.Header{"Www-Authenticate": {`Basic realm="` + d.realm + `", charset="UTF-8"`}}
	return denied
}

// PasswordLine is the line of the file that knows a user's password.
func PasswordLine(user, password string) (string, error) {
	switch {
	case user == "" || strings.ContainsAny(user, ":\r\n#") || strings.TrimSpace(user) != user:
		return "", fmt.Errorf("%q cannot be a user: it has no colon, no # and no space around it", user)
	case password == "":
		return "", errors.New("the password is empty")
	case len(password) > longestPassword:
		return "", fmt.Errorf("the password has %d bytes, where bcrypt looks at %d", len(password), longestPassword)
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.DefaultCost)
	return user + ":" + string(hash), err
}

// parsePasswordLine reads `USER:HASH`.
func parsePasswordLine(line string) (user, hash string, err error) {
	user, hash, ok := strings.Cut(line, ":")
	if !ok || user == "" {
		return "", "", errors.New("write a line as USER:HASH; htpasswd -B and bridgehead auth password USER make them")
	}
	cost, err := bcrypt.Cost([]byte(hash))
	switch {
	case err != nil:
		return "", "", errors.New("the hash is none of bcrypt, which begins with $2y$; make it by htpasswd -B or bridgehead auth password USER")
	case cost > costliest:
		return "", "", fmt.Errorf("the hash has the cost %d, which takes seconds for each login: %d is the highest here", cost, costliest)
	}
	return user, hash, nil
}

//go:build linux

package proxies

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"time"
)

// The names of the product without any policy, and with every one.
const (
	PoliciesOff = "policies off"
	PoliciesOn  = "policies on"
)

// secret signs the tokens of Token; policies-on.yaml has it too.
const secret = "a secret of a benchmark, no more"

// Policies are the product without any policy and with every one, which asks for a Token.
func Policies(program string) (both []Proxy) {
	for _, one := range []struct{ name, template string }{{PoliciesOff, "policies-off.yaml"}, {PoliciesOn, "policies-on.yaml"}} {
		p := Ours(one.name, program)
		p.Policies, p.template, p.args = true, one.template, []string{"serve", "-c", "{{.Dir}}/" + one.template}
		both = append(both, p)
	}
	return both
}

// Token is what lets a client in until then (RFC 7519, HS256).
func Token(until time.Time) string {
	encode := base64.RawURLEncoding.EncodeToString
	text := encode([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." +
		encode(fmt.Appendf(nil, `{"sub":"bench","aud":"bench","exp":%d}`, until.Unix()))
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(text))
	return text + "." + encode(mac.Sum(nil))
}

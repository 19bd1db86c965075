package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"bridgehead/routes"
)

// What a token may allow, as written in `may`.
const (
	rolePush  = "push"
	roleRead  = "read"
	roleClose = "close"
	roleAdmin = "admin" // everything

	anybody = "" // of a call: no token is needed
)

var roles = []string{rolePush, roleRead, roleClose, roleAdmin}

// A caller is who makes a call.
type caller struct {
	name   string // for the log
	digest [sha256.Size]byte
	may    []string
}

func (c *caller) mayDo(role string) bool {
	return slices.Contains(c.may, role) || slices.Contains(c.may, roleAdmin)
}

// lacks is the refusal of a caller without a role (RFC 6750, section 3.1).
func (c *caller) lacks(role string) error {
	err := refuse(http.StatusForbidden, "the token %q may not do this: add %q to its `may`", c.name, role)
	err.header = challenge(`, error="insufficient_scope", scope="` + role + `"`)
	return err
}

// A guard tells who may make calls on one listener.
type guard struct{ callers []caller } // none: everybody on this machine, for everything

func newGuard(tokens []Token) *guard {
	g := new(guard)
	for _, t := range tokens {
		g.callers = append(g.callers, caller{t.Name, sha256.Sum256([]byte(t.Token.Reveal())), t.May})
	}
	return g
}

// admit tells who makes a request, or refuses it.
func (g *guard) admit(r *http.Request) (*caller, error) {
	if len(g.callers) == 0 {
		return admitLocal(r)
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "bearer") {
		return nil, unauthorized("", "a token is needed: send the header `Authorization: Bearer <token>`")
	}
	// The digests are compared, so that neither a token's length nor a common beginning shows in the time it takes.
	digest := sha256.Sum256([]byte(strings.TrimSpace(token)))
	var found *caller
	for i := range g.callers {
		if subtle.ConstantTimeCompare(digest[:], g.callers[i].digest[:]) == 1 {
			found = &g.callers[i]
		}
	}
	if found == nil {
		return nil, unauthorized(`, error="invalid_token"`,
			"the token is unknown: use one that the configuration lists for this listener")
	}
	return found, nil
}

// admitLocal lets in programs on this machine. Web pages reach its ports too: they give themselves away by their Origin, or,
// when their own name was pointed here (DNS rebinding), by a Host that is the name of somebody else.
func admitLocal(r *http.Request) (*caller, error) {
	switch {
	case !fromThisMachine(r):
		return nil, refuse(http.StatusForbidden, "without tokens only this machine may call, not %s: configure tokens", r.RemoteAddr)
	case len(r.Header.Values("Origin")) > 0:
		return nil, refuse(http.StatusForbidden, "web pages may not call this, not even from %q", r.Header.Get("Origin"))
	case !isLocalName(r.Host):
		return nil, refuse(http.StatusForbidden, "host %q is foreign: without tokens use localhost or an address", r.Host)
	}
	return &caller{name: "local", may: []string{roleAdmin}}, nil
}

func fromThisMachine(r *http.Request) bool {
	if addr, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok && addr.Network() == "unix" {
		return true
	}
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && peer.Addr().IsLoopback()
}

func isLocalName(hostport string) bool {
	host := routes.Hostname(hostport)
	_, err := netip.ParseAddr(host)
	return err == nil || host == "localhost"
}

func unauthorized(params, text string) error {
	err := refuse(http.StatusUnauthorized, "%s", text)
	err.header = challenge(params)
	return err
}

func challenge(params string) http.Header {
	return http.Header{"Www-Authenticate": {`Bearer realm="bridgehead"` + params}}
}

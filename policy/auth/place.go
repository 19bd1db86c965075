package auth

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"bridgehead/policy"
)

// The kinds of places, as they are written before the dot.
const (
	inHeader      = "header"
	inCookie      = "cookie"
	inQuery       = "query"
	inSubprotocol = "subprotocol"
)

// A place is where a token may stand in a handshake: `header.authorization`, `cookie.session`, `query.token`, `subprotocol.bearer`.
type place struct {
	kind, name string
	scheme     string // of an Authorization header that is meant, in lower case
}

// parsePlace reads a place.
func parsePlace(text string) (place, error) {
	kind, name, dotted := strings.Cut(text, ".")
	if _, err := policy.ParseValue(text); err != nil || !dotted || !slices.Contains([]string{inHeader, inCookie, inQuery, inSubprotocol}, kind) {
		return place{}, fmt.Errorf("%q is no place for a token: write header.authorization, header.NAME, cookie.NAME, query.NAME or "+
			"subprotocol.bearer", text)
	}
	p := place{kind: kind, name: name}
	if kind == inHeader {
		p.name = http.CanonicalHeaderKey(name)
		if p.name == "Authorization" {
			p.scheme = "bearer"
		}
	}
	return p, nil
}

func parsePlaces(texts []string) (all []place, err error) {
	for _, text := range texts {
		p, err := parsePlace(text)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

// String is the place as the configuration writes it.
func (p place) String() string {
	if p.kind == inHeader {
		return p.kind + "." + strings.ToLower(p.name)
	}
	return p.kind + "." + p.name
}

// header is the header that the place is in, as a value of a handshake; "" if it is in none.
func (p place) header() string {
	switch p.kind {
	case inHeader:
		return p.String()
	case inCookie:
		return "header.cookie"
	case inSubprotocol:
		return "header.sec-websocket-protocol"
	}
	return ""
}

// tokens are what stands at the place; usually none or one.
func (p place) tokens(f *policy.Facts) (found []string) {
	switch p.kind {
	case inHeader:
		for _, line := range f.Request.Header[p.name] {
			if token, ok := p.unwrap(line); ok {
				found = append(found, token)
			}
		}
	case inCookie:
		for _, c := range f.Request.CookiesNamed(p.name) {
			found = append(found, c.Value)
		}
	case inQuery:
		found = f.Request.URL.Query()[p.name]
	case inSubprotocol:
		for i, offered := range f.Subprotocols {
			if offered == p.name && i+1 < len(f.Subprotocols) {
				found = append(found, f.Subprotocols[i+1])
			}
		}
	}
	return slices.DeleteFunc(slices.Clone(found), func(token string) bool { return token == "" })
}

// unwrap takes the scheme from an Authorization header (RFC 9110, section 11.4); another scheme's is none of ours.
func (p place) unwrap(line string) (token string, ok bool) {
	if p.scheme == "" {
		return strings.TrimSpace(line), true
	}
	scheme, token, _ := strings.Cut(strings.TrimSpace(line), " ")
	return strings.TrimSpace(token), strings.EqualFold(scheme, p.scheme)
}

// A find is a token and where it stood.
type find struct {
	token string
	place place
}

// seek finds the one token that a request has at any of the places. Two that differ are refused: whoever stands behind us could take
// the other one for the client's. Cookies do not count if the ask says why.
func seek(a *ask, places []place) (*find, error) {
	var found *find
	var idle error // why a token that is there does not count
	for _, p := range places {
		tokens := p.tokens(a.Facts)
		if p.kind == inCookie && a.noCookies != nil && len(tokens) > 0 {
			idle = fmt.Errorf("the cookie %s does not count: %w", p.name, a.noCookies)
			continue
		}
		for _, token := range tokens {
			if found != nil && found.token != token {
				return nil, deny(reasonAmbiguous, "there are different tokens in %s and %s", found.place, p)
			}
			if found == nil {
				found = &find{token, p}
			}
		}
	}
	switch {
	case found != nil:
		return found, nil
	case idle != nil:
		return nil, deny(reasonMissing, "%w", idle)
	}
	return nil, deny(reasonMissing, "there is no token in %s", listed(places))
}

func listed(places []place) string {
	var texts []string
	for _, p := range places {
		texts = append(texts, p.String())
	}
	return strings.Join(texts, ", ")
}

// fold makes equal what servers take for the same header.
func fold(name string) string { return policy.FoldHeader(name) }

// strip takes all tokens at the place out of a request, which is a copy of the client's.
func (p place) strip(f *policy.Facts) {
	switch p.kind {
	case inHeader:
		dropHeader(f.Request.Header, p.name)
		dropHeader(f.Request.Trailer, p.name)
	case inCookie:
		stripCookie(f.Request.Header, p.name)
	case inQuery:
		f.Request.URL.RawQuery = stripQuery(f.Request.URL.RawQuery, p.name)
	case inSubprotocol:
		f.Subprotocols = stripSubprotocol(f.Subprotocols, p.name)
	}
}

// dropHeader removes a header in whatever spelling.
func dropHeader(h http.Header, name string) {
	for spelt := range h {
		if fold(spelt) == fold(name) {
			delete(h, spelt)
		}
	}
}

// stripCookie removes a cookie, and leaves the bytes of all others as they are.
func stripCookie(h http.Header, name string) {
	var lines []string
	for _, line := range h["Cookie"] {
		var kept []string
		for part := range strings.SplitSeq(line, ";") {
			if n, _, _ := strings.Cut(part, "="); strings.TrimSpace(n) != name {
				kept = append(kept, strings.TrimSpace(part))
			}
		}
		if rest := strings.Join(kept, "; "); rest != "" {
			lines = append(lines, rest)
		}
	}
	delete(h, "Cookie")
	if lines != nil {
		h["Cookie"] = lines
	}
}

// stripQuery removes a parameter, and leaves the bytes of all others as they are.
func stripQuery(raw, name string) string {
	if raw == "" {
		return ""
	}
	var kept []string
	for part := range strings.SplitSeq(raw, "&") {
		key, _, _ := strings.Cut(part, "=")
		if plain, err := url.QueryUnescape(key); err != nil || plain != name {
			kept = append(kept, part)
		}
	}
	return strings.Join(kept, "&")
}

// stripSubprotocol removes a marker with the token that follows it.
func stripSubprotocol(offered []string, marker string) (kept []string) {
	for i := 0; i < len(offered); i++ {
		if offered[i] == marker {
			i++
			continue
		}
		kept = append(kept, offered[i])
	}
	return kept
}

// put writes a token at the place, as a client would.
func (p place) put(f *policy.Facts, token string) {
	r := f.Request
	switch p.kind {
	case inHeader:
		switch p.scheme {
		case "bearer":
			token = "Bearer " + token
		case "basic":
			token = "Basic " + base64.StdEncoding.EncodeToString([]byte(token))
		}
		r.Header[p.name] = []string{token}
	case inCookie:
		r.Header["Cookie"] = append(r.Header["Cookie"], p.name+"="+token)
	case inQuery:
		separator := "&"
		if r.URL.RawQuery == "" {
			separator = ""
		}
		r.URL.RawQuery += separator + url.QueryEscape(p.name) + "=" + url.QueryEscape(token)
	case inSubprotocol:
		f.Subprotocols = append([]string{p.name, token}, f.Subprotocols...)
	}
}

package policy

import (
	"fmt"
	"net/http"
	"strings"
)

// Reason tells why the page behind r may open a WebSocket. The error is [Origins.Check]'s if it may not.
func (o *Origins) Reason(r *http.Request) (string, error) {
	if err := o.Check(r); err != nil {
		return "", err
	}
	text := r.Header.Get("Origin")
	got, err := parseOrigin(text)
	switch {
	case len(r.Header["Origin"]) == 0:
		return "no Origin header, which every browser sends", nil
	case text == "null" && o.null:
		return `"null" is listed`, nil
	case err == nil && o.self && o.reaches(got, r.Host):
		return fmt.Sprintf("%.300q has the host and port of the Host header", text), nil
	}
	for _, p := range o.entries {
		if err == nil && p.match(got) {
			return fmt.Sprintf("%.300q is listed by %s", text, p.text), nil
		}
	}
	return fmt.Sprintf("%.300q is a page, and * lets every page in", text), nil
}

// A Count tells what one rule of a Limiter makes of a client.
type Count struct {
	Rule Rule
	Late bool   // it counts only when it is known who the client is
	Key  string // what the client is counted by, as people read it; "" if it is not counted
	Why  string // it is not counted; "" if it is
}

// Counts tells by what each rule counts a client, in their order, and counts nothing.
func (l *Limiter) Counts(f *Facts) []Count {
	if l == nil {
		return nil
	}
	counts := make([]Count, len(l.rules))
	for i := range l.rules {
		rule := &l.rules[i]
		counts[i].Rule, counts[i].Late = rule.Rule, rule.value.OfIdentity()
		if key, ok := rule.key(f); ok {
			counts[i].Key = rule.legible(key, f)
		} else {
			counts[i].Why = rule.spares(f)
		}
	}
	return counts
}

// legible is a key as people read it: one that is counted by its hash is cut.
func (l *limit) legible(key string, f *Facts) string {
	if text, _ := l.value.Of(f); len(text) > longestKey {
		return fmt.Sprintf("%s… (%d bytes, counted by their hash)", strings.ToValidUTF8(text[:longestKey/2], ""), len(text))
	}
	return key
}

// spares tells why the rule does not count f.
func (l *limit) spares(f *Facts) string {
	for _, n := range l.Except {
		if (Networks{n}).Contain(f.Client) {
			return fmt.Sprintf("%s is in %s, which the rule excepts", f.Client, n)
		}
	}
	return fmt.Sprintf("the handshake has no %s", l.value)
}

// Max is the greatest number; 0 is no limit.
func (c *Capacity) Max() int {
	if c == nil {
		return 0
	}
	return int(c.max.Load())
}

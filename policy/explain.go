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
	Late bool     // it counts only when it is known who the client is
	Keys []string // what the client is counted by, as people read it, for each value of the rule's Per; nil if it is not counted
	Why  string   // it is not counted; "" if it is
}

// Counts tells by what each rule counts a client, in their order, and counts nothing.
func (l *Limiter) Counts(f *Facts) []Count {
	if l == nil {
		return nil
	}
	counts := make([]Count, len(l.rules))
	for i := range l.rules {
		rule := &l.rules[i]
		counts[i].Rule, counts[i].Late = rule.Rule, rule.late
		if _, ok := rule.key(f); ok {
			counts[i].Keys = rule.legible(f)
		} else {
			counts[i].Why = rule.spares(f)
		}
	}
	return counts
}

// legible is a key as people read it: one that is counted by its hash is cut.
func (l *limit) legible(f *Facts) (texts []string) {
	for i := range l.values {
		text, _ := l.text(i, f)
		if len(text) > longestKey {
			text = fmt.Sprintf("%s… (%d bytes, counted by their hash)", strings.ToValidUTF8(text[:longestKey/2], ""), len(text))
		}
		texts = append(texts, text)
	}
	return texts
}

// spares tells why the rule does not count f.
func (l *limit) spares(f *Facts) string {
	for _, n := range l.Except {
		if (Networks{n}).Contain(f.Client) {
			return fmt.Sprintf("%s is in %s, which the rule excepts", f.Client, n)
		}
	}
	for i := range l.values {
		if _, ok := l.text(i, f); !ok {
			return fmt.Sprintf("the handshake has no %s", l.values[i])
		}
	}
	for i := range l.when {
		if c := &l.when[i]; !c.holds(f) {
			return c.misses(f)
		}
	}
	return ""
}

// misses tells why a condition does not hold. It shows no more of the handshake than who the client is: the rest may be a token.
func (c *condition) misses(f *Facts) string {
	wants := "counts where it is " + strings.Join(c.texts, " or ")
	has, ok := c.value.Of(f)
	switch {
	case !ok:
		return fmt.Sprintf("there is no %s; the rule %s", c.value, wants)
	case c.value.OfIdentity():
		return fmt.Sprintf("%s is %.200q; the rule %s", c.value, has, wants)
	}
	return fmt.Sprintf("%s is another; the rule %s", c.value, wants)
}

// Max is the greatest number; 0 is no limit.
func (c *Capacity) Max() int {
	if c == nil {
		return 0
	}
	return int(c.max.Load())
}

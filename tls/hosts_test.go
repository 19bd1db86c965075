package tls

import (
	"crypto/x509"
	"strings"
	"testing"
	"time"
)

func TestValidNames(t *testing.T) {
	t.Parallel()
	label := strings.Repeat("a", 63)
	for name, want := range map[string]bool{
		"a": true, "a.b": true, "xn--bcher-kva.example": true, "_srv.a_b.example": true, "1.example": true, label + ".b": true,
		"": false, ".": false, "a.": false, ".a": false, "a..b": false, "-a": false, "a-": false, "a b": false, "ä.example": false,
		"*": false, "*.a": false, "a/b": false, "A": false, "a\x00": false, label + "a.b": false,
		strings.Repeat(label+".", 3) + label[:61]: true, strings.Repeat(label+".", 3) + label[:62]: false,
	} {
		if validName(name) != want {
			t.Errorf("validName(%q) is %v", name, !want)
		}
	}
}

func TestWhichHostsAreServedAndUnderWhichSubject(t *testing.T) {
	t.Parallel()
	h := newHosts([]string{
		"Chat.Example.com.", "*.app.example.com", "vip.app.example.com", "*.localhost", "eu.*.example.org", "*.*.two.example",
	})
	for name, want := range map[string]string{ // "" is not served
		"chat.example.com":     "chat.example.com",
		"acme.app.example.com": "*.app.example.com",
		"vip.app.example.com":  "vip.app.example.com",
		"x.localhost":          "x.localhost",
		"eu.acme.example.org":  "eu.acme.example.org",
		"a.b.two.example":      "a.b.two.example",

		"app.example.com":           "",
		"a.b.app.example.com":       "",
		"acme.app.example.com.evil": "",
		"us.acme.example.org":       "",
		"eu.a.b.example.org":        "",
		"a.two.example":             "",
		"*.app.example.com":         "",
		"":                          "",
	} {
		switch {
		case h.serve(name) != (want != ""):
			t.Errorf("serve(%q) is %v", name, want == "")
		case want != "" && h.subject(name) != want:
			t.Errorf("subject(%q) is %q, want %q", name, h.subject(name), want)
		}
	}
}

// Whatever name is served, the certificate that is made for it holds it.
func FuzzAServedNameIsHeldByItsCertificate(f *testing.F) {
	for _, name := range []string{
		"chat.example.com", "a.example.com", "a.b", "*.example.com", "xn--a", "a_b.c", "-", "1.2.3.4", "0x1",
		strings.Repeat("a.", 126) + "a",
	} {
		f.Add(name, false)
		f.Add(name, true)
	}
	root, err := issueAuthority("root", rootLife, nil, time.Now())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, name string, any bool) {
		patterns := []string{"chat.example.com", "*.example.com", "*.b", "a.*.c"}
		if any {
			patterns = append(patterns, "")
		}
		h := newHosts(patterns)
		if !h.serve(name) {
			return
		}
		leaf, err := issueLeaf(h.subject(name), nil, root, time.Now())
		if err != nil {
			t.Fatalf("%q is served, but: %v", name, err)
		}
		pool := x509.NewCertPool()
		pool.AddCert(root.cert)
		if _, err := leaf.cert.Verify(x509.VerifyOptions{DNSName: name, Roots: pool}); err != nil {
			t.Fatalf("%q is served, but its certificate is refused: %v", name, err)
		}
	})
}

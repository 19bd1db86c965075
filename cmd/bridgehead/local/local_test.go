package local

import (
	"strings"
	"testing"
	"unicode"

	"bridgehead/config"
)

func TestShell(t *testing.T) {
	t.Parallel()
	for word, want := range map[string]string{
		"/tmp/root.pem":           "/tmp/root.pem",
		"wss://127.0.0.1:8443/ws": "wss://127.0.0.1:8443/ws",
		"":                        "''",
		"two words":               "'two words'",
		"http://localhost:*":      "'http://localhost:*'",
		"it's":                    `'it'\''s'`,
		"$HOME":                   "'$HOME'",
	} {
		if got := Shell(word); got != want {
			t.Errorf("%q is %s, want %s", word, got, want)
		}
	}
}

// Whatever stands in a flag comes out of the file that is made of it as it was.
func FuzzYAML(f *testing.F) {
	for _, s := range []string{"plain", "${HOME}", "$${HOME}", "a: b", `"quoted" \back`, "# no comment", "\u2028\U0001F600"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if s == "" || strings.ToValidUTF8(s, "") != s || strings.ContainsFunc(s, unicode.IsControl) {
			return // a configuration is UTF-8, and takes no control characters
		}
		text := "state: /s\nlisteners: [{name: " + YAML(s) + ", address: \"127.0.0.1:0\"}]\nroutes: [{websocket: {to: \"ws://h\"}}]\n"
		c, _, err := config.Parse("x.yaml", []byte(text), func(string) (string, bool) { return "", false })
		if err != nil || c.Listeners[0].Name != s {
			t.Errorf("%q came out as %+v, %v", s, c, err)
		}
	})
}

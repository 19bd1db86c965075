package server

import (
	"flag"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bridgehead/config"
)

var update = flag.Bool("update", false, "write the golden files anew")

// question reads a line of a golden file: a URL and the flags of the command.
func question(t *testing.T, line string) Question {
	t.Helper()
	words := strings.Fields(line)
	u, err := url.Parse(words[0])
	if err != nil {
		t.Fatal(err)
	}
	q := Question{URL: u, Header: http.Header{}}
	for pair := range slices.Chunk(words[1:], 2) {
		switch flag, value := pair[0], pair[1]; flag {
		case "--origin":
			q.Header.Set("Origin", value)
		case "--client":
			q.Peer = netip.MustParseAddr(value)
		case "--token":
			q.Token = value
		case "-s":
			q.Subprotocols = append(q.Subprotocols, value)
		case "-H":
			name, text, _ := strings.Cut(value, ":")
			q.Header.Add(name, text)
		default:
			t.Fatalf("%s is no flag of these files", flag)
		}
	}
	return q
}

// explained is what is printed, with the paths of this machine replaced.
func explained(t *testing.T, c *config.Config, q Question) string {
	t.Helper()
	e, err := Explain(c, q)
	if err != nil {
		t.Fatal(err)
	}
	if e.OK != (e.Refused() == nil) {
		t.Errorf("%s: ok is %t, and the error %v", q.URL, e.OK, e.Refused())
	}
	var text strings.Builder
	if err := e.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(text.String(), c.Dir, "DIR")
}

// Each file of testdata/explain holds questions, behind a $, and what is said to them. The configuration is that of the same name,
// or config.yaml.
func TestExplanations(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/explain/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			name := strings.TrimSuffix(file, ".txt") + ".yaml"
			if _, err := os.Stat(name); err != nil {
				name = "testdata/explain/config.yaml"
			}
			c, _, err := config.Load(name)
			if err != nil {
				t.Fatal(err)
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			for line := range strings.Lines(string(want)) {
				if asked, ok := strings.CutPrefix(line, "$ "); ok {
					got.WriteString(line + explained(t, c, question(t, asked)))
				}
			}
			if *update {
				if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got.String() != string(want) {
				t.Errorf("it says\n%s\nwant\n%s", got.String(), want)
			}
		})
	}
}

package yamlpos

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"sort"
	"strings"

	"gopkg.in/yaml.v3"
)

var lineNumber = regexp.MustCompile(`^line \d+: `)

// byLine are hints for a line that yaml does not understand. In the hint $1 is the text to quote.
var byLine = []struct {
	pattern *regexp.Regexp
	hint    string
}{
	{regexp.MustCompile(`^ *\t`), "indent with spaces, not with tabs"},
	{regexp.MustCompile("(?:^|[:,-] |[\\[{] ?)([*@%`][^ ,\\]}]*)"), `quote it: "$1"`},
	{regexp.MustCompile(`(?:^|[:,-] |[\[{] ?)([^ ,\[{"']*\{[\w.]+\}[^ ,\]}]*)`), `quote it: "$1"`},
}

// byMessage are hints for what yaml says.
var byMessage = []struct{ message, hint string }{
	{"mapping values are not allowed", "quote a value that holds `: `, and check the indentation"},
	{"unexpected end of stream", "close the quote that is opened here"},
	{"did not find expected ',' or", "close the bracket that is opened here, and quote values that hold brackets or commas"},
	{"did not find expected node content", "close the bracket that is opened here, and quote values that begin with a colon"},
	{"could not find expected ':'", "a key needs a colon after it; was the file saved in full?"},
	{"did not find expected", "check the indentation: the keys of a mapping stand in one column; quote values with quotes inside"},
	{"cannot start any token", "quote the value"},
	{"octet", "save the file as UTF-8"},
	{"control characters", "save the file as UTF-8 text"},
}

// explain turns yaml's error into the line where it shows and a message with a hint. The line that yaml itself tells is
// often missing, or is the one where the enclosing mapping begins.
func explain(data []byte, err error) (line int, message string) {
	message = plainMessage(err)
	lines := bytes.SplitAfter(data, []byte("\n"))
	line = 1 + sort.Search(len(lines)-1, func(i int) bool {
		return plainMessage(parses(bytes.Join(lines[:i+1], nil))) == message
	})
	text, _, _ := strings.Cut(strings.TrimRight(string(lines[line-1]), "\r\n"), " #")
	return line, fmt.Sprintf("%s; %s", message, hint(text, message))
}

func plainMessage(err error) string {
	if err == nil {
		return ""
	}
	return lineNumber.ReplaceAllString(strings.TrimPrefix(err.Error(), "yaml: "), "")
}

// parses gives the first error in data.
func parses(data []byte) error {
	for decoder := yaml.NewDecoder(bytes.NewReader(data)); ; {
		var n yaml.Node
		if err := decoder.Decode(&n); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func hint(line, message string) string {
	for _, h := range byLine {
		if m := h.pattern.FindStringSubmatchIndex(line); m != nil {
			return string(h.pattern.ExpandString(nil, h.hint, line, m))
		}
	}
	for _, h := range byMessage {
		if strings.Contains(message, h.message) {
			return h.hint
		}
	}
	return "check the line and the one before it"
}

package yamlpos

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"sort"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

var lineNumber = regexp.MustCompile(`^line \d+: `)

// mistakes say in plain words what yaml does not understand: the first whose message and line fit. The first group of the line
// is where it stands, and $1 in the hint.
var mistakes = []struct {
	message string // part of what yaml says
	line    *regexp.Regexp
	hint    string
}{
	{"", regexp.MustCompile(`^[ -]*(\t)`), "a tab stands here; indent with spaces"},
	{"", regexp.MustCompile(`(\x{a0})`), "a no-break space stands here, which looks like a space and is none; type it anew"},
	{"", regexp.MustCompile(`^(<{7}|={7}|>{7})`), "a merge left its conflict here; keep one side, and remove the lines of <<<<<<<, ======= and >>>>>>>"},
	{"", regexp.MustCompile(`^\s*(//)`), "a comment begins with #"},
	{"", dashAndName, "put a space behind the dash"},
	{"", keyAndValue, "put a space behind the colon: `$1: $2`"},
	{"", regexp.MustCompile(`^[ -]*([\w-]+) *=`), "a colon stands between a key and its value: `$1: …`"},
	{"unknown anchor", regexp.MustCompile(`(\*[^ ,\]}]*)`), `no anchor has this name; quote what is no alias: "$1"`},
	{"", regexp.MustCompile("(?:^|[:,-] |[\\[{] ?)([*@%`][^ ,\\]}]*)"), `a value cannot begin with this character; quote it: "$1"`},
	{"", regexp.MustCompile(`(?:^|[:,-] |[\[{] ?)([^ ,\[{"']*\{[\w.]+\}[^ ,\]}]*)`), `braces mean a mapping; quote it: "$1"`},
	{"hexdecimal", regexp.MustCompile(`(\\)`), escapes},
	{"escape character", regexp.MustCompile(`(\\)`), escapes},
	{"did not find expected", regexp.MustCompile(`(;)\s*$`), "a line ends without a semicolon"},
	{"did not find expected key", regexp.MustCompile(`: (["'])[^"']*["'][^ ,\]}#]`), "put the quotes around the whole value"},
	{"did not find expected key", regexp.MustCompile(`: (["'])[^"']*["'] [^ ,\]}#]`), "put the quotes around the whole value"},
	{"mapping values are not allowed", regexp.MustCompile(`: ([^"'].*: |[^"'].*:$)`), "quote the value, which holds a colon"},
	{"mapping values are not allowed", anywhere, "the line is indented further than the key above, which has its value already; " +
		"keys of one mapping stand in one column"},
	{"unexpected end of stream", regexp.MustCompile(`^.*(["'])`), "the quotes that are opened here are not closed"},
	{"did not find expected ',' or", bracket, "close the bracket that is opened here, put commas between values, and quote " +
		"values that hold brackets or commas"},
	{"did not find expected node content", bracket, "close the bracket that is opened here, and quote values that begin with a colon"},
	{"could not find expected ':'", anywhere, "the key has no colon behind it; was the file saved in full?"},
	{"did not find expected", anywhere, "check the indentation, as the keys of a mapping stand in one column; quote values with quotes inside"},
	{"cannot start any token", anywhere, "a value cannot begin so; quote it"},
	{"exceeded max", anywhere, "this is nested too deeply for a configuration"},
	{"octet", anywhere, "save the file as UTF-8"},
	{"control characters", anywhere, "save the file as UTF-8 text"},
	{"", anywhere, "check the line and the one before it"},
}

var (
	anywhere    = regexp.MustCompile(`^\s*()`)
	bracket     = regexp.MustCompile(`^[^\[{]*([\[{]?)`)
	dashAndName = regexp.MustCompile(`^\s*(-)[A-Za-z"']`)
	keyAndValue = regexp.MustCompile(`^[ -]*([\w-]+):([^\s/].*|/[^/].*|/)$`)
)

// maxSearch is the largest file in which the line of an error is searched for, which reads it some twenty times.
const maxSearch = 1 << 20

const escapes = "within double quotes a backslash begins an escape; use single quotes, or write it twice"

// explain turns yaml's error into the place where it shows and a message that says what to do. The line that yaml itself tells
// is often missing, or is the one where the enclosing mapping begins.
func explain(data []byte, err error) (line, column int, message string) {
	message = plainMessage(err)
	lines := bytes.SplitAfter(data, []byte("\n"))
	if len(data) > maxSearch {
		if _, scanErr := fmt.Sscanf(err.Error(), "yaml: line %d:", &line); scanErr != nil {
			line = 0 // it does not tell
		}
		_, hint := plainWords("", message)
		return line, 0, fmt.Sprintf("%s (YAML: %s)", hint, message)
	}
	line = 1 + sort.Search(len(lines)-1, func(i int) bool {
		return plainMessage(parses(bytes.Join(lines[:i+1], nil))) == message
	})
	for before := line - 1; before > 0 && before > line-3; before-- { // these two make a value of a key: yaml stumbles later
		if text := lineText(lines[before-1]); dashAndName.MatchString(text) || keyAndValue.MatchString(text) {
			line = before
		}
	}
	column, hint := plainWords(lineText(lines[line-1]), message)
	return line, column, fmt.Sprintf("%s (YAML: %s)", hint, message)
}

// lineText is a line without its end and its comment.
func lineText(line []byte) string {
	text, _, _ := strings.Cut(strings.TrimRight(string(line), "\r\n"), " #")
	return text
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

// plainWords finds the mistake in a line that yaml does not understand.
func plainWords(line, message string) (column int, hint string) {
	for _, m := range mistakes {
		found := m.line.FindStringSubmatchIndex(line)
		if found != nil && strings.Contains(message, m.message) {
			return 1 + utf8.RuneCountInString(line[:found[2]]), string(m.line.ExpandString(nil, m.hint, line, found))
		}
	}
	return 0, message
}

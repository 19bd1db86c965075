package yamlpos

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// maxSecretFile bounds what `${file:}` reads.
const maxSecretFile = 1 << 20

var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// An expander replaces `${NAME}`, `${NAME:-default}` and `${file:/path}`; `$${` stands for `${`.
type expander struct {
	lookup func(name string) (string, bool) // the environment
	dir    string                           // where relative paths begin
}

func (e expander) expand(s string) (string, error) {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(s, "${")
		if !found {
			b.WriteString(s)
			return b.String(), nil
		}
		if text, escaped := strings.CutSuffix(before, "$"); escaped {
			b.WriteString(text + "${")
			s = rest
			continue
		}
		reference, after, closed := strings.Cut(rest, "}")
		if !closed || strings.Contains(reference, "${") {
			return "", fmt.Errorf("a `${` is not closed, or holds another; write `$${` for the characters themselves")
		}
		value, err := e.value(reference)
		if err != nil {
			return "", err
		}
		b.WriteString(before + value)
		s = after
	}
}

// value is what a reference, the text between the braces, stands for.
func (e expander) value(reference string) (string, error) {
	if path, ok := strings.CutPrefix(reference, "file:"); ok {
		return e.file(path)
	}
	name, fallback, hasFallback := strings.Cut(reference, ":-")
	if !variable.MatchString(name) {
		return "", fmt.Errorf("${%s} is not understood: write ${NAME}, ${NAME:-default}, ${file:/path}, "+
			"or $${ for the characters themselves", reference)
	}
	value, set := e.lookup(name)
	switch {
	case value != "":
		return value, nil
	case hasFallback:
		return fallback, nil
	case set:
		return "", fmt.Errorf("environment variable %s is empty; write ${%s:-default} for a value to use then", name, name)
	default:
		return "", fmt.Errorf("environment variable %s is not set; write ${%s:-default} for a value to use then", name, name)
	}
}

// file is the content of a regular file without the line end that closes it.
func (e expander) file(path string) (string, error) {
	if !filepath.IsAbs(path) {
		path = filepath.Join(e.dir, path)
	}
	if info, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("read ${file:}: %w", err)
	} else if !info.Mode().IsRegular() { // a pipe or a terminal would be waited for
		return "", fmt.Errorf("read ${file:}: %s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read ${file:}: %w", err)
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, maxSecretFile+1))
	if err != nil {
		return "", fmt.Errorf("read ${file:}: %w", err)
	}
	if len(content) > maxSecretFile {
		return "", errors.New("read ${file:}: " + path + " is larger than 1MiB")
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(content), "\n"), "\r"), nil
}

package yamlpos

import (
	"fmt"
	"strconv"
	"strings"
)

// A Path names a place in the file: string keys and int indexes.
type Path []any

// Key is the path of a key below p.
func (p Path) Key(k string) Path { return append(p[:len(p):len(p)], k) }

// Index is the path of an element below p.
func (p Path) Index(i int) Path { return append(p[:len(p):len(p)], i) }

// String prints the path, as in `routes[2].webhook.timeout`.
func (p Path) String() string {
	var b strings.Builder
	for _, step := range p {
		key, ok := step.(string)
		switch {
		case !ok:
			fmt.Fprintf(&b, "[%d]", step)
		case strings.Trim(strings.ToLower(key), "abcdefghijklmnopqrstuvwxyz0123456789_-") != "":
			b.WriteString("[" + strconv.Quote(key) + "]")
		case b.Len() == 0:
			b.WriteString(key)
		default:
			b.WriteString("." + key)
		}
	}
	return b.String()
}

// startsWith tells whether p is at or below q.
func (p Path) startsWith(q Path) bool {
	if len(q) > len(p) {
		return false
	}
	for i, step := range q {
		if p[i] != step {
			return false
		}
	}
	return true
}

package files

import (
	"net/url"
	"path/filepath"
	"runtime"
	"strings"
	"unicode/utf8"
)

// fileName is the file that a request's path stands for, below the directory of a route whose fixed segments are depth; "." is the
// directory itself, for which the path ends with a slash. ok is false for what can be no public file.
func fileName(escaped string, depth int) (name string, slash, ok bool) {
	texts := strings.Split(strings.TrimPrefix(escaped, "/"), "/")
	if len(texts) <= depth { // `/static`, which `/static/*` matches too
		return ".", false, true
	}
	texts = texts[depth:]
	last := len(texts) - 1
	if slash = texts[last] == ""; slash {
		texts = texts[:last]
	}
	for i, text := range texts {
		segment, err := url.PathUnescape(text)
		if err != nil || !public(segment) && (i > 0 || segment != ".well-known") { // RFC 8615
			return "", slash, false
		}
		texts[i] = segment
	}
	if len(texts) == 0 {
		return ".", true, true
	}
	name = strings.Join(texts, "/")
	return name, slash, local(name)
}

// public tells whether a decoded segment of a path may name a file. Dotfiles and dot segments are none, nor are names that other
// programs on the way may read otherwise: those with a slash or backslash that came encoded, and what is no UTF-8.
func public(segment string) bool {
	return segment != "" && !strings.HasPrefix(segment, ".") && !strings.ContainsAny(segment, "/\\\x00") && utf8.ValidString(segment)
}

// local tells whether a name can lead nowhere but below the directory on this system, and there only to what it says.
func local(name string) bool {
	return filepath.IsLocal(filepath.FromSlash(name)) && (runtime.GOOS != "windows" || plainOnWindows(name))
}

// plainOnWindows refuses names by which Windows finds files of other names: streams (`page.php::$DATA`), short names (`GIT~1` is
// `.git`), and dots and spaces at the end, which do not count.
func plainOnWindows(name string) bool {
	for segment := range strings.SplitSeq(name, "/") {
		if strings.ContainsAny(segment, ":~") || strings.TrimRight(segment, ". ") != segment {
			return false
		}
	}
	return true
}

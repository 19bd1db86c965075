package files

import (
	"bufio"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bridgehead/internal/leak"
	"bridgehead/internal/yamlpos"
)

func TestMain(m *testing.M) { leak.Main(m) }

// built is when the files of the tests were made.
var built = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

const tagOfApp = `"18ab6f4053a98000-a"` // of app.js, made then, with ten bytes

// site is a directory beside another with a secret.
func site(t *testing.T) string {
	t.Helper()
	base := t.TempDir()
	for name, text := range map[string]string{
		"outside/secret.txt": "secret",

		"site/index.html": "home", "site/app.js": "0123456789", "site/sub/page.html": "page", "site/docs/index.html": "docs",
		"site/ä b?.txt": "odd name", "site/a%2Fb.txt": "percent", "site/LICENSE": "<html>", "site/old.txt": "reproducible",
		"site/.env": "secret", "site/.git/config": "secret", "site/..data/page.txt": "by link", "site/.well-known/security.txt": "contact",
		"site/.well-known/.secret": "secret", "site/sub/.well-known/x.txt": "secret", "site/upper.HTML": "upper",
		"site/app.mjs": "m", "site/app.wasm": "w", "site/app.json": "{}", "site/app.svg": "<svg/>", "site/app.css": "c",
		"site/app.js.map": "{}", "site/archive.unheard": "<html>",
	} {
		file := filepath.Join(base, name)
		must(t, os.MkdirAll(filepath.Dir(file), 0o755))
		must(t, os.WriteFile(file, []byte(text), 0o644))
		must(t, os.Chtimes(file, built, built))
	}
	dir := filepath.Join(base, "site")
	must(t, os.Chtimes(filepath.Join(dir, "old.txt"), time.Unix(1, 0), time.Unix(1, 0)))
	for link, to := range map[string]string{
		"out.txt": "../outside/secret.txt", "outside": "../outside", "absolute.txt": filepath.Join(base, "outside/secret.txt"),
		"in.txt": "..data/page.txt", "here": "docs", "loop": "loop",
	} {
		must(t, os.Symlink(to, filepath.Join(dir, link)))
	}
	return dir
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// serve runs a handler for a directory on a real server, and gives its address.
func serve(t *testing.T, o Options, prefix string) string {
	t.Helper()
	h, err := New(o, prefix)
	must(t, err)
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// ask sends a request as it is written: no client mends its path.
func ask(t *testing.T, address, line string, headers ...string) (*http.Response, string) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	must(t, err)
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	lines := slices.Concat([]string{line + " HTTP/1.1", "Host: x"}, headers, []string{"", ""})
	_, err = io.WriteString(conn, strings.Join(lines, "\r\n"))
	must(t, err)
	method, _, _ := strings.Cut(line, " ")
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	must(t, err)
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp, string(body)
}

func TestServesADirectoryAndNothingElse(t *testing.T) {
	t.Parallel()
	address := serve(t, Options{Dir: site(t)}, "/static/")
	for _, c := range []struct {
		line   string
		status int
		body   string
	}{
		{"GET /static/", 200, "home"},
		{"GET /static/index.html", 200, "home"},
		{"GET /static/app.js", 200, "0123456789"},
		{"HEAD /static/app.js", 200, ""},
		{"GET /static/app.js?v=1", 200, "0123456789"},
		{"GET /static/sub/page.html", 200, "page"},
		{"GET /static/docs/", 200, "docs"},
		{"GET /static/%C3%A4%20b%3f.txt", 200, "odd name"},
		{"GET /static/%61pp.js", 200, "0123456789"},
		{"GET /static/.well-known/security.txt", 200, "contact"},

		{"GET /static/none", 404, ""},
		{"GET /static/sub/", 404, ""}, // no listing
		{"GET /static/sub", 404, ""},
		{"GET /static/app.js/", 404, ""},
		{"GET /static/app.js/x", 404, ""},

		{"GET /static/.env", 404, ""}, // no dotfiles
		{"GET /static/%2eenv", 404, ""},
		{"GET /static/.git/config", 404, ""},
		{"GET /static/.git/", 404, ""},
		{"GET /static/..data/page.txt", 404, ""},
		{"GET /static/.well-known/.secret", 404, ""},
		{"GET /static/sub/.well-known/x.txt", 404, ""},

		{"GET /static/in.txt", 200, "by link"}, // links that stay inside, as those of Kubernetes' volumes
		{"GET /static/here/", 200, "docs"},
		{"GET /static/out.txt", 404, ""}, // and out of it
		{"GET /static/outside/secret.txt", 404, ""},
		{"GET /static/absolute.txt", 404, ""},
		{"GET /static/loop", 404, ""},

		{"GET /static/../outside/secret.txt", 404, ""}, // dots
		{"GET /static/../../outside/secret.txt", 404, ""},
		{"GET /static/%2e%2e/outside/secret.txt", 404, ""},
		{"GET /static/..%2foutside/secret.txt", 404, ""},
		{"GET /static/..%5coutside%5csecret.txt", 404, ""},
		{"GET /static/..\\outside\\secret.txt", 404, ""},
		{"GET /static/%252e%252e/outside/secret.txt", 404, ""}, // decoded once
		{"GET /static/..;/outside/secret.txt", 404, ""},
		{"GET /static/./app.js", 404, ""},
		{"GET /static//app.js", 404, ""},
		{"GET /static//etc/passwd", 404, ""},
		{"GET /static/docs//", 404, ""},

		{"GET /static/sub%2fpage.html", 404, ""}, // encoded slashes are none
		{"GET /static/sub%5cpage.html", 404, ""},
		{"GET /static/a%2Fb.txt", 404, ""},
		{"GET /static/a%252Fb.txt", 200, "percent"},
		{"GET /static/app.js%00.txt", 404, ""},
		{"GET /static/app%00.js", 404, ""},

		{"POST /static/app.js", 405, ""},
		{"OPTIONS /static/app.js", 405, ""},
		{"TRACE /static/app.js", 405, ""},
	} {
		t.Run(c.line, func(t *testing.T) {
			t.Parallel()
			resp, body := ask(t, address, c.line)
			if resp.StatusCode != c.status {
				t.Fatalf("status %d, want %d", resp.StatusCode, c.status)
			}
			if c.status == http.StatusOK && body != c.body {
				t.Fatalf("body %q, want %q", body, c.body)
			}
			if strings.Contains(body, "secret") {
				t.Fatalf("body %q", body)
			}
			if resp.StatusCode != 405 && resp.Header.Get("X-Content-Type-Options") != "nosniff" {
				t.Error("browsers may guess types")
			}
		})
	}
}

// RFC 9110, sections 13 and 14.
func TestConditionsAndRanges(t *testing.T) {
	t.Parallel()
	address := serve(t, Options{Dir: site(t)}, "/")
	date := built.Format(http.TimeFormat)
	for _, c := range []struct {
		line    string
		headers []string
		status  int
		body    string
		has     map[string]string
	}{
		{"GET /app.js", nil, 200, "0123456789", map[string]string{
			"ETag": tagOfApp, "Last-Modified": date, "Accept-Ranges": "bytes", "Content-Length": "10", "Cache-Control": "no-cache",
		}},
		{"HEAD /app.js", nil, 200, "", map[string]string{"ETag": tagOfApp, "Last-Modified": date, "Content-Length": "10"}},
		{"GET /app.js", []string{"If-None-Match: " + tagOfApp}, 304, "", map[string]string{
			"ETag": tagOfApp, "Content-Length": "", "Content-Type": "", "Cache-Control": "no-cache",
		}},
		{"HEAD /app.js", []string{`If-None-Match: "x", W/` + tagOfApp}, 304, "", nil},
		{"GET /app.js", []string{`If-None-Match: "other"`, "If-Modified-Since: " + date}, 200, "0123456789", nil},
		{"GET /app.js", []string{"If-None-Match: *"}, 304, "", nil},
		{"GET /app.js", []string{"If-Modified-Since: " + date}, 304, "", nil},
		{"GET /app.js", []string{"If-Modified-Since: " + built.Add(-time.Second).Format(http.TimeFormat)}, 200, "0123456789", nil},
		{"GET /app.js", []string{`If-Match: "other"`}, 412, "", nil},
		{"GET /app.js", []string{"If-Unmodified-Since: " + built.Add(-time.Second).Format(http.TimeFormat)}, 412, "", nil},

		{"GET /app.js", []string{"Range: bytes=2-4"}, 206, "234", map[string]string{"Content-Range": "bytes 2-4/10", "Content-Length": "3"}},
		{"GET /app.js", []string{"Range: bytes=-3"}, 206, "789", nil},
		{"GET /app.js", []string{"Range: bytes=7-"}, 206, "789", nil},
		{"HEAD /app.js", []string{"Range: bytes=7-"}, 206, "", map[string]string{"Content-Length": "3"}},
		{"GET /app.js", []string{"Range: bytes=10-"}, 416, "invalid range: failed to overlap\n", map[string]string{"Content-Range": "bytes */10"}},
		{"GET /app.js", []string{"Range: lines=1-2"}, 416, "invalid range\n", nil},
		{"GET /app.js", []string{"Range: bytes=2-4", "If-Range: " + tagOfApp}, 206, "234", nil},
		{"GET /app.js", []string{"Range: bytes=2-4", `If-Range: "other"`}, 200, "0123456789", nil},
		{"GET /app.js", []string{"Range: bytes=" + strings.Repeat("0-,", 1000) + "0-"}, 200, "0123456789", nil}, // more than the file has

		// All times are the same in what was built to be reproducible: they would make different files equal.
		{"GET /old.txt", nil, 200, "reproducible", map[string]string{"ETag": "", "Last-Modified": ""}},
		{"GET /old.txt", []string{"If-Modified-Since: " + date}, 200, "reproducible", nil},
	} {
		t.Run(c.line+" "+strings.Join(c.headers, " ")[:min(40, len(strings.Join(c.headers, " ")))], func(t *testing.T) {
			t.Parallel()
			resp, body := ask(t, address, c.line, c.headers...)
			if resp.StatusCode != c.status || body != c.body {
				t.Fatalf("%d %q, want %d %q", resp.StatusCode, body, c.status, c.body)
			}
			for name, want := range c.has {
				if got := resp.Header.Get(name); got != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
		})
	}
}

func TestSeveralRangesComeInParts(t *testing.T) {
	t.Parallel()
	resp, body := ask(t, serve(t, Options{Dir: site(t)}, "/"), "GET /app.js", "Range: bytes=0-1,8-9")
	kind := resp.Header.Get("Content-Type")
	if resp.StatusCode != http.StatusPartialContent || !strings.HasPrefix(kind, "multipart/byteranges; boundary=") {
		t.Fatalf("%s with %s", resp.Status, kind)
	}
	if !strings.Contains(body, "bytes 0-1/10\r\nContent-Type: text/javascript; charset=utf-8\r\n\r\n01\r\n") || !strings.Contains(body, "\r\n89\r\n") {
		t.Fatalf("body %q", body)
	}
}

func TestTypesAreNotTheMachines(t *testing.T) {
	t.Parallel()
	address := serve(t, Options{Dir: site(t)}, "/")
	for path, want := range map[string]string{
		"/": "text/html; charset=utf-8", "/upper.HTML": "text/html; charset=utf-8", "/app.css": "text/css; charset=utf-8",
		"/app.js": "text/javascript; charset=utf-8", "/app.mjs": "text/javascript; charset=utf-8", "/app.wasm": "application/wasm",
		"/app.json": "application/json", "/app.js.map": "application/json", "/app.svg": "image/svg+xml",
		"/LICENSE": unknown, "/archive.unheard": unknown, // what is not known is never guessed to be a page
	} {
		if resp, _ := ask(t, address, "HEAD "+path); resp.Header.Get("Content-Type") != want {
			t.Errorf("%s is %q, want %q", path, resp.Header.Get("Content-Type"), want)
		}
	}
}

func TestADirectoryIsRedirectedToItsSlash(t *testing.T) {
	t.Parallel()
	dir := site(t)
	must(t, os.MkdirAll(filepath.Join(dir, "a:b ä"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "a:b ä", "index.html"), nil, 0o644))
	address := serve(t, Options{Dir: dir}, "/static/")
	for path, want := range map[string]string{
		"/static": "./static/", "/static?x=1&y=/": "./static/?x=1&y=/", "/static/docs": "./docs/", "/static/docs?q": "./docs/?q",
		"/static/here": "./here/", "/static/a:b%20%C3%A4": "./a:b%20%C3%A4/",
	} {
		resp, _ := ask(t, address, "GET "+path)
		if got := resp.Header.Get("Location"); resp.StatusCode != http.StatusMovedPermanently || got != want {
			t.Errorf("%s: %s to %q, want %q", path, resp.Status, got, want)
		}
	}
}

func TestFallbackAnswersForPagesAlone(t *testing.T) {
	t.Parallel()
	address := serve(t, Options{Dir: site(t), Fallback: "index.html", Cache: time.Hour}, "/")
	for line, want := range map[string]int{
		"GET /users/7": 200, "GET /users/john.doe": 200, "GET /users/": 200, "HEAD /users": 200, "GET /sub/": 200, "GET /sub": 200,
		"GET /old.js": 404, "GET /assets/old.css": 404, "GET /old.js/": 404, "GET /none.html": 404, // an old name of a file is no page
		"GET /.env": 404, "GET /users/../x": 404, "GET /a%2Fb": 404, "POST /users": 405,
	} {
		resp, body := ask(t, address, line)
		if resp.StatusCode != want {
			t.Errorf("%s: status %d, want %d", line, resp.StatusCode, want)
		}
		if want == 200 && (resp.Header.Get("Content-Type") != "text/html; charset=utf-8" || resp.Header.Get("Cache-Control") != "no-cache") {
			t.Errorf("%s: %v", line, resp.Header)
		}
		if want == 200 && strings.HasPrefix(line, "GET") && body != "home" {
			t.Errorf("%s: body %q", line, body)
		}
	}
}

func TestCacheIsForAllButHTML(t *testing.T) {
	t.Parallel()
	address := serve(t, Options{Dir: site(t), Cache: 90 * time.Minute}, "/")
	for path, want := range map[string]string{
		"/app.js": "max-age=5400", "/LICENSE": "max-age=5400", "/": "no-cache", "/sub/page.html": "no-cache", "/none": "",
	} {
		if resp, _ := ask(t, address, "GET "+path); resp.Header.Get("Cache-Control") != want {
			t.Errorf("%s: %q, want %q", path, resp.Header.Get("Cache-Control"), want)
		}
	}
}

func TestThePrefixIsTheFixedPartOfTheRoute(t *testing.T) {
	t.Parallel()
	dir := site(t)
	for _, c := range []struct{ prefix, path, body string }{
		{"", "/app.js", "0123456789"},
		{"/", "/app.js", "0123456789"},
		{"/a%20b/", "/a%20b/app.js", "0123456789"},
		{"/a/b/", "/a/b/docs/", "docs"},
	} {
		if _, body := ask(t, serve(t, Options{Dir: dir}, c.prefix), "GET "+c.path); body != c.body {
			t.Errorf("%s below %q: %q", c.path, c.prefix, body)
		}
	}
}

func TestAHandshakeEndsTheConnection(t *testing.T) {
	t.Parallel()
	resp, _ := ask(t, serve(t, Options{Dir: site(t)}, "/"), "GET /app.js", "Upgrade: websocket", "Connection: Upgrade")
	if !resp.Close {
		t.Fatal("what the client sends next would be read as HTTP")
	}
}

func TestAnotherDirectoryMayTakeItsPlace(t *testing.T) {
	t.Parallel()
	dir := site(t)
	address := serve(t, Options{Dir: dir}, "/")
	must(t, os.Rename(dir, dir+".old"))
	if resp, _ := ask(t, address, "GET /app.js"); resp.StatusCode != http.StatusNotFound {
		t.Fatalf("without its directory: %s", resp.Status)
	}
	must(t, os.Mkdir(dir, 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "app.js"), []byte("new"), 0o644))
	if _, body := ask(t, address, "GET /app.js"); body != "new" {
		t.Fatalf("body %q", body)
	}
}

func TestWhatIsMissingIsToldAtTheStart(t *testing.T) {
	t.Parallel()
	dir := site(t)
	for _, o := range []Options{{Dir: dir + "none"}, {Dir: filepath.Join(dir, "app.js")}, {Dir: dir, Fallback: "none.html"}, {Dir: dir, Fallback: "docs"}} {
		if _, err := New(o, "/"); err == nil {
			t.Errorf("%+v: no error", o)
		}
	}
}

func TestOptionsThatCannotWork(t *testing.T) {
	t.Parallel()
	for want, o := range map[string]Options{
		"":                                      {Dir: "x", Fallback: "a/index.html", Cache: time.Hour},
		"files.dir: is missing":                 {},
		`files.fallback: "../x" is no file`:     {Dir: "x", Fallback: "../x"},
		`files.fallback: "/x.html" is no`:       {Dir: "x", Fallback: "/x.html"},
		`files.fallback: "a//b.html" is no`:     {Dir: "x", Fallback: "a//b.html"},
		`files.fallback: "./index.html" is no `: {Dir: "x", Fallback: "./index.html"},
	} {
		var p yamlpos.Problems
		o.Validate(yamlpos.Path{"files"}, &p)
		if got := p.Error(); !strings.Contains(got, want) || p.Len() > 1 || (p.Len() == 0) != (want == "") {
			t.Errorf("%+v: got %q, want one problem like %q", o, got, want)
		}
	}
}

func TestNamesThatWindowsTakesForOthers(t *testing.T) {
	t.Parallel()
	names := map[string]bool{
		"index.html": true, "a b/c.d": true, "x.html::$DATA": false, "C:x": false, "GIT~1/config": false, "x.html.": false, "x.html ": false,
		"a./x": false,
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if plainOnWindows(name) != names[name] {
			t.Errorf("%q: %t", name, !names[name])
		}
	}
}

// Whatever the path, what comes out names a file below the directory, and no dotfile.
func FuzzFileName(f *testing.F) {
	for _, s := range []string{"/", "", "/static", "/static/a", "/a/%2e%2e/b", "//", "/a%2fb", "/%00", "/.well-known/x", "/a/b/"} {
		f.Add(s, 0)
		f.Add(s, 1)
	}
	f.Fuzz(func(t *testing.T, escaped string, depth int) {
		name, _, ok := fileName(escaped, depth&3)
		if !ok {
			return
		}
		if !fs.ValidPath(name) || !filepath.IsLocal(filepath.FromSlash(name)) || strings.ContainsAny(name, "\\\x00") {
			t.Fatalf("%q is %q", escaped, name)
		}
		for i, segment := range strings.Split(name, "/") {
			if strings.HasPrefix(segment, ".") && name != "." && (i > 0 || segment != ".well-known") {
				t.Fatalf("%q is the dotfile %q", escaped, name)
			}
		}
	})
}

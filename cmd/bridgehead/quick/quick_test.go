package quick

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"bridgehead/config"
)

func TestFrom(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, want string }{
		{":8443", "tls :8443 "},
		{"8443", "tls :8443 "},
		{"127.0.0.1:8443", "tls 127.0.0.1:8443 "},
		{"localhost:0", "tls localhost:0 "},
		{"[::1]:8443", "tls [::1]:8443 "},
		{"wss://:8443", "tls :8443 "},
		{"wss://:8443/", "tls :8443 "},
		{"wss://:8443/vnc", "tls :8443 /vnc"},
		{"WSS://0.0.0.0:8443/rooms/{room}", "tls 0.0.0.0:8443 /rooms/{room}"},
		{"https://10.0.0.5", "tls 10.0.0.5:443 "},
		{"wss://[::]/x", "tls [::]:443 /x"},
		{"wss:///x", "tls :443 /x"},
		{"ws://:8080", "plain :8080 "},
		{"http://localhost", "plain localhost:80 "},
		{"ws://:8080/a/*", "plain :8080 /a/*"},
	} {
		f, err := parseFrom(c.text)
		kind := map[bool]string{true: "tls", false: "plain"}[f.secure]
		if got := fmt.Sprintf("%s %s %s", kind, f.address(), f.path); err != nil || got != c.want {
			t.Errorf("--from %s is %q, %v; want %q", c.text, got, err, c.want)
		}
	}
}

func TestWhatIsNoFrom(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"tcp://:8443":       `--from "tcp://:8443" has the scheme "tcp": clients connect by wss:// or, without TLS, ws://`,
		"localhost":         `--from "localhost" is no address: write :8443, 127.0.0.1:8443 or wss://:8443/path, IPv6 in brackets`,
		"::1:8443":          `--from "::1:8443" is no address: `,
		"a b:8443":          `--from "a b:8443" is no address: `,
		":84430":            `--from ":84430" has no port from 0 to 65535: write one behind the host, as in :8443`,
		"localhost:":        `--from "localhost:" has no port from 0 to 65535: write one behind the host, as in localhost:8443`,
		"wss://:8443/a?b=1": `--from: path "/a?b=1": a path has no query and no fragment`,
		"wss://:8443/a//b":  `--from: path "/a//b": `,
	} {
		if _, err := New(Options{From: text, To: "localhost:1"}); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestTo(t *testing.T) {
	t.Parallel()
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ text, as, want string }{
		{"localhost:5900", "", "tcp tcp://localhost:5900"},
		{":5900", "", "tcp tcp://localhost:5900"},
		{"tcp://localhost:5900", "", "tcp tcp://localhost:5900"},
		{"TLS://host:993", "", "tcp tls://host:993"},
		{"unix:/run/vnc.sock", "", "tcp unix:/run/vnc.sock"},
		{"unix:///run/vnc.sock", "", "tcp unix:/run/vnc.sock"},
		{"unix:vnc.sock", "", "tcp unix:" + here + "/vnc.sock"},
		{"unix:@abstract", "", "tcp unix:@abstract"},
		{"ws://localhost:9000", "", "websocket ws://localhost:9000"},
		{"wss://app.example.com/chat?v=2", "", "websocket wss://app.example.com/chat?v=2"},
		{"http://localhost:3000/events", "", "webhook http://localhost:3000/events (guessed)"},
		{"https://app.example.com/events", "", "webhook https://app.example.com/events (guessed)"},
		{"http://localhost:3000", "webhook", "webhook http://localhost:3000"},
		{"http://localhost:3000", "websocket", "websocket http://localhost:3000"},
		{"localhost:3000", "websocket", "websocket ws://localhost:3000"},
		{"localhost:3000", "webhook", "webhook http://localhost:3000"},
		{"localhost:3000", "tcp", "tcp tcp://localhost:3000"},
	} {
		to, err := parseTo(c.text, c.as)
		got := to.kind + " " + to.url
		if to.guessed {
			got += " (guessed)"
		}
		if err != nil || got != c.want {
			t.Errorf("--to %s --as %q is %q, %v; want %q", c.text, c.as, got, err, c.want)
		}
	}
}

func TestWhatDoesNotGoTogether(t *testing.T) {
	t.Parallel()
	const tcp = "localhost:5900"
	for _, c := range []struct {
		options Options
		want    string
	}{
		{Options{}, "--to is missing: say where the sockets lead, as in --to tcp://localhost:5900"},
		{Options{To: "ftp://h:1"}, `--to "ftp://h:1" has the scheme "ftp": write host:port, `},
		{Options{To: "localhost"}, `--to: "tcp://localhost" needs a host and a port`},
		{Options{To: "unix:"}, `--to: "unix:" names no socket`},
		{Options{To: tcp, As: "smtp"}, `--as "smtp" is none of websocket, tcp, webhook`},
		{Options{To: "http://h", As: "tcp"}, `--to: "http://h" has the scheme http; this bridge speaks tcp, tls, unix`},
		{Options{To: "unix:/x", As: "websocket"}, `--to: "unix:/x" has the scheme unix; this bridge speaks ws, wss, http, https`},
		{Options{To: tcp, Key: "k"}, "--key stands alone: name the certificate too, with --cert FILE"},
		{Options{To: tcp, From: "ws://:1", Cert: "c"}, "--cert is for TLS, and --from asks for none: "},
		{Options{To: "ws://h", Framing: "line"}, "--framing and --text are for streams: "},
		{Options{To: "ws://h", Text: true}, "--framing and --text are for streams: "},
		{Options{To: "http://h", Subprotocols: []string{"x"}}, "--subprotocol is for streams: "},
		{Options{To: tcp, Framing: "words"}, `--framing "words" is none of raw, line`},
		{Options{To: tcp, Origins: []string{"localhost"}}, `--origin "localhost": `},
	} {
		if _, err := New(c.options); err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %s", c.options, err, c.want)
		}
	}
}

func TestWebsockify(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		words   Websockify
		options Options
		want    string // from and to, or an error
	}{
		{Websockify{Args: []string{"6080", "localhost:5900"}}, Options{}, "ws://:6080 localhost:5900"},
		{Websockify{Args: []string{"127.0.0.1:6080", "10.0.0.5:5900"}}, Options{}, "ws://127.0.0.1:6080 10.0.0.5:5900"},
		{Websockify{Args: []string{"6080", "localhost:5900"}}, Options{Cert: "c.pem"}, "wss://:6080 localhost:5900"},
		{Websockify{Args: []string{"6080", "localhost:5900"}, SSLOnly: true}, Options{}, "wss://:6080 localhost:5900"},
		{Websockify{Args: []string{"6080", "localhost:5900"}, SSLTarget: true}, Options{}, "ws://:6080 tls://localhost:5900"},
		{Websockify{Args: []string{"6080"}, UnixTarget: "/run/x"}, Options{}, "ws://:6080 unix:/run/x"},
		{Websockify{}, Options{From: ":1", To: ":2"}, ":1 :2"},
		{Websockify{Args: []string{"6080"}}, Options{}, "the target is missing: "},
		{Websockify{UnixTarget: "/run/x"}, Options{}, "the port for clients is missing: "},
		{Websockify{Args: []string{"6080", "a:1", "b:2"}}, Options{}, `"b:2": there is a target already, a:1; `},
		{Websockify{Args: []string{"6080", "vncserver", ":1"}, Wraps: true}, Options{}, "a program behind -- is not started: "},
		{Websockify{Args: []string{"6080"}, UnixTarget: "/run/x", SSLTarget: true}, Options{}, "--ssl-target is for host:port: "},
		{Websockify{Args: []string{"6080"}}, Options{To: ":2"}, "--from and --to say all "},
		{Websockify{SSLOnly: true}, Options{From: ":1", To: ":2"}, "--from and --to say all "},
	} {
		o := c.options
		err := c.words.Into(&o)
		got := o.From + " " + o.To
		if err != nil {
			got = err.Error()
		}
		if !strings.HasPrefix(got, c.want) {
			t.Errorf("%+v with %+v: %s, want %s", c.words, c.options, got, c.want)
		}
	}
}

func TestUnknownOptionsSayWhatToDoInstead(t *testing.T) {
	t.Parallel()
	for _, u := range Unknowns() {
		if text := u.Told().Error(); u.Instead == "" || strings.Contains(text, "\n") || !strings.HasPrefix(text, "--"+u.Name+" is not known here: ") {
			t.Errorf("--%s is told %q", u.Name, text)
		}
	}
}

// forms are one bridge of each form, by the name of its golden files.
var forms = map[string]Options{
	"stream":    {To: "localhost:5900"},
	"lines":     {From: "ws://:8080/lines", To: "tls://localhost:7000", Framing: "line", Text: true, Subprotocols: []string{"a", "b"}, Log: "warn"},
	"websocket": {From: "wss://0.0.0.0:8443", To: "ws://localhost:9000", Cert: "/c.pem", Origins: []string{"https://app.example.com", "null"}},
	"webhook":   {From: ":8443", To: "http://localhost:3000/events"},
	"page":      {From: "ws://127.0.0.1:6080", To: "unix:/run/it's.sock", Web: `/srv/no "VNC" ${HOME}`, Ping: "20s"},
	"silent":    {From: "wss://[::1]:0/vnc", To: "localhost:5900", Cert: "/c.pem", Key: "/k.pem", Ping: off, Origins: []string{"*"}},
}

// What --print shows is a file that says no more and no less than the flags, wherever it is put; and its first line, typed again,
// gives the same file.
func TestPrintedFiles(t *testing.T) {
	t.Parallel()
	for name, o := range forms {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, err := New(o)
			if err != nil {
				t.Fatal(err)
			}
			text := b.Config("/state")
			golden(t, name+".yaml", text)
			c, warnings, err := config.Parse("/anywhere/config.yaml", []byte(text), func(string) (string, bool) { return "", false })
			if err != nil {
				t.Fatal(err)
			}
			if len(warnings) != len(b.Warnings()) {
				t.Errorf("the file is warned of by %q, and the flags by %q", warnings, b.Warnings())
			}
			if first, _, _ := strings.Cut(text, "\n"); first != "# The same as: "+b.Command() {
				t.Errorf("it begins with %s", first)
			}
			route := c.Routes[0]
			to := map[string]func() []string{
				tcp: func() []string { return route.TCP.To }, websocket: func() []string { return route.WebSocket.To },
				webhook: func() []string { return route.Webhook.To },
			}[b.to.kind]()
			if to[0] != b.to.url || route.Path != b.from.path || c.Listeners[0].Address[0] != b.from.address() || c.Listeners[0].TLS != b.from.secure {
				t.Errorf("the file says %+v and %+v", c.Listeners[0], route)
			}
			if o.Web != "" && c.Routes[1].Files.Dir != o.Web {
				t.Errorf("it shows %s, want %s", c.Routes[1].Files.Dir, o.Web)
			}
		})
	}
}

func TestGuides(t *testing.T) {
	t.Parallel()
	for name, o := range forms {
		b, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		root := ""
		if b.from.secure && o.Cert == "" {
			root = "/it's/root.pem"
		}
		golden(t, name+".txt", b.Guide("4711", root))
	}
}

// golden compares with a file of testdata; `UPDATE_GOLDEN=1 go test` writes it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is not what %s holds:\n%s", name, path, got)
	}
}

func TestNoVNCsPageIsTheOneToOpen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b, err := New(Options{To: "localhost:5900", Web: dir})
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct{ file, want string }{{"other.html", ""}, {"vnc.html", "vnc.html"}, {"index.html", ""}} {
		if err := os.WriteFile(filepath.Join(dir, step.file), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if got := b.page(); got != step.want {
			t.Errorf("with %s the page to open is %q, want %q", step.file, got, step.want)
		}
	}
}

func TestProbe(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	for _, to := range []string{address, "ws://" + address + "/x?y=z", "http://" + address, "tls://" + address} {
		b, err := New(Options{To: to})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Probe(t.Context()); err != nil {
			t.Errorf("%s answers: %v", to, err)
		}
	}
	l.Close()
	b, _ := New(Options{To: address})
	if err := b.Probe(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "nothing answers at "+address+": ") {
		t.Errorf("nothing answers: %v", err)
	}
	for url, want := range map[string]string{
		"ws://h": "h:80", "wss://h/x": "h:443", "https://[::1]?q": "[::1]:443", "unix:/run/x": "/run/x", "http://[::1]:3000": "[::1]:3000",
	} {
		if _, got := (to{url: url}).dial(); got != want {
			t.Errorf("%s is dialled at %s, want %s", url, got, want)
		}
	}
}

// Whatever stands in the flags leads to an error that names one, or to a file that can be read.
func FuzzNew(f *testing.F) {
	for _, o := range forms {
		f.Add(o.From, o.To, o.As, o.Web)
	}
	f.Fuzz(func(t *testing.T, from, to, as, web string) {
		b, err := New(Options{From: from, To: to, As: as, Web: web})
		if err != nil {
			if !strings.HasPrefix(err.Error(), "--") {
				t.Errorf("the error names no flag: %v", err)
			}
			return
		}
		text := from + to + web
		if strings.ToValidUTF8(text, "") != text || strings.ContainsFunc(text, unicode.IsControl) || strings.ContainsAny(from+to, "{}") {
			return // for the configuration to check
		}
		_, _, err = config.Parse("/x.yaml", []byte(b.Config("/state")), func(string) (string, bool) { return "", false })
		if err != nil {
			t.Errorf("from %q, to %q as %q, with %q: %v", from, to, as, web, err)
		}
		b.Guide("1", "/root.pem")
	})
}

package config_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"bridgehead/config"
	"bridgehead/internal/unit"
	"bridgehead/internal/yamlpos"
	"bridgehead/policy"
	"bridgehead/proxy"
)

var update = flag.Bool("update", false, "rewrite testdata")

// lookup is an environment with a state directory, so that no test depends on who runs it.
func lookup(name string) (string, bool) {
	value, ok := map[string]string{
		"STATE_DIRECTORY": "/state",
		"EMPTY":           "",
		"SECRET":          "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
		"PUSH_TOKEN_SET":  "t0ken",
	}[name]
	return value, ok
}

func mustParse(t *testing.T, text string) *config.Config {
	t.Helper()
	c, _, err := config.Parse("/etc/bridgehead/config.yaml", []byte(text), lookup)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Each testdata/err-*.yaml is refused with exactly what stands in its .err, each warn-*.yaml is accepted with its .warn, and
// each out-*.yaml comes to the effective configuration of its .out without a warning.
func TestFiles(t *testing.T) {
	t.Parallel()
	inputs, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(inputs) < 30 {
		t.Fatalf("%d files in testdata, %v", len(inputs), err)
	}
	for _, input := range inputs {
		name := strings.TrimSuffix(filepath.Base(input), ".yaml")
		kind, _, _ := strings.Cut(name, "-")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data, err := os.ReadFile(input)
			if err != nil {
				t.Fatal(err)
			}
			c, warnings, err := config.Parse("config.yaml", data, lookup)
			got := outcome(c, warnings, err)
			golden := filepath.Join("testdata", name+"."+kind)
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil || got != string(want) {
				t.Errorf("%v\n got %s\nwant %s", err, got, want)
			}
		})
	}
}

func outcome(c *config.Config, warnings []config.Warning, err error) string {
	if err != nil {
		return err.Error() + "\n"
	}
	if len(warnings) == 0 {
		return string(c.Effective())
	}
	var lines strings.Builder
	for _, w := range warnings {
		lines.WriteString(w.String() + "\n")
	}
	return lines.String()
}

const oneRoute = `
listeners: [{address: "127.0.0.1:8080"}]
routes: [{path: /ws, websocket: {to: "ws://127.0.0.1:9000"}}]
`

func TestAnErrorInTheFileIsAListOfProblems(t *testing.T) {
	t.Parallel()
	_, _, err := config.Parse("x.yaml", []byte("routes: [{}]"), lookup)
	if problems, ok := errors.AsType[*yamlpos.Problems](err); !ok || problems.Len() != 2 {
		t.Errorf("%T %v, want two problems", err, err)
	}
}

func TestLoadReadsFilesAndKnowsTheirDirectory(t *testing.T) {
	t.Chdir(t.TempDir())
	if _, _, err := config.Load("none.yaml"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	if err := os.WriteFile("config.yaml", []byte("state: kept\n"+oneRoute), 0o600); err != nil {
		t.Fatal(err)
	}
	c, warnings, err := config.Load("config.yaml")
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	if c.File != "config.yaml" || !filepath.IsAbs(c.Dir) || c.State != filepath.Join(c.Dir, "kept") {
		t.Errorf("file %s, dir %s, state %s", c.File, c.Dir, c.State)
	}
	if want := "unix:" + filepath.Join(c.State, "admin.sock"); c.Admin.Address != want {
		t.Errorf("admin listens on %s, want %s", c.Admin.Address, want)
	}
}

// What -c may lead to by mistake, and what is said of it.
func TestWhatIsNoFileIsToldSo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "large.yaml"), make([]byte, 17<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "closed.yaml"), []byte(oneRoute), 0o000); err != nil {
		t.Fatal(err)
	}
	tests := map[string]string{
		"none.yaml":     "none.yaml: no such file or directory; bridgehead init writes one to start from",
		".":             " is a directory: name the file in it, such as " + filepath.Join(dir, "config.yaml"),
		"large.yaml":    "large.yaml is larger than 16MiB, which no configuration is",
		"large.yaml/in": "not a directory",
		"closed.yaml":   "closed.yaml: permission denied",
	}
	if os.Geteuid() == 0 {
		delete(tests, "closed.yaml") // root may read everything
	}
	for name, want := range tests {
		_, _, err := config.Load(filepath.Join(dir, name))
		if err == nil || !strings.HasPrefix(err.Error(), "read the configuration: ") || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%s: %v, want it to end in %s", name, err, want)
		}
	}
}

// Something else than a configuration, of 2 MiB: it is refused in few lines, and before anybody loses patience.
func TestJunkIsRefusedInFewLines(t *testing.T) {
	t.Parallel()
	const size = 2 << 20
	random := make([]byte, size)
	rand.NewChaCha8([32]byte{1}).Read(random)
	for name, data := range map[string][]byte{
		"random bytes": random, "nothing but zeros": make([]byte, size), "one word": bytes.Repeat([]byte("x"), size),
		"open brackets": bytes.Repeat([]byte("["), size), "open lists": bytes.Repeat([]byte("- "), size/2),
		"open quotes": bytes.Repeat([]byte("\"\n"), size/2), "words": bytes.Repeat([]byte("some words\n"), size/11),
		"a log":           bytes.Repeat([]byte("2026-11-22 13:00:00 INFO request: path=/ws [x] {y}\n"), size/51),
		"a list of words": append([]byte("routes:\n"), bytes.Repeat([]byte("- x\n"), size/4)...),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, _, err := config.Parse("config.yaml", data, lookup)
			if err == nil || strings.Count(err.Error(), "\n") > 100 || len(err.Error()) > 50_000 {
				t.Errorf("%.500v, want an error that can be read", err)
			}
		})
	}
}

func TestHostAndBackendAreACompleteFile(t *testing.T) {
	t.Parallel()
	c := mustParse(t, `
certificates: {internal: true}
routes:
  - host: chat.example.com
    websocket: {to: "ws://127.0.0.1:9000"}
`)
	if len(c.Listeners) != 2 || c.Listeners[0].Address[0] != ":443" || !c.Listeners[0].TLS ||
		c.Listeners[1].Address[0] != ":80" || !c.Listeners[1].Redirect {
		t.Errorf("listeners %+v", c.Listeners)
	}
	if r := c.Routes[0]; r.Name != "chat.example.com" || r.WebSocket.Compression != "pass" {
		t.Errorf("route %+v", r)
	}
	if !reflect.DeepEqual(c.Routes[0].Options, proxy.DefaultOptions()) {
		t.Errorf("options %+v, want the built-in ones", c.Routes[0].Options)
	}
	if c.Drain != 8*time.Second || c.Log != (config.Log{Format: "text", Level: "info"}) {
		t.Errorf("drain %v, log %+v", c.Drain, c.Log)
	}
}

func TestLayersLieOverEachOtherInOrder(t *testing.T) {
	t.Parallel()
	c := mustParse(t, `
listeners: [{address: "127.0.0.1:8080"}]
routes: # before the defaults, which are read first nevertheless
  - {path: /a, websocket: {to: "ws://127.0.0.1:9000"}, socket: {ping: 5s}}
  - {path: /b, websocket: {to: "ws://127.0.0.1:9000"}, origins: [], limits: [{per: client.ip, connections: 2}]}
defaults:
  origins: https://example.com
  socket: {ping: 15s, idle: 10m}
`)
	builtIn, a, b := proxy.DefaultOptions(), c.Routes[0], c.Routes[1]
	if a.Socket.Ping != 5*time.Second || a.Socket.Idle != 10*time.Minute || a.Socket.Pong != builtIn.Socket.Pong {
		t.Errorf("ping of the route, idle of the defaults, pong built in: %+v", a.Socket)
	}
	if b.Socket.Ping != 15*time.Second || a.Socket.MessageSize != unit.MiB {
		t.Errorf("ping of the defaults, message_size built in: %+v", b.Socket)
	}
	if !reflect.DeepEqual(a.Limits, builtIn.Limits) || !reflect.DeepEqual(a.Origins, []string{"https://example.com"}) {
		t.Errorf("limits built in, origins of the defaults: %+v", a.Options)
	}
	rule := policy.DefaultRule()
	rule.Per, rule.Connections = []string{"client.ip"}, 2
	if want := []policy.Rule{rule}; !reflect.DeepEqual(b.Limits, want) {
		t.Errorf("limits %+v, want %+v: a list replaces", b.Limits, want)
	}
	if len(b.Origins) != 0 {
		t.Errorf("origins %q: an empty list replaces too", b.Origins)
	}
}

func TestRoutesShareNothingWithTheDefaults(t *testing.T) {
	t.Parallel()
	c := mustParse(t, `
listeners: [{address: "127.0.0.1:8080"}]
defaults: {origins: https://example.com}
routes:
  - {path: /a, websocket: {to: "ws://127.0.0.1:9000"}}
  - {path: /b, websocket: {to: "ws://127.0.0.1:9000"}}
`)
	c.Routes[0].Origins[0] = "changed"
	c.Routes[0].Limits[0].Connections = 1
	if c.Routes[1].Origins[0] == "changed" || c.Defaults.Origins[0] == "changed" || c.Routes[1].Limits[0].Connections == 1 {
		t.Errorf("a change to one route reached %+v and %+v", c.Routes[1].Options, c.Defaults)
	}
}

func TestStateHasADirectoryByDefault(t *testing.T) {
	t.Parallel()
	root := os.Geteuid() == 0
	for _, test := range []struct {
		name string
		env  map[string]string
		want string // for root it is always the same, unless systemd says otherwise
	}{
		{"systemd's", map[string]string{"STATE_DIRECTORY": "/var/lib/bh:/other", "HOME": "/home/u"}, "/var/lib/bh"},
		{"the user's own", map[string]string{"HOME": "/home/u"}, "/home/u/.local/state/bridgehead"},
		{"XDG's", map[string]string{"XDG_STATE_HOME": "/xdg", "HOME": "/home/u"}, "/xdg/bridgehead"},
	} {
		if root && test.env["STATE_DIRECTORY"] == "" {
			test.want = "/var/lib/bridgehead"
		}
		c, _, err := config.Parse("config.yaml", []byte(oneRoute), func(name string) (string, bool) {
			value, ok := test.env[name]
			return value, ok
		})
		if err != nil || c.State != test.want {
			t.Errorf("%s: %v, %v; want %s", test.name, c, err, test.want)
		}
	}
	if c := mustParse(t, "state: here\n"+oneRoute); c.State != "/etc/bridgehead/here" {
		t.Errorf("state %s, want what the file says", c.State)
	}
}

func TestRelativePathsBelongToTheFilesDirectory(t *testing.T) {
	t.Parallel()
	c := mustParse(t, `
state: state
certificates: {files: [{cert: certs/a.pem, key: /abs/a.key}]}
listeners: [{address: "127.0.0.1:8443", tls: true}]
upstreams:
  one: {servers: [unix:one.sock, "unix:@abstract", "ws://one"], tls: {ca: ca.pem, cert: c.pem, key: c.key}}
routes:
  - {path: /a, tcp: {to: [unix:/run/a.sock, unix:b.sock, "host:7000"]}}
  - {path: /b/*, files: {dir: public}}
admin: {address: unix:admin.sock}
push: {address: unix:push.sock}
`)
	const dir = "/etc/bridgehead/"
	got := append([]string{
		c.State, c.Certificates.Files[0].Cert, c.Certificates.Files[0].Key, c.Upstreams["one"].TLS.CA, c.Upstreams["one"].TLS.Cert,
		c.Upstreams["one"].TLS.Key, c.Upstreams["one"].Servers[0].URL, c.Upstreams["one"].Servers[1].URL,
		c.Routes[1].Files.Dir, c.Admin.Address, c.Push.Address,
	}, c.Routes[0].TCP.To...)
	want := []string{
		dir + "state", dir + "certs/a.pem", "/abs/a.key", dir + "ca.pem", dir + "c.pem",
		dir + "c.key", "unix:" + dir + "one.sock", "unix:@abstract",
		dir + "public", "unix:" + dir + "admin.sock", "unix:" + dir + "push.sock",
		"unix:/run/a.sock", "unix:" + dir + "b.sock", "host:7000",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("\n got %q\nwant %q", got, want)
	}
}

func TestTheEffectiveConfigurationIsAFileOfTheSameMeaning(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/out-layers.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer(`secret: "${SECRET}", `, "", `, tokens: [{name: ops, token: "${PUSH_TOKEN_SET}", may: admin}]`, "")
	first := mustParse(t, text.Replace(string(data)))
	second := mustParse(t, string(first.Effective()))
	if !reflect.DeepEqual(first, second) {
		t.Errorf("\nfirst  %+v\nsecond %+v", first, second)
	}
}

func TestTheEffectiveConfigurationHidesSecrets(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/out-layers.out")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"SECRET", "PUSH_TOKEN_SET"} {
		if value, _ := lookup(name); strings.Contains(string(data), value) {
			t.Errorf("%s shows", value)
		}
	}
}

// Reading ten thousand hosts takes about as long as YAML does: exact hosts are not compared with each other.
func BenchmarkTenThousandRoutes(b *testing.B) {
	var text strings.Builder
	text.WriteString("listeners: [{address: \"127.0.0.1:8080\"}]\nroutes:\n")
	for i := range 10_000 {
		fmt.Fprintf(&text, "- {host: h%d.example.com, websocket: {to: \"ws://127.0.0.1:9000\"}}\n", i)
	}
	for b.Loop() {
		if _, _, err := config.Parse("config.yaml", []byte(text.String()), lookup); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzParse(f *testing.F) {
	inputs, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, input := range inputs {
		data, err := os.ReadFile(input)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, _, err := config.Parse("config.yaml", data, lookup)
		if err != nil {
			if err.Error() == "" {
				t.Error("an error that says nothing")
			}
			return
		}
		c.Effective()
	})
}

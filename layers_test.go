package bridgehead_test

import (
	"context"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// layers is the order of the packages. A package imports only from lines below its own; those of a line with a star, which
// stands for all below that directory, may also import each other. Packages in test/ may import everything.
const layers = `
cmd/bridgehead/*
server
config
admin
proxy/relay proxy/stream proxy/webhook proxy/files
proxy proxy/upstream
proxy/pump policy/auth
policy tls hub
ws routes
internal/*
`

// homes are the packages that may import a third-party module; no other may, and no other module is imported at all.
var homes = map[string][]string{
	"github.com/caddyserver/certmagic": {"tls"},
	"github.com/go-jose/go-jose/v4":    {"policy/auth"},
	"github.com/fsnotify/fsnotify":     {"internal/watch"},
	"github.com/libdns":                {"tls"},
	"github.com/mholt/acmez":           {"tls"},
	"go.uber.org/zap":                  {"tls"},
	"golang.org/x/net":                 {"tls"},
	"github.com/gorilla/websocket":     {"proxy/pump", "cmd/bridgehead/connect", "cmd/bridgehead/demo"},
	"github.com/pires/go-proxyproto":   {"internal/proxyproto"},
	"github.com/prometheus":            {"internal/metrics"},
	"github.com/spf13/cobra":           {"cmd/bridgehead"},
	"github.com/standard-webhooks":     {"proxy/webhook", "cmd/bridgehead/demo"},
	"golang.org/x/crypto":              {"policy/auth"},
	"golang.org/x/time":                {"policy", "tls"},
	"gopkg.in/yaml.v3":                 {"internal/yamlpos"},
}

// module is the path of this module.
const module = "bridgehead"

// aliased are the packages of ours that take another's name: who may import them, and as what.
var aliased = map[string]struct {
	as string
	by []string
}{
	"tls": {"certs", []string{"server", "config"}},
}

// reserved are names that a package must not give to its types, because a reader takes them for crypto/tls's.
var reserved = map[string][]string{
	"tls": {"Config", "Conn", "Certificate"},
}

// initializers are the packages that may have init functions.
var initializers = []string{"internal/xconnect"}

func TestLayers(t *testing.T) {
	t.Parallel()
	packages, err := list(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(packages) == 0 {
		t.Fatal("go list names no packages")
	}
	for _, p := range packages {
		for _, complaint := range p.complaints() {
			t.Error(complaint)
		}
	}
}

// A source is a package as its files tell, whatever system they are for; without tests.
type source struct {
	path  string // below the module
	files map[string]*ast.File
}

// list parses the packages of the module that have more than tests.
func list(ctx context.Context) ([]source, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-e", "-find", "-json=ImportPath,Dir,GoFiles,CgoFiles,IgnoredGoFiles", "./...").Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	var all []source
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath, Dir                   string
			GoFiles, CgoFiles, IgnoredGoFiles []string
		}
		if err := decoder.Decode(&p); err == io.EOF {
			return all, nil
		} else if err != nil {
			return nil, fmt.Errorf("decode the output of go list: %w", err)
		}
		s := source{path: below(p.ImportPath), files: make(map[string]*ast.File)}
		for _, name := range slices.Concat(p.GoFiles, p.CgoFiles, p.IgnoredGoFiles) {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			s.files[name], err = parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.ParseComments)
			if err != nil {
				return nil, err
			}
		}
		if len(s.files) > 0 {
			all = append(all, s)
		}
	}
}

// below is an import path without the module's own; of another module's path it is the whole.
func below(importPath string) string { return strings.TrimPrefix(importPath, module+"/") }

// complaints are the rules that the package breaks, a sentence each.
func (s source) complaints() []string {
	all := s.comments()
	for _, name := range s.names() {
		for _, declaration := range s.files[name].Decls {
			all = append(all, s.declaration(name, declaration)...)
		}
		for _, spec := range s.files[name].Imports {
			if !strings.HasPrefix(s.path, "test/") {
				all = append(all, s.imports(spec)...)
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func (s source) names() []string {
	var names []string
	for name := range s.files {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// comments: every package says in one file what it is for.
func (s source) comments() []string {
	var in []string
	for _, name := range s.names() {
		if s.files[name].Doc.Text() != "" {
			in = append(in, name)
		}
	}
	switch len(in) {
	case 0:
		return []string{s.path + " has no package comment"}
	case 1:
		return nil
	default:
		return []string{s.path + " has package comments in " + and(in) + ": one is enough"}
	}
}

// declaration: no init functions, no names that mislead.
func (s source) declaration(file string, d ast.Decl) []string {
	var all []string
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Recv == nil && d.Name.Name == "init" && !slices.Contains(initializers, s.path) {
			all = append(all, path.Join(s.path, file)+" has a func init: only "+and(initializers)+" may")
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			if spec, ok := spec.(*ast.TypeSpec); ok && slices.Contains(reserved[s.path], spec.Name.Name) {
				all = append(all, s.path+" has a type "+spec.Name.Name+", which readers take for another package's")
			}
		}
	}
	return all
}

// imports: downwards, modules at home, aliases as agreed.
func (s source) imports(spec *ast.ImportSpec) []string {
	imported, err := strconv.Unquote(spec.Path.Value)
	if err != nil {
		return []string{err.Error()}
	}
	if strings.HasPrefix(imported, module+"/") {
		return append(s.importsOurs(below(imported)), s.importsAs(below(imported), spec.Name)...)
	}
	if first, _, _ := strings.Cut(imported, "/"); !strings.Contains(first, ".") {
		return nil // the standard library
	}
	for module, packages := range homes {
		switch {
		case imported != module && !strings.HasPrefix(imported, module+"/"):
			continue
		case slices.Contains(packages, s.path):
			return nil
		case len(packages) == 1:
			return []string{s.path + " imports " + imported + ", whose home is " + packages[0]}
		default:
			return []string{s.path + " imports " + imported + ", whose homes are " + and(packages)}
		}
	}
	return []string{s.path + " imports " + imported + ", which has no home: give it one in layers_test.go and a sentence in ARCHITECTURE.md"}
}

func (s source) importsOurs(imported string) []string {
	mine, family := layer(s.path)
	other, _ := layer(imported)
	switch {
	case mine < 0:
		return []string{s.path + " stands in no layer"}
	case other < 0:
		return []string{s.path + " imports " + imported + ", which stands in no layer"}
	case other > mine || other == mine && family:
		return nil
	default:
		return []string{s.path + " imports " + imported + ", which is not below it"}
	}
}

func (s source) importsAs(imported string, name *ast.Ident) []string {
	rule, ok := aliased[imported]
	var all []string
	if ok && !slices.Contains(rule.by, s.path) {
		all = append(all, s.path+" imports "+imported+": only "+and(rule.by)+" may")
	}
	if ok && (name == nil || name.Name != rule.as) {
		all = append(all, s.path+" imports "+imported+" under a name other than "+rule.as)
	}
	return all
}

// layer is the number of the line that a package stands in, from the top, or -1; family tells whether the line has a star.
func layer(p string) (number int, family bool) {
	for i, line := range strings.Split(strings.TrimSpace(layers), "\n") {
		for word := range strings.FieldsSeq(line) {
			dir, star := strings.CutSuffix(word, "/*")
			if p == dir || star && strings.HasPrefix(p, dir+"/") {
				return i, star
			}
		}
	}
	return -1, false
}

// and joins words as a sentence does.
func and(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " and " + words[last]
}

// The checker itself is checked on packages that keep and break each rule.
func TestComplaints(t *testing.T) {
	t.Parallel()
	const doc = "// Package x does things.\n"
	for _, test := range []struct {
		rule, path string
		files      []string
		want       []string
	}{
		{"downwards", "server", []string{doc + `package x; import ("net/http"; "bridgehead/proxy/relay"; "bridgehead/internal/unit")`}, nil},
		{"upwards", "admin", []string{doc + `package x; import "bridgehead/config"`}, []string{"admin imports config, which is not below it"}},
		{"sideways", "ws", []string{doc + `package x; import "bridgehead/routes"`}, []string{"ws imports routes, which is not below it"}},
		{"sideways within a family", "internal/watch", []string{doc + `package x; import "bridgehead/internal/leak"`}, nil},
		{"a family's root and branch", "cmd/bridgehead", []string{doc + `package x; import "bridgehead/cmd/bridgehead/demo"`}, nil},
		{"a package out of a family", "internal/watch", []string{doc + `package x; import "bridgehead/ws"`}, []string{"internal/watch imports ws, which is not below it"}},
		{"a directory is not its neighbour", "proxy/pump", []string{doc + `package x; import "bridgehead/proxy"`}, []string{"proxy/pump imports proxy, which is not below it"}},
		{"an importer in no layer", "extra", []string{doc + `package x; import "bridgehead/ws"`}, []string{"extra stands in no layer"}},
		{"an import in no layer", "server", []string{doc + `package x; import "bridgehead/extra"`}, []string{"server imports extra, which stands in no layer"}},
		{"a test imports what it likes", "test/soak", []string{doc + `package x; import ("bridgehead/server"; "example.com/x")`}, nil},
		{"a module at home", "internal/yamlpos", []string{doc + `package x; import "gopkg.in/yaml.v3"`}, nil},
		{"a module elsewhere", "policy", []string{doc + `package x; import "gopkg.in/yaml.v3"`}, []string{"policy imports gopkg.in/yaml.v3, whose home is internal/yamlpos"}},
		{
			"a module of several homes elsewhere", "ws", []string{doc + `package x; import "github.com/gorilla/websocket"`},
			[]string{"ws imports github.com/gorilla/websocket, whose homes are proxy/pump, cmd/bridgehead/connect and cmd/bridgehead/demo"},
		},
		{"a module of a longer name", "policy", []string{doc + `package x; import "golang.org/x/timewarp"`}, []string{
			"policy imports golang.org/x/timewarp, which has no home: give it one in layers_test.go and a sentence in ARCHITECTURE.md",
		}},
		{"an alias as agreed", "config", []string{doc + `package x; import certs "bridgehead/tls"`}, nil},
		{"no alias", "config", []string{doc + `package x; import "bridgehead/tls"`}, []string{"config imports tls under a name other than certs"}},
		{"an alias elsewhere", "cmd/bridgehead", []string{doc + `package x; import certs "bridgehead/tls"`}, []string{"cmd/bridgehead imports tls: only server and config may"}},
		{"a type that misleads", "tls", []string{doc + `package x; type Config struct{}`}, []string{"tls has a type Config, which readers take for another package's"}},
		{"the same type elsewhere", "config", []string{doc + `package x; type Config struct{}`}, nil},
		{"no comment", "hub", []string{`package x`, `package x`}, []string{"hub has no package comment"}},
		{"two comments", "hub", []string{doc + `package x`, doc + `package x`}, []string{"hub has package comments in 0.go and 1.go: one is enough"}},
		{"init", "hub", []string{doc + `package x; func init() {}`}, []string{"hub/0.go has a func init: only internal/xconnect may"}},
		{"init where it may be", "internal/xconnect", []string{doc + `package x; func init() {}`}, nil},
		{"a method named init", "hub", []string{doc + `package x; type t int; func (t) init() {}`}, nil},
	} {
		t.Run(test.rule, func(t *testing.T) {
			t.Parallel()
			s := source{path: test.path, files: make(map[string]*ast.File)}
			for i, text := range test.files {
				file, err := parser.ParseFile(token.NewFileSet(), "", text, parser.ParseComments)
				if err != nil {
					t.Fatal(err)
				}
				s.files[strconv.Itoa(i)+".go"] = file
			}
			if got := s.complaints(); !slices.Equal(got, test.want) {
				t.Errorf("complaints %q, want %q", got, test.want)
			}
		})
	}
}

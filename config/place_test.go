package config_test

import (
	"encoding"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"bridgehead/config"
	"bridgehead/internal/yamlpos"
)

// The schema and the reference are two prints of one walk over the structs that the file is decoded into: what the decoder knows
// of them, their comments, their defaults, and what their validation says of values that are missing or wrong.

// A place is where something may stand in the file.
type place struct {
	path     yamlpos.Path // a list has the element 0, a map the key NAME
	name     string       // its key
	owner    reflect.Type // the struct that has the key
	typ      reflect.Type // pointers removed
	comment  string
	fallback reflect.Value // its default
	required bool
	short    reflect.Type // of a key that is the short form of its struct: that struct
	words    []string     // the only ones allowed, of a text
	keys     []*place     // of a mapping
	each     *place       // element of a list or map
}

// section is what a place has under it where one has to look for keys: its own, or its elements'.
func (p *place) section() *place {
	for p.each != nil {
		p = p.each
	}
	return p
}

// at prints the path for readers: `routes[].tcp.to`, `upstreams.NAME.tls`.
func (p *place) at() string { return strings.ReplaceAll(p.path.String(), "[0]", "[]") }

// takesText tells whether a mapping may be written as a single value too.
func (p *place) takesText() bool {
	return reflect.PointerTo(p.typ).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

// fileOf is the whole file.
func fileOf(t *testing.T) *place {
	t.Helper()
	built := config.BuiltIn()
	w := walker{t: t, preset: built.Preset, comments: map[string]map[string]string{}, required: requiredPaths(), words: allowedWords()}
	return w.walk(&place{}, reflect.ValueOf(built).Elem())
}

type walker struct {
	t        *testing.T
	preset   func(any)
	comments map[string]map[string]string // by package: of Type.Field
	required map[string]bool              // by path
	words    map[string][]string          // by path
}

// walk fills in what stands at a place, whose default is v.
func (w *walker) walk(p *place, v reflect.Value) *place {
	for v.Kind() == reflect.Pointer {
		v = fresh(v.Type().Elem(), w.preset)
	}
	p.typ, p.fallback = v.Type(), v
	p.required, p.words = w.required[p.path.String()], w.words[p.path.String()]
	switch v.Kind() {
	case reflect.Struct:
		for _, f := range yamlpos.Fields(v.Type()) {
			field := v.Type().FieldByIndex(f.Index)
			owner := v.Type()
			for _, i := range f.Index[:len(f.Index)-1] {
				owner = owner.Field(i).Type
			}
			key := &place{path: p.path.Key(f.Name), name: f.Name, owner: owner, comment: w.comment(owner, field.Name)}
			if f.Short {
				key.short = v.Type()
			}
			p.keys = append(p.keys, w.walk(key, v.FieldByIndex(f.Index)))
		}
	case reflect.Slice:
		p.each = w.walk(&place{path: p.path.Index(0)}, fresh(v.Type().Elem(), w.preset))
	case reflect.Map:
		p.each = w.walk(&place{path: p.path.Key("NAME")}, fresh(v.Type().Elem(), w.preset))
	}
	return p
}

// fresh is a new value with its defaults.
func fresh(t reflect.Type, preset func(any)) reflect.Value {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	v := reflect.New(t)
	preset(v.Interface())
	return v.Elem()
}

// comment is what stands above a field in the source.
func (w *walker) comment(owner reflect.Type, field string) string {
	dir := filepath.Join("..", strings.TrimPrefix(owner.PkgPath(), "bridgehead/"))
	if w.comments[dir] == nil {
		w.comments[dir] = readComments(w.t, dir)
	}
	text := w.comments[dir][owner.Name()+"."+field]
	if text == "" {
		w.t.Errorf("%s: the field %s.%s has no comment, which the reference would print", dir, owner.Name(), field)
	}
	return text
}

// readComments are those of all struct fields in a directory, each in one line.
func readComments(t *testing.T, dir string) map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			if s, ok := spec.Type.(*ast.StructType); ok {
				fieldComments(spec.Name.Name, s, all)
			}
			return false
		})
	}
	return all
}

func fieldComments(owner string, s *ast.StructType, all map[string]string) {
	for _, f := range s.Fields.List {
		for _, name := range f.Names {
			all[owner+"."+name.Name] = strings.Join(strings.Fields(f.Doc.Text()), " ")
		}
	}
}

// missing is what validation says of a key that has to be given. Pairs of files say it for both of their keys in one place.
var missing = regexp.MustCompile(`^(?:(\w+) )?is missing`)

// requiredPaths are the keys without which validation finds a section incomplete.
func requiredPaths() map[string]bool {
	built := config.BuiltIn()
	grow(reflect.ValueOf(built).Elem(), built.Preset, "")
	built.State = "given by the environment, or by the user's home directory"
	all := map[string]bool{}
	for _, p := range slices.Concat(built.Problems(), config.BuiltIn().Problems()) {
		switch m := missing.FindStringSubmatch(p.Message); {
		case m == nil || p.Path.String() == "state":
		case m[1] != "":
			all[p.Path.Key(m[1]).String()] = true
		default:
			all[p.Path.String()] = true
		}
	}
	return all
}

// allowedWords are the lists of words that validation has for texts.
func allowedWords() map[string][]string {
	built := config.BuiltIn()
	grow(reflect.ValueOf(built).Elem(), built.Preset, "a word that nobody allows")
	all := map[string][]string{}
	for _, p := range built.Problems() {
		if p.Allowed != nil {
			all[p.Path.String()] = p.Allowed
		}
	}
	return all
}

// grow gives every list, map and pointer below v one value with its defaults and, unless text is empty, every text that text.
func grow(v reflect.Value, preset func(any), text string) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(fresh(v.Type().Elem(), preset).Addr())
		grow(v.Elem(), preset, text)
	case reflect.Struct:
		for _, f := range yamlpos.Fields(v.Type()) {
			grow(v.FieldByIndex(f.Index), preset, text)
		}
	case reflect.Slice:
		if text != "" || !yamlpos.TakesText(v.Type().Elem()) {
			v.Set(reflect.Append(reflect.MakeSlice(v.Type(), 0, 1), fresh(v.Type().Elem(), preset)))
			grow(v.Index(0), preset, text)
		}
	case reflect.Map:
		value := fresh(v.Type().Elem(), preset)
		grow(value, preset, text)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf("NAME"), value)
	case reflect.String:
		if text != "" {
			v.SetString(text)
		}
	}
}

package yamlpos

import (
	"encoding"
	"reflect"
	"slices"

	"gopkg.in/yaml.v3"
)

// A file without aliases has fewer values than bytes. Aliases of aliases could ask for more than any machine has room for: they
// may multiply a file by maxReuse.
const maxReuse = 16

// Decoding says how a document becomes a struct.
type Decoding struct {
	// Lookup finds `${NAME}` in the environment.
	Lookup func(name string) (string, bool)
	// Dir is where relative paths in `${file:}` begin.
	Dir string
	// Preset is given a pointer to each value that is new in the document (an element of a list, a new value in a map, what a
	// pointer points to) and sets its defaults before the document is laid over it. May be nil.
	Preset func(fresh any)
}

// Decode lays the document over what v points to and reports all that does not fit. Keys are decoded in the order of the
// struct's fields, so that a Preset may use what an earlier field got. Maps merge; lists and single values replace.
//
// Durations are written `30s` or `off`; a list of single values may be written as one of them; an
// [encoding.TextUnmarshaler] takes single values, and if it is a struct also a mapping: the field whose tag has the option
// `short` then takes the same text.
func (d *Document) Decode(v any, how Decoding) *Problems {
	dec := decoder{
		problems: d.Problems(), preset: how.Preset, left: maxReuse * d.size,
		expander: expander{how.Lookup, how.Dir},
	}
	if dec.preset == nil {
		dec.preset = func(any) {}
	}
	dec.value(d.tree.root, nil, reflect.ValueOf(v).Elem())
	return dec.problems
}

type decoder struct {
	expander
	problems *Problems
	preset   func(any)
	left     int // values that may still be decoded
}

// value decodes one node.
func (d *decoder) value(n *yaml.Node, at Path, v reflect.Value) {
	if n = resolve(n); !d.sound(n, at) {
		return
	}
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			v.Set(d.fresh(v.Type().Elem()))
		}
		d.value(n, at, v.Elem())
		return
	}
	_, isText := reflect.TypeAssert[encoding.TextUnmarshaler](v.Addr())
	switch {
	case isText && n.Kind == yaml.ScalarNode:
		d.textual(n, at, v)
	case v.Kind() == reflect.Struct:
		d.structure(n, at, v)
	case v.Kind() == reflect.Map:
		d.mapping(n, at, v)
	case v.Kind() == reflect.Slice:
		d.list(n, at, v)
	case n.Kind != yaml.ScalarNode:
		d.problems.fail(n, at, "must be a single value, not %s", kind(n))
	default:
		d.scalar(n, at, v)
	}
}

// coreTags are the tags that may be written out: they change nothing.
var coreTags = map[string]bool{
	"!!str": true, "!!int": true, "!!float": true, "!!bool": true, "!!null": true, "!!map": true, "!!seq": true,
}

// sound reports what is wrong with a node whatever it is decoded into.
func (d *decoder) sound(n *yaml.Node, at Path) bool {
	d.left--
	switch {
	case d.left == 0:
		d.problems.fail(n, at, "the file has too many values; aliases multiply them")
	case d.left < 0:
	case n.Style&yaml.TaggedStyle != 0 && !coreTags[n.ShortTag()]:
		d.problems.fail(n, at, "the tag %s is not understood; remove it", n.Tag)
	case isEmpty(n):
		d.problems.fail(n, at, "is empty; give it a value or remove it")
	default:
		return true
	}
	return false
}

// fresh is a pointer to a new value with its defaults.
func (d *decoder) fresh(t reflect.Type) reflect.Value {
	p := reflect.New(t)
	d.preset(p.Interface())
	return p
}

func (d *decoder) structure(n *yaml.Node, at Path, v reflect.Value) {
	if !d.isMapping(n, at) {
		return
	}
	all := fields(v.Type())
	given := map[string]*yaml.Node{}
	for _, e := range d.problems.tree.entries(n) {
		if !slices.ContainsFunc(all, func(f field) bool { return f.name == e.key.Value }) {
			message, meant := unknown(e.key.Value, all)
			d.problems.tell(e.key, at, message)
			d.problems.markBroken(at.Key(meant))
			continue
		}
		if given[e.key.Value] == nil {
			given[e.key.Value] = e.value
		}
	}
	slices.SortStableFunc(all, func(a, b field) int { return shortFirst(a) - shortFirst(b) })
	for _, f := range all {
		switch value := given[f.name]; {
		case value == nil:
		case f.short:
			d.short(value, at.Key(f.name), v)
		default:
			d.value(value, at.Key(f.name), v.FieldByIndex(f.index))
		}
	}
}

// shortFirst orders fields: the short form sets the others too, which then may override it.
func shortFirst(f field) int {
	if f.short {
		return 0
	}
	return 1
}

// short decodes a key whose value is the short form of the whole struct.
func (d *decoder) short(n *yaml.Node, at Path, v reflect.Value) {
	if n = resolve(n); !d.sound(n, at) {
		return
	}
	if n.Kind != yaml.ScalarNode {
		d.problems.fail(n, at, "must be a single value, not %s", kind(n))
		return
	}
	d.textual(n, at, v)
}

func (d *decoder) mapping(n *yaml.Node, at Path, v reflect.Value) {
	if !d.isMapping(n, at) {
		return
	}
	if v.IsNil() {
		v.Set(reflect.MakeMap(v.Type()))
	}
	for _, e := range d.problems.tree.entries(n) {
		key := reflect.ValueOf(e.key.Value).Convert(v.Type().Key())
		value := d.fresh(v.Type().Elem()).Elem()
		if old := v.MapIndex(key); old.IsValid() {
			value.Set(clone(old))
		}
		d.mapValue(e.value, at.Key(e.key.Value), value)
		v.SetMapIndex(key, value)
	}
}

// mapValue decodes a value of a map. Texts there are the user's own: they may be empty, and `false` is no `off`.
func (d *decoder) mapValue(n *yaml.Node, at Path, v reflect.Value) {
	n = resolve(n)
	if v.Kind() != reflect.String || n.Kind != yaml.ScalarNode {
		d.value(n, at, v)
	} else if d.sound(n, at) {
		if text, ok := d.text(n, at); ok {
			v.SetString(text)
		}
	}
}

// isMapping reports a node that is no mapping, and the keys of one that mean nothing.
func (d *decoder) isMapping(n *yaml.Node, at Path) bool {
	if n.Kind != yaml.MappingNode {
		d.problems.fail(n, at, "must be a mapping, not %s", kind(n))
		return false
	}
	first := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch {
		case key.Kind != yaml.ScalarNode || key.Value == "":
			d.problems.fail(key, at, "a key must be a name")
			return false
		case isMerge(key):
			if slices.ContainsFunc(sources(value), func(s *yaml.Node) bool { return s.Kind != yaml.MappingNode }) {
				d.problems.fail(value, at.Key("<<"), "must name a mapping, or a list of mappings")
			}
		case first[key.Value] > 0:
			d.problems.fail(key, at.Key(key.Value), "stands here twice; the first is in line %d", first[key.Value])
		default:
			first[key.Value] = key.Line
		}
	}
	return true
}

func (d *decoder) list(n *yaml.Node, at Path, v reflect.Value) {
	element := v.Type().Elem()
	list := reflect.MakeSlice(v.Type(), 0, len(n.Content))
	switch {
	case n.Kind == yaml.SequenceNode:
		for i, item := range n.Content {
			value := d.fresh(element).Elem()
			d.value(item, at.Index(i), value)
			list = reflect.Append(list, value)
		}
	case n.Kind == yaml.ScalarNode && takesText(element):
		value := d.fresh(element).Elem()
		d.value(n, at, value)
		list = reflect.Append(list, value)
	case takesText(element):
		d.problems.fail(n, at, "must be a list or a single value, not %s", kind(n))
	default:
		d.problems.fail(n, at, "must be a list, not %s; begin each element with a dash", kind(n))
	}
	v.Set(list)
}

// takesText tells whether a type is decoded from a single value.
func takesText(t reflect.Type) bool {
	if reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
		return true
	}
	switch t.Kind() {
	case reflect.Struct, reflect.Map, reflect.Slice, reflect.Pointer:
		return false
	default:
		return true
	}
}

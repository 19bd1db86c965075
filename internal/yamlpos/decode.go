package yamlpos

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strings"

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
	// Borrowed says what keys of other programs are called here. Theirs are in lower case, without dashes and underscores. It only
	// helps to say what is wrong, and may be nil.
	Borrowed map[string]string
	// Preset is given a pointer to each value that is new in the document (an element of a list, a new value in a map, what a
	// pointer points to) and sets its defaults before the document is laid over it. May be nil.
	Preset func(fresh any)
}

// Decode lays the document over what v points to and reports all that does not fit. Keys are decoded in the order of the
// struct's fields, so that a Preset may use what an earlier field got. Maps merge, unless the field's tag has the option `whole`;
// lists and single values replace.
//
// Durations are written `30s` or `off`; a list of single values may be written as one of them; an
// [encoding.TextUnmarshaler] takes single values, and if it is a struct also a mapping: the field whose tag has the option
// `short` then takes the same text.
func (d *Document) Decode(v any, how Decoding) *Problems {
	dec := decoder{
		problems: d.Problems(), preset: how.Preset, borrowed: how.Borrowed, left: maxReuse * d.size,
		expander: expander{how.Lookup, how.Dir}, root: reflect.TypeOf(v).Elem(),
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
	borrowed map[string]string
	root     reflect.Type // of the whole document
	left     int          // values that may still be decoded
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
		d.notSingle(n, at, "a single value")
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
	case d.left == 0: // nothing is to be said of the rest
		d.problems.fail(n, nil, "the file has too many values; aliases multiply them")
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
	all := Fields(v.Type())
	if !d.isMapping(n, at, names(all)...) {
		return
	}
	given := map[string]*yaml.Node{}
	for _, e := range d.problems.tree.entries(n) {
		if !slices.ContainsFunc(all, func(f Field) bool { return f.Name == e.key.Value }) {
			if d.problems.full() {
				break
			}
			message, meant := d.unknown(e.key.Value, all)
			d.problems.tell(e.key, at, message)
			d.problems.markBroken(at.Key(meant))
			continue
		}
		if given[e.key.Value] == nil {
			given[e.key.Value] = e.value
		}
	}
	slices.SortStableFunc(all, func(a, b Field) int { return shortFirst(a) - shortFirst(b) })
	for _, f := range all {
		switch value := given[f.Name]; {
		case value == nil:
		case f.Short:
			d.short(value, at.Key(f.Name), v)
		case f.Whole:
			v.FieldByIndex(f.Index).SetZero()
			fallthrough
		default:
			d.value(value, at.Key(f.Name), v.FieldByIndex(f.Index))
		}
	}
}

// shortFirst orders fields: the short form sets the others too, which then may override it.
func shortFirst(f Field) int {
	if f.Short {
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
		d.notSingle(n, at, "a single value")
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

// isMapping reports a node that is no mapping, and the keys of one that mean nothing. known are the keys it may have, if they
// are few.
func (d *decoder) isMapping(n *yaml.Node, at Path, known ...string) bool {
	if n.Kind != yaml.MappingNode {
		d.problems.fail(n, at, "%s", notMapping(n, known))
		return false
	}
	first := map[string]int{}
	for i := 0; i+1 < len(n.Content) && !d.problems.full(); i += 2 {
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

func notMapping(n *yaml.Node, known []string) string {
	if key, value, ok := strings.Cut(n.Value, ":"); ok && slices.Contains(known, key) {
		return fmt.Sprintf("put a space behind the colon: `%s: %s`", key, value)
	}
	if known == nil {
		return "must be a mapping, not " + kind(n)
	}
	return "must be a mapping, not " + kind(n) + "; its keys may be " + strings.Join(known, ", ")
}

// notSingle reports a list or a mapping in the place of what is wanted.
func (d *decoder) notSingle(n *yaml.Node, at Path, wanted string) {
	mend := ""
	if n.Kind == yaml.MappingNode && len(n.Content) == 2 && isEmpty(n.Content[1]) {
		mend = fmt.Sprintf("; quote it: \"{%s}\"", n.Content[0].Value)
		if n.Content[0].Kind == yaml.MappingNode {
			mend = "; nothing fills in {{…}} here, but ${NAME} from the environment"
		}
	}
	d.problems.fail(n, at, "must be %s, not %s%s", wanted, kind(n), mend)
}

func (d *decoder) list(n *yaml.Node, at Path, v reflect.Value) {
	element := v.Type().Elem()
	list := reflect.MakeSlice(v.Type(), 0, len(n.Content))
	switch {
	case n.Kind == yaml.SequenceNode:
		for i, item := range n.Content {
			if d.problems.full() {
				break
			}
			value := d.fresh(element).Elem()
			d.value(item, at.Index(i), value)
			list = reflect.Append(list, value)
		}
	case n.Kind == yaml.ScalarNode && TakesText(element):
		value := d.fresh(element).Elem()
		d.value(n, at, value)
		list = reflect.Append(list, value)
	case TakesText(element):
		d.notSingle(n, at, "a list or a single value")
	default:
		d.problems.fail(n, at, "must be a list, not %s; begin each element with a dash", kind(n))
	}
	v.Set(list)
}

// TakesText tells whether a type is decoded from a single value.
func TakesText(t reflect.Type) bool {
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

package yamlpos

import (
	"bytes"
	"encoding"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// Encode prints a struct as a file that [Document.Decode] reads to the same values, except for secrets. What says nothing
// is left out: empty texts, lists and maps that were never given, and sections in which every switch is off.
func Encode(v any) ([]byte, error) {
	n := encode(reflect.ValueOf(v))
	if n == nil {
		return nil, nil
	}
	var b bytes.Buffer
	encoder := yaml.NewEncoder(&b)
	encoder.SetIndent(2)
	if err := encoder.Encode(n); err != nil {
		return nil, err
	}
	return b.Bytes(), encoder.Close()
}

// encode gives nil for what is left out.
func encode(v reflect.Value) *yaml.Node {
	if n := encodeText(v); n != nil {
		return n
	}
	switch v.Kind() {
	case reflect.Pointer:
		return encodePointer(v)
	case reflect.Struct:
		return encodeStruct(v)
	case reflect.Map:
		return encodeMap(v)
	case reflect.Slice:
		return encodeList(v)
	case reflect.String:
		if v.Len() == 0 {
			return nil
		}
		return text(v.String())
	case reflect.Bool:
		return plain(strconv.FormatBool(v.Bool()))
	case reflect.Float64, reflect.Float32:
		return plain(strconv.FormatFloat(v.Float(), 'g', -1, 64))
	default:
		return plain(strconv.FormatInt(v.Int(), 10))
	}
}

// encodeText prints durations and what marshals itself; a struct does only if its text says all of it.
func encodeText(v reflect.Value) *yaml.Node {
	if d, ok := reflect.TypeAssert[time.Duration](v); ok {
		return plain(Duration(d))
	}
	m, ok := reflect.TypeAssert[encoding.TextMarshaler](v)
	if !ok || v.Kind() == reflect.Pointer {
		return nil
	}
	content, err := m.MarshalText()
	if err != nil || len(content) == 0 || v.Kind() == reflect.Struct && !saysAll(content, v) {
		return nil
	}
	return text(string(content))
}

// saysAll tells whether a text decodes to the value it was made from. A type without a way back is its text.
func saysAll(content []byte, v reflect.Value) bool {
	back := reflect.New(v.Type())
	u, ok := reflect.TypeAssert[encoding.TextUnmarshaler](back)
	return !ok || u.UnmarshalText(content) == nil && reflect.DeepEqual(back.Elem().Interface(), v.Interface())
}

// encodePointer prints a section that is there even if nothing stands in it.
func encodePointer(v reflect.Value) *yaml.Node {
	if v.IsNil() {
		return nil
	}
	if n := encode(v.Elem()); n != nil {
		return n
	}
	return &yaml.Node{Kind: yaml.MappingNode, Style: yaml.FlowStyle}
}

func encodeStruct(v reflect.Value) *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode}
	says := false
	for _, f := range Fields(v.Type()) {
		value := encodeField(f, v)
		if value == nil {
			continue
		}
		says = says || value.Value != "false"
		n.Content = append(n.Content, text(f.Name), value)
	}
	if !says {
		return nil
	}
	return n
}

// encodeField prints a field; one that is the short form of its struct prints as that.
func encodeField(f Field, v reflect.Value) *yaml.Node {
	if m, ok := reflect.TypeAssert[encoding.TextMarshaler](v); ok && f.Short {
		if content, err := m.MarshalText(); err == nil {
			return text(string(content))
		}
	}
	return encode(v.FieldByIndex(f.Index))
}

func encodeMap(v reflect.Value) *yaml.Node {
	if v.Len() == 0 {
		return nil
	}
	n := &yaml.Node{Kind: yaml.MappingNode}
	values := map[string]reflect.Value{}
	for _, k := range v.MapKeys() {
		values[k.String()] = v.MapIndex(k)
	}
	for _, k := range slices.Sorted(maps.Keys(values)) {
		value := encode(values[k])
		if value == nil {
			value = encodeNothing(values[k])
		}
		n.Content = append(n.Content, text(k), value)
	}
	return n
}

// encodeNothing prints what would be left out, where something has to stand.
func encodeNothing(v reflect.Value) *yaml.Node {
	switch v.Kind() {
	case reflect.Struct, reflect.Map, reflect.Pointer:
		return &yaml.Node{Kind: yaml.MappingNode, Style: yaml.FlowStyle}
	case reflect.Slice:
		return &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
	default:
		return text("")
	}
}

// encodeList prints a list of single values in one line, and leaves out one that was never given: `[]` replaces a default.
func encodeList(v reflect.Value) *yaml.Node {
	if v.IsNil() {
		return nil
	}
	n := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
	for i := range v.Len() {
		value := encode(v.Index(i))
		if value == nil {
			value = encodeNothing(v.Index(i))
		}
		if value.Kind != yaml.ScalarNode {
			n.Style = 0
		}
		n.Content = append(n.Content, value)
	}
	return n
}

// text is a node that decodes to the same characters: quoted if they would mean something else, `${` doubled.
func text(s string) *yaml.Node {
	n := &yaml.Node{}
	n.SetString(strings.ReplaceAll(s, "${", "$${"))
	return n
}

// plain is a node that is printed as it is.
func plain(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Value: s} }

// Duration prints a duration as people write it: `1h30m`, and `off` for none.
func Duration(d time.Duration) string {
	if d == 0 {
		return "off"
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

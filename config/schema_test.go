package config_test

import (
	"bytes"
	"encoding/json"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"bridgehead/config"
	"bridgehead/internal/unit"
	"bridgehead/internal/yamlpos"
)

func TestTheSchemaIsThatOfTheStructs(t *testing.T) {
	t.Parallel()
	var want bytes.Buffer
	text, err := encodeJSON(schemaOf(fileOf(t)))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Indent(&want, text, "", "  "); err != nil {
		t.Fatal(err)
	}
	want.WriteByte('\n')
	golden(t, "schema.json", want.Bytes())
	if !*update && !bytes.Equal(config.Schema, want.Bytes()) {
		t.Error("the program has another schema in it")
	}
}

// golden compares a generated file with what it should be, or writes it.
func golden(t *testing.T, path string, want []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s is stale (%v): go test ./config -update writes it anew", path, err)
	}
}

// An object prints as JSON with its members in their order.
type object []member

type member struct {
	name  string
	value any
}

// MarshalJSON prints the members.
func (o object) MarshalJSON() ([]byte, error) {
	b := []byte("{")
	for i, m := range o {
		name, err := encodeJSON(m.name)
		if err != nil {
			return nil, err
		}
		value, err := encodeJSON(m.value)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(append(b, name...), ':'), value...)
	}
	return append(b, '}'), nil
}

// encodeJSON leaves <, > and & as they are.
func encodeJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(v)
	return bytes.TrimSpace(b.Bytes()), err
}

// reference is the pattern of a text with `${NAME}` in it: what it stands for shows when the file is read.
const reference = `\$\{`

// The patterns of single values, as texts.
const (
	numbers   = `(?:[0-9]+\.?[0-9]*|\.[0-9]+)`
	booleans  = `^(?:true|True|TRUE|on|yes|false|False|FALSE|off|no)$`
	integers  = `^(?:[+-]?[0-9]+|off|false)$`
	durations = `^(?:\+?(?:` + numbers + `(?:ns|us|µs|μs|ms|s|m|h))+|off|false|[+-]?0)$`
	sizes     = `^(?:` + numbers + `\s*(?:[KkMmGg][Ii]?)?[Bb]|[0-9]+\.?0*|off|false)$`
	rates     = `^(?:\s*` + numbers + `\s*(?:(?:[KkMmGg][Ii]?)?[Bb])?\s*/\s*[smh]\s*|off|false|0)$`
)

// scalars are the definitions of single values. YAML has read plain numbers and words before a schema sees them.
var scalars = object{
	{"text", object{{"type", []string{"string", "number", "boolean"}}, {"minLength", 1}}},
	{"boolean", anyOf(object{{"type", "boolean"}}, pattern(booleans))},
	{"integer", anyOf(object{{"type", "integer"}, {"minimum", 0}}, object{{"const", false}}, pattern(integers))},
	{"duration", anyOf(pattern(durations), object{{"enum", []any{0, false}}})},
	{"size", anyOf(pattern(sizes), object{{"type", "integer"}, {"minimum", 0}}, object{{"const", false}})},
	{"rate", anyOf(pattern(rates), object{{"enum", []any{0, false}}})},
}

func anyOf(choices ...object) object { return object{{"anyOf", choices}} }

func pattern(p string) object { return object{{"type", "string"}, {"pattern", p + "|" + reference}} }

// definitions names the scalar that a type is; others are by their kind.
var definitions = map[reflect.Type]string{
	reflect.TypeFor[time.Duration](): "duration", reflect.TypeFor[unit.Size](): "size", reflect.TypeFor[unit.Rate](): "rate",
}

func scalar(t reflect.Type) object {
	name := definitions[t]
	switch kind := t.Kind(); {
	case name != "":
	case kind == reflect.Bool:
		name = "boolean"
	case kind == reflect.Int:
		name = "integer"
	default:
		name = "text"
	}
	return object{{"$ref", "#/$defs/" + name}}
}

func schemaOf(file *place) object {
	return append(object{
		{"$schema", "https://json-schema.org/draft/2020-12/schema"},
		{"title", "The configuration of bridgehead"},
	}, append(file.schema(), member{"$defs", scalars})...)
}

// described is the schema of a key with its comment and its default.
func (p *place) described() object {
	s := append(object{{"description", p.comment}}, p.schema()...)
	if fallback := p.fallbackValue(); fallback != nil {
		s = append(s, member{"default", fallback})
	}
	return s
}

// fallbackValue is the default as it would stand in the file, or nil if there is none, or what a mapping's own keys tell.
func (p *place) fallbackValue() (v any) {
	if p.keys != nil && !p.takesText() || p.fallback.IsZero() && p.fallback.Kind() == reflect.Slice {
		return nil
	}
	text, err := yamlpos.Encode(p.fallback.Interface())
	if err != nil || yaml.Unmarshal(text, &v) != nil {
		panic(p.at() + " has a default that cannot be printed")
	}
	return v
}

// schema is what may stand at a place.
func (p *place) schema() object {
	switch {
	case p.short != nil:
		return scalar(p.short)
	case p.words != nil:
		return oneOfWords(p.words)
	case p.keys != nil && p.takesText():
		return anyOf(scalar(p.typ), p.mapping())
	case p.keys != nil:
		return p.mapping()
	case p.typ.Kind() == reflect.Slice:
		return p.list()
	case p.typ.Kind() == reflect.Map && p.each.typ.Kind() == reflect.String: // texts in a map may be empty
		return object{{"type", "object"}, {"additionalProperties", object{{"type", []string{"string", "number", "boolean"}}}}}
	case p.typ.Kind() == reflect.Map:
		return object{{"type", "object"}, {"additionalProperties", p.each.schema()}}
	default:
		return scalar(p.typ)
	}
}

// oneOfWords takes some words; YAML or a tool may have made a boolean of `off`.
func oneOfWords(words []string) object {
	all := []any{}
	for _, word := range words {
		all = append(all, word)
	}
	if slices.Contains(words, "off") {
		all = append(all, false)
	}
	return anyOf(object{{"enum", all}}, object{{"type", "string"}, {"pattern", reference}})
}

func (p *place) list() object {
	list := object{{"type", "array"}, {"items", p.each.schema()}}
	if p.required {
		list = append(list, member{"minItems", 1})
	}
	if !yamlpos.TakesText(p.each.typ) {
		return list
	}
	single := p.each.schema()
	if p.each.keys != nil {
		single = scalar(p.each.typ) // the short form; the long one needs its brackets
	}
	return anyOf(single, list)
}

func (p *place) mapping() object {
	var keys object
	required := []string{}
	var bridges []object
	for _, key := range p.keys {
		keys = append(keys, member{key.name, key.described()})
		if key.required {
			required = append(required, key.name)
		}
		if p.typ == reflect.TypeFor[config.Route]() && slices.Contains(config.BridgeKeys, key.name) {
			bridges = append(bridges, object{{"required", []string{key.name}}})
		}
	}
	s := object{{"type", "object"}, {"additionalProperties", false}, {"properties", keys}}
	if len(required) > 0 {
		s = append(s, member{"required", required})
	}
	if bridges != nil {
		s = append(s, member{"oneOf", bridges})
	}
	return s
}

// The patterns and the parsers take the same texts.
func TestPatternsTakeWhatIsDecoded(t *testing.T) {
	t.Parallel()
	type values struct {
		Boolean  bool          `yaml:"boolean"`
		Integer  int           `yaml:"integer"`
		Duration time.Duration `yaml:"duration"`
		Size     unit.Size     `yaml:"size"`
		Rate     unit.Rate     `yaml:"rate"`
	}
	texts := strings.Fields(`true True tRUE on On yes no off false FALSE 0 1 +1 -0 1.0 1.5 .5 5. . 30 30s 1h30m 1.5h .5s 1d 5 5us 5µs 5μs +5s s
		64KiB 64kib 64K 64k 1MB 1.5MiB 1B 1b 1Ki 1GiB 1TiB 50/s 600/m 10/h 4MiB/s 50/d /s 50/ 0.5/s 4K/s x 1e3 0x10`)
	for _, m := range scalars {
		definition, err := encodeJSON(m.value)
		found := regexp.MustCompile(`"pattern":("[^"]*")`).FindSubmatch(definition)
		if err != nil || found == nil {
			continue // any text
		}
		var p string
		if err := json.Unmarshal(found[1], &p); err != nil {
			t.Fatal(err)
		}
		takes := regexp.MustCompile(p)
		for _, text := range append(texts, "16 KiB", "50 / s", "20 s", "") {
			doc, err := yamlpos.Parse("x.yaml", []byte(m.name+": '"+text+"'\n"))
			if err != nil {
				t.Fatal(err)
			}
			err = doc.Decode(new(values), yamlpos.Decoding{Lookup: lookup}).Err()
			if takes.MatchString(text) != (err == nil) {
				t.Errorf("%s %q: the schema takes it: %t; the decoder says %v", m.name, text, takes.MatchString(text), err)
			}
		}
	}
}

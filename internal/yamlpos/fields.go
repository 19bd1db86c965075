package yamlpos

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// A Field is a key that a struct takes.
type Field struct {
	Name  string
	Index []int // for reflect.Value.FieldByIndex
	Type  reflect.Type
	Short bool // its value is what the struct's short form, a single value, would be
	Whole bool // a value replaces what lay under it, also if it is a mapping
}

// Fields are the keys that a struct type takes, in the order of the type. Fields without a yaml tag, or with `-`, are none;
// those of an inlined struct count as the struct's own.
func Fields(t reflect.Type) []Field {
	var all []Field
	for i := range t.NumField() {
		f := t.Field(i)
		name, option, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case option == "inline":
			for _, inner := range Fields(f.Type) {
				inner.Index = append([]int{i}, inner.Index...)
				all = append(all, inner)
			}
		case name != "" && name != "-":
			all = append(all, Field{name, []int{i}, f.Type, option == "short", option == "whole"})
		}
	}
	return all
}

func names(all []Field) []string {
	var list []string
	for _, f := range all {
		list = append(list, f.Name)
	}
	return list
}

// unknown says of a key that no field has what its writer may have meant. The second result is the key that was meant, if
// it is one of the fields.
func (d *decoder) unknown(key string, all []Field) (message, meant string) {
	message, known := fmt.Sprintf("unknown key %q", key), names(all)
	ours := d.borrowed[squeezed(key)]
	if before, _, colon := strings.Cut(key, ":"); colon && slices.Contains(known, before) {
		return message + fmt.Sprintf("; put a space behind the colon of %q", before), before
	}
	if sections := sectionsWith(key, all); len(sections) > 0 {
		return message + "; it belongs under " + or(sections), ""
	}
	if slices.Contains(known, ours) {
		return message + fmt.Sprintf("; here it is called %q", ours), ours
	}
	if meant = Suggest(key, known); meant != "" {
		return message + DidYouMean(key, known), meant
	}
	if sections := homes(key, d.root, ""); len(sections) > 0 {
		return message + "; it belongs " + under(sections), ""
	}
	if sections := cmp.Or(under(sectionsWith(ours, all)), under(homes(ours, d.root, ""))); sections != "" {
		return message + fmt.Sprintf("; here it is called %q, and belongs %s", ours, sections), ""
	}
	return message + "; expected " + or(known), ""
}

// squeezed is a key as words of other programs are looked up: they write it with dashes, underscores or capitals.
func squeezed(key string) string {
	return strings.NewReplacer("_", "", "-", "").Replace(strings.ToLower(key))
}

// sectionsWith are the fields that are structs and take a key.
func sectionsWith(key string, all []Field) []string {
	var list []string
	for _, f := range all {
		if t, path := structOf(f.Type); t != nil && path == "" && slices.Contains(names(Fields(t)), key) {
			list = append(list, f.Name)
		}
	}
	return list
}

// homes are the sections at and below a struct that take a key, such as `routes[].socket`, and "" if the struct itself does.
func homes(key string, t reflect.Type, at string) []string {
	var list []string
	for _, f := range Fields(t) {
		if f.Name == key {
			list = append(list, strings.TrimPrefix(at, "."))
		}
		if inner, suffix := structOf(f.Type); inner != nil {
			list = append(list, homes(key, inner, at+"."+f.Name+suffix)...)
		}
	}
	return list
}

// under says where a key belongs, or "" if it belongs nowhere.
func under(sections []string) string {
	switch inner := slices.DeleteFunc(sections, func(s string) bool { return s == "" }); {
	case len(inner) < len(sections) && len(inner) == 0:
		return "in the first column"
	case len(inner) < len(sections):
		return "in the first column, or under " + or(inner)
	case len(inner) == 0:
		return ""
	default:
		return "under " + or(inner)
	}
}

// structOf is the struct that a type is, points to, or has as its elements, and what leads there in a path.
func structOf(t reflect.Type) (s reflect.Type, path string) {
	for {
		switch t.Kind() {
		case reflect.Pointer:
		case reflect.Slice:
			path += "[]"
		case reflect.Map:
			path += ".NAME"
		case reflect.Struct:
			return t, path
		default:
			return nil, ""
		}
		t = t.Elem()
	}
}

// or joins words as in `a, b or c`.
func or(words []string) string {
	last := len(words) - 1
	if last < 1 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

package yamlpos

import (
	"fmt"
	"reflect"
	"strings"
)

// A field is a key that a struct takes.
type field struct {
	name  string
	index []int // for reflect.Value.FieldByIndex
	typ   reflect.Type
	short bool // its value is what the struct's short form, a single value, would be
}

// fields are the keys that a struct type takes, in the order of the type. Fields without a yaml tag, or with `-`, are none;
// those of an inlined struct count as the struct's own.
func fields(t reflect.Type) []field {
	var all []field
	for i := range t.NumField() {
		f := t.Field(i)
		name, option, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case option == "inline":
			for _, inner := range fields(f.Type) {
				inner.index = append([]int{i}, inner.index...)
				all = append(all, inner)
			}
		case name != "" && name != "-":
			all = append(all, field{name, []int{i}, f.Type, option == "short"})
		}
	}
	return all
}

func names(all []field) []string {
	var list []string
	for _, f := range all {
		list = append(list, f.name)
	}
	return list
}

// unknown says of a key that no field has what its writer may have meant. The second result is the key that was meant, if
// it is one of the fields.
func unknown(key string, all []field) (message, meant string) {
	message = fmt.Sprintf("unknown key %q", key)
	if sections := sectionsWith(key, all); len(sections) > 0 {
		return message + "; it belongs under " + or(sections), ""
	}
	if meant = Suggest(key, names(all)); meant != "" {
		return message + DidYouMean(key, names(all)), meant
	}
	return message + "; expected " + or(names(all)), ""
}

// sectionsWith are the fields that are structs and take a key.
func sectionsWith(key string, all []field) []string {
	var list []string
	for _, f := range all {
		t := f.typ
		if t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		if t.Kind() != reflect.Struct {
			continue
		}
		for _, inner := range fields(t) {
			if inner.name == key {
				list = append(list, f.name)
			}
		}
	}
	return list
}

// or joins words as in `a, b or c`.
func or(words []string) string {
	last := len(words) - 1
	if last < 1 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

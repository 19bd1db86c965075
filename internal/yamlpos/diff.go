package yamlpos

import "reflect"

// Diff names the keys in which two structs of the same type differ, such as `limits` and `socket.ping`, in the order of the type.
// Sections are looked into; lists and maps differ as a whole, and so does a section that only one of the two has.
func Diff(a, b any) []string {
	return diff("", reflect.Indirect(reflect.ValueOf(a)), reflect.Indirect(reflect.ValueOf(b)))
}

func diff(prefix string, a, b reflect.Value) (keys []string) {
	for _, f := range Fields(a.Type()) {
		x, y := a.FieldByIndex(f.Index), b.FieldByIndex(f.Index)
		if x.Kind() == reflect.Pointer && !x.IsNil() && !y.IsNil() {
			x, y = x.Elem(), y.Elem()
		}
		switch {
		case reflect.DeepEqual(x.Interface(), y.Interface()):
		case x.Kind() == reflect.Struct && len(Fields(x.Type())) > 0:
			keys = append(keys, diff(prefix+f.Name+".", x, y)...)
		default:
			keys = append(keys, prefix+f.Name)
		}
	}
	return keys
}

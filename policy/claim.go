package policy

import (
	"encoding/json"
	"strconv"
	"strings"
)

// Claims are what a token, a certificate or an authentication service says of a client: the members of a JSON object. Numbers are
// [json.Number]. A name with dots, `realm_access.roles`, is a member of that name or, if there is none, one of a member that is an
// object itself.
type Claims map[string]any

// Find gives the member of a name.
func (c Claims) Find(name string) (value any, ok bool) {
	if value, ok = c[name]; ok {
		return value, true
	}
	for i := range len(name) {
		if name[i] != '.' {
			continue
		}
		if inner, isObject := c[name[:i]].(map[string]any); isObject {
			return Claims(inner).Find(name[i+1:])
		}
	}
	return nil, false
}

// Texts are the member of a name as text: the one of a single value, and those of a list. Objects, and lists within lists, have
// none.
func (c Claims) Texts(name string) []string {
	value, _ := c.Find(name)
	list, isList := value.([]any)
	if !isList {
		list = []any{value}
	}
	var texts []string
	for _, item := range list {
		switch item := item.(type) {
		case string:
			texts = append(texts, item)
		case json.Number:
			texts = append(texts, item.String())
		case bool:
			texts = append(texts, strconv.FormatBool(item))
		}
	}
	return texts
}

// Pick gives those of the names that are there.
func (c Claims) Pick(names ...string) Claims {
	var picked Claims
	for _, name := range names {
		if value, ok := c.Find(name); ok {
			if picked == nil {
				picked = make(Claims, len(names))
			}
			picked[strings.Clone(name)] = value
		}
	}
	return picked
}

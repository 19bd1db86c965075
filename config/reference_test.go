package config_test

import (
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"bridgehead/internal/unit"
	"bridgehead/internal/yamlpos"
	"bridgehead/policy"
)

func TestTheReferenceIsThatOfTheStructs(t *testing.T) {
	t.Parallel()
	introduction, err := os.ReadFile("testdata/introduction.md")
	if err != nil {
		t.Fatal(err)
	}
	r := referencer{told: map[reflect.Type]*place{}}
	r.Write(introduction)
	r.section(fileOf(t))
	golden(t, "../docs/configuration.md", []byte(strings.TrimRight(r.String(), "\n")+"\n"))
	checkLinks(t, r.String())
}

// checkLinks reports links within a text that lead to no heading.
func checkLinks(t *testing.T, text string) {
	t.Helper()
	anchors := map[string]bool{}
	for _, heading := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(text, -1) {
		anchors[anchor(heading[1])] = true
	}
	for _, link := range regexp.MustCompile(`\]\(#([^)]*)\)`).FindAllStringSubmatch(text, -1) {
		if !anchors[link[1]] {
			t.Errorf("#%s leads nowhere", link[1])
		}
	}
}

// A referencer prints the reference: a heading for each section of the file, with its keys.
type referencer struct {
	strings.Builder
	told map[reflect.Type]*place // the sections that have been printed, or are about to be
}

// section prints the keys of a mapping, then the sections below it.
func (r *referencer) section(p *place) {
	fmt.Fprintf(r, "\n%s %s\n\n", strings.Repeat("#", p.level()), p.title())
	r.told[p.typ] = p
	var below []*place
	for i, key := range p.keys {
		s := key.section()
		if s.keys != nil && r.told[s.typ] == nil && definitions[s.typ] == "" {
			r.told[s.typ] = s
			below = append(below, s)
		}
		switch other := r.told[key.owner]; {
		case key.owner == p.typ || other == nil:
			r.key(key)
		case p.keys[i-1].owner != key.owner:
			r.item(fmt.Sprintf("%s: as in %s, over which they lie here.", owned(p.keys, key.owner), other.link(other.title())))
		}
	}
	for _, s := range below {
		r.section(s)
	}
}

// owned are the names of the keys that a struct inlines from another.
func owned(keys []*place, owner reflect.Type) string {
	var names []string
	for _, key := range keys {
		if key.owner == owner {
			names = append(names, "**`"+key.name+"`**")
		}
	}
	return strings.Join(names, ", ")
}

// level is that of the heading.
func (p *place) level() int {
	level := 1
	for _, step := range p.path {
		if key, ok := step.(string); ok && key != "NAME" {
			level++
		}
	}
	return max(2, level)
}

func (p *place) title() string {
	if len(p.path) == 0 {
		return "The file"
	}
	return "`" + p.at() + "`"
}

// link leads to the heading of a section.
func (p *place) link(text string) string { return "[" + text + "](#" + anchor(p.title()) + ")" }

// anchor is the name that Markdown gives a heading: its letters and digits.
func anchor(title string) string {
	return strings.ReplaceAll(regexp.MustCompile(`[^a-z0-9_ -]`).ReplaceAllString(strings.ToLower(title), ""), " ", "-")
}

func (r *referencer) key(p *place) {
	about := r.kind(p)
	if p.required {
		about += ", required"
	}
	fallback := p.printedFallback()
	if fallback != "" && !strings.Contains(fallback, "\n") {
		about += ", default `" + fallback + "`"
	}
	r.item(fmt.Sprintf("**`%s`** (%s): %s", p.name, about, p.comment))
	if strings.Contains(fallback, "\n") {
		r.WriteString("  The default is\n\n  ```yaml\n  " + strings.ReplaceAll(fallback, "\n", "\n  ") + "\n  ```\n\n")
	}
}

func (p *place) printedFallback() string {
	if p.fallbackValue() == nil {
		return ""
	}
	text, err := yamlpos.Encode(p.fallback.Interface())
	if err != nil {
		panic(err) // fallbackValue did the same
	}
	return strings.TrimSpace(string(text))
}

// several says what may stand in a list of single values.
func (r *referencer) several(p *place) string {
	switch {
	case p.words != nil:
		return "of `" + strings.Join(p.words, "`, `") + "`"
	case p.keys != nil:
		return "texts or " + r.told[p.typ].link("mappings")
	default:
		return r.kind(p) + "s"
	}
}

// item prints an element of a list in lines of at most 130 columns.
func (r *referencer) item(text string) {
	column := 0
	for word := range strings.FieldsSeq("- " + text) {
		switch {
		case column == 0:
		case column+1+len([]rune(word)) > 130:
			r.WriteString("\n  ")
			column = 2
		default:
			r.WriteByte(' ')
			column++
		}
		r.WriteString(word)
		column += len([]rune(word))
	}
	r.WriteByte('\n')
}

// words are what single values are called; others are by their kind.
var words = map[reflect.Type]string{
	reflect.TypeFor[time.Duration](): "duration", reflect.TypeFor[unit.Size](): "size", reflect.TypeFor[unit.Rate](): "rate",
	reflect.TypeFor[unit.Secret](): "secret", reflect.TypeFor[policy.Network](): "network",
}

// kind says what may stand at a place, in the words of users.
func (r *referencer) kind(p *place) string {
	word := words[p.typ]
	switch kind := p.typ.Kind(); {
	case p.words != nil:
		return "`" + strings.Join(p.words, "` or `") + "`"
	case p.short != nil && words[p.short] != "":
		return words[p.short]
	case word != "":
		return word
	case kind == reflect.Struct && p.takesText():
		return "text or " + r.told[p.typ].link("mapping")
	case kind == reflect.Struct:
		return r.told[p.typ].link("section")
	case kind == reflect.Slice && yamlpos.TakesText(p.each.typ):
		return "one or more " + r.several(p.each)
	case kind == reflect.Slice:
		return "list of " + r.told[p.each.typ].link("mappings")
	case kind == reflect.Map && p.each.keys != nil:
		return "mapping of names to " + r.told[p.each.typ].link("sections")
	case kind == reflect.Map:
		return "mapping of names to texts"
	case kind == reflect.Bool:
		return "`true` or `false`"
	case kind == reflect.Int:
		return "number"
	default:
		return "text"
	}
}

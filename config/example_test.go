package config_test

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"bridgehead/config"
	"bridgehead/policy"
)

const examplePath = "../config.example.yaml"

func example(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(examplePath)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// uncomment sets every key that stands behind one hash.
func uncomment(text string) string {
	return regexp.MustCompile(`(?m)^( *)# `).ReplaceAllString(text, "$1")
}

func parseExample(t *testing.T, text string) (*config.Config, []config.Warning) {
	t.Helper()
	c, warnings, err := config.Parse(examplePath, []byte(text), func(name string) (string, bool) {
		value, ok := map[string]string{
			"JWT_SECRET": strings.Repeat("s", 32), "LINK_SECRET": strings.Repeat("s", 32),
			"WEBHOOK_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "ADMIN_TOKEN": "a", "PUSH_TOKEN": "b",
		}[name]
		return value, ok
	})
	if err != nil {
		t.Fatalf("\n%v", err)
	}
	return c, warnings
}

func TestTheExampleIsShortAndRunsAsItIs(t *testing.T) {
	t.Parallel()
	live := 0
	for line := range strings.Lines(example(t)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			live++
		}
	}
	if live > 40 {
		t.Errorf("%d lines are live, want 40 at most", live)
	}
	c, warnings := parseExample(t, example(t))
	if len(warnings) > 0 {
		t.Errorf("it has warnings: %v", warnings)
	}
	for _, l := range c.Listeners {
		if !strings.HasPrefix(l.Address[0], "127.0.0.1:8") {
			t.Errorf("it listens on %s, which may need root or reach beyond the machine", l.Address)
		}
	}
}

// A block is a key behind one hash with what belongs to it.
var block = regexp.MustCompile(`(?m)^ *# [^ ].*\n(?: *#  .*\n)*`)

func TestEachKeyOfTheExampleCanBeSetAlone(t *testing.T) {
	t.Parallel()
	text := example(t)
	blocks := block.FindAllStringIndex(text, -1)
	for _, b := range blocks {
		key := text[b[0]:b[1]]
		t.Run(strings.TrimSpace(strings.SplitN(key, ":", 2)[0]), func(t *testing.T) {
			t.Parallel()
			if needs := regexp.MustCompile(`^ *# (auth|require): `); needs.MatchString(key) { // which are nothing without who is asked
				parseExample(t, uncomment(text))
				return
			}
			parseExample(t, text[:b[0]]+uncomment(key)+text[b[1]:])
		})
	}
	if len(blocks) < 30 {
		t.Errorf("there are %d blocks: some were not looked at", len(blocks))
	}
}

func TestTheExampleHasEveryKey(t *testing.T) {
	t.Parallel()
	parseExample(t, uncomment(example(t))) // strict: it has no other keys
	var file any
	if err := yaml.Unmarshal([]byte(uncomment(example(t))), &file); err != nil {
		t.Fatal(err)
	}
	want, got := map[string]bool{}, map[string]bool{}
	collect(reflect.TypeFor[config.Config](), nil, want)
	collect(reflect.TypeFor[config.Config](), file, got)
	for key := range want {
		if !got[key] {
			t.Errorf("%s is missing", key)
		}
	}
	if len(want) < 80 {
		t.Errorf("the structs have %d keys in all: some were not looked at", len(want))
	}
}

// collect gathers the keys of a type as `upstream.TLS ca`: all that there are, or with a file those that stand in it.
func collect(t reflect.Type, file any, keys map[string]bool) {
	switch t.Kind() {
	case reflect.Pointer:
		collect(t.Elem(), file, keys)
	case reflect.Slice:
		list, isList := file.([]any)
		for _, item := range list {
			collect(t.Elem(), item, keys)
		}
		if !isList {
			collect(t.Elem(), file, keys)
		}
	case reflect.Map:
		values, _ := file.(map[string]any)
		for _, value := range values {
			collect(t.Elem(), value, keys)
		}
		if file == nil {
			collect(t.Elem(), nil, keys)
		}
	case reflect.Struct:
		collectFields(t, t.String(), file, keys)
	}
}

func collectFields(t reflect.Type, owner string, file any, keys map[string]bool) {
	given, _ := file.(map[string]any)
	for f := range t.Fields() {
		name, option, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		value, ok := given[name]
		switch {
		case option == "inline":
			collectFields(f.Type, owner, file, keys)
		case name == "" || name == "-":
		case file == nil || ok:
			// what `defaults` and a route have in common need not stand in both
			keys[strings.ReplaceAll(owner, "config.Route", "proxy.Options")+" "+name] = true
			collect(f.Type, value, keys)
		}
	}
}

func TestTheExampleShowsTheDefaults(t *testing.T) {
	t.Parallel()
	live, _ := parseExample(t, example(t))
	full, _ := parseExample(t, uncomment(example(t)))
	compare(t, "", reflect.ValueOf(*live), reflect.ValueOf(*full))
}

// compare reports values that change when the commented keys are set. Where there is no default the file shows an example.
func compare(t *testing.T, at string, live, full reflect.Value) {
	t.Helper()
	switch live.Kind() {
	case reflect.Pointer:
		if !live.IsNil() {
			compare(t, at, live.Elem(), full.Elem())
		}
	case reflect.Struct:
		if network, ok := reflect.TypeAssert[policy.Network](live); ok && network.String() != full.Interface().(policy.Network).String() {
			t.Errorf("%s: the file shows %v, the default is %v", at, full, live)
		}
		for i := range live.NumField() {
			if f := live.Type().Field(i); f.IsExported() && f.Tag.Get("yaml") != "-" {
				compare(t, at+"."+f.Name, live.Field(i), full.Field(i))
			}
		}
	case reflect.Slice:
		for i := range live.Len() {
			compare(t, at, live.Index(i), full.Index(i))
		}
	case reflect.Map, reflect.String:
		if live.Len() > 0 && live.Interface() != full.Interface() {
			t.Errorf("%s: the file shows %v, the default is %v", at, full, live)
		}
	default:
		if !live.Equal(full) {
			t.Errorf("%s: the file shows %v, the default is %v", at, full, live)
		}
	}
}

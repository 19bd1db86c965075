package yamlpos_test

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"bridgehead/internal/unit"
	"bridgehead/internal/yamlpos"
)

// house is a made-up section of every kind that the configuration has.
type house struct {
	Name       string            `yaml:"name"`
	Port       int               `yaml:"port"`
	Ratio      float64           `yaml:"ratio"`
	Open       bool              `yaml:"open"`
	Wait       time.Duration     `yaml:"wait"`
	Size       unit.Size         `yaml:"size"`
	Rate       unit.Rate         `yaml:"rate"`
	Key        unit.Secret       `yaml:"key"`
	Tags       []string          `yaml:"tags"`
	Texts      map[string]string `yaml:"texts"`
	WholeTexts map[string]string `yaml:"whole_texts,whole"`
	Rooms      []room            `yaml:"rooms"`
	Wings      map[string]room   `yaml:"wings"`
	Yard       *room             `yaml:"yard"`
	Doors      []door            `yaml:"doors"`
	inner
	Base    `yaml:",inline"`
	Skipped string `yaml:"-"`
}

// inner is unexported and embedded: the walk has to pass it over.
type inner struct{ hidden string }

var _ = house{}.hidden

// Base is inlined.
type Base struct {
	Colour string `yaml:"colour"`
}

type room struct {
	Colour  string `yaml:"color"`
	Windows int    `yaml:"windows"`
	Lamp    *lamp  `yaml:"lamp"`
}

type lamp struct {
	Watts int `yaml:"watts"`
}

// A door is written as its way, or as a mapping.
type door struct {
	To    string `yaml:"to"`
	Width int    `yaml:"width"`
}

func (d *door) UnmarshalText(text []byte) error {
	if strings.HasPrefix(string(text), "nowhere") {
		return fmt.Errorf("%q leads nowhere", text)
	}
	d.To = string(text)
	return nil
}

func preset(fresh any) {
	switch v := fresh.(type) {
	case *room:
		v.Windows = 2
	case *lamp:
		v.Watts = 60
	case *door:
		v.Width = 90
	}
}

var environment = map[string]string{"NAME": "castle", "EMPTY": "", "PORT": "80", "FALSE": "false", "RAW": "${NAME}"}

// borrowed are words of other houses.
var borrowed = map[string]string{"title": "name", "watt": "watts", "lightbulb": "lamp", "paint": "colour"}

func lookup(name string) (string, bool) {
	value, ok := environment[name]
	return value, ok
}

func decode(t *testing.T, name, text string, into any) error {
	t.Helper()
	doc, err := yamlpos.Parse(name, []byte(text))
	if err != nil {
		return err
	}
	return doc.Decode(into, yamlpos.Decoding{Lookup: lookup, Dir: "testdata", Preset: preset, Borrowed: borrowed}).Err()
}

func TestValuesAreDecodedOverTheirDefaults(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, text string
		want       func(h *house)
	}{
		{"a scalar of each kind", "name: x\nport: 80\nratio: 0.5\nopen: true\nwait: 1m30s\nsize: 4KiB\nkey: k", func(h *house) {
			h.Name, h.Port, h.Ratio, h.Open, h.Wait, h.Size, h.Key = "x", 80, 0.5, true, 90*time.Second, 4096, "k"
		}},
		{"off, false and 0 switch a limit off", "wait: off\nsize: false\nport: off", func(h *house) { h.Wait, h.Size, h.Port = 0, 0, 0 }},
		{"a duration of 0", "wait: 0", func(h *house) { h.Wait = 0 }},
		{"off is false, on is true", "open: on", func(h *house) { h.Open = true }},
		{"a plain false is off where a text is wanted", "name: false", func(h *house) { h.Name = "off" }},
		{"a quoted false is itself", "name: 'false'", func(h *house) { h.Name = "false" }},
		{"numbers may be texts", "name: 17", func(h *house) { h.Name = "17" }},
		{"an inlined field", "colour: red", func(h *house) { h.Colour = "red" }},
		{"a list", "tags: [a, b]", func(h *house) { h.Tags = []string{"a", "b"} }},
		{"a list of one without brackets", "tags: a", func(h *house) { h.Tags = []string{"a"} }},
		{"a list replaces", "tags: [b]", func(h *house) { h.Tags = []string{"b"} }},
		{"an empty list replaces", "tags: []", func(h *house) { h.Tags = []string{} }},
		{"a map merges", "texts: {b: 2, c: ''}", func(h *house) { h.Texts = map[string]string{"a": "1", "b": "2", "c": ""} }},
		{"a whole map replaces", "whole_texts: {b: 2}", func(h *house) { h.WholeTexts = map[string]string{"b": "2"} }},
		{"false in a map of texts is itself", "texts: {b: false}", func(h *house) { h.Texts["b"] = "false" }},
		{"elements start from their defaults", "rooms: [{color: red}, {windows: 1}]", func(h *house) {
			h.Rooms = []room{{"red", 2, nil}, {"", 1, nil}}
		}},
		{"new values of a map start from their defaults", "wings: {east: {color: red}}", func(h *house) {
			h.Wings = map[string]room{"east": {"red", 2, nil}, "west": {"blue", 5, nil}}
		}},
		{"known values of a map are merged", "wings: {west: {color: red}}", func(h *house) {
			h.Wings = map[string]room{"west": {"red", 5, nil}}
		}},
		{"pointers start from their defaults", "yard: {lamp: {}}", func(h *house) { h.Yard = &room{"", 2, &lamp{60}} }},
		{"a short form", "doors: [street]", func(h *house) { h.Doors = []door{{"street", 90}} }},
		{"one short form without brackets", "doors: street", func(h *house) { h.Doors = []door{{"street", 90}} }},
		{"its long form", "doors: [{to: street, width: 70}]", func(h *house) { h.Doors = []door{{"street", 70}} }},
		{"a rate", "rate: 600/m", func(h *house) { h.Rate = unit.Rate{Rate: 10, Burst: 600} }},
		{"a rate with a burst", "rate: {burst: 9, rate: 5/s}", func(h *house) { h.Rate = unit.Rate{Rate: 5, Burst: 9} }},
		{"a rate as a mapping of one", "rate: {rate: 5/s}", func(h *house) { h.Rate = unit.Rate{Rate: 5, Burst: 5} }},
		{"an environment variable", `name: "the ${NAME}"`, func(h *house) { h.Name = "the castle" }},
		{"an environment variable as a number", "port: ${PORT}", func(h *house) { h.Port = 80 }},
		{"a default for one that is not set", "name: ${NOPE:-a:-b}", func(h *house) { h.Name = "a:-b" }},
		{"a default for one that is empty", "name: ${EMPTY:-x}", func(h *house) { h.Name = "x" }},
		{"a default that is not used", "name: ${NAME:-x}", func(h *house) { h.Name = "castle" }},
		{"a default of nothing within a text", "name: x${NOPE:-}", func(h *house) { h.Name = "x" }},
		{"a doubled dollar is one", "name: $${NAME} $5 $$", func(h *house) { h.Name = "${NAME} $5 $$" }},
		{"values are not expanded again", "name: ${RAW}", func(h *house) { h.Name = "${NAME}" }},
		{"a file without its line end", "key: ${file:key.txt}", func(h *house) { h.Key = "from a file" }},
		{"an anchor and its alias", "rooms: [&r {color: red}, *r]", func(h *house) { h.Rooms = []room{{"red", 2, nil}, {"red", 2, nil}} }},
		{"a merge key gives way", "rooms: [&r {color: red, windows: 7}, {<<: *r, color: blue}]", func(h *house) {
			h.Rooms = []room{{"red", 7, nil}, {"blue", 7, nil}}
		}},
		{"the first of merged mappings wins", "rooms: [&a {color: red}, &b {color: blue, windows: 7}, {<<: [*a, *b]}]", func(h *house) {
			h.Rooms = []room{{"red", 2, nil}, {"blue", 7, nil}, {"red", 7, nil}}
		}},
		{"a mapping that merges itself", "rooms: [&a {color: red, <<: *a}]", func(h *house) { h.Rooms = []room{{"red", 2, nil}} }},
		{"a document with its marks", "---\nname: x\n...\n", func(h *house) { h.Name = "x" }},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			before := func() *house {
				return &house{
					Name: "before", Port: 1, Wait: time.Second, Size: 1, Tags: []string{"a"}, Texts: map[string]string{"a": "1"}, WholeTexts: map[string]string{"a": "1"},
					Wings: map[string]room{"west": {"blue", 5, nil}},
				}
			}
			got, want := before(), before()
			test.want(want)
			if err := decode(t, "x.yaml", test.text, got); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s\n gives %+v\n want  %+v", test.text, got, want)
			}
		})
	}
}

// Each file of mistakes holds documents between lines `=== what is wrong`, each followed by what is to be said after a line `---> `.
func TestMistakesAreToldWithTheirPlace(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile(filepath.Join("testdata", "mistakes.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range strings.Split(string(data), "=== ")[1:] {
		name, rest, _ := strings.Cut(test, "\n")
		text, want, _ := strings.Cut(rest, "--->\n")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got string
			if err := decode(t, "x.yaml", strings.ReplaceAll(text, "→", "\t"), new(house)); err != nil {
				got = err.Error()
			}
			if got != strings.TrimSpace(want) {
				t.Errorf("\n got %s\nwant %s", got, want)
			}
		})
	}
}

func TestAFileMustHoldOneDocument(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                        "x.yaml: the file is empty",
		"# all is commented out":  "x.yaml: the file is empty",
		"---\n":                   "x.yaml: the file is empty",
		"name: x\n---\nname: y\n": "x.yaml:2: a second document begins here; only one is read, so remove the `---`",
		"- a\n": "x.yaml:1:1: must be a mapping, not a list; its keys may be name, port, ratio, open, wait, size, rate, key, tags, texts, whole_texts, " +
			"rooms, wings, yard, doors, colour",
		"name: \xff\n": "x.yaml:1:1: save the file as UTF-8 (YAML: invalid leading UTF-8 octet)",
	} {
		if err := decode(t, "x.yaml", text, new(house)); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

// A file of something else may have a mistake in each of a million lines.
func TestNoMoreProblemsAreToldThanHelp(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"x%d: 1\n", "tags: [%d, \"\"]\n", "rooms: [%d, x]\n"} {
		var file strings.Builder
		if list, _, isList := strings.Cut(text, "["); isList {
			file.WriteString(list + "[" + strings.Repeat("{}, [], ", 1000) + "]")
		} else {
			for i := range 1000 {
				fmt.Fprintf(&file, text, i)
			}
		}
		err := decode(t, "x.yaml", file.String(), new(house))
		if lines := strings.Split(fmt.Sprint(err), "\n"); len(lines) != 101 || lines[100] != "there may be more: these are the first 100 found" {
			t.Errorf("%s: %d lines, the last %q", text, len(lines), lines[len(lines)-1])
		}
	}
}

// Searching the line of an error reads a file some twenty times.
func TestTheLineOfAnErrorInALargeFileIsTheParsers(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("- some words\n", 100_000) + "x: y\n"
	const want = "x.yaml:100000: check the indentation, as the keys of a mapping stand in one column; quote values with quotes inside " +
		"(YAML: did not find expected '-' indicator)"
	if err := decode(t, "x.yaml", text, new(house)); err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

// "Billion laughs": a few lines of aliases that stand for more values than any machine has room for.
func TestAliasesCannotMultiplyWithoutEnd(t *testing.T) {
	t.Parallel()
	var merges strings.Builder
	merges.WriteString("wings:\n  w0: &a0 {color: red}\n")
	for i := range 40 {
		alias := fmt.Sprintf("*a%d", i)
		fmt.Fprintf(&merges, "  w%d: &a%d {<<: [%s]}\n", i+1, i+1, strings.Join([]string{alias, alias, alias}, ", "))
	}
	if err := decode(t, "x.yaml", merges.String(), new(house)); err != nil {
		t.Errorf("merges of merges: %v", err)
	}

	type deep struct {
		A [][][][][][][][]string `yaml:"a"`
	}
	ten := func(s string) string { return strings.Repeat(s+", ", 9) + s }
	text := "a:\n- &a7\n  - &a6\n    - &a5\n      - &a4\n        - &a3\n          - &a2\n            - &a1 [" + ten("x") + "]\n"
	indent := "            "
	for i := 1; i < 8; i++ {
		for range 9 {
			text += fmt.Sprintf("%s- *a%d\n", indent, i)
		}
		indent = strings.TrimPrefix(indent, "  ")
	}
	if err := decode(t, "x.yaml", text, new(deep)); err == nil || !strings.Contains(err.Error(), "too many values") {
		t.Errorf("aliases of aliases: %v, want it to say that there are too many values", err)
	}
}

func TestALaterProblemIsDroppedWhereDecodingWentWrong(t *testing.T) {
	t.Parallel()
	doc, err := yamlpos.Parse("x.yaml", []byte("rooms:\n- windows: many\n- colr: red\n- {}\n"))
	if err != nil {
		t.Fatal(err)
	}
	var h house
	p := doc.Decode(&h, yamlpos.Decoding{Lookup: lookup})
	at := yamlpos.Path{"rooms"}
	p.Add(at.Index(0).Key("windows"), "must be more than 0")
	p.Add(at.Index(1).Key("color"), "is missing")
	p.Add(at.Index(2).Key("color"), "is missing")
	want := `x.yaml:2:12: rooms[0].windows: must be a whole number, not "many"
x.yaml:3:3: rooms[1]: unknown key "colr"; did you mean "color"?
x.yaml:4:3: rooms[2].color: is missing`
	if got := p.Err().Error(); got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
}

func TestAProblemIsToldWhereTheValueWasGiven(t *testing.T) {
	t.Parallel()
	doc, err := yamlpos.Parse("x.yaml", []byte("yard: {windows: 0}\nrooms:\n- {color: red}\n- {color: blue}\n- {windows: 0}\n"))
	if err != nil {
		t.Fatal(err)
	}
	p := doc.Decode(new(house), yamlpos.Decoding{Lookup: lookup})
	for i := range 3 {
		at := yamlpos.Path{"rooms"}.Index(i)
		p.Inherit(at, yamlpos.Path{"yard"})
		p.Add(at.Key("windows"), "must be more than 0")
	}
	want := "x.yaml:1:17: yard.windows: must be more than 0\nx.yaml:5:13: rooms[2].windows: must be more than 0"
	if got := p.Err().Error(); got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
}

func TestProblemsWithoutADocumentHaveNoPlace(t *testing.T) {
	t.Parallel()
	var p yamlpos.Problems
	if err := p.Err(); err != nil {
		t.Errorf("no problems are the error %v", err)
	}
	p.OneOf(yamlpos.Path{"routes", 2, "framing"}, "rew", "raw", "line")
	p.OneOf(yamlpos.Path{"routes", 2, "framing"}, "raw", "raw", "line")
	want := `routes[2].framing: must be raw or line, not "rew"; did you mean "raw"?`
	if got := p.Error(); got != want || p.Len() != 1 {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestPathsPrintAsInTheFile(t *testing.T) {
	t.Parallel()
	base := make(yamlpos.Path, 0, 8).Key("routes")
	one, two := base.Index(1), base.Index(2) // neither may write into the other
	for want, path := range map[string]yamlpos.Path{
		"":                     nil,
		"routes[1].host":       one.Key("host"),
		"routes[2].set.X-User": two.Key("set").Key("X-User"),
		`routes[2]["claim.x"]`: two.Key("claim.x"),
	} {
		if got := path.String(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestSuggestions(t *testing.T) {
	t.Parallel()
	keys := []string{"origins", "limits", "tcp", "to", "websocket", "name"}
	for got, want := range map[string]string{
		"orgins": "origins", "limit": "limits", "tpc": "tcp", "WebSocket": "websocket", "web_socket": "websocket",
		"nmae": "name", "backend": "", "x": "", "": "", "ähm": "",
	} {
		if s := yamlpos.Suggest(got, keys); s != want {
			t.Errorf("for %q: %q, want %q", got, s, want)
		}
	}
}

func TestWhatIsEncodedDecodesToTheSame(t *testing.T) {
	t.Parallel()
	h := house{
		Name: "a: ${b} 'c'", Port: 80, Ratio: 0.25, Open: true, Wait: 90 * time.Minute, Size: 1 << 20,
		Rate: unit.Rate{Rate: 50, Burst: 200}, Tags: []string{"yes", "1", "*x", ""}[:3],
		Texts: map[string]string{"b": "", "a": "false"}, Rooms: []room{}, Wings: map[string]room{"": {}, "north": {"red", 0, &lamp{}}}, Yard: &room{},
		Doors: []door{{"street", 1}}, Base: Base{Colour: "blue"},
	}
	delete(h.Wings, "")
	text, err := yamlpos.Encode(&h)
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(filepath.Join("testdata", "house.yaml"))
	if err != nil || string(text) != string(want) {
		t.Errorf("testdata/house.yaml differs (%v); got\n%s", err, text)
	}
	var back house
	if err := decode(t, "x.yaml", string(text), &back); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(h, back) {
		t.Errorf("\n got %+v\nwant %+v", back, h)
	}
}

func TestEncodeMasksSecretsAndLeavesOutWhatSaysNothing(t *testing.T) {
	t.Parallel()
	type section struct {
		Open bool   `yaml:"open"`
		Name string `yaml:"name"`
	}
	text, err := yamlpos.Encode(struct {
		Key    unit.Secret   `yaml:"key"`
		Keys   []unit.Secret `yaml:"keys"`
		None   unit.Secret   `yaml:"none"`
		Closed section       `yaml:"closed"`
		Nil    *section      `yaml:"nil"`
		Here   *section      `yaml:"here"`
		Wait   time.Duration `yaml:"wait"`
		Size   unit.Size     `yaml:"size"`
	}{Key: "hunter2", Keys: []unit.Secret{"a", "b"}, Here: &section{}})
	want := "key: '***'\nkeys: ['***', '***']\nhere: {}\nwait: off\nsize: off\n"
	if err != nil || string(text) != want {
		t.Errorf("%v, got\n%swant\n%s", err, text, want)
	}
}

func TestACloneSharesNothing(t *testing.T) {
	t.Parallel()
	h := house{
		Tags: []string{"a"}, Texts: map[string]string{"a": "1"}, Yard: &room{Lamp: &lamp{Watts: 1}}, Rooms: []room{{Lamp: &lamp{Watts: 1}}},
		Wings: map[string]room{"x": {Lamp: &lamp{Watts: 1}}},
	}
	c := yamlpos.Clone(h)
	if !reflect.DeepEqual(h, c) {
		t.Fatalf("\n got %+v\nwant %+v", c, h)
	}
	c.Tags[0], c.Texts["a"] = "b", "2"
	c.Yard.Lamp.Watts, c.Rooms[0].Lamp.Watts, c.Wings["x"].Lamp.Watts = 2, 2, 2
	if h.Tags[0] != "a" || h.Texts["a"] != "1" || h.Yard.Lamp.Watts+h.Rooms[0].Lamp.Watts+h.Wings["x"].Lamp.Watts != 3 {
		t.Errorf("the original changed: %+v", h)
	}
}

func TestDurationsPrintAsTheyAreWritten(t *testing.T) {
	t.Parallel()
	for want, d := range map[string]time.Duration{
		"off": 0, "30s": 30 * time.Second, "10m": 10 * time.Minute, "1h30m": 90 * time.Minute, "24h": 24 * time.Hour,
		"1h0m1s": time.Hour + time.Second, "250ms": 250 * time.Millisecond, "1m30s": 90 * time.Second,
	} {
		if got := yamlpos.Duration(d); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	data, err := os.ReadFile(filepath.Join("testdata", "mistakes.txt"))
	if err != nil {
		f.Fatal(err)
	}
	for _, test := range strings.Split(string(data), "=== ")[1:] {
		_, rest, _ := strings.Cut(test, "\n")
		text, _, _ := strings.Cut(rest, "--->\n")
		f.Add(text)
	}
	f.Add("rooms: [&a {<<: *a}]\nwings: &w {x: {<<: [*w, *a]}}")
	f.Fuzz(func(t *testing.T, text string) {
		var h house
		if decode(t, "x.yaml", text, &h) != nil {
			return
		}
		encoded, err := yamlpos.Encode(&h)
		if err != nil {
			t.Fatal(err)
		}
		if len(encoded) == 0 {
			return
		}
		if err := decode(t, "y.yaml", string(encoded), new(house)); err != nil {
			t.Fatalf("%v in what was encoded:\n%s", err, encoded)
		}
	})
}

package yamlpos

import (
	"encoding"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

func (d *decoder) textual(n *yaml.Node, at Path, v reflect.Value) {
	text, ok := d.someText(n, at)
	if !ok {
		return
	}
	if err := v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(text)); err != nil {
		d.problems.fail(n, at, "%v", err)
	}
}

func (d *decoder) scalar(n *yaml.Node, at Path, v reflect.Value) {
	text, ok := d.someText(n, at)
	if !ok {
		return
	}
	if err := setScalar(v, text, n.ShortTag() == "!!bool"); err != nil {
		d.problems.fail(n, at, "%v", err)
	}
}

// text is a scalar with its references expanded.
func (d *decoder) text(n *yaml.Node, at Path) (string, bool) {
	if mend := misquoted(n); mend != "" {
		d.problems.fail(n, at, "%s", mend)
		return "", false
	}
	text, err := d.expand(n.Value)
	if err != nil {
		d.problems.fail(n, at, "%v", err)
		return "", false
	}
	return text, true
}

// misquoted tells what is wrong with a value that YAML has read otherwise than its writer will have meant, or "".
func misquoted(n *yaml.Node) string {
	first, _ := utf8.DecodeRuneInString(n.Value)
	plain := n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) == 0
	switch {
	case plain && strings.Contains(n.Value, "# "):
		return "holds a #, which begins a comment only behind a space; put one before it, or quote the value"
	case plain && strings.ContainsRune("“”„«»‘’‚", first):
		return fmt.Sprintf("begins with the quotation mark %c, which is a letter like any other here; write \" instead", first)
	case !strings.ContainsFunc(n.Value, unicode.IsControl):
		return ""
	case n.Style&yaml.DoubleQuotedStyle != 0:
		return "holds a control character: within double quotes a backslash begins an escape; use single quotes, or write it twice"
	default:
		return "holds a line break or a tab; write the value in one line"
	}
}

// someText is a text that is not empty.
func (d *decoder) someText(n *yaml.Node, at Path) (string, bool) {
	text, ok := d.text(n, at)
	if ok && text == "" {
		d.problems.fail(n, at, "is empty; give it a value or remove it")
		return "", false
	}
	return text, ok
}

// setScalar parses a text for the type of v. `isBool` says that it was a bool in the file: `off` becomes `false` when a tool
// such as Helm rewrites it, and means `off` still where a text is wanted.
func setScalar(v reflect.Value, text string, isBool bool) error {
	isOff := text == "off" || text == "false"
	switch kind := v.Kind(); {
	case v.Type() == reflect.TypeFor[time.Duration]():
		return setDuration(v, text)
	case kind == reflect.Bool:
		return setBool(v, text)
	case kind == reflect.String && isBool && isOff:
		v.SetString("off")
	case kind == reflect.String:
		v.SetString(text)
	case v.CanInt() && isOff:
		v.SetInt(0)
	case v.CanInt():
		i, err := strconv.ParseInt(text, 10, v.Type().Bits())
		if err != nil {
			return fmt.Errorf("must be a whole number, not %q", text)
		}
		v.SetInt(i)
	case v.CanFloat():
		f, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			return fmt.Errorf("must be a number, not %q", text)
		}
		v.SetFloat(f)
	default:
		panic("yamlpos: cannot decode into " + v.Type().String())
	}
	return nil
}

func setBool(v reflect.Value, text string) error {
	switch text {
	case "true", "True", "TRUE", "on", "yes":
		v.SetBool(true)
	case "false", "False", "FALSE", "off", "no":
		v.SetBool(false)
	default:
		return fmt.Errorf("must be true or false, not %q", text)
	}
	return nil
}

func setDuration(v reflect.Value, text string) error {
	if text == "off" || text == "false" || text == "0" {
		v.SetInt(0)
		return nil
	}
	t, err := time.ParseDuration(text)
	if err != nil && strings.Trim(text, "0123456789") == "" {
		return fmt.Errorf("%q has no unit: write %ss for seconds, or %sms, %sm, %sh", text, text, text, text, text)
	}
	if err != nil {
		return fmt.Errorf("%q is not a duration: write 500ms, 30s, 5m, 24h or off", text)
	}
	if t < 0 {
		return errors.New("must not be negative")
	}
	v.SetInt(int64(t))
	return nil
}

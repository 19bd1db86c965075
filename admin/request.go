package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"
)

// maxBody is the longest body of a call, in bytes.
const maxBody = 16 << 20

// readBody gives the body of a call: UTF-8 that calls itself JSON.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	// A page of somebody's browser can send a body of this type to us only after asking, which we never grant.
	kind := r.Header.Get("Content-Type")
	if media, _, err := mime.ParseMediaType(kind); err != nil || media != "application/json" {
		return nil, refuse(http.StatusUnsupportedMediaType, "content type %q: send the header `Content-Type: application/json`", kind)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if _, tooBig := errors.AsType[*http.MaxBytesError](err); tooBig {
		return nil, refuse(http.StatusRequestEntityTooLarge, "the body is longer than %d MiB: send less at once", maxBody>>20)
	}
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "read the body: %v", err)
	}
	if !utf8.Valid(body) {
		return nil, refuse(http.StatusBadRequest, "the body is not UTF-8; bytes that are no text go into data_base64")
	}
	return body, nil
}

// readQuery gives the query parameters of a call: known ones alone, each once.
func readQuery(r *http.Request, known ...string) (url.Values, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "query %q: %v", r.URL.RawQuery, err)
	}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		switch {
		case !slices.Contains(known, name) && len(known) == 0:
			return nil, refuse(http.StatusBadRequest, "parameter %q is unknown: this call takes none", name)
		case !slices.Contains(known, name):
			return nil, refuse(http.StatusBadRequest, "parameter %q is unknown; known are %s", name, strings.Join(known, ", "))
		case len(query[name]) > 1:
			return nil, refuse(http.StatusBadRequest, "parameter %q stands %d times: give it once", name, len(query[name]))
		case !utf8.ValidString(query.Get(name)):
			return nil, refuse(http.StatusBadRequest, "parameter %q is not UTF-8", name)
		}
	}
	return query, nil
}

// members are what an object may hold: for each name a *string or *int to point to the value, or a json.RawMessage to take it
// as it is. What is absent stays nil.
type members map[string]any

// decode reads a JSON object strictly: names count in their exact spelling and once, and none may be unknown. place names the
// object in errors.
func (m members) decode(data []byte, place string) error {
	d := json.NewDecoder(bytes.NewReader(data))
	if start, err := d.Token(); err != nil {
		return syntaxError(place, err)
	} else if start != json.Delim('{') {
		return refuse(http.StatusBadRequest, "%s must be a JSON object", place)
	}
	var unknown []string
	seen := make(map[string]bool)
	for d.More() {
		name, value, err := nextMember(d)
		target, known := m[name]
		switch {
		case err != nil:
			return syntaxError(place, err)
		case seen[name]:
			return refuse(http.StatusBadRequest, "%s has the member %q twice", place, name)
		case !known:
			unknown = append(unknown, fmt.Sprintf("%q", name))
		default:
			if err := setMember(target, name, value); err != nil {
				return err
			}
		}
		seen[name] = true
	}
	if _, err := d.Token(); err != nil {
		return syntaxError(place, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return refuse(http.StatusBadRequest, "something follows %s: send one JSON object", place)
	}
	if len(unknown) > 0 {
		known := strings.Join(slices.Sorted(maps.Keys(m)), ", ")
		return refuse(http.StatusBadRequest, "%s has unknown members: %s; known are %s", place, strings.Join(unknown, ", "), known)
	}
	return nil
}

func nextMember(d *json.Decoder) (name string, value json.RawMessage, err error) {
	token, err := d.Token()
	if err != nil {
		return "", nil, err
	}
	name, _ = token.(string) // within an object the decoder gives no other
	err = d.Decode(&value)
	return name, value, err
}

func setMember(target any, name string, value json.RawMessage) error {
	meant := ""
	switch target := target.(type) {
	case *json.RawMessage:
		*target = value
		return nil
	case **string:
		meant = "a string"
	case **int:
		meant = "a whole number"
	}
	if err := json.Unmarshal(value, target); err != nil || string(value) == "null" {
		return refuse(http.StatusBadRequest, "the member %q must be %s", name, meant)
	}
	return nil
}

func syntaxError(place string, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return refuse(http.StatusBadRequest, "%s is empty or cut short: send a JSON object", place)
	}
	return refuse(http.StatusBadRequest, "%s is no JSON: %v", place, err)
}

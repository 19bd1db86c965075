package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
)

// A refusal is an error with its status and headers. Its text says what to do about it.
type refusal struct {
	status int
	text   string
	header http.Header
}

func (r *refusal) Error() string { return r.text }

func refuse(status int, format string, args ...any) *refusal {
	return &refusal{status: status, text: fmt.Sprintf(format, args...)}
}

// asRefusal is the refusal in err; any other error is a fault of ours, of which the caller is told nothing.
func asRefusal(err error) *refusal {
	if r, ok := errors.AsType[*refusal](err); ok {
		return r
	}
	return refuse(http.StatusInternalServerError, "a fault of the gateway's: see its log")
}

func (r *refusal) body() []byte {
	body, err := encode(map[string]string{"error": r.text})
	if err != nil {
		return nil // a map of strings always encodes
	}
	return body
}

// answer sends v as JSON.
func answer(w http.ResponseWriter, status int, v any) error {
	body, err := encode(v)
	if err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	write(w, status, body)
	return nil
}

func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return b.Bytes(), err
}

func write(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(body)
}

package server

import (
	"fmt"
	"io"
	"net/http"
	"strings"
)

// An Explanation tells what would become of a client, step by step.
type Explanation struct {
	URL      string            `json:"url"`
	Config   string            `json:"config"`             // the file
	Listener string            `json:"listener,omitempty"` // its name
	Client   string            `json:"client"`             // its address, as limits and backends see it
	Route    string            `json:"route,omitempty"`    // its name
	Captures map[string]string `json:"captures,omitempty"` // of host and path
	Backends []string          `json:"backends,omitempty"` // as this client would reach them; one is taken in turn
	Steps    []Step            `json:"steps"`
	OK       bool              `json:"ok"`              // the client would get what its URL asks for, if the backend agrees
	Status   int               `json:"status"`          // of the answer; 0: the client gets none
	Close    *Close            `json:"close,omitempty"` // what follows an answer that opens a socket for this alone

	body string // of the answer, if a step says no
}

// A Step is one thing that is found out or decided on the way. Its subject is one of listener, certificate, client_ca, client, route,
// nearest, redirect, handshake, address, origin, limit, auth, capacity, backend, files and answer.
type Step struct {
	Subject string   `json:"subject"`
	Verdict Verdict  `json:"verdict,omitempty"`
	Asked   bool     `json:"asked"`            // false: an earlier step has said no, so that this one is never come to
	Status  int      `json:"status,omitempty"` // of the answer, if the verdict is no
	Close   *Close   `json:"close,omitempty"`  // what tells the client instead of the status
	Text    string   `json:"text"`
	Notes   []string `json:"notes,omitempty"` // more of it

	body string // of the answer, if the verdict is no
}

// A Close is what ends a socket.
type Close struct {
	Code   int    `json:"code"`
	Reason string `json:"reason"`
}

// A Verdict says whether a step lets the client go on.
type Verdict string

// The verdicts. A step that only tells something has none.
const (
	Yes     Verdict = "ok"
	No      Verdict = "no"
	Unknown Verdict = "unknown" // it cannot be told without asking others
)

// add adds a step. The first that says no decides about the answer.
func (e *Explanation) add(s Step) {
	s.Asked = e.OK
	if s.Verdict == No && e.OK {
		e.OK, e.Status, e.body, e.Close = false, s.Status, s.body, s.Close
	}
	e.Steps = append(e.Steps, s)
}

// tell adds a step that only tells something, or lets the client go on.
func (e *Explanation) tell(subject string, v Verdict, format string, args ...any) {
	e.add(Step{Subject: subject, Verdict: v, Text: fmt.Sprintf(format, args...)})
}

// deny adds a step that says no; status 0 is no answer at all.
func (e *Explanation) deny(subject string, status int, format string, args ...any) {
	e.add(Step{Subject: subject, Verdict: No, Status: status, Text: fmt.Sprintf(format, args...)})
}

// Refused tells in an error who says no first; nil if nobody does.
func (e *Explanation) Refused() error {
	for _, s := range e.Steps {
		if s.Verdict == No {
			return fmt.Errorf("refused (%s): %s", s.Subject, answerText(s.Status))
		}
	}
	return nil
}

// marks begin the lines of an explanation.
var marks = map[Verdict]string{Yes: "ok", No: "no", Unknown: "-"}

// WriteText writes the explanation for people: a line per step. Verdicts in parentheses are of steps that are never come to.
func (e *Explanation) WriteText(w io.Writer) error {
	var b strings.Builder
	for _, s := range e.Steps {
		mark := marks[s.Verdict]
		if mark != "" && !s.Asked {
			mark = "(" + mark + ")"
		}
		fmt.Fprintf(&b, "%-4s %-11s %s\n", mark, s.Subject, s.Text)
		for _, note := range s.Notes {
			fmt.Fprintf(&b, "%-16s %s\n", "", note)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// answerText is a status with its phrase, and what there is instead without one.
func answerText(status int) string {
	if status == 0 {
		return "no answer"
	}
	return strings.TrimSpace(fmt.Sprintf("%d %s", status, http.StatusText(status)))
}

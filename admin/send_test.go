package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"bridgehead/hub"
	"bridgehead/ws"
)

func written(m ws.Message)      { m.Finish(nil) }
func sent(body string) exchange { return exchange{method: "POST", path: "/v1/send", body: body} }

func TestSend(t *testing.T) {
	t.Parallel()
	const one = `{"matched":1,"queued":1,"written":0,"dropped":[]}`
	for name, test := range map[string]struct{ body, receipt, message string }{
		"text":   {`{"to":{"connection":"c_1"},"text":"grüß <dich>"}`, one, "text grüß <dich>"},
		"empty":  {`{"to":{"connection":"c_1"},"text":""}`, one, "text "},
		"binary": {`{"to":{"connection":"c_1"},"data_base64":"AP/+"}`, one, "binary \x00\xff\xfe"},
		"json": {
			`{"to":{"connection":"c_1"},"json": {"n": 12345678901234567890, "s": "<&>", "e": [ ]} }`, one,
			`text {"n":12345678901234567890,"s":"<&>","e":[]}`,
		},
		"json null": {`{"to":{"connection":"c_1"},"json":null}`, one, "text null"},
		"queued":    {`{"to":{"connection":"c_1"},"text":"hi","wait":"queued"}`, one, "text hi"},
		"written": {
			`{"to":{"connection":"c_1"},"text":"hi","wait":"written"}`,
			`{"matched":1,"queued":1,"written":1,"dropped":[]}`, "text hi",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := conn("c_1", "chat")
			c.finish = written
			sent(test.body).do(t, serve(t, newAPI(c, conn("c_2", "chat")).Push())).want(t, 200, test.receipt)
			if got := c.texts(); !slices.Equal(got, []string{test.message}) {
				t.Errorf("the connection got %q, want %q", got, test.message)
			}
		})
	}
}

// A receipt tells how many were meant, how many took the message, and who did not and why.
func TestReceipt(t *testing.T) {
	t.Parallel()
	ok, slow, closed, tcp := conn("c_a", "chat"), conn("c_b", "chat"), conn("c_c", "chat"), conn("c_d", "chat")
	late, stuck, mqtt := conn("c_e", "chat"), conn("c_f", "chat"), conn("c_h", "mqtt")
	ok.finish = written
	slow.refuse, closed.refuse, tcp.refuse, mqtt.refuse = hub.ErrSlow, hub.ErrClosed, hub.ErrNoPush, hub.ErrNoPush
	late.finish = func(m ws.Message) { m.Finish(hub.ErrClosed) }
	stuck.finish = func(m ws.Message) { m.Finish(ws.Cause{Kind: ws.ClientSlow, Err: errors.New("write timeout")}) }
	base := serve(t, newAPI(stuck, late, tcp, closed, slow, ok, conn("c_g", "other"), mqtt).Push())
	refused := `{"connection":"c_b","why":"slow"},{"connection":"c_c","why":"closed"},{"connection":"c_d","why":"no_push"}`

	for name, test := range map[string]struct {
		body, says string
		status     int
	}{
		"route, queued": {
			`{"to":{"route":"chat"},"text":"hi"}`,
			`{"matched":6,"queued":3,"written":0,"dropped":[` + refused + `]}`, 200,
		},
		"route, written": {
			`{"to":{"route":"chat"},"text":"hi","wait":"written"}`,
			`{"matched":6,"queued":3,"written":1,"dropped":[` + refused +
				`,{"connection":"c_e","why":"closed"},{"connection":"c_f","why":"slow"}]}`, 200,
		},
		"route of nobody": {
			`{"to":{"route":"empty"},"text":"hi","wait":"written"}`, `{"matched":0,"queued":0,"written":0,"dropped":[]}`, 200,
		},
		"route without pushes": {
			`{"to":{"route":"mqtt"},"text":"hi"}`,
			`{"matched":1,"queued":0,"written":0,"dropped":[{"connection":"c_h","why":"no_push"}]}`, 200,
		},
		"slow connection": {
			`{"to":{"connection":"c_b"},"text":"hi"}`,
			`{"matched":1,"queued":0,"written":0,"dropped":[{"connection":"c_b","why":"slow"}]}`, 200,
		},
		"connection that closes meanwhile": {
			`{"to":{"connection":"c_e"},"text":"hi","wait":"written"}`,
			`{"matched":1,"queued":1,"written":0,"dropped":[{"connection":"c_e","why":"closed"}]}`, 200,
		},
		"closed connection":          {`{"to":{"connection":"c_c"},"text":"hi","wait":"written"}`, `"c_c" is not open here`, 410},
		"connection without pushes":  {`{"to":{"connection":"c_d"},"text":"hi"}`, "takes no pushes", 409},
		"connection that is unknown": {`{"to":{"connection":"c_x"},"text":"hi"}`, `"c_x" is not open here`, 410},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := sent(test.body).do(t, base)
			if test.status == 200 {
				got.want(t, 200, test.says)
			} else {
				got.wantError(t, test.status, test.says)
			}
		})
	}
}

// What is dropped stands in the order of the ids, whatever the order in which it came to light.
func TestReceiptOrder(t *testing.T) {
	t.Parallel()
	var waiting ws.Message
	a, b := conn("c_a", "chat"), conn("c_b", "chat")
	a.finish = func(m ws.Message) { waiting = m }
	b.finish = func(m ws.Message) {
		m.Finish(hub.ErrClosed)
		waiting.Finish(hub.ErrClosed)
	}
	sent(`{"to":{"route":"chat"},"text":"hi","wait":"written"}`).do(t, serve(t, newAPI(a, b).Push())).want(t, 200,
		`{"matched":2,"queued":2,"written":0,"dropped":[{"connection":"c_a","why":"closed"},{"connection":"c_b","why":"closed"}]}`)
}

func TestSendRefusals(t *testing.T) {
	t.Parallel()
	c := conn("c_1", "chat")
	base := serve(t, newAPI(c).Push())
	const to = `"to":{"connection":"c_1"}`
	for name, test := range map[string]struct{ body, says string }{
		"empty":                 {" ", "the body is empty"},
		"cut short":             {`{` + to + `,"text":"h`, "cut short"},
		"no JSON":               {`to=c_1`, "the body is no JSON: invalid character"},
		"no object":             {`["text"]`, "the body must be a JSON object"},
		"two objects":           {`{` + to + `,"text":"hi"}{}`, "something follows the body"},
		"junk behind":           {`{` + to + `,"text":"hi"}]`, "something follows the body"},
		"unknown members":       {`{` + to + `,"txt":"hi","Wait":1}`, `unknown members: "txt", "Wait"; known are data_base64, json, text, to, wait`},
		"other case":            {`{` + to + `,"Text":"hi"}`, `"Text"`},
		"twice":                 {`{` + to + `,"text":"hi","text":"ho"}`, `the member "text" twice`},
		"no target":             {`{"text":"hi"}`, "to is missing"},
		"target no object":      {`{"to":"c_1","text":"hi"}`, "to must be a JSON object"},
		"target null":           {`{"to":null,"text":"hi"}`, "to must be a JSON object"},
		"target empty":          {`{"to":{},"text":"hi"}`, "exactly one of connection and route"},
		"target without a name": {`{"to":{"route":""},"text":"hi"}`, "to names nothing"},
		"two targets":           {`{"to":{"connection":"c_1","route":"chat"},"text":"hi"}`, "exactly one of connection and route"},
		"unknown target":        {`{"to":{"user":"u1"},"text":"hi"}`, `to has unknown members: "user"; known are connection, route`},
		"target is a number":    {`{"to":{"route":7},"text":"hi"}`, `"route" must be a string`},
		"no payload":            {`{` + to + `}`, "exactly one of text, json and data_base64, not 0"},
		"two payloads":          {`{` + to + `,"text":"hi","json":1}`, "not 2"},
		"text is a number":      {`{` + to + `,"text":1}`, `"text" must be a string`},
		"text is null":          {`{` + to + `,"text":null}`, `"text" must be a string`},
		"text is no UTF-8":      {`{` + to + `,"text":"` + "\xff" + `"}`, "not UTF-8"},
		"bad base64":            {`{` + to + `,"data_base64":"a_b-"}`, "standard base64 with padding"},
		"base64 unpadded":       {`{` + to + `,"data_base64":"YQ"}`, "standard base64 with padding"},
		"base64 as numbers":     {`{` + to + `,"data_base64":[1,2]}`, `"data_base64" must be a string`},
		"unknown wait":          {`{` + to + `,"text":"hi","wait":"read"}`, `wait "read" is unknown`},
		"empty wait":            {`{` + to + `,"text":"hi","wait":""}`, `wait "" is unknown`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sent(test.body).do(t, base).wantError(t, 400, test.says)
		})
	}
	t.Run("a query", func(t *testing.T) {
		e := sent(`{` + to + `,"text":"hi"}`)
		e.path += "?wait=written"
		e.do(t, base).wantError(t, 400, `parameter "wait" is unknown: this call takes none`)
	})
	t.Run("too long", func(t *testing.T) {
		sent(`{`+to+`,"text":"`+strings.Repeat("x", maxBody)+`"}`).do(t, base).wantError(t, 413, "longer than 16 MiB")
	})
	t.Run("wrong method", func(t *testing.T) {
		got := exchange{method: "GET", path: "/v1/send"}.do(t, base)
		got.wantError(t, 405, "/v1/send takes no GET: use POST")
		if allow := got.header.Get("Allow"); allow != "POST" {
			t.Errorf("Allow: %q", allow)
		}
	})
	t.Cleanup(func() {
		if got := c.texts(); got != nil {
			t.Errorf("refused calls sent %q", got)
		}
	})
}

// A wait ends when the message is written, not before.
func TestWaitWritten(t *testing.T) {
	t.Parallel()
	queued := make(chan ws.Message, 1)
	c := conn("c_1", "chat")
	c.finish = func(m ws.Message) { queued <- m }
	base := serve(t, newAPI(c).Push())
	replies := make(chan reply, 1)
	go func() {
		defer close(replies)
		replies <- sent(`{"to":{"connection":"c_1"},"text":"hi","wait":"written"}`).do(t, base)
	}()
	m := <-queued
	select {
	case r := <-replies:
		t.Fatalf("answered before the message was written: %d %s", r.status, r.body)
	default:
	}
	m.Finish(nil)
	r := <-replies
	r.want(t, 200, `{"matched":1,"queued":1,"written":1,"dropped":[]}`)
}

// A wait is bounded, and ends when the caller goes away. What comes of the message later holds nobody up.
func TestWaitIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b := conn("c_1", "chat"), conn("c_2", "chat")
		b.finish = written
		r := httptest.NewRequestWithContext(t.Context(), "POST", "http://localhost/v1/send",
			strings.NewReader(`{"to":{"route":"chat"},"text":"hi","wait":"written"}`))
		r.RemoteAddr = "127.0.0.1:5000"
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		begin := time.Now()
		newAPI(a, b).Push().ServeHTTP(w, r)
		if took := time.Since(begin); took != MaxWait {
			t.Errorf("took %v, want %v", took, MaxWait)
		}
		reply{w.Code, w.Header(), w.Body.String()}.want(t, 200, `{"matched":2,"queued":2,"written":1,"dropped":[]}`)
		a.sent[0].Finish(nil)
	})
}

// Sends that come on one HTTP connection for one target arrive in their order.
func TestOrder(t *testing.T) {
	t.Parallel()
	c := conn("c_1", "chat")
	base := serve(t, newAPI(c).Push())
	var want []string
	for i := range 100 {
		text := fmt.Sprint(i)
		want = append(want, "text "+text)
		if got := sent(`{"to":{"connection":"c_1"},"text":"`+text+`"}`).do(t, base); got.status != 200 {
			t.Fatalf("%d %s", got.status, got.body)
		}
	}
	if got := c.texts(); !slices.Equal(got, want) {
		t.Errorf("arrived: %q", got)
	}
}

// A body that is refused for its type is not read.
func TestBodyIsNotReadForNothing(t *testing.T) {
	t.Parallel()
	body := &countingReader{r: strings.NewReader(strings.Repeat("x", 1<<20))}
	r := httptest.NewRequestWithContext(t.Context(), "POST", "http://localhost/v1/send", body)
	r.RemoteAddr = "127.0.0.1:5000"
	w := httptest.NewRecorder()
	newAPI().Push().ServeHTTP(w, r)
	if w.Code != http.StatusUnsupportedMediaType || body.n > 0 {
		t.Errorf("status %d after %d bytes", w.Code, body.n)
	}
}

type countingReader struct {
	r io.Reader
	n int
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}

// What is accepted has one target and a message that may be sent; what is refused says why, as 400.
func FuzzParsePush(f *testing.F) {
	for _, seed := range []string{
		`{"to":{"connection":"c_1"},"text":"hi"}`, `{"to":{"route":"chat"},"json":{"a":[1,{}]},"wait":"written"}`,
		`{"to":{"route":"chat"},"data_base64":"AP8="}`, `{"to":{},"to":[]}`, `{"text":"\ud800"}`, `{"a":1`, `{"a" 1}`, `null`, ``,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if !utf8.Valid(body) {
			t.Skip("refused before it is parsed")
		}
		p, err := parsePush(body)
		if err != nil {
			if r := asRefusal(err); r.status != 400 || r.text == "" {
				t.Fatalf("%q: refused with %d %q", body, r.status, r.text)
			}
			return
		}
		if (p.connection == "") == (p.route == "") || p.message.Op != ws.Text && p.message.Op != ws.Binary {
			t.Fatalf("%q: accepted as %+v", body, p)
		}
		if p.message.Op == ws.Text && !utf8.Valid(p.message.Data) {
			t.Fatalf("%q: the text %q is not UTF-8", body, p.message.Data)
		}
		if !json.Valid(body) {
			t.Fatalf("%q: accepted, but no JSON", body)
		}
	})
}

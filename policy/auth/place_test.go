package auth

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"bridgehead/policy"
)

// keyed takes the key "good" of ann and the key "other" of bob, at all kinds of places.
func keyed(t testing.TB, forward bool) *Checker {
	t.Helper()
	o := DefaultAPIKey()
	o.File = write(t, "keys.txt", "ann sha256:"+hashKey("good")+"\nbob sha256:"+hashKey("other")+" plan=pro team=red\n")
	o.Token = []string{"header.authorization", "header.x-api-key", "cookie.key", "query.key", "subprotocol.bearer"}
	return only(t, Options{APIKey: &o, ForwardToken: forward})
}

func TestWhereATokenMayStand(t *testing.T) {
	t.Parallel()
	c := keyed(t, false)
	for _, test := range []struct {
		name, url    string
		headers      []string
		subprotocols []string
		user         string // "": refused
		reason       string
		left         string // what the backend sees: query, headers, subprotocols
	}{
		{"header", "/ws?a=1", []string{"Authorization: Bearer good", "X-Other: y"}, nil, "ann", "", "a=1|X-Other: y|"},
		{"scheme in any case", "/ws", []string{"Authorization: bEaReR   good "}, nil, "ann", "", "||"},
		{"another scheme is none of ours", "/ws", []string{"Authorization: Basic good"}, nil, "", reasonMissing, ""},
		{"another header", "/ws", []string{"X-Api-Key: other"}, nil, "bob", "", "||"},
		{"cookie among others", "/ws", []string{"Cookie: a=1; key=good; b=2"}, nil, "ann", "", "|Cookie: a=1; b=2|"},
		{"cookie alone", "/ws", []string{"Cookie: key=good"}, nil, "ann", "", "||"},
		{"query among others", "/ws?a=%20&key=good&b=+&c", nil, nil, "ann", "", "a=%20&b=+&c||"},
		{"query, escaped", "/ws?%6bey=go%6Fd", nil, nil, "ann", "", "||"},
		{"subprotocol", "/ws", nil, []string{"bearer", "good", "chat.v1"}, "ann", "", "||chat.v1"},
		{"subprotocol behind another", "/ws", nil, []string{"chat.v1", "bearer", "good"}, "ann", "", "||chat.v1"},
		{"marker without a token", "/ws", nil, []string{"chat.v1", "bearer"}, "", reasonMissing, ""},
		{"nowhere", "/ws", nil, nil, "", reasonMissing, ""},
		{"empty", "/ws?key=", []string{"Authorization: Bearer ", "X-Api-Key: "}, nil, "", reasonMissing, ""},
		{"wrong", "/ws?key=Good", nil, nil, "", reasonInvalid, ""},
		{"the same twice", "/ws?key=good", []string{"X-Api-Key: good"}, nil, "ann", "", "||"},
		{"two that differ", "/ws?key=good", []string{"X-Api-Key: other"}, nil, "", reasonAmbiguous, ""},
		{"a good and a wrong one", "/ws?key=good", []string{"X-Api-Key: x"}, nil, "", reasonAmbiguous, ""},
		{"two headers", "/ws", []string{"X-Api-Key: good", "X-Api-Key: other"}, nil, "", reasonAmbiguous, ""},
		{"two Authorizations", "/ws", []string{"Authorization: Bearer good", "Authorization: Bearer other"}, nil, "", reasonAmbiguous, ""},
		{"two cookies", "/ws", []string{"Cookie: key=good; key=other"}, nil, "", reasonAmbiguous, ""},
		{"two cookie lines", "/ws", []string{"Cookie: key=good", "Cookie: key=other"}, nil, "", reasonAmbiguous, ""},
		{"two parameters", "/ws?key=good&key=other", nil, nil, "", reasonAmbiguous, ""},
		{"two markers", "/ws", nil, []string{"bearer", "good", "bearer", "other"}, "", reasonAmbiguous, ""},
		{"a header with underscores is not read, nor passed on", "/ws?key=good", []string{"X_api_key: other", "x.API-key: other"}, nil, "ann", "", "||"},
		{"a semicolon is no separator", "/ws?a=1;key=other&key=good", nil, nil, "ann", "", "a=1;key=other||"},
		{"a line of two keys", "/ws", []string{"X-Api-Key: good, other"}, nil, "", reasonInvalid, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			f := facts("http://h"+test.url, test.headers...)
			f.Subprotocols = test.subprotocols
			before := f.Request
			beforeHeaders := before.Header.Clone()
			if test.user == "" {
				d := refuse(t, c, f, nil, test.reason, "")
				if strings.Contains(d.Error(), "good") || strings.Contains(d.Error(), "other") {
					t.Errorf("the token shows: %v", d)
				}
				return
			}
			admit(t, c, f)
			var lines []string
			for name, values := range f.Request.Header {
				lines = append(lines, name+": "+strings.Join(values, ","))
			}
			slices.Sort(lines)
			left := f.Request.URL.RawQuery + "|" + strings.Join(lines, " ") + "|" + strings.Join(f.Subprotocols, ",")
			if f.User != test.user || left != test.left {
				t.Errorf("user %q, left %q; want %q, %q", f.User, left, test.user, test.left)
			}
			if f.Request == before || len(before.Header) != len(beforeHeaders) || before.URL.RawQuery != strings.TrimPrefix(test.url, "/ws?") && strings.Contains(test.url, "?") {
				t.Error("the client's own request was changed")
			}
		})
	}
}

func TestTokensThatBackendsReadThemselves(t *testing.T) {
	t.Parallel()
	f := facts("/ws?key=good", "Authorization: Bearer good")
	f.Subprotocols = []string{"bearer", "good", "chat"}
	id := admit(t, keyed(t, true), f)
	if f.Request.Header.Get("Authorization") != "Bearer good" || f.Request.URL.RawQuery != "key=good" || len(f.Subprotocols) != 3 || id.Marker != "bearer" {
		t.Errorf("%v %q %q", f.Request.Header, f.Request.URL.RawQuery, f.Subprotocols)
	}
}

// A browser adds cookies whichever page asks: they count only if the page may.
func TestCookiesOfForeignPages(t *testing.T) {
	t.Parallel()
	c, foreign := keyed(t, false), errors.New("the page is foreign")
	refuse(t, c, facts("/ws", "Cookie: key=good"), foreign, reasonMissing, "the cookie key does not count: the page is foreign")
	f := facts("/ws", "Cookie: key=other; a=1", "Authorization: Bearer good")
	if id, err := c.Admit(t.Context(), f, foreign); err != nil || f.User != "ann" || f.Request.Header.Get("Cookie") != "a=1" {
		t.Errorf("%+v, %v: want ann, by the header alone", id, err)
	}
}

func TestTheMarkerIsForTheClient(t *testing.T) {
	t.Parallel()
	f := facts("/ws")
	f.Subprotocols = []string{"bearer", "good"}
	if id := admit(t, keyed(t, false), f); id.Marker != "bearer" || len(f.Subprotocols) != 0 {
		t.Errorf("%+v, %q", id, f.Subprotocols)
	}
	if id := admit(t, keyed(t, false), facts("/ws?key=good")); id.Marker != "" {
		t.Errorf("a marker that nobody offered: %+v", id)
	}
}

func TestPlacesThatAreNone(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "header", "header.", "authorization", "header.a b", "claim.x", "user", "cookie.", "query.", "host", "header.host", "client.ip", "x.y"} {
		if p, err := parsePlace(text); err == nil {
			t.Errorf("%q is %v", text, p)
		}
	}
	for _, text := range []string{"header.authorization", "header.x-key", "cookie.Sid", "query.Token", "subprotocol.bearer"} {
		if p, err := parsePlace(text); err != nil || p.String() != text {
			t.Errorf("%q is %v, %v", text, p, err)
		}
	}
}

// What is put where a route looks is found there.
func TestATokenIsPutWhereItIsSought(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"header.authorization", "header.x-key", "cookie.sid", "query.token", "subprotocol.bearer"} {
		p := must(parsePlace(text))
		f := facts("/ws?a=1", "Cookie: a=1")
		f.Subprotocols = []string{"chat"}
		p.put(f, "to.ken")
		if got := p.tokens(f); !slices.Equal(got, []string{"to.ken"}) {
			t.Errorf("%s: %q", text, got)
		}
		p.strip(f)
		if got := p.tokens(f); len(got) > 0 {
			t.Errorf("%s: %q is left", text, got)
		}
	}
}

// Whatever is sent, what a place can find is gone when it is stripped, and all else is as it was.
func FuzzStrip(f *testing.F) {
	f.Add("a=1&key=x&b", "a=1; key=x; b=2", "bearer,x,chat")
	f.Add("%6bey=x&&=&key", `key="x"; ;=`, "bearer")
	f.Fuzz(func(t *testing.T, query, cookie, offered string) {
		u := &url.URL{Path: "/", RawQuery: query}
		r := &http.Request{URL: u, Header: http.Header{"Cookie": {cookie}}}
		facts := &policy.Facts{Request: r, Subprotocols: strings.Split(offered, ",")}
		before := u.Query()
		delete(before, "key")
		for _, text := range []string{"query.key", "cookie.key", "subprotocol.bearer"} {
			p := must(parsePlace(text))
			p.strip(facts)
			if left := p.tokens(facts); len(left) > 0 {
				t.Errorf("%s: %q is left", text, left)
			}
		}
		if after := u.Query(); after.Encode() != before.Encode() {
			t.Errorf("query %q became %q", query, u.RawQuery)
		}
	})
}

// A value is secret if a token may stand in it, and not only if it is where a token stands.
func TestSecretValues(t *testing.T) {
	t.Parallel()
	keys := DefaultAPIKey()
	keys.File = write(t, "keys.txt", "ann sha256:"+hashKey("good")+"\n")
	for _, test := range []struct {
		place, value string
		want         bool
	}{
		{"header.x-api-key", "header.X-Api-Key", true}, {"header.x-api-key", "header.x-own", false}, {"header.x-api-key", "header.cookie", false},
		{"cookie.session", "cookie.session", true}, {"cookie.session", "header.cookie", true}, {"cookie.session", "cookie.room", false},
		{"subprotocol.bearer", "subprotocol.bearer", true}, {"subprotocol.bearer", "header.Sec-WebSocket-Protocol", true},
		{"query.token", "query.token", true}, {"query.token", "header.cookie", false}, {"query.token", "user", false},
	} {
		keys.Token = []string{test.place}
		value := must(policy.ParseValue(test.value))
		if got := only(t, Options{APIKey: &keys}).Secret(value); got != test.want {
			t.Errorf("%s with the token in %s: %t", test.value, test.place, got)
		}
	}
	if (*Checker)(nil).Secret(policy.Value{}) {
		t.Error("a route that asks nobody has secrets")
	}
}

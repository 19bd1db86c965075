package admin

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"bridgehead/ws"
)

func TestShow(t *testing.T) {
	t.Parallel()
	c := conn("c_1", "chat")
	c.info.ConnectedAt = time.Date(2026, 1, 20, 11, 55, 0, 0, time.UTC)
	c.info.Subprotocol, c.info.State, c.info.MessagesIn = "chat.v1", json.RawMessage(`{"room":"1"}`), 3
	base := serve(t, newAPI(c).Push())
	exchange{method: "GET", path: "/v1/connections/c_1"}.do(t, base).want(t, 200,
		`{"id":"c_1","route":"chat","kind":"webhook","client":"203.0.113.7","user":"u-c_1","subprotocol":"chat.v1",`+
			`"connected_at":"2026-01-20T11:55:00Z","messages_in":3,"messages_out":0,"bytes_in":0,"bytes_out":0,"state":{"room":"1"}}`)
	exchange{method: "GET", path: "/v1/connections/c_2"}.do(t, base).wantError(t, 410, `connection "c_2" is not open here`)
	exchange{method: "GET", path: "/v1/connections/c_1?verbose=1"}.do(t, base).wantError(t, 400, `"verbose" is unknown`)
	got := exchange{method: "PATCH", path: "/v1/connections/c_1"}.do(t, base)
	got.wantError(t, 405, "takes no PATCH: use DELETE, GET, HEAD")
	if allow := got.header.Get("Allow"); allow != "DELETE, GET, HEAD" {
		t.Errorf("Allow: %q", allow)
	}
	exchange{method: "GET", path: "/v1/connections/c_1/x"}.do(t, base).wantError(t, 404, "GET /v1/connections/{id}")
}

// Every connection is on exactly one page, in the order of the ids, while others come and go.
func TestListPages(t *testing.T) {
	t.Parallel()
	var conns []*fake
	for i := range 25 {
		conns = append(conns, conn(fmt.Sprintf("c_%02d", i), []string{"chat", "vnc"}[i%2]))
	}
	api := newAPI(conns...)
	base := serve(t, api.Push())
	for name, test := range map[string]struct {
		query string
		pages []int
	}{
		"all":              {"", []int{25}},
		"tens":             {"limit=10", []int{10, 10, 5}},
		"the last is full": {"limit=5", []int{5, 5, 5, 5, 5}},
		"one route":        {"limit=5&route=vnc", []int{5, 5, 2}},
		"one user":         {"user=u-c_07", []int{1}},
		"user and route":   {"user=u-c_07&route=chat", []int{0}},
		"empty is all":     {"route=&user=&limit=&cursor=", []int{25}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pages, ids := walk(t, base, test.query)
			if !slices.Equal(pages, test.pages) {
				t.Errorf("pages of %v, want %v", pages, test.pages)
			}
			if !slices.IsSorted(ids) || len(slices.Compact(ids)) != len(ids) {
				t.Errorf("ids: %v", ids)
			}
		})
	}
	for query, says := range map[string]string{
		"limit=0": "from 1 to 1000", "limit=1001": "from 1 to 1000", "limit=ten": `limit "ten"`, "limit=-1": "from 1",
		"rout=chat": `"rout" is unknown; known are route, user, limit, cursor`, "route=a&route=b": `"route" stands 2 times`,
		"route=%zz": "invalid URL escape", "user=%ff": "not UTF-8",
	} {
		exchange{method: "GET", path: "/v1/connections?" + query}.do(t, base).wantError(t, 400, says)
	}
}

// walk follows the cursors, and gives the sizes of the pages and the ids.
func walk(t *testing.T, base, query string) (sizes []int, ids []string) {
	t.Helper()
	values, err := url.ParseQuery(query)
	if err != nil {
		t.Fatal(err)
	}
	for {
		got := exchange{method: "GET", path: "/v1/connections?" + values.Encode()}.do(t, base)
		var p page
		if err := json.Unmarshal([]byte(got.body), &p); err != nil || got.status != 200 {
			t.Fatalf("%d %s: %v", got.status, got.body, err)
		}
		sizes = append(sizes, len(p.Connections))
		for _, c := range p.Connections {
			ids = append(ids, c.ID)
		}
		if p.Next == "" {
			return sizes, ids
		}
		values.Set("cursor", p.Next)
	}
}

func TestClose(t *testing.T) {
	t.Parallel()
	reason := strings.Repeat("ü", 61) + "." // 123 bytes
	for name, test := range map[string]struct {
		query, body string
		want        ws.Cause
	}{
		"plain":             {"", "", ws.Cause{Kind: ws.Kicked, Code: 1000}},
		"query":             {"?code=4001&reason=token+expired", "", ws.Cause{Kind: ws.Kicked, Code: 4001, Reason: "token expired"}},
		"reason alone":      {"?reason=bye", "", ws.Cause{Kind: ws.Kicked, Code: 1000, Reason: "bye"}},
		"body":              {"", `{"code":1008,"reason":"no"}`, ws.Cause{Kind: ws.Kicked, Code: 1008, Reason: "no"}},
		"empty body":        {"", `{}`, ws.Cause{Kind: ws.Kicked, Code: 1000}},
		"longest reason":    {"?reason=" + url.QueryEscape(reason), "", ws.Cause{Kind: ws.Kicked, Code: 1000, Reason: reason}},
		"last private code": {"?code=4999", "", ws.Cause{Kind: ws.Kicked, Code: 4999}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := conn("c_1", "chat")
			got := exchange{method: "DELETE", path: "/v1/connections/c_1" + test.query, body: test.body}.do(t, serve(t, newAPI(c).Push()))
			if got.status != 202 || !strings.Contains(got.body, `"id":"c_1"`) {
				t.Errorf("got %d %s", got.status, got.body)
			}
			if ends := c.ends(); !slices.Equal(ends, []ws.Cause{test.want}) {
				t.Errorf("ended by %v, want %v", ends, test.want)
			}
		})
	}
}

func TestCloseRefusals(t *testing.T) {
	t.Parallel()
	c := conn("c_1", "chat")
	base := serve(t, newAPI(c).Push())
	for name, test := range map[string]struct {
		query, body string
		status      int
		says        string
	}{
		"code without frame":  {"?code=1005", "", 400, "1000-1003, 1007-1014 and 3000-4999"},
		"code of TLS":         {"", `{"code":1015}`, 400, "code 1015 may not stand in a close frame"},
		"code unassigned":     {"?code=2999", "", 400, "code 2999"},
		"code beyond 16 bits": {"?code=66536", "", 400, "code 66536"}, // 1000 in 16 bits
		"negative code":       {"?code=-64536", "", 400, "code -64536"},
		"code no number":      {"?code=normal", "", 400, `code "normal"`},
		"code no integer":     {"", `{"code":1000.5}`, 400, `"code" must be a whole number`},
		"code as text":        {"", `{"code":"1000"}`, 400, `"code" must be a whole number`},
		"code null":           {"", `{"code":null}`, 400, `"code" must be a whole number`},
		"reason too long":     {"?reason=" + strings.Repeat("x", 124), "", 400, "124 bytes long: a close frame has room for 123"},
		"reason no UTF-8":     {"?reason=%ff", "", 400, "not UTF-8"},
		"unknown parameter":   {"?status=1000", "", 400, "known are code, reason"},
		"unknown member":      {"", `{"status":1000}`, 400, `"status"; known are code, reason`},
		"in both":             {"?code=1000", `{"reason":"x"}`, 400, "not in both"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			exchange{method: "DELETE", path: "/v1/connections/c_1" + test.query, body: test.body}.do(t, base).
				wantError(t, test.status, test.says)
		})
	}
	t.Run("unknown connection", func(t *testing.T) {
		exchange{method: "DELETE", path: "/v1/connections/c_2"}.do(t, base).wantError(t, 410, `"c_2"`)
	})
	t.Run("body of another type", func(t *testing.T) {
		form := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
		exchange{method: "DELETE", path: "/v1/connections/c_1", body: "code=1000", header: form}.do(t, base).wantError(t, 415, "application/json")
	})
	t.Cleanup(func() {
		if ends := c.ends(); ends != nil {
			t.Errorf("refused calls ended the connection by %v", ends)
		}
	})
}

package admin

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// Without tokens only programs on this machine may call, and never a web page (DNS rebinding, forms, fetch).
func TestLocal(t *testing.T) {
	t.Parallel()
	base := serve(t, newAPI(conn("c_1", "chat")).Admin())
	port := base[strings.LastIndexByte(base, ':'):]
	send := `{"to":{"connection":"c_1"},"text":"hi"}`
	for name, test := range map[string]struct {
		exchange
		status int
		says   string
	}{
		"address":         {exchange{host: "127.0.0.1" + port}, 200, ""},
		"localhost":       {exchange{host: "LocalHost." + port}, 200, ""},
		"IPv6 literal":    {exchange{host: "[::1]" + port}, 200, ""},
		"foreign host":    {exchange{host: "evil.example" + port}, 403, `host "evil.example`},
		"host like ours":  {exchange{host: "127.0.0.1.evil.example"}, 403, "foreign"},
		"host below":      {exchange{host: "localhost.evil.example"}, 403, "foreign"},
		"origin":          {exchange{header: http.Header{"Origin": {"https://evil.example"}}}, 403, `"https://evil.example"`},
		"own origin":      {exchange{header: http.Header{"Origin": {base}}}, 403, "web pages"},
		"null origin":     {exchange{header: http.Header{"Origin": {"null"}}}, 403, "web pages"},
		"empty origin":    {exchange{header: http.Header{"Origin": {""}}}, 403, "web pages"},
		"form body":       {exchange{method: "POST", body: send, header: http.Header{"Content-Type": {"text/plain"}}}, 415, "application/json"},
		"no content type": {exchange{method: "POST", body: send, header: http.Header{"Content-Type": nil}}, 415, "application/json"},
		"charset":         {exchange{method: "POST", body: send, header: http.Header{"Content-Type": {"Application/JSON; charset=utf-8"}}}, 200, ""},
		"token":           {exchange{header: http.Header{"Authorization": {"Bearer unasked"}}}, 200, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := test.exchange
			if e.path = "/v1/send"; e.method == "" {
				e.method, e.path = "GET", "/v1/connections"
			}
			got := e.do(t, base)
			if test.status != 200 {
				got.wantError(t, test.status, test.says)
			} else if got.status != 200 {
				t.Errorf("got %d %s", got.status, got.body)
			}
		})
	}
}

func TestLocalPeer(t *testing.T) {
	t.Parallel()
	for peer, status := range map[string]int{
		"127.0.0.1:5000": 200, "[::1]:5000": 200, "[::ffff:127.0.0.1]:5000": 200,
		"203.0.113.7:5000": 403, "[2001:db8::1]:5000": 403, "@": 403, "": 403,
	} {
		r := httptest.NewRequest("GET", "http://127.0.0.1/v1/connections", nil)
		r.RemoteAddr = peer
		w := httptest.NewRecorder()
		newAPI().Push().ServeHTTP(w, r)
		if w.Code != status {
			t.Errorf("peer %q: %d %s, want %d", peer, w.Code, w.Body, status)
		}
	}
}

func TestTokens(t *testing.T) {
	t.Parallel()
	api := newAPI(conn("c_1", "chat"))
	api.AdminTokens = []Token{
		{Name: "pusher", Token: "push-secret", May: []string{"push"}},
		{Name: "reader", Token: "read-secret", May: []string{"read"}},
		{Name: "closer", Token: "close-secret", May: []string{"close"}},
		{Name: "root", Token: "root-secret", May: []string{"admin"}},
	}
	base := serve(t, api.Admin())
	calls := map[string]exchange{
		"push":  {method: "POST", path: "/v1/send", body: `{"to":{"connection":"c_1"},"text":"hi"}`},
		"read":  {method: "GET", path: "/v1/connections/c_1"},
		"close": {method: "DELETE", path: "/v1/connections/c_1"},
	}
	with := func(e exchange, authorization string) reply {
		e.header = http.Header{"Authorization": {authorization}}
		return e.do(t, base)
	}
	t.Run("each role does its own", func(t *testing.T) {
		for needed, call := range calls {
			for _, token := range api.AdminTokens {
				got := with(call, "Bearer "+token.Token.Reveal())
				if may := token.May[0]; may == needed || may == "admin" {
					if got.status >= 300 {
						t.Errorf("%s as %s: %d %s", needed, token.Name, got.status, got.body)
					}
					continue
				}
				got.wantError(t, 403, `the token "`+token.Name+`"`, `add "`+needed+`"`)
				if h := got.header.Get("WWW-Authenticate"); !strings.Contains(h, `scope="`+needed+`"`) {
					t.Errorf("WWW-Authenticate: %s does not name the role %s", h, needed)
				}
			}
		}
	})
	t.Run("metrics and index are read", func(t *testing.T) {
		for _, path := range []string{"/metrics", "/"} {
			with(exchange{method: "GET", path: path}, "Bearer push-secret").wantError(t, 403, `"read"`)
			if got := with(exchange{method: "GET", path: path}, "Bearer read-secret"); got.status != 200 {
				t.Errorf("GET %s: %d %s", path, got.status, got.body)
			}
		}
	})
	t.Run("nobody else", func(t *testing.T) {
		for authorization, says := range map[string]string{
			"": "a token is needed", "Basic cHVzaC1zZWNyZXQ=": "a token is needed", "push-secret": "a token is needed",
			"Bearer": "unknown", "Bearer wrong": "unknown", "Bearer push-secre": "unknown", "Bearer push-secret2": "unknown",
			"Bearer ***": "unknown", "Bearer PUSH-SECRET": "unknown",
		} {
			got := with(calls["push"], authorization)
			got.wantError(t, 401, says)
			if h := got.header.Get("WWW-Authenticate"); !strings.HasPrefix(h, `Bearer realm="bridgehead"`) {
				t.Errorf("%q: WWW-Authenticate: %q", authorization, h)
			}
		}
	})
	t.Run("the scheme is case-insensitive", func(t *testing.T) {
		if got := with(calls["read"], "bEARER  read-secret"); got.status != 200 {
			t.Errorf("%d %s", got.status, got.body)
		}
	})
	t.Run("strangers learn nothing of the calls", func(t *testing.T) {
		exchange{method: "GET", path: "/nowhere"}.do(t, base).wantError(t, 401)
		exchange{method: "PUT", path: "/v1/send"}.do(t, base).wantError(t, 401)
	})
	t.Run("a token says enough for any host", func(t *testing.T) {
		e := calls["read"]
		e.host = "gateway.internal"
		if got := with(e, "Bearer read-secret"); got.status != 200 {
			t.Errorf("%d %s", got.status, got.body)
		}
	})
	t.Run("the other listener has its own", func(t *testing.T) {
		api.PushTokens = []Token{{Name: "php", Token: "php-secret", May: []string{"push"}}}
		e := calls["push"]
		e.header = http.Header{"Authorization": {"Bearer push-secret"}}
		e.do(t, serve(t, api.Push())).wantError(t, 401, "unknown")
	})
}

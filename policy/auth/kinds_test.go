package auth

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"bridgehead/internal/unit"
	"bridgehead/policy"
)

func TestKeysThatAreMade(t *testing.T) {
	t.Parallel()
	token, line, err := NewKey("ci")
	if err != nil || strings.Contains(line, token) || !strings.HasPrefix(token, "bh_") || len(token) < 40 {
		t.Fatalf("%q %q %v", token, line, err)
	}
	o := DefaultAPIKey()
	o.File = write(t, "keys.txt", "# comment\n\n#"+strings.Repeat(" long", 20_000)+"\n"+line+" plan=pro note=a=b\n")
	c := only(t, Options{APIKey: &o, ForwardClaims: []string{"plan"}})
	f := bearer(token)
	admit(t, c, f)
	if f.User != "ci" || strings.Join(f.Claims.Texts("note"), "") != "a=b" || len(f.Told) != 1 {
		t.Errorf("%q %v %v", f.User, f.Claims, f.Told)
	}
	refuse(t, c, bearer(strings.TrimPrefix(line, "ci sha256:")), nil, reasonInvalid, "none of those") // the hash is no key
	for _, name := range []string{"", "a b", "a#", "a\n"} {
		if _, _, err := NewKey(name); err == nil {
			t.Errorf("%q is taken for a name", name)
		}
	}
}

func TestFilesAreReadAgain(t *testing.T) {
	t.Parallel()
	log := new(book)
	o := DefaultAPIKey()
	o.File = write(t, "keys.txt", "ann sha256:"+hashKey("first")+"\n")
	set := must(NewSet(map[string]Options{"keys": {APIKey: &o}}, nil, Setup{Log: log.logger()}))
	t.Cleanup(func() { set.Release(nil) })
	c := must(set.Checker(Use{Any: []string{"keys"}}, nil))
	admit(t, c, bearer("first"))
	replace := func(content, logged string) {
		t.Helper()
		if err := os.WriteFile(o.File+".new", []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(o.File+".new", o.File); err != nil {
			t.Fatal(err)
		}
		log.waitFor(t, logged)
	}
	replace("ann sha256:"+hashKey("second")+"\nbob sha256:"+hashKey("third")+"\n", "entries=2")
	admit(t, c, bearer("second"))
	refuse(t, c, bearer("first"), nil, reasonInvalid, "")
	replace("ann second-key-in-the-clear\n", "the old entries stay")
	admit(t, c, bearer("second"))
	if strings.Contains(log.String(), "in-the-clear") {
		t.Errorf("the log shows what stands in the file:\n%s", log)
	}
}

func TestLinesThatCannotBe(t *testing.T) {
	t.Parallel()
	hash := "sha256:" + hashKey("x")
	cheap, costly := string(must(bcrypt.GenerateFromPassword([]byte("x"), bcrypt.MinCost))), "$2y$15$"+strings.Repeat("a", 53)
	for content, want := range map[string]string{
		"ann": "keys.txt:1: write a line as NAME", "ann x": "behind the name sha256:", "ann sha256:00": "64 hexadecimal", "ann sha256:" + strings.Repeat("g", 64): "64 hexadecimal",
		"# c\n\nann " + hash + " x": `keys.txt:3: "x" is no claim`, "ann " + hash + " x=": "is no claim", "ann " + hash + "\nbob " + hash: "keys.txt:2: this entry stands there already",
	} {
		o := DefaultAPIKey()
		o.File = write(t, "keys.txt", content)
		if _, err := o.open(Setup{Log: new(book).logger(), Still: true}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", content, err, want)
		}
	}
	for content, want := range map[string]string{
		"ann": "htpasswd:1: write a line as USER:HASH", ":x": "USER:HASH", "ann:secret": "none of bcrypt", "ann:$apr1$x$y": "none of bcrypt", "ann:" + costly: "the cost 15",
		"ann:" + cheap + "\nann:" + cheap: "htpasswd:2: this entry",
	} {
		o := DefaultBasic()
		o.File = write(t, "htpasswd", content)
		if _, err := o.open(Setup{Log: new(book).logger(), Still: true}); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v, want %q", content, err, want)
		}
	}
	missing := DefaultBasic()
	missing.File = write(t, "x", "") + ".gone"
	if _, err := missing.open(Setup{Log: new(book).logger()}); err == nil {
		t.Error("a file that is not there is read")
	}
}

func FuzzLines(f *testing.F) {
	f.Add("ann sha256:" + hashKey("x") + " a=b")
	f.Add("ann:$2y$05$" + strings.Repeat("a", 53))
	f.Fuzz(func(t *testing.T, line string) {
		if hash, holder, err := parseKeyLine(line); err == nil && (len(hash) != 64 || holder.name == "") {
			t.Errorf("%q is %q, %+v", line, hash, holder)
		}
		if user, hash, err := parsePasswordLine(line); err == nil && (user == "" || hash == "") {
			t.Errorf("%q is %q, %q", line, user, hash)
		}
	})
}

func basic(user, password string) string {
	return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

func TestPasswords(t *testing.T) {
	t.Parallel()
	hash := func(password string) string {
		return string(must(bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)))
	}
	o := DefaultBasic()
	o.File = write(t, "htpasswd", "ann:"+hash("secret")+"\nbob:"+strings.Replace(hash("other:word"), "$2a$", "$2y$", 1)+"\nlong:"+hash(strings.Repeat("x", 72))+"\n")
	c := only(t, Options{Basic: &o})
	for range 3 { // the second time from what is remembered
		f := facts("/ws", basic("ann", "secret"))
		admit(t, c, f)
		if f.User != "ann" || f.Request.Header["Authorization"] != nil {
			t.Errorf("%q %v", f.User, f.Request.Header)
		}
		admit(t, c, facts("/ws", basic("bob", "other:word")))
		for _, wrong := range []string{basic("ann", "other"), basic("ann", ""), basic("eve", "secret"), basic("", ""), basic("Ann", "secret"), basic("long", strings.Repeat("x", 73))} {
			d := refuse(t, c, facts("/ws", wrong), nil, reasonInvalid, "do not match")
			if d.Status != 401 || d.Header.Get("Www-Authenticate") != `Basic realm="bridgehead", charset="UTF-8"` || strings.Contains(d.Error(), "secret") {
				t.Errorf("%d %v %v", d.Status, d.Header, d)
			}
		}
	}
	for _, none := range []string{"X: y", "Authorization: Bearer x", "Authorization: Basic !", "Authorization: Basic YQ=="} {
		if d := refuse(t, c, facts("/ws", none), nil, reasonMissing, ""); d.Header.Get("Www-Authenticate") == "" {
			t.Errorf("%s: no challenge", none)
		}
	}
	refuse(t, c, facts("/ws", basic("ann", "secret"), basic("bob", "other:word")), nil, reasonAmbiguous, "2 Authorization")
	line := must(PasswordLine("cy", "pass word"))
	if user, made, err := parsePasswordLine(line); err != nil || user != "cy" || bcrypt.CompareHashAndPassword([]byte(made), []byte("pass word")) != nil {
		t.Errorf("%q: %v", line, err)
	}
	for user, password := range map[string]string{"": "x", "a:b": "x", "a": "", " a": "x", "b": strings.Repeat("x", 73), "#": "x"} {
		if line, err := PasswordLine(user, password); err == nil {
			t.Errorf("%q", line)
		}
	}
}

// linked is a checker of links, and what makes them.
func linked(t testing.TB) (*Checker, *SignedURL) {
	t.Helper()
	o := DefaultSignedURL()
	o.Secret = []unit.Secret{unit.Secret(strings.Repeat("n", 32)), unit.Secret(strings.Repeat("o", 32))}
	return only(t, Options{SignedURL: &o}), &o
}

func TestSignedLinks(t *testing.T) {
	t.Parallel()
	c, o := linked(t)
	older := *o
	older.Secret = o.Secret[1:]
	until := time.Now().Add(time.Hour)
	for _, test := range []struct {
		by               *SignedURL
		link, user, left string
	}{
		{o, "wss://h/ws", "ann", "user=ann"}, {o, "wss://h/ws?room=a%20b", "", "room=a%20b"}, {&older, "wss://h/ws", "x y&z", "user=x+y%26z"},
		{o, "wss://h/a%2fb/", "ann", "user=ann"}, {o, "wss://h", "ann", "user=ann"},
	} {
		signed := must(test.by.Sign(must(url.Parse(test.link)), test.user, until))
		f := facts("http://h" + signed.RequestURI())
		id := admit(t, c, f)
		if f.User != test.user || f.Request.URL.RawQuery != test.left || !id.Expires.IsZero() {
			t.Errorf("%s: user %q, left %q, %+v", signed, f.User, f.Request.URL.RawQuery, id)
		}
	}
	f := facts("http://h" + must(o.Sign(must(url.Parse("/ws?room=5")), "ann", until)).RequestURI())
	admit(t, c, f)
	if got := string(must(json.Marshal(f.Claims))); got != `{"room":"5","user":"ann"}` {
		t.Errorf("claims %s", got)
	}
	for _, link := range []string{"/ws?expires=1", "/ws?signature=x", "/ws?user=bob"} {
		if signed, err := o.Sign(must(url.Parse(link)), "ann", until); err == nil {
			t.Errorf("%s", signed)
		}
	}
}

func TestAttacksOnSignedLinks(t *testing.T) {
	t.Parallel()
	c, o := linked(t)
	at := func(link, user string, until time.Time) string {
		return must(o.Sign(must(url.Parse(link)), user, until)).RequestURI()
	}
	good := at("/ws/5?a=1", "ann", time.Now().Add(time.Hour))
	admit(t, c, facts("http://h"+good))
	stranger := *o
	stranger.Secret = []unit.Secret{unit.Secret(strings.Repeat("z", 32))}
	i := strings.Index(good, "signature=")
	seconds := strconv.FormatInt(time.Now().Add(time.Hour).Unix(), 10)
	bySecret := func(query string) string {
		return "/ws?" + query + "&signature=" + base64.RawURLEncoding.EncodeToString(seal(o.Secret[0], "/ws?"+query))
	}
	for name, a := range map[string]struct{ link, reason string }{
		"expired":                   {at("/ws", "ann", time.Now().Add(-time.Second)), reasonExpired},
		"another path":              {strings.Replace(good, "/ws/5", "/ws/6", 1), reasonInvalid},
		"a slash more":              {strings.Replace(good, "/ws/5", "/ws//5", 1), reasonInvalid},
		"an escaped path":           {strings.Replace(good, "/ws/5", "/ws/%35", 1), reasonInvalid},
		"another parameter":         {strings.Replace(good, "a=1", "a=2", 1), reasonInvalid},
		"another user":              {strings.Replace(good, "ann", "bob", 1), reasonInvalid},
		"a later end":               {strings.Replace(good, "expires=1", "expires=2", 1), reasonInvalid},
		"a parameter in front":      {strings.Replace(good, "?", "?x=1&", 1), reasonInvalid},
		"a parameter behind":        {good + "&user=bob", reasonInvalid},
		"a fragment of a parameter": {good + "&", reasonInvalid},
		"a semicolon behind":        {good + ";user=bob", reasonInvalid},
		"no signature":              {good[:i-1], reasonMissing},
		"an empty signature":        {good[:i] + "signature=", reasonInvalid},
		"a cut signature":           {good[:len(good)-4], reasonInvalid},
		"two signatures":            {good + "&" + good[i:], reasonInvalid},
		"the signature in front":    {"/ws/5?" + good[i:] + "&a=1", reasonInvalid},
		"an escaped name":           {strings.Replace(good, "signature=", "signatur%65=", 1), reasonInvalid},
		"a stranger's":              {must(stranger.Sign(must(url.Parse("/ws")), "ann", time.Now().Add(time.Hour))).RequestURI(), reasonInvalid},
		"no end":                    {bySecret("user=ann"), reasonInvalid},
		"two ends":                  {bySecret("expires=1&expires=" + seconds), reasonInvalid},
		"two users":                 {bySecret("user=ann&user=bob&expires=" + seconds), reasonInvalid},
		"an end that is no number":  {bySecret("expires=never"), reasonInvalid},
		"an end beyond all numbers": {bySecret("expires=99999999999999999999"), reasonInvalid},
		"an end before all":         {bySecret("expires=-1"), reasonExpired},
		"a query that is none":      {bySecret("user=ann;x=1&expires=" + seconds), reasonInvalid},
		"nothing":                   {"/ws", reasonMissing},
	} {
		d := refuse(t, c, facts("http://h"+a.link), nil, a.reason, "id: ")
		if tail := a.link[len(a.link)-min(12, len(a.link)):]; len(a.link) > 20 && strings.Contains(d.Error(), tail) {
			t.Errorf("%s: the signature shows: %v", name, d)
		}
	}
}

func FuzzSignedLinks(f *testing.F) {
	c, o := linked(f)
	f.Add("/ws?expires=99999999999&signature=x")
	f.Add(must(o.Sign(&url.URL{Path: "/ws"}, "ann", time.Unix(1, 0))).RequestURI())
	f.Fuzz(func(t *testing.T, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			return
		}
		client := facts("/")
		client.Request.URL = u
		if id, err := c.Admit(t.Context(), client, nil); id != nil || err == nil {
			t.Errorf("%q is let in", target)
		}
	})
}

func TestClientCertificates(t *testing.T) {
	t.Parallel()
	o := DefaultMTLS()
	c := only(t, Options{MTLS: &o})
	until := time.Now().Add(time.Hour)
	cert := &x509.Certificate{
		Subject: pkix.Name{CommonName: "device-5", OrganizationalUnit: []string{"a", "b"}}, SerialNumber: big.NewInt(7), NotAfter: until,
		DNSNames: []string{"d.example"}, URIs: []*url.URL{must(url.Parse("spiffe://x/y"))},
	}
	shown := func(leaf *x509.Certificate) *policy.Facts {
		f := facts("/ws")
		f.Chains = [][]*x509.Certificate{{leaf}}
		return f
	}
	f := shown(cert)
	id := admit(t, c, f)
	if f.User != "device-5" || !id.Expires.Equal(until) || strings.Join(f.Claims.Texts("ou"), " ") != "a b" || strings.Join(f.Claims.Texts("uri"), "") != "spiffe://x/y" {
		t.Errorf("%q %v %+v", f.User, f.Claims, id)
	}
	unverified := facts("/ws")
	unverified.Request.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}} // nobody has vouched for it
	refuse(t, c, unverified, nil, reasonMissing, "client_ca")
	old, nameless := *cert, *cert
	old.NotAfter, nameless.Subject.CommonName = time.Now().Add(-time.Second), ""
	refuse(t, c, shown(&old), nil, reasonExpired, "")
	refuse(t, c, shown(&nameless), nil, reasonInvalid, "no cn")
	o = MTLS{User: "dns"}
	f = shown(cert)
	if admit(t, only(t, Options{MTLS: &o}), f); f.User != "d.example" {
		t.Errorf("user %q", f.User)
	}
}

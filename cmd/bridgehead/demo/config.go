package demo

import (
	"path/filepath"
	"strings"

	"bridgehead/cmd/bridgehead/local"
)

// Config is the configuration that puts the bridge in front of the backends, as the text of a YAML file.
func (b *Backends) Config() string {
	return strings.NewReplacer(
		"$STATE", local.YAML(filepath.Join(b.Dir, "state")),
		"$WWW", local.YAML(filepath.Join(b.Dir, "www")),
		"$HTTPS", local.YAML(b.HTTPS), "$HTTP", local.YAML(b.HTTP), "$PUSH", local.YAML(b.Push), "$ADMIN", local.YAML(b.Admin),
		"$CHAT", local.YAML("ws://"+b.Chat), "$LINE", local.YAML(b.Line), "$APP", local.YAML("http://"+b.App+"/events"),
		"$SECRET", local.YAML(b.Secret), "$TOKEN", local.YAML(b.PushToken), "$ORIGINS", local.Origins,
	).Replace(configText)
}

const configText = `# What "bridgehead demo" serves: one route for each kind of backend, and a page to try them.
state: $STATE
certificates: {internal: true}

listeners:
  - {name: https, address: $HTTPS, tls: true}
  - {name: http, address: $HTTP}

routes:
  - name: chat                # a WebSocket server; the path and query of the client reach it
    path: /chat
    websocket: {to: $CHAT}
  - name: line                # a TCP service of lines of text
    path: /line
    tcp: {to: $LINE, framing: line, message: text}
  - name: app                 # an HTTP application: each event is a signed POST
    path: /app
    webhook: {to: $APP, secret: $SECRET, refusal_body: true}
  - name: page
    files: {dir: $WWW}

# Where the application pushes to, and where operators look.
push: {address: $PUSH, tokens: [{name: demo, token: $TOKEN, may: [push]}]}
admin: {address: $ADMIN}

# Pages of any server on this machine may open sockets; and Ctrl-C is not to be waited for.
defaults:
  origins: $ORIGINS
  socket: {close_timeout: 250ms}
drain: 250ms
`

// Guide is what to tell the person at the terminal once the bridge listens: what to open and what to type. address gives where a
// listener of the bridge, https, http, push or admin, has come to listen; caPath is the file of the local authority's root.
func (b *Backends) Guide(address func(listener string) string, caPath string) string {
	return strings.NewReplacer(
		"$HTTPS", address("https"), "$HTTP", address("http"), "$PUSH", address("push"), "$ADMIN", address("admin"),
		"$CA", local.Shell(caPath), "$LINE", strings.Replace(b.Line, ":", " ", 1), "$TOKEN", b.PushToken, "$UPGRADE", upgradeHeaders,
	).Replace(guideText)
}

// upgradeHeaders make curl ask for a WebSocket; the key is the sample of RFC 6455, section 1.3.
const upgradeHeaders = `-H 'Connection: Upgrade' -H 'Upgrade: websocket' -H 'Sec-WebSocket-Version: 13' ` +
	`-H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=='`

const guideText = `The demo is running. Open one of these in a browser:

  http://$HTTP/      works as it is
  https://$HTTPS/     once the browser trusts $CA

Or talk to the backends from another shell (in a checkout, go run ./cmd/bridgehead stands for bridgehead):

  a chat, behind a websocket route
    bridgehead connect --ca $CA 'wss://$HTTPS/chat?name=ann'
  a TCP service of lines, behind a tcp route; then the same without the bridge
    bridgehead connect --ca $CA wss://$HTTPS/line
    nc $LINE
  an HTTP application, behind a webhook route; it pushes every few seconds
    bridgehead connect --ca $CA 'wss://$HTTPS/app?name=ann'

Push to every socket of the application, and see who is there:

    curl -H 'Authorization: Bearer $TOKEN' -H 'Content-Type: application/json' \
      -d '{"to":{"route":"app"},"text":"hello from a shell"}' http://$PUSH/v1/send
    curl http://$ADMIN/v1/connections
    curl http://$ADMIN/metrics

Be refused: no WebSocket at all (426), a page from elsewhere (403), a name the application does not like (403):

    curl -i http://$HTTP/chat
    curl -i -H 'Origin: https://evil.example' $UPGRADE http://$HTTP/chat
    curl -i $UPGRADE 'http://$HTTP/app?name=not+allowed'

Ctrl-C ends everything.
`

// Package starter holds the configurations that `bridgehead init` writes: commented files to start from, each of which runs as it
// is on a developer's machine.
package starter

import "embed"

//go:embed *.yaml
var files embed.FS

// A Kind is one file to start from.
type Kind struct {
	Name  string
	Short string // what it bridges, in a line
	Try   string // what to give to `bridgehead connect` to try it, without --ca
}

// Kinds are all of them.
func Kinds() []Kind {
	return []Kind{
		{"chat", "a WebSocket server and its page, behind wss", "wss://127.0.0.1:8443/ws"},
		{"vnc", "the screen of a machine, for noVNC in a browser", "wss://127.0.0.1:8443/websockify"},
		{"mqtt", "an MQTT broker, for browsers", "wss://127.0.0.1:8443/mqtt --subprotocol mqtt"},
		{"webhook", "an HTTP application, such as PHP or Rails, that gets messages as requests and pushes", "wss://127.0.0.1:8443/events/lobby"},
		{"saas", "a host for each tenant, with limits per tenant", "wss://acme.localhost:8443/ws --address 127.0.0.1:8443"},
	}
}

// File is the text of a kind's configuration, or nil if there is no such kind.
func File(name string) []byte {
	text, err := files.ReadFile(name + ".yaml")
	if err != nil {
		return nil
	}
	return text
}

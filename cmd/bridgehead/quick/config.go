package quick

import (
	"fmt"
	"path/filepath"
	"strings"

	"bridgehead/cmd/bridgehead/local"
)

// Listener is the name of the listener for clients.
const Listener = "quick"

// Config is the bridge as the text of a configuration that keeps its state in a directory. `bridgehead serve` takes it wherever
// it is put.
func (b *Bridge) Config(state string) string {
	var text strings.Builder
	line := func(format string, values ...any) { fmt.Fprintf(&text, format+"\n", values...) }
	line("# The same as: %s", b.Command())
	line("# To run it from this file: bridgehead serve -c FILE")
	line("")
	line("# The directory for what must survive a restart, such as the local authority; and for the admin socket.")
	line("state: %s", local.YAML(state))
	if b.from.secure {
		b.writeCertificates(line)
	}
	line("")
	line("listeners:")
	line("  - name: %s", Listener)
	line("    address: %s", local.YAML(b.from.address()))
	line("    tls: %t", b.from.secure)
	line("")
	line("# Which pages may open sockets. Clients that are no browsers send no origin, and pass.")
	line("defaults:")
	line("  origins: %s", b.origins())
	line("")
	line("routes:")
	b.writeRoute(line)
	line("")
	line("# For operators: health, metrics, the open sockets.")
	line("admin:")
	line("  address: %s", local.YAML(b.admin(state)))
	if b.options.Log != "" {
		line("")
		line("log:")
		line("  level: %s", local.YAML(b.options.Log))
	}
	return text.String()
}

func (b *Bridge) writeCertificates(line func(format string, values ...any)) {
	line("")
	line("certificates:")
	if b.options.Cert == "" {
		line("  # A local authority, whose root clients must trust: bridgehead ca -c FILE prints it.")
		line("  internal: true")
		return
	}
	line("  files:")
	line("    - cert: %s", local.YAML(b.options.Cert))
	line("      key: %s", local.YAML(b.options.Key))
}

func (b *Bridge) origins() string {
	if len(b.options.Origins) == 0 {
		return local.Origins
	}
	return list(b.options.Origins)
}

func (b *Bridge) writeRoute(line func(format string, values ...any)) {
	line("  - name: %s", Listener)
	if b.from.path != "" {
		line("    path: %s", local.YAML(b.from.path))
	}
	if b.options.Ping != "" {
		line("    socket:")
		line("      ping: %s", b.options.Ping)
	}
	line("    %s:", b.to.kind)
	line("      to: %s", local.YAML(b.to.url))
	if b.options.Framing != "" {
		line("      framing: %s", b.options.Framing)
	}
	if b.options.Text {
		line("      message: text")
	}
	if len(b.options.Subprotocols) > 0 {
		line("      subprotocols: %s", list(b.options.Subprotocols))
	}
	if b.options.Web != "" {
		line("  - name: web")
		line("    files:")
		line("      dir: %s", local.YAML(b.options.Web))
	}
}

// list is a YAML list of texts.
func list(values []string) string {
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = local.YAML(v)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// admin is an address for operators that no other bridge on this machine has: two cannot listen for clients at the same one.
func (b *Bridge) admin(state string) string {
	if b.from.port == "0" {
		return "127.0.0.1:0"
	}
	name := strings.NewReplacer("[", "", "]", "", ":", "-").Replace(b.from.address())
	return "unix:" + filepath.Join(state, "quick-"+strings.TrimPrefix(name, "-")+".sock")
}

// Command is the shortest command line of `bridgehead quick` for the bridge.
func (b *Bridge) Command() string {
	o := b.options
	words := []string{"bridgehead", "quick"}
	add := func(flag string, values ...string) {
		for _, v := range values {
			if v != "" {
				words = append(words, flag, local.Shell(v))
			}
		}
	}
	add("--from", o.From)
	add("--to", o.To)
	add("--as", o.As)
	add("--cert", o.Cert)
	if o.Key != o.Cert {
		add("--key", o.Key)
	}
	add("--origin", o.Origins...)
	add("--web", o.Web)
	add("--subprotocol", o.Subprotocols...)
	add("--framing", o.Framing)
	if o.Text {
		words = append(words, "--text")
	}
	if seconds, ok := strings.CutSuffix(o.Ping, "s"); ok {
		add("--heartbeat", seconds)
	} else if o.Ping == off {
		add("--heartbeat", "0")
	}
	add("--log", o.Log)
	return strings.Map(onOneLine, strings.Join(words, " "))
}

// onOneLine keeps control characters, which would end a comment, out of it.
func onOneLine(r rune) rune {
	if r < ' ' || r == 0x7F || r == 0x85 || r == 0x2028 || r == 0x2029 {
		return '?'
	}
	return r
}

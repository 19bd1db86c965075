//go:build linux

package proxies

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bridgehead/internal/leak"
	"bridgehead/test/bench/process"
)

func TestMain(m *testing.M) { leak.Main(m) }

// Every configuration names the ports, the backend and the certificate, and no command line is left with a template in it.
func TestCommand(t *testing.T) {
	t.Parallel()
	for _, p := range append(Peers(), Ours("ours", "ours", "drain: 1s")) {
		dir := t.TempDir()
		v := values{
			Site:  Site{Dir: dir, Certificates: "/certificates", WebSocket: "127.0.0.1:1001", TCP: "127.0.0.1:1002", HTTP: "127.0.0.1:1005", Files: 1000},
			Plain: 1003, Secure: 1004, Pairs: 450, Extra: p.extra,
		}
		cmd, err := p.command(v)
		if err != nil {
			t.Errorf("%s: %v", p.Name, err)
			continue
		}
		text := strings.Join(cmd.Args, " ")
		var want []string
		if p.template != "" {
			file, err := os.ReadFile(filepath.Join(dir, p.template))
			if err != nil {
				t.Errorf("%s: %v", p.Name, err)
			}
			text += "\n" + string(file)
			want = append(want, dir, "1004")
		}
		if p.Relay {
			want = append(want, "127.0.0.1:1001", "/certificates/")
		}
		if p.Stream {
			want = append(want, "127.0.0.1:1002")
		}
		if p.Webhook {
			want = append(want, "127.0.0.1:1005")
		}
		for _, s := range append(append(want, "1003"), p.extra...) {
			if !strings.Contains(text, s) {
				t.Errorf("%s has no %q in\n%s", p.Name, s, text)
			}
		}
		if strings.Contains(text, "{{") || strings.Contains(text, "<no value>") {
			t.Errorf("%s has a hole in\n%s", p.Name, text)
		}
	}
}

// A program that ends is told at once, with its last words.
func TestStartFails(t *testing.T) {
	t.Parallel()
	cores, err := process.Cores()
	if err != nil {
		t.Fatal(err)
	}
	broken := Proxy{Name: "broken", Program: "sh", args: []string{"-c", "echo no such option; exit 1"}}
	_, err = broken.Start(t.Context(), Site{Dir: t.TempDir(), Files: 1000, Cores: process.Of(cores...)})
	if err == nil || !strings.Contains(err.Error(), "start broken: it ended: no such option") {
		t.Errorf("%v", err)
	}
}

func TestFind(t *testing.T) {
	t.Parallel()
	if _, _, err := (Proxy{Program: "no-such-proxy"}).Find(t.Context()); err == nil || err.Error() != "no-such-proxy is not installed" {
		t.Errorf("%v", err)
	}
	found := Proxy{Name: "shell", Program: "sh", version: []string{"-c", "echo 'this is shell v1.22.3-rc (built today)'"}}
	if path, title, err := found.Find(t.Context()); filepath.Base(path) != "sh" || title != "shell 1.22.3" || err != nil {
		t.Errorf("%q, %q, %v", path, title, err)
	}
}

func TestCertificate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := WriteCertificate(dir); err != nil {
		t.Fatal(err)
	}
	for _, names := range [][2]string{{"cert.pem", "key.pem"}, {"both.pem", "both.pem"}} {
		if _, err := tls.LoadX509KeyPair(filepath.Join(dir, names[0]), filepath.Join(dir, names[1])); err != nil {
			t.Errorf("%v: %v", names, err)
		}
	}
}

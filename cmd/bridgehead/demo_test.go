package main

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"strings"
	"testing"

	"bridgehead/cmd/bridgehead/demo"
)

// A guide is an output that ends the demo with the first thing it is told.
type guide struct {
	bytes.Buffer
	end context.CancelFunc
}

func (g *guide) Write(p []byte) (int, error) {
	defer g.end()
	return g.Buffer.Write(p)
}

func TestADemoWhosePortWasTakenUsesOthers(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	ctx, end := context.WithCancel(context.WithoutCancel(t.Context()))
	backends, err := demo.Start(ctx, slog.New(slog.DiscardHandler))
	if err != nil {
		end()
		t.Fatal(err)
	}
	defer backends.Wait()
	defer end()
	backends.AnyPorts()
	backends.Push = taken.Addr().String() // was free when the demo looked

	out := &guide{end: end}
	cmd := newDemo()
	cmd.SetContext(ctx)
	cmd.SetOut(out)
	if err := serveDemo(cmd, backends, slog.New(slog.DiscardHandler)); err != nil {
		t.Errorf("the demo ended with %v", err)
	}
	if text := out.String(); !strings.Contains(text, "Open one of these in a browser") || strings.Contains(text, taken.Addr().String()) {
		t.Errorf("the guide is\n%s", text)
	}
}

//go:build linux

package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
)

// machine describes where and with what is measured, a line each.
func (s *suite) machine() []string {
	lines := []string{
		fmt.Sprintf("%s, %s, Linux %s, %s", cpuModel(), plural(runtime.NumCPU(), "core"), firstLine("/proc/sys/kernel/osrelease"), runtime.Version()),
		"measured: " + strings.Join(s.found, "; "),
		s.cores.what,
	}
	for _, m := range s.missing {
		lines = append(lines, "not measured: "+m)
	}
	return lines
}

// loadAverage is how busy the machine was: what waits to run, over 1, 5 and 15 minutes.
func loadAverage() string {
	fields := strings.Fields(firstLine("/proc/loadavg"))
	return strings.Join(fields[:min(3, len(fields))], " ")
}

func cpuModel() string {
	text, _ := os.ReadFile("/proc/cpuinfo") // it describes; nothing depends on it
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

func firstLine(name string) string {
	text, err := os.ReadFile(name)
	if err != nil {
		return "unknown"
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return line
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

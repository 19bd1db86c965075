//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "bench: the benchmarks need Linux: they read /proc and are built on epoll")
	os.Exit(1)
}

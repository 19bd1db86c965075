package demo

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	maxCallers = 200
	maxLine    = 1024
	lineIdle   = 10 * time.Minute
)

// lines is a TCP service as they were built when nobody thought of browsers: it speaks first, takes a command a line, answers in
// lines that end in CR LF, and knows nothing of WebSocket, TLS or HTTP.
type lines struct {
	log   *slog.Logger
	began time.Time
	slots chan struct{} // one for each caller
}

func newLines(log *slog.Logger) *lines {
	return &lines{log: log, began: time.Now(), slots: make(chan struct{}, maxCallers)}
}

// serve answers calls until ctx ends.
func (s *lines) serve(ctx context.Context, ln net.Listener) {
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	var calls sync.WaitGroup
	defer calls.Wait()
	for {
		conn, err := ln.Accept()
		if err != nil {
			if ctx.Err() == nil {
				s.log.Error("a backend of the demo cannot serve", "error", err)
			}
			return
		}
		select {
		case s.slots <- struct{}{}:
			calls.Go(func() {
				defer func() { <-s.slots }()
				s.call(ctx, conn)
			})
		default:
			conn.Close()
		}
	}
}

// call is one connection, from the greeting to QUIT.
func (s *lines) call(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	input := bufio.NewScanner(conn)
	input.Buffer(nil, maxLine)
	answer, more := "200 bridgehead line service ready, HELP lists the commands", true
	for {
		conn.SetDeadline(time.Now().Add(lineIdle))
		if _, err := io.WriteString(conn, answer+"\r\n"); err != nil || !more {
			return
		}
		switch {
		case input.Scan():
			answer, more = s.answer(input.Text(), time.Now())
		case errors.Is(input.Err(), bufio.ErrTooLong):
			answer, more = fmt.Sprintf("500 a line has at most %d bytes", maxLine), false
		default:
			return
		}
	}
}

// answer carries out one command. more is false after the last.
func (s *lines) answer(line string, now time.Time) (answer string, more bool) {
	verb, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
	switch strings.ToUpper(verb) {
	case "HELP":
		return "214 HELP, TIME, ECHO text, ADD 2 3, UPTIME, QUIT", true
	case "TIME":
		return "250 " + now.UTC().Format(time.RFC3339), true
	case "ECHO":
		return "250 " + rest, true
	case "ADD":
		return add(strings.Fields(rest)), true
	case "UPTIME":
		return "250 up for " + now.Sub(s.began).Round(time.Second).String(), true
	case "QUIT":
		return "221 goodbye", false
	default:
		return fmt.Sprintf("500 unknown command %q, HELP lists the commands", verb), true
	}
}

func add(numbers []string) string {
	sum := 0.0
	for _, text := range numbers {
		n, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return fmt.Sprintf("501 %q is not a number", text)
		}
		sum += n
	}
	return "250 " + strconv.FormatFloat(sum, 'g', -1, 64)
}

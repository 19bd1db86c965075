package connect

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/gorilla/websocket"

	"bridgehead/ws"
)

// helpText is what /help shows.
const helpText = `a line that you type is sent as a text message, unless it begins with a slash:
/ping [TEXT]           ping the server; the pong shows the time it took
/pong [TEXT]           send a pong that nobody asked for
/hex 00 ff ...         send these bytes as a binary message
/binary TEXT           send a text as a binary message
/file PATH             send a file as a binary message
/close [CODE [REASON]] close: 1000, and 3000-4999 for an application's own reasons; 1005 sends no code
//...                  send a line that begins with one slash
Ctrl-C and Ctrl-D close with 1000. Ctrl-R shows what you have typed again when a message has come over it.`

// A frame is what one line asks to be sent.
type frame struct {
	kind int    // websocket.TextMessage and so on; helpFrame sends nothing
	data []byte // of a Close: as websocket.FormatCloseMessage makes it
}

// helpFrame is the kind of a frame that is not sent, but answered with the help.
const helpFrame = 0

// parse reads a line that may be a command.
func parse(line string) (frame, error) {
	if rest, ok := strings.CutPrefix(line, "//"); ok {
		return text("/" + rest)
	}
	if !strings.HasPrefix(line, "/") {
		return text(line)
	}
	verb, rest, _ := strings.Cut(line[1:], " ")
	switch verb {
	case "help", "?":
		return frame{kind: helpFrame}, nil
	case "ping":
		return control(websocket.PingMessage, rest)
	case "pong":
		return control(websocket.PongMessage, rest)
	case "binary":
		return frame{websocket.BinaryMessage, []byte(rest)}, nil
	case "hex":
		return fromHex(rest)
	case "file":
		return fromFile(strings.TrimSpace(rest))
	case "close":
		return closing(strings.TrimSpace(rest))
	default:
		return frame{}, fmt.Errorf("/%s is no command: /help lists them, and // sends a line that begins with a slash", verb)
	}
}

// text is a line as a text message, which must be UTF-8 (RFC 6455, section 5.6).
func text(line string) (frame, error) {
	if !utf8.ValidString(line) {
		return frame{}, errors.New("it is not UTF-8, as a text message must be; --binary sends bytes as they are")
	}
	return frame{websocket.TextMessage, []byte(line)}, nil
}

func control(kind int, payload string) (frame, error) {
	if len(payload) > ws.MaxControlPayload {
		return frame{}, fmt.Errorf("%d bytes, where a ping or pong has room for %d", len(payload), ws.MaxControlPayload)
	}
	return frame{kind, []byte(payload)}, nil
}

// fromHex reads bytes in hex, with or without 0x, blanks and commas.
func fromHex(text string) (frame, error) {
	digits := strings.NewReplacer("0x", "", "0X", "", " ", "", ",", "", "\t", "").Replace(text)
	data, err := hex.DecodeString(digits)
	if err != nil {
		return frame{}, fmt.Errorf("%q is not hex: write two digits for each byte, as in /hex 00 ff", text)
	}
	return frame{websocket.BinaryMessage, data}, nil
}

func fromFile(path string) (frame, error) {
	if path == "" {
		return frame{}, errors.New("name a file, as in /file image.png")
	}
	f, err := os.Open(path)
	if err != nil {
		return frame{}, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSent+1))
	if err == nil && len(data) > maxSent {
		err = fmt.Errorf("%s has more than the %d bytes that one message may have here", path, maxSent)
	}
	return frame{websocket.BinaryMessage, data}, err
}

// closing reads the code and the reason of a Close.
func closing(text string) (frame, error) {
	first, reason, _ := strings.Cut(text, " ")
	if first == "" {
		first = "1000"
	}
	code, err := strconv.ParseUint(first, 10, 16)
	if err != nil || !ws.Code(code).Sendable() && code != websocket.CloseNoStatusReceived {
		return frame{}, fmt.Errorf("code %q may not be sent: use one of 1000-1003, 1007-1014 and 3000-4999, or 1005 for none", first)
	}
	if !utf8.ValidString(reason) {
		return frame{}, errors.New("the reason is not UTF-8")
	}
	payload := websocket.FormatCloseMessage(int(code), strings.TrimSpace(reason))
	if len(payload) > ws.MaxControlPayload {
		return frame{}, fmt.Errorf("%d bytes of reason, where a Close has room for %d", len(payload)-2, ws.MaxControlPayload-2)
	}
	return frame{websocket.CloseMessage, payload}, nil
}

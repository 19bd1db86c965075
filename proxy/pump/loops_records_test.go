//go:build linux && (amd64 || arm64)

package pump

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"bridgehead/ws"
)

// If this fails for a new toolchain, sockets with TLS work as well, and hold more memory: look what crypto/tls.Conn has become.
func TestRecordsAreKnown(t *testing.T) {
	t.Parallel()
	if !records.known {
		t.Error("the fields of a tls.Conn are others")
	}
	if findRecords(reflect.TypeFor[struct{}]()).known || findRecords(reflect.TypeFor[recordLayout]()).known {
		t.Error("other structs are taken for a tls.Conn")
	}
}

// However large the messages were, and however they were cut, nothing of them is held when the socket rests.
func TestRecordsAreGivenBack(t *testing.T) {
	t.Parallel()
	if loops == nil {
		t.Skip("no loops")
	}
	for _, k := range []kind{tls12, tls13} {
		t.Run(fmt.Sprint(byLoops, " ", k), func(t *testing.T) {
			t.Parallel()
			r := newLinkRig(t, quiet(), k, k, Backend{})
			r.link.Start()
			for _, size := range []int{1, 64 << 10, 100} {
				payload := strings.Repeat("x", size)
				for _, way := range [][2]*peer{{r.client, r.backend}, {r.backend, r.client}} {
					way[0].send(true, ws.Binary, payload)
					if f := way[1].next(); f.payload != payload {
						t.Fatalf("%d bytes of %d came", len(f.payload), size)
					}
				}
			}
			l := r.link.(*loopLink)
			held := make(chan int)
			l.loop.Post(l, func() {
				n := 0
				for i := range l.ends {
					conn := l.ends[i].secure.conn
					n += field[bytes.Buffer](conn, records.raw).Cap() + field[bytes.Buffer](conn, records.hand).Cap()
				}
				held <- n
			})
			if n := <-held; n > 0 {
				t.Errorf("crypto/tls holds %d bytes", n)
			}
		})
	}
}

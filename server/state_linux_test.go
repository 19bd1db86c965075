package server

import (
	"strings"
	"testing"
)

func TestFileSystemsThatForget(t *testing.T) {
	t.Parallel()
	for magic, says := range map[int64]string{overlayMagic: "container's own layer", tmpfsMagic: "memory", ramfsMagic: "memory", 0xef53: ""} {
		if got := fleetingKind(magic); !strings.Contains(got, says) || (got == "") != (says == "") {
			t.Errorf("%x: %q", magic, got)
		}
	}
	if got := fleeting("/nowhere/at/all"); got != "" {
		t.Errorf("a directory that is not there lies on %q", got)
	}
	if got := fleeting("/dev/shm"); got != "" && !strings.Contains(got, "memory") { // a tmpfs where there is one
		t.Errorf("/dev/shm lies on %q", got)
	}
}

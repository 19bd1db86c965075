package server

import "syscall"

// The kinds of file systems that forget (statfs(2)).
const (
	overlayMagic = 0x794c7630
	tmpfsMagic   = 0x01021994
	ramfsMagic   = 0x858458f6
)

// fleeting tells where a directory lies that does not outlive the container or the machine's run; "" if it is not known to.
func fleeting(dir string) string {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return ""
	}
	return fleetingKind(int64(fs.Type)) //nolint:unconvert // its type differs between processors
}

func fleetingKind(magic int64) string {
	switch magic {
	case overlayMagic:
		return "an overlay, such as a container's own layer, which goes with the container"
	case tmpfsMagic, ramfsMagic:
		return "memory, which is lost with the next start of the machine or container"
	}
	return ""
}

package server

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// freeBytes is the room that is left on the disk of dir.
func freeBytes(dir string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("read free space of %s: %w", dir, err)
	}
	return st.Bavail * uint64(st.Bsize), nil
}

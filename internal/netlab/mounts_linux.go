package netlab

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// PrivateMounts keeps what this process mounts from now on to itself. The
// process must have a mount namespace of its own.
//
// A namespace starts with mounts that pass on what is mounted below them, also
// to the namespace that it was copied from. In a chroot the mount below "/"
// cannot be told to stop, for its root is out of reach: there the process gets
// a new "/", which is the same tree, bound where it can be told.
func PrivateMounts() error {
	err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, "")
	if errors.Is(err, unix.EINVAL) {
		err = rebindRoot()
	}
	if err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	return nil
}

// rebindRoot uses /proc, which is a mount of its own wherever there is one, as
// the place that the new "/" hangs on.
func rebindRoot() error {
	const place, root = "/proc", "/proc/root"
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	if err := unix.Mount("", place, "", unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("%s: %w", place, err)
	}
	if err := unix.Mount("tmpfs", place, "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("cover %s: %w", place, err)
	}
	if err := os.Mkdir(root, 0o700); err != nil {
		return err
	}
	if err := unix.Mount("/", root, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind / again: %w", err)
	}
	if err := unix.Mount("", root, "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("%s: %w", root, err)
	}
	if err := unix.Chroot(root); err != nil {
		return fmt.Errorf("change to the new /: %w", err)
	}
	// The new tree has a copy of the cover.
	if err := unix.Unmount(place, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("uncover %s: %w", place, err)
	}
	return os.Chdir(dir)
}

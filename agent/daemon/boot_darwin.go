package daemon

import "golang.org/x/sys/unix"

// defaultBootIDFile is empty: macOS tells it by a sysctl.
const defaultBootIDFile = ""

func systemBootID() (string, error) { return unix.Sysctl("kern.bootsessionuuid") }

package daemon

import "errors"

// defaultBootIDFile is where Linux tells it.
const defaultBootIDFile = "/proc/sys/kernel/random/boot_id"

func systemBootID() (string, error) { return "", errors.New("--boot-id-file must not be empty") }

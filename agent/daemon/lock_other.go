//go:build !unix

package daemon

import "os"

func lock(*os.File) error { return nil }

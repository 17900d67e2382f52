//go:build !unix

package statedir

import "os"

func lock(*os.File) error { return nil }

// Package version says which build of buddyring this is.
package version

import (
	"runtime"
	"runtime/debug"
)

// release is set by the linker: -X .../internal/version.release=v1.2.3.
var release string //nolint:gochecknoglobals // the linker can only set a package variable

// String returns the released version, such as "v0.1.0"; else the version or
// the revision that the Go toolchain recorded, else "devel".
func String() string {
	if release != "" {
		return release
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "devel"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return "devel-" + s.Value[:12]
		}
	}
	return "devel"
}

// Go returns the version of the Go toolchain that built this.
func Go() string { return runtime.Version() }

package daemon

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// preferPublic is a net.Dialer.Control that prefers the host's lasting IPv6
// address to one of RFC 8981, which a host takes for a day, for its privacy, and
// gives up again. A kernel that cannot do that goes on as before.
func preferPublic(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_ADDR_PREFERENCES, preferSourcePublic)
	})
}

// preferSourcePublic is IPV6_PREFER_SRC_PUBLIC of linux/in6.h.
const preferSourcePublic = 2

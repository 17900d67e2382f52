package connect

import (
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// The layout is that of linux/errqueue.h: struct sock_extended_err, then the address.
func TestOffender(t *testing.T) {
	t.Parallel()
	message := func(level, kind int32, rest ...byte) unix.SocketControlMessage {
		return unix.SocketControlMessage{Header: unix.Cmsghdr{Level: level, Type: kind}, Data: slices.Concat(make([]byte, 16), rest)}
	}
	six := netip.MustParseAddr("2001:db8::7").As16()
	for name, test := range map[string]struct {
		message unix.SocketControlMessage
		want    string
	}{
		"IPv4":             {message(unix.SOL_IP, unix.IP_RECVERR, 2, 0, 0, 0, 192, 0, 2, 7, 0, 0, 0, 0, 0, 0, 0, 0), "192.0.2.7"},
		"IPv6":             {message(unix.SOL_IPV6, unix.IPV6_RECVERR, slices.Concat([]byte{10, 0, 0, 0, 0, 0, 0, 0}, six[:], make([]byte, 4))...), "2001:db8::7"},
		"something else":   {message(unix.SOL_IP, unix.IP_TTL, make([]byte, 40)...), ""},
		"an error cut off": {message(unix.SOL_IP, unix.IP_RECVERR, 2, 0, 0), ""},
	} {
		a, ok := offenderOf(test.message)
		if ok != (test.want != "") || ok && a.String() != test.want {
			t.Errorf("%s: %v %v", name, a, ok)
		}
	}
}

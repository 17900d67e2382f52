package connect

import (
	"errors"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// refusal tells who has refused a connection: the host itself, by a RST or by an
// ICMP error from the address that was tried, as its own firewall may; or somebody on
// the way or on this host, by an ICMP error from elsewhere. Connect gives the same
// error for all. Before Linux 5.10 it takes every refusal for the host's.
type refusal struct {
	// fd is the socket of the last attempt, also after package net has closed its
	// own descriptor of it; -1 is none.
	fd int
	// host is the address that it tried.
	host netip.Addr
}

func newRefusal() *refusal { return &refusal{fd: -1} }

// watch is a net.Dialer.Control.
func (r *refusal) watch(_, address string, c syscall.RawConn) error {
	r.close()
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	r.host = to.Addr().Unmap().WithZone("")
	var failed error
	err = c.Control(func(fd uintptr) {
		// Which of them is wrong depends on the family.
		four := unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_RECVERR, 1)
		six := unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_RECVERR, 1)
		if four != nil && six != nil {
			failed = errors.Join(four, six)
			return
		}
		r.fd, failed = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
	})
	return errors.Join(err, failed)
}

// byHost reports whether the host itself has refused.
func (r *refusal) byHost() bool {
	control := make([]byte, 256)
	_, n, _, _, err := unix.Recvmsg(r.fd, nil, control, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
	if err != nil {
		return true // no ICMP error, so it was a RST
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil {
		return false
	}
	for _, m := range messages {
		if offender, ok := offenderOf(m); ok {
			return offender == r.host
		}
	}
	return false
}

// offenderOf is who sent an ICMP error: the address that follows the struct
// sock_extended_err of 16 bytes (ip(7), IP_RECVERR).
func offenderOf(m unix.SocketControlMessage) (netip.Addr, bool) {
	const (
		four = 16 + 4 // the address within sockaddr_in
		six  = 16 + 8 // and within sockaddr_in6
	)
	switch data := m.Data; {
	case m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_RECVERR && len(data) >= four+4:
		return netip.AddrFromSlice(data[four : four+4])
	case m.Header.Level == unix.SOL_IPV6 && m.Header.Type == unix.IPV6_RECVERR && len(data) >= six+16:
		return netip.AddrFromSlice(data[six : six+16])
	}
	return netip.Addr{}, false
}

func (r *refusal) close() {
	if r.fd >= 0 {
		_ = unix.Close(r.fd) // the connection is over
	}
	r.fd = -1
}

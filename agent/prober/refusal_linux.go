package prober

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// refusal tells who has refused a connection: the host itself, by a RST, or
// somebody on the way or on this host, by an ICMP error, for which connect gives
// the same error. Before Linux 5.10 it takes every refusal for the host's.
type refusal struct {
	// fd is the socket of the last attempt, also after package net has closed its
	// own descriptor of it; -1 is none.
	fd int
}

func newRefusal() *refusal { return &refusal{fd: -1} }

// watch is a net.Dialer.Control.
func (r *refusal) watch(_, _ string, c syscall.RawConn) error {
	r.close()
	var failed error
	err := c.Control(func(fd uintptr) {
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
	_, _, _, _, err := unix.Recvmsg(r.fd, nil, nil, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
	return err != nil
}

func (r *refusal) close() {
	if r.fd >= 0 {
		_ = unix.Close(r.fd) // the connection is over
	}
	r.fd = -1
}

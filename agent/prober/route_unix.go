//go:build unix

package prober

import "syscall"

// refuseBroadcast takes back the permission to send to broadcast addresses that
// package net gives every socket.
func refuseBroadcast(_, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		failed = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_BROADCAST, 0)
	})
	if err != nil {
		return err
	}
	return failed
}

//go:build !unix

package prober

import "syscall"

func refuseBroadcast(_, _ string, _ syscall.RawConn) error { return nil }

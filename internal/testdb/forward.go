package testdb

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
)

// Forward passes the connections of a listener on to the server's socket until
// the test ends: TLS needs TCP, and the server has none of its own.
func (s *Server) Forward(t testing.TB, lis net.Listener) {
	t.Helper()
	var passing sync.WaitGroup
	passing.Go(func() {
		for {
			client, err := lis.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("unix", s.socket()) //nolint:noctx // it is on this host
			if err != nil {
				_ = client.Close()
				continue
			}
			for _, way := range [][2]net.Conn{{client, server}, {server, client}} {
				passing.Go(func() {
					_, _ = io.Copy(way[0], way[1])
					_ = errors.Join(way[0].Close(), way[1].Close())
				})
			}
		}
	})
	t.Cleanup(func() {
		_ = lis.Close()
		passing.Wait()
	})
}

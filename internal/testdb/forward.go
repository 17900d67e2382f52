package testdb

import (
	"net"
	"testing"

	"github.com/buddyring/buddyring/internal/relay"
)

// Forward passes the connections of a listener on to the server's socket until
// the test ends: TLS needs TCP, and the server has none of its own.
func (s *Server) Forward(t testing.TB, lis net.Listener) {
	t.Helper()
	path := relay.To("unix", s.socket())
	r := relay.Start(lis, func(net.Addr) *relay.Path { return path })
	t.Cleanup(func() { _ = r.Close() }) // the test may have closed the listener
}

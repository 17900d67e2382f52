package server_test

import (
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/buddyring/buddyring/coordinator/server"
	"github.com/buddyring/buddyring/internal/quota"
)

// Each listener has limits of its own, and those of agents and routers can be set:
// who fills one keeps nobody from another.
func TestConnectionsAreLimited(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := start(t, newTable(), func(c *server.Config) { c.Connections = quota.Limits{Total: 9, PerSource: 2} })
		w.leads(10 * time.Second)
		for name, allowed := range map[string]int{"agent": 2, "admin": quota.Few().PerSource, "http": quota.Few().PerSource} {
			var last net.Conn
			for range allowed + 1 {
				conn, err := w.listeners[name].DialContext(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = conn.Close() })
				last = conn
			}
			if err := last.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
				t.Fatal(err)
			}
			if n, err := last.Read(make([]byte, 1)); n > 0 || !errors.Is(err, io.EOF) {
				t.Errorf("%s: one too many got %d bytes, %v", name, n, err)
			}
		}
	})
}

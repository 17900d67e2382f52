package freeport_test

import (
	"net"
	"net/netip"
	"testing"

	"github.com/buddyring/buddyring/internal/freeport"
)

// What is found can be listened at, twice, and is on loopback below the ports
// that systems give out by themselves.
func TestFind(t *testing.T) {
	t.Parallel()
	found := map[string]bool{}
	for range 50 {
		at, err := freeport.Find(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if a, err := netip.ParseAddrPort(at); err != nil || !a.Addr().IsLoopback() || a.Port() < 1024 || a.Port() >= 32768 {
			t.Errorf("found %s, %v", at, err)
		}
		for range 2 {
			lis, err := net.Listen("tcp", at)
			if err != nil {
				t.Fatal(err)
			}
			if err := lis.Close(); err != nil {
				t.Error(err)
			}
		}
		found[at] = true
	}
	if len(found) < 40 {
		t.Errorf("%d addresses in 50 searches", len(found))
	}
}

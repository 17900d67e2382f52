package server_test

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// A standby whose database does not even fail says so at once, whoever else waits
// there for what only the table tells.
func TestStandbyWithoutAnswersOfTheDatabase(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, newTable(), 2)
		c.all[0].join("web-1", "web-2", "web-3")
		standby := c.all[1]
		time.Sleep(2 * time.Second)
		if n := len(standby.phases()); n != 3 {
			t.Fatalf("%d members", n)
		}
		c.links[1].lossy.Store(true)
		time.Sleep(2 * time.Second)
		servers := make(chan error)
		go func() {
			_, err := standby.admin.ListServers(t.Context(), &pb.ListServersRequest{})
			servers <- err
		}()
		synctest.Wait()
		begin := time.Now()
		status, err := standby.admin.GetStatus(t.Context(), &pb.GetStatusRequest{})
		if err != nil || status.GetStoreState() != pb.StoreState_STORE_STATE_FAILING || len(status.GetPools()) != 1 {
			t.Errorf("status: %v, %v", status, err)
		}
		if got := standby.alarms(); !slices.Contains(got, "STORE_FAILING") {
			t.Errorf("alarms: %v", got)
		}
		if took := time.Since(begin); took > time.Second {
			t.Errorf("status and alarms took %s", took)
		}
		if err := <-servers; !errors.Is(err, member.ErrUnavailable) {
			t.Errorf("servers: %v", err)
		}
	})
}

// A standby whose database is far away waits for it, also for what it tells without:
// all who ask at once have one reading.
func TestStandbyWithASlowDatabase(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table := newTable()
		first := start(t, table, calledCoordinator("c1"))
		first.leads(time.Second)
		first.join("web-1", "web-2", "web-3")
		slow := &sluggish{Store: table}
		slow.loading.Store(int64(4 * time.Second))
		standby := start(t, slow, calledCoordinator("c2"))
		standby.standsBy(time.Second)
		begin := time.Now()
		var asked sync.WaitGroup
		for range 10 {
			asked.Go(func() {
				status, err := standby.admin.GetStatus(t.Context(), &pb.GetStatusRequest{})
				if err != nil || status.GetStoreState() != pb.StoreState_STORE_STATE_OK || len(status.GetPools()) != 1 {
					t.Errorf("status: %v, %v", status, err)
				}
				if n := len(standby.phases()); n != 3 {
					t.Errorf("%d members", n)
				}
			})
		}
		asked.Wait()
		if took := time.Since(begin); took > 5*time.Second {
			t.Errorf("they were answered after %s, a reading takes 4 s", took)
		}
	})
}

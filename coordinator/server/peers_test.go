package server_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/buddyring/buddyring/coordinator/server"
	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// A leader that has given way to an epoch of which another coordinator has told leads
// only above it, also where the table has never shown it that epoch.
func TestEpochThatAnotherOneHasToldIsNotLedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table := newTable()
		c := startCluster(t, table, 2)
		first := c.all[0]
		backup := table.backup()
		time.Sleep(20 * time.Second)
		c.links[0].down.Store(true)
		told := epochOf(t, c.successor(6*time.Second))
		first.standsBy(2 * time.Second)
		c.links[1].down.Store(true)
		c.all[1].shutDown()
		table.putBack(backup)
		c.links[0].down.Store(false)
		first.leads(15 * time.Second)
		if got := epochOf(t, first); got <= told {
			t.Errorf("it leads in epoch %d after %d", got, told)
		}
	})
}

// What a coordinator of another database says of its epochs means nothing here.
func TestEpochOfAnotherStoreEndsNoTerm(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		here, there := newTable(), newTable()
		there.storeID = "store-2"
		for range 5 {
			there.usurp("c9")
		}
		cut := &link{Store: here}
		w, stranger := start(t, cut, calledCoordinator("c1")), start(t, there, calledCoordinator("c2"))
		stranger.leads(10 * time.Second)
		// Its address was that of a coordinator of ours.
		if err := here.PutCoordinator(t.Context(), member.Coordinator{ID: "c2", Advertise: "c2:7400", LastSeen: time.Now()}); err != nil {
			t.Fatal(err)
		}
		peers := map[string]*world{"c2:7400": stranger}
		w.peers.Store(&peers)
		a := w.join("web-1")[0]
		time.Sleep(20 * time.Second)
		cut.down.Store(true)
		time.Sleep(20 * time.Second)
		w.leads(0)
		select {
		case err := <-a.over:
			t.Errorf("the session has ended: %v", err)
		default:
		}
	})
}

// snatched is a table on which another coordinator takes the lead right after a pool
// was made, whose maker does not hear that it was.
type snatched struct {
	server.Store

	snatch func()
}

func (s *snatched) CreatePool(ctx context.Context, epoch member.Epoch, n store.NewPool) (member.PoolState, error) {
	state, err := s.Store.CreatePool(ctx, epoch, n)
	if n.Name != member.DefaultPool {
		s.snatch()
		return member.PoolState{}, member.ErrAlreadyExists
	}
	return state, err
}

// A pool of a later epoch is not taken over, though the request that made it was
// ours: what is written about it would pass the fence of who leads now.
func TestPoolOfALaterEpochIsNotTakenOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		inner := newTable()
		w := start(t, &snatched{inner, func() { inner.usurp("c2") }})
		w.leads(time.Second)
		res, err := w.admin.CreatePool(t.Context(), &pb.CreatePoolRequest{Pool: "games", RequestId: "once"})
		if !errors.Is(err, member.ErrFenced) {
			t.Errorf("taken over: %v, %v", res, err)
		}
	})
}

// The lease is taken as soon as it is free, whenever that is between two looks of those
// who stand by: its holder has told them.
func TestFreeLeaseIsToldToTheOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, newTable(), 3)
		time.Sleep(20 * time.Second) // they know one another
		leader := c.all[0]
		for range 4 {
			time.Sleep(10*time.Second + 70*time.Millisecond)
			begin := time.Now()
			if _, err := leader.admin.StepDown(t.Context(), &pb.StepDownRequest{}); err != nil {
				t.Fatal(err)
			}
			leader = c.leader(time.Second)
			if took := time.Since(begin); took > 20*time.Millisecond {
				t.Errorf("the lease was free for %s", took)
			}
		}
	})
}

// A standby that is asked without end looks at the lease hardly more often for that.
func TestQuestionsDoNotMultiplyLooks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table := &watched{Store: newTable()}
		c := startCluster(t, table, 2)
		standby := pb.NewPeerServiceClient(c.all[1].connect("agent"))
		time.Sleep(10 * time.Second)
		before := table.looks.Load()
		for range 1000 {
			if _, err := standby.GetLead(t.Context(), &pb.GetLeadRequest{}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		if looks := table.looks.Load() - before; looks < 40 || looks > 85 {
			t.Errorf("%d looks in 10 s", looks)
		}
		c.all[1].standsBy(0)
	})
}

// watched is a table that counts the looks at the lease.
type watched struct {
	server.Store

	looks atomic.Int64
}

func (w *watched) Lease(ctx context.Context) (member.Lease, error) {
	w.looks.Add(1)
	return w.Store.Lease(ctx)
}

package server

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/rpc"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// taker is the stream of a router, to which gRPC takes a message at once, and the
// one after a snapshot only when that has left.
type taker struct {
	pb.MembershipService_SubscribeServer

	context func() context.Context
	// left ends when the snapshot has; snapshots counts those that were taken.
	left      *ending
	snapshots int
}

func (t *taker) Context() context.Context { return t.context() }

func (t *taker) SendMsg(m any) error {
	if t.snapshots > 0 {
		<-t.left.done()
	}
	if _, ok := m.(*rpc.Encoded); ok {
		t.snapshots++
	}
	return nil
}

// paced starts n subscriptions to one pool with a place for one snapshot.
func paced(t *testing.T, n int) []*taker {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	b := newBell()
	all := &pools{}
	all.present.Store(&roster{all: []*host{{pool: "p", history: newHistory(member.PoolState{Name: "p"}, b)}}})
	m := &membershipService{
		pools: all, marks: newMarks(b), bell: b, metrics: newMetrics(prometheus.NewRegistry()), snapshots: make(chan struct{}, 1),
	}
	var takers []*taker
	for range n {
		one := &taker{context: func() context.Context { return ctx }, left: newEnding()}
		s := &subscription{service: m, stream: one, over: newEnding(), cursors: map[member.Pool]member.Position{}}
		m.streams.run(func() { _ = s.feed() })
		takers = append(takers, one)
	}
	t.Cleanup(func() {
		for _, one := range takers {
			one.left.end(nil)
		}
		cancel()
		m.streams.empty()
	})
	return takers
}

// A snapshot makes room for the next when it has left, not when gRPC has taken it.
func TestSnapshotsGoOneAfterTheOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		takers := paced(t, 3)
		for n := 1; n <= len(takers); n++ {
			synctest.Wait()
			var under []*taker
			for _, one := range takers {
				if one.snapshots > 0 && !one.left.ended() {
					under = append(under, one)
				}
			}
			if len(under) != 1 {
				t.Fatalf("%d snapshots are under way at once", len(under))
			}
			under[0].left.end(nil)
		}
	})
}

// One that takes long does not keep the others from theirs.
func TestSlowSnapshotsKeepNobodyFromTheirs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		takers := paced(t, 3)
		time.Sleep(3 * snapshotTime)
		synctest.Wait()
		for i, one := range takers {
			if one.snapshots != 1 {
				t.Errorf("router %d has %d snapshots", i, one.snapshots)
			}
		}
	})
}

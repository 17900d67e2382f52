package server

import (
	"context"
	"slices"
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
	// heard is when the last message came, silence the longest time without one until
	// the snapshot, which came at.
	heard, at time.Time
	silence   time.Duration
}

func (t *taker) Context() context.Context { return t.context() }

func (t *taker) SendMsg(m any) error {
	if t.snapshots > 0 {
		<-t.left.done()
		return nil
	}
	now := time.Now()
	t.silence, t.heard = max(t.silence, now.Sub(t.heard)), now
	if _, ok := m.(*rpc.Encoded); ok {
		t.snapshots++
		t.at = now
	}
	return nil
}

// paced starts n subscriptions to one pool with places for so many snapshots.
func paced(t *testing.T, n, places int) []*taker {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	b := newBell()
	all := &pools{}
	all.present.Store(&roster{all: []*host{{pool: "p", history: newHistory(member.PoolState{Name: "p"}, b)}}})
	m := &membershipService{
		pools: all, marks: newMarks(b), bell: b, metrics: newMetrics(prometheus.NewRegistry()), snapshots: newLine(places),
	}
	var takers []*taker
	for range n {
		one := &taker{context: func() context.Context { return ctx }, left: newEnding(), heard: time.Now()}
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
		takers := paced(t, 3, 1)
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
		takers := paced(t, 3, 1)
		time.Sleep(3 * snapshotTime)
		synctest.Wait()
		for i, one := range takers {
			if one.snapshots != 1 {
				t.Errorf("router %d has %d snapshots", i, one.snapshots)
			}
		}
	})
}

// A thousand routers come at once, as to a new leader, over networks on which every
// snapshot takes a second: the last ones wait for most of a minute. All hear something
// when a bookmark would be due: after three that are missed they would give up.
func TestWaitingForASnapshotIsNoSilence(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		takers := paced(t, 1000, snapshotsAtOnce)
		time.Sleep(60 * time.Second)
		synctest.Wait()
		var longest time.Duration
		waves := map[time.Time]int{}
		for i, one := range takers {
			if one.snapshots != 1 {
				t.Fatalf("router %d has %d snapshots", i, one.snapshots)
			}
			longest = max(longest, one.silence)
			waves[one.at]++
		}
		if longest > bookmarkInterval {
			t.Errorf("a router heard nothing for %s", longest)
		}
		if len(waves) != len(takers)/snapshotsAtOnce {
			t.Errorf("the snapshots came in %d waves", len(waves))
		}
	})
}

// Whoever came first is first, whatever became of others.
func TestLine(t *testing.T) {
	t.Parallel()
	l := newLine(1)
	var turns []chan struct{}
	for range 5 {
		turns = append(turns, l.join())
	}
	called := func() (who []int) {
		for i, turn := range turns {
			select {
			case <-turn:
				who = append(who, i)
			default:
			}
		}
		return who
	}
	for step, c := range []struct {
		do   func()
		want []int
	}{
		{func() {}, []int{0}},
		{func() { l.giveUp(turns[2]) }, []int{0}},
		{l.leave, []int{0, 1}},
		{func() { l.giveUp(turns[1]) }, []int{0, 1, 3}},
		{l.leave, []int{0, 1, 3, 4}},
		{l.leave, []int{0, 1, 3, 4}},
		{func() { turns = append(turns, l.join()) }, []int{0, 1, 3, 4, 5}},
	} {
		c.do()
		if got := called(); !slices.Equal(got, c.want) {
			t.Fatalf("after step %d it was the turn of %v, want %v", step, got, c.want)
		}
	}
}

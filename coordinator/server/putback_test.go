package server_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// onlyLeader waits until one of the coordinators leads, in an epoch above a given
// one, and the others know that they do not.
func onlyLeader(t *testing.T, above uint64, all ...*world) *world {
	t.Helper()
	var leader *world
	eventually(t, 15*time.Second, func() error {
		leader = nil
		for _, w := range all {
			status, err := w.admin.GetStatus(t.Context(), &pb.GetStatusRequest{})
			switch {
			case err != nil:
				return err
			case status.GetState() != pb.LeaderState_LEADER_STATE_LEADER:
			case leader != nil || status.GetEpoch() <= above:
				return fmt.Errorf("%s leads in epoch %d", status.GetCoordinatorId(), status.GetEpoch())
			default:
				leader = w
			}
		}
		if leader == nil {
			return errors.New("nobody leads")
		}
		return nil
	})
	return leader
}

// The table is put back under a running leader, to before its epoch. It gives way,
// and whoever takes the lead does so above all epochs that there were: agents and
// routers that have seen those come back to it.
func TestTablePutBackUnderTheLeader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table := newTable()
		c := startCluster(t, table, 2)
		agents := c.all[0].join("web-1", "web-2", "web-3")
		backup := table.backup()
		for range 2 {
			table.usurp("c9")
			time.Sleep(10 * time.Second)
		}
		first := onlyLeader(t, 1, c.all...)
		before := epochOf(t, first)
		moveTo(t, first, agents...)
		table.putBack(backup)

		next := onlyLeader(t, before, c.all...)
		for _, a := range agents {
			_ = heard(t, a.over)
		}
		moveTo(t, next, agents...)
		next.consistent()
	})
}

// Another one has taken the lead in the old epochs meanwhile, because it knows of
// no other: those who do overrule it, since nobody listens to it.
func TestLeaderOfAnEpochThatHasBeenIsOverruled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table := newTable()
		c := startCluster(t, table, 1)
		backup := table.backup()
		table.usurp("c9")
		time.Sleep(10 * time.Second)
		c.all[0].leads(0)
		before := epochOf(t, c.all[0])
		c.links[0].down.Store(true)
		table.putBack(backup)
		second := start(t, &link{Store: table}, calledCoordinator("c2"))
		second.leads(6 * time.Second)
		if got := epochOf(t, second); got > before {
			t.Fatalf("epoch %d after %d: nothing is shown", got, before)
		}
		c.links[0].down.Store(false)
		if next := onlyLeader(t, before, c.all[0], second); next != c.all[0] {
			t.Error("the one that knows of no other epoch leads")
		}
	})
}

// The table is put back to before some changes of the present epoch: the leader
// keeps its lease, but nothing that it knows is in the table.
func TestTablePutBackWithinTheEpoch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table := newTable()
		w := start(t, table)
		w.join("web-1", "web-2", "web-3")
		backup := table.backup()
		agents := w.join("web-4")
		before := epochOf(t, w)
		table.putBack(backup)
		set := func() error {
			_, err := w.admin.SetIntent(t.Context(), &pb.SetIntentRequest{ServerId: "web-1", Wish: pb.Wish_WISH_MAINTENANCE})
			return err
		}
		if err := set(); !errors.Is(err, member.ErrUnavailable) {
			t.Errorf("a change that is not in the table: %v", err)
		}
		eventually(t, 15*time.Second, set)
		if got := epochOf(t, w); got <= before {
			t.Errorf("epoch %d after %d", got, before)
		}
		if _, ok := w.phases()["web-4"]; ok {
			t.Error("a server that is not in the table is a member")
		}
		_ = heard(t, agents[0].over)
	})
}

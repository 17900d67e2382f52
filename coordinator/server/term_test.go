package server_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/buddyring/buddyring/coordinator/server"
	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// sluggish is a table that is slow in one thing or another.
type sluggish struct {
	server.Store

	// loading and renewing are how long those take.
	loading, renewing atomic.Int64
	// underway says that a renewal is, cut that one was cut off.
	underway, cut atomic.Bool
}

func (s *sluggish) LoadPools(ctx context.Context) ([]member.PoolState, error) {
	select {
	case <-time.After(time.Duration(s.loading.Load())):
		return s.Store.LoadPools(ctx)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *sluggish) Renew(ctx context.Context, epoch member.Epoch) error {
	s.underway.Store(true)
	defer s.underway.Store(false)
	select {
	case <-time.After(time.Duration(s.renewing.Load())):
		return s.Store.Renew(ctx, epoch)
	case <-ctx.Done():
		s.cut.Store(errors.Is(ctx.Err(), context.Canceled))
		return ctx.Err()
	}
}

// renews waits until a renewal is under way.
func (s *sluggish) renews(t *testing.T) {
	t.Helper()
	eventually(t, 2*time.Second, func() error {
		if !s.underway.Load() {
			return errors.New("nothing is renewed")
		}
		return nil
	})
}

// deafened is a table whose answers to claims do not come in time.
type deafened struct {
	server.Store

	// renewal is the error of renewals, if there is one.
	renewal atomic.Pointer[error]
}

func (d *deafened) Renew(ctx context.Context, epoch member.Epoch) error {
	if err := d.renewal.Load(); err != nil {
		return *err
	}
	return d.Store.Renew(ctx, epoch)
}

func (d *deafened) Lead(ctx context.Context, c store.Claim) (store.Leadership, error) {
	if _, err := d.Store.Lead(ctx, c); err != nil {
		return store.Leadership{}, err
	}
	<-ctx.Done()
	return store.Leadership{}, fmt.Errorf("%w: %w", member.ErrUnavailable, ctx.Err())
}

// A claim that went through is won, also where the database takes longer to say so
// than a claim may take: another one would take as long.
func TestClaimWhoseAnswerComesTooLate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table := newTable()
		w := start(t, &deafened{Store: table})
		w.leads(3 * time.Second)
		if got := epochOf(t, w); got != 1 {
			t.Errorf("epoch %d", got)
		}
		// An epoch in which it has led is not led again.
		table.usurp("c2")
		time.Sleep(10 * time.Second)
		w.leads(0)
		if got := epochOf(t, w); got != 3 {
			t.Errorf("epoch %d after 2", got)
		}
	})
}

// Such a claim has only been seen: a crash of the database may undo it, and then
// another one leads in its epoch. So the lead begins with a write that went through.
func TestClaimThatIsOnlySeenIsNotWon(t *testing.T) {
	t.Parallel()
	for name, renewal := range map[string]error{"not reached": errDown, "overtaken": member.ErrFenced} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				table := &deafened{Store: newTable()}
				table.renewal.Store(&renewal)
				w := start(t, table)
				for range 100 {
					time.Sleep(100 * time.Millisecond)
					w.standsBy(0)
				}
				table.renewal.Store(nil)
				w.leads(10 * time.Second)
			})
		})
	}
}

// A large table takes long to load. The lead that was won is renewed meanwhile.
func TestLeaseIsRenewedWhileATermLoads(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table := newTable()
		slow := &sluggish{Store: table}
		slow.loading.Store(int64(12 * time.Second))
		first := start(t, slow, calledCoordinator("c1"))
		time.Sleep(time.Second)
		second := start(t, table, calledCoordinator("c2"))
		first.leads(20 * time.Second)
		if got := epochOf(t, first); got != 1 {
			t.Errorf("epoch %d: another one has taken the lead", got)
		}
		second.standsBy(0)
	})
}

// Who has won the lead says so while it loads: a leader of the past that cannot
// reach the database gives way at once, and sends agents there.
func TestLeadIsKnownWhileATermLoads(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table := newTable()
		cut, slow := &link{Store: table}, &sluggish{Store: table}
		first := start(t, cut, calledCoordinator("c1"))
		first.leads(time.Second)
		second := start(t, slow, calledCoordinator("c2"))
		peers := map[string]*world{"c1:7400": first, "c2:7400": second}
		first.peers.Store(&peers)
		a := first.join("web-1")[0]
		time.Sleep(20 * time.Second)
		slow.loading.Store(int64(20 * time.Second))
		cut.down.Store(true)
		begin := time.Now()
		err := heard(t, a.over)
		if named, ok := errors.AsType[*member.NotLeaderError](err); !ok || named.Leader != "c2:7400" {
			t.Errorf("the session ended with %v, want the name of the successor", err)
		}
		if took := time.Since(begin); took > 8*time.Second {
			t.Errorf("the leader of the past went on for %s", took)
		}
		if second.metric("buddyring_epoch") != 2 {
			t.Errorf("the successor shows epoch %v", second.metric("buddyring_epoch"))
		}
		time.Sleep(10 * time.Second)
		said, err := pb.NewPeerServiceClient(second.connect("agent")).GetLead(t.Context(), &pb.GetLeadRequest{})
		if err != nil || said.GetLeader() != "c2:7400" || said.GetEpoch() != 2 {
			t.Errorf("while it loads, the successor says %v, %v", said, err)
		}
	})
}

// A renewal under way at a planned end comes to its own end: cut off, it would
// hold the row in the database that has to be given back.
func TestPlannedEndCutsNoRenewalOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table := &sluggish{Store: newTable()}
		w := start(t, table)
		w.leads(time.Second)
		table.renewing.Store(int64(500 * time.Millisecond))
		table.renews(t)
		w.shutDown()
		if table.cut.Load() {
			t.Error("a renewal was cut off")
		}
	})
}

// As soon as one pool finds that another coordinator leads, everybody is sent there,
// although a renewal hangs in the database.
func TestAllPoolsEndAsSoonAsOneIsFenced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		inner := newTable()
		table := &sluggish{Store: inner}
		w := start(t, table)
		w.join("web-1", "web-2", "web-3")
		player := w.newAgent("web-9")
		player.hello.Pool = "games"
		player.connect()
		player.welcomed()
		table.renewing.Store(int64(time.Hour))
		table.renews(t)
		inner.usurp("c2")
		_, err := w.admin.SetIntent(t.Context(), &pb.SetIntentRequest{Pool: "default", ServerId: "web-1", Wish: pb.Wish_WISH_MAINTENANCE})
		if !errors.Is(err, member.ErrNotLeader) {
			t.Errorf("intent: %v", err)
		}
		if err := heard(t, player.over); !errors.Is(err, member.ErrNotLeader) {
			t.Errorf("session in the other pool: %v", err)
		}
		if !table.underway.Load() {
			t.Error("the renewal does not hang any more: the end of the term was waited for")
		}
	})
}

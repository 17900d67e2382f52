package server_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/buddyring/buddyring/coordinator/server"
	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// readOnly is a table that can be read, and written to as long as full is unset.
type readOnly struct {
	server.Store

	full atomic.Bool
	// closed refuses whoever would take the lead, and not who has it.
	closed atomic.Bool
}

var errDiskFull = fmt.Errorf("%w: database or disk is full", member.ErrUnavailable)

func (r *readOnly) Lead(ctx context.Context, c store.Claim) (store.Leadership, error) {
	if r.full.Load() || r.closed.Load() {
		return store.Leadership{}, errDiskFull
	}
	return r.Store.Lead(ctx, c)
}

func (r *readOnly) Renew(ctx context.Context, e member.Epoch) error {
	if r.full.Load() {
		return errDiskFull
	}
	return r.Store.Renew(ctx, e)
}

// A coordinator that cannot take the lead, as on a full disk, raises the alarm
// although it can read, and clears it with the lead.
func TestLeadNotTakenIsAnAlarm(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table := &readOnly{Store: newTable()}
		w := start(t, table)
		w.join("web-1")
		w.shutDown()
		table.full.Store(true)
		w.run()
		w.standsBy(time.Second)
		time.Sleep(10 * time.Second)
		if got := w.alarms(); !slices.Contains(got, "STORE_FAILING") {
			t.Errorf("alarms: %v", got)
		}
		table.full.Store(false)
		w.leads(2 * time.Second)
		if got := w.alarms(); slices.Contains(got, "STORE_FAILING") {
			t.Errorf("alarms of the leader: %v", got)
		}
	})
}

// A standby that could not take over ends the alarm when another one writes again, and
// not when it has forgotten: it is ready, and nobody is to be called.
func TestLeadNotTakenIsForgottenWhenAnotherLeads(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table := &readOnly{Store: newTable()}
		c := startCluster(t, table, 2)
		first, standby := c.all[0], c.all[1]
		time.Sleep(10 * time.Second)
		table.full.Store(true)
		table.closed.Store(true)
		time.Sleep(6 * time.Second)
		if got := standby.alarms(); !slices.Contains(got, "STORE_FAILING") {
			t.Errorf("alarms of the standby: %v", got)
		}
		table.full.Store(false)
		time.Sleep(2 * time.Second)
		if got := standby.alarms(); slices.Contains(got, "STORE_FAILING") || standby.page("/readyz") != 200 {
			t.Errorf("alarms of the standby: %v", got)
		}
		first.leads(0)
		standby.standsBy(0)
	})
}

// writesNothing is a table that keeps the lease and makes nothing else durable.
type writesNothing struct {
	server.Store

	full atomic.Bool
}

func (w *writesNothing) Commit(ctx context.Context, c member.Change) error {
	if w.full.Load() {
		return errDiskFull
	}
	return w.Store.Commit(ctx, c)
}

// A leader of the past has seen nobody write only because it looks at the lease again.
func TestFailureIsNotForgottenWithTheLead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table := &writesNothing{Store: newTable()}
		w := start(t, table)
		w.join("web-1", "web-2", "web-3")
		table.full.Store(true)
		if _, err := w.admin.SetIntent(t.Context(), &pb.SetIntentRequest{ServerId: "web-1", Wish: pb.Wish_WISH_DRAIN}); err == nil {
			t.Fatal("it was written")
		}
		if _, err := w.admin.StepDown(t.Context(), &pb.StepDownRequest{}); err != nil {
			t.Fatal(err)
		}
		w.standsBy(time.Second)
		time.Sleep(time.Second)
		if got := w.alarms(); !slices.Contains(got, "STORE_FAILING") {
			t.Errorf("alarms: %v", got)
		}
	})
}

// A leader whose database is away is not told to end its term, after which there
// would be none.
func TestStepDownWithoutDatabase(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table := &readOnly{Store: newTable()}
		w := start(t, table)
		w.join("web-1", "web-2", "web-3")
		table.full.Store(true)
		time.Sleep(4 * time.Second)
		if _, err := w.admin.StepDown(t.Context(), &pb.StepDownRequest{}); !errors.Is(err, member.ErrUnavailable) {
			t.Errorf("step down: %v", err)
		}
		w.leads(0)
		table.full.Store(false)
		time.Sleep(2 * time.Second)
		if _, err := w.admin.StepDown(t.Context(), &pb.StepDownRequest{}); err != nil {
			t.Errorf("step down with the database: %v", err)
		}
	})
}

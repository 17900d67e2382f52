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

// reticent is a table that does not tell what was answered while it is silent, and
// counts how often it is asked.
type reticent struct {
	server.Store

	silent atomic.Bool
	asked  atomic.Int64
}

func (r *reticent) Requests(ctx context.Context, id string) ([]store.PoolRequest, error) {
	r.asked.Add(1)
	if r.silent.Load() {
		return nil, errDown
	}
	return r.Store.Requests(ctx, id)
}

// A request is not carried out while nobody can say whether it was before, and gets
// the answer that the leader before gave, afterwards.
func TestRequestThatCannotBeLookedUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table := &reticent{Store: newTable()}
		w := start(t, table)
		w.join("web-1", "web-2", "web-3")
		intend := func(request string) (*pb.SetIntentResponse, error) {
			return w.admin.SetIntent(t.Context(), &pb.SetIntentRequest{
				Pool: "default", ServerId: "web-1", Wish: pb.Wish_WISH_MAINTENANCE, RequestId: request,
			})
		}
		create := func() error {
			_, err := w.admin.CreatePool(t.Context(), &pb.CreatePoolRequest{Pool: "games", RequestId: "games"})
			return err
		}
		first, err := intend("once")
		if err != nil {
			t.Fatal(err)
		}
		if err := create(); err != nil {
			t.Fatal(err)
		}
		w.shutDown()
		w.run()
		w.leads(5 * time.Second)
		table.silent.Store(true)
		revision := func() uint64 {
			res, err := w.admin.GetPool(t.Context(), &pb.GetPoolRequest{Pool: "default"})
			if err != nil {
				t.Fatal(err)
			}
			return res.GetPool().GetRevision()
		}
		before := revision()
		for _, request := range []string{"once", "another"} {
			if res, err := intend(request); !errors.Is(err, member.ErrUnavailable) {
				t.Errorf("%s: %v, %v", request, res, err)
			}
		}
		if err := create(); !errors.Is(err, member.ErrUnavailable) {
			t.Errorf("create: %v", err)
		}
		if after := revision(); after != before {
			t.Errorf("at revision %d after %d", after, before)
		}
		table.silent.Store(false)
		if again, err := intend("once"); err != nil || again.GetRevision() != first.GetRevision() {
			t.Errorf("the repeat: %v, %v; the first was at %d", again, err, first.GetRevision())
		}
		if err := create(); err != nil {
			t.Errorf("the repeat of the creation: %v", err)
		}
	})
}

// slow is a table that makes pools slowly.
type slow struct{ server.Store }

func (s slow) CreatePool(ctx context.Context, e member.Epoch, n store.NewPool) (member.PoolState, error) {
	time.Sleep(time.Second)
	return s.Store.CreatePool(ctx, e, n)
}

// A client that loses patience and asks again, while its request is under way, gets what
// the first attempt makes.
func TestPoolIsMadeOnceForWhoAsksAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := start(t, slow{newTable()})
		w.leads(5 * time.Second)
		ends := make(chan error, 2)
		for range cap(ends) {
			go func() {
				_, err := w.admin.CreatePool(t.Context(), &pb.CreatePoolRequest{Pool: "games", RequestId: "games"})
				ends <- err
			}()
		}
		for range cap(ends) {
			if err := <-ends; err != nil {
				t.Error(err)
			}
		}
		if _, err := w.admin.CreatePool(t.Context(), &pb.CreatePoolRequest{Pool: "games", RequestId: "other"}); !errors.Is(err, member.ErrAlreadyExists) {
			t.Errorf("another request: %v", err)
		}
	})
}

// A leader that may make nothing durable says so, and leaves the database alone.
func TestRequestOfALeaderThatIsCutOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cut := &link{Store: newTable()}
		table := &reticent{Store: cut}
		w := start(t, table)
		w.join("web-1", "web-2", "web-3")
		cut.down.Store(true)
		time.Sleep(5 * time.Second)
		_, err := w.admin.SetIntent(t.Context(), &pb.SetIntentRequest{
			ServerId: "web-1", Wish: pb.Wish_WISH_MAINTENANCE, RequestId: "r",
		})
		if !errors.Is(err, member.ErrUnavailable) || table.asked.Load() != 0 {
			t.Errorf("%v after %d questions", err, table.asked.Load())
		}
	})
}

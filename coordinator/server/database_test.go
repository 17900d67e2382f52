package server_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/test/bufconn"

	"github.com/buddyring/buddyring/coordinator/server"
	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/rpc"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// A hanging database delays rows, not routing.
func TestStalledCommit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table := newTable()
		w := start(t, table)
		agents := w.join("web-1", "web-2", "web-3", "web-4", "web-5")
		r := w.newRouter("r1").subscribe()
		time.Sleep(20 * time.Second)

		release := table.hold()
		agents[2].crash()
		r.holdsSuspect("web-3", true, 2*time.Second)
		time.Sleep(8 * time.Second)
		agents[3].crash()
		r.holdsSuspect("web-4", true, 2*time.Second)
		if _, ok := w.phases()["web-3"]; !ok {
			t.Error("web-3 was removed without a commit")
		}
		if got := slices.Contains(r.names("default"), "web-3"); !got {
			t.Error("the router was told of a change that is not durable")
		}

		newcomer := w.newAgent("web-6")
		newcomer.connect()
		begin := time.Now()
		err := <-newcomer.over
		if !errors.Is(err, member.ErrUnavailable) {
			t.Errorf("join: %v", err)
		}
		if hint, ok := rpc.RetryAfter(err); !ok || hint <= 0 {
			t.Errorf("no retry hint in %v", err)
		}
		if took := time.Since(begin); took > 20*time.Second {
			t.Errorf("the join took %s to fail", took)
		}
		_, err = w.admin.RemoveServer(t.Context(), &pb.RemoveServerRequest{ServerId: "web-1"})
		if !errors.Is(err, member.ErrUnavailable) {
			t.Errorf("remove: %v", err)
		}
		if !slices.Contains(w.alarms(), "STORE_FAILING") {
			t.Errorf("alarms: %v", w.alarms())
		}

		release()
		w.gone("web-3", 10*time.Second)
		w.gone("web-4", 10*time.Second)
		// The refused removal was in the queue and may still have been made.
		r.caughtUp("default", ringOf(t, w).GetRevision())
		r.messages()
	})
}

// A failing database: every answer is honest, and all goes on afterwards.
func TestFailingDatabase(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table := newTable()
		w := start(t, table)
		agents := w.join("web-1", "web-2", "web-3", "web-4")
		time.Sleep(20 * time.Second)
		table.fail(errDown)

		newcomer := w.newAgent("web-5")
		newcomer.connect()
		if err := <-newcomer.over; !errors.Is(err, member.ErrUnavailable) {
			t.Errorf("join: %v", err)
		} else if _, ok := rpc.RetryAfter(err); !ok {
			t.Errorf("no retry hint in %v", err)
		}
		_, err := w.admin.SetIntent(t.Context(), &pb.SetIntentRequest{ServerId: "web-1", Wish: pb.Wish_WISH_MAINTENANCE})
		if !errors.Is(err, member.ErrUnavailable) {
			t.Errorf("set intent: %v", err)
		}
		_, err = w.admin.CreatePool(t.Context(), &pb.CreatePoolRequest{Pool: "games"})
		if !errors.Is(err, member.ErrUnavailable) {
			t.Errorf("create pool: %v", err)
		}
		if res := agents[0].leave(); res.GetLeft() {
			t.Errorf("a leave succeeded: %v", res)
		}
		time.Sleep(2 * time.Second)
		if got := w.alarms(); !slices.Contains(got, "STORE_FAILING") {
			t.Errorf("alarms: %v", got)
		}
		status, err := w.admin.GetStatus(t.Context(), &pb.GetStatusRequest{})
		if err != nil || status.GetStoreState() != pb.StoreState_STORE_STATE_FAILING || status.GetStoreError() == "" {
			t.Errorf("status: %v, %v", status, err)
		}
		if got := w.metric("buddyring_store_up"); got != 0 {
			t.Errorf("buddyring_store_up is %v", got)
		}
		if live, ready := w.page("/livez"), w.page("/readyz"); live != 200 || ready != 503 {
			t.Errorf("livez %d, readyz %d", live, ready)
		}
		if res, err := w.admin.ExplainServer(t.Context(), &pb.ExplainServerRequest{ServerId: "web-1"}); err != nil {
			t.Errorf("a member is not explained from memory: %v, %v", res, err)
		}
		_, err = w.admin.ExplainServer(t.Context(), &pb.ExplainServerRequest{ServerId: "web-99"})
		if !errors.Is(err, member.ErrUnavailable) {
			t.Errorf("explain a stranger: %v", err)
		}
		if got := len(w.phases()); got != 4 {
			t.Errorf("%d members", got)
		}

		table.fail(nil)
		time.Sleep(35 * time.Second)
		if got := w.alarms(); len(got) != 0 {
			t.Errorf("alarms after the end: %v", got)
		}
		if ready := w.page("/readyz"); ready != 200 {
			t.Errorf("readyz %d", ready)
		}
		w.edges("default", "STORE_FAILING: the database fails", "STORE_FAILING is over")
		newcomer.connect()
		w.allActive("web-5")
		w.consistent()
	})
}

// A commit whose answer is lost is asked about until it is known.
func TestLostAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table := newTable()
		w := start(t, table)
		w.join("web-1", "web-2", "web-3")
		table.lose()
		w.join("web-4")
		w.consistent()
		if got := w.metric("buddyring_commits_total", "outcome", "unknown"); got != 1 {
			t.Errorf("buddyring_commits_total{outcome=unknown} is %v", got)
		}
	})
}

// The same when the database cannot be asked for a while.
func TestLostAnswerOfALostDatabase(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table := newTable()
		w := start(t, table)
		w.join("web-1", "web-2", "web-3")
		table.lose()
		newcomer := w.newAgent("web-4")
		newcomer.connect()
		time.Sleep(100 * time.Millisecond)
		table.fail(errDown)
		time.Sleep(3 * time.Second)
		table.fail(nil)
		newcomer.welcomed()
		w.allActive("web-4")
		w.consistent()
	})
}

// Another leader ends the term of the first, which says who leads now.
func TestFenced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table := newTable()
		w := start(t, table)
		agents := w.join("web-1", "web-2", "web-3")
		r := w.newRouter("r1").subscribe()
		time.Sleep(time.Second)
		watch, err := w.admin.WatchEvents(t.Context(), &pb.WatchEventsRequest{})
		if err != nil {
			t.Fatalf("watch: %v", err)
		}
		table.usurp("c2")
		for _, a := range agents {
			err := <-a.over
			if leader, ok := errors.AsType[*member.NotLeaderError](err); !ok || leader.Leader != "c2:7400" {
				t.Errorf("session of %s: %v", a.id, err)
			}
		}
		if err := <-r.over; !errors.Is(err, member.ErrNotLeader) {
			t.Errorf("subscription: %v", err)
		}
		if err := endOf(watch.Recv); !errors.Is(err, member.ErrNotLeader) {
			t.Errorf("watch: %v", err)
		}
	})
}

// The same when it is a commit that finds out.
func TestFencedCommit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table := newTable()
		w := start(t, table)
		w.join("web-1", "web-2", "web-3")
		before := ringOf(t, w).GetRevision()
		table.usurp("c2")
		_, err := w.admin.RemoveServer(t.Context(), &pb.RemoveServerRequest{ServerId: "web-1"})
		if !errors.Is(err, member.ErrNotLeader) {
			t.Errorf("remove: %v", err)
		}
		w.standsBy(time.Second)
		if rows, err := table.Servers(t.Context(), "default"); err != nil || uint64(rows.At.Revision) != before {
			t.Errorf("the table is at %v, %v", rows.At, err)
		}
	})
}

// A coordinator whose database is down says so, and leads when it is back.
func TestDatabaseDownAtStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table := newTable()
		table.fail(errDown)
		w := start(t, table)
		time.Sleep(time.Second)
		if got := w.page("/readyz"); got != 503 {
			t.Errorf("readyz %d", got)
		}
		status, err := w.admin.GetStatus(t.Context(), &pb.GetStatusRequest{})
		if err != nil || status.GetState() != pb.LeaderState_LEADER_STATE_STANDBY ||
			status.GetStoreState() != pb.StoreState_STORE_STATE_FAILING {
			t.Errorf("status: %v, %v", status, err)
		}
		table.fail(nil)
		w.leads(time.Second)
		w.join("web-1", "web-2", "web-3")
	})
}

// A second coordinator that finds its port taken must not fence the first.
func TestBusyPortFencesNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table := newTable()
		w := start(t, table)
		w.join("web-1", "web-2", "web-3")
		busy := errors.New("address already in use")
		for _, name := range []string{"agent", "admin", "http"} {
			second, err := server.New(server.Config{
				ID: "c2", Listen: "127.0.0.1:1", AdminListen: "127.0.0.1:1", HTTPListen: "127.0.0.1:1",
			}, server.Deps{
				Store: table, Credentials: plaintext(t), Registry: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler),
				Listen: func(_ context.Context, n, _ string) (net.Listener, error) {
					if n == name {
						return nil, busy
					}
					return bufconn.Listen(1), nil
				},
			})
			if err != nil {
				t.Fatalf("new: %v", err)
			}
			if err := second.Run(t.Context()); !errors.Is(err, busy) {
				t.Errorf("run: %v", err)
			}
		}
		time.Sleep(10 * time.Second)
		w.consistent()
	})
}

// The disk of the database is watched.
func TestDiskLow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := start(t, newTable())
		time.Sleep(time.Second)
		if got := w.alarms(); len(got) != 0 {
			t.Errorf("alarms: %v", got)
		}
		w.free.Store(1 << 20)
		time.Sleep(11 * time.Second)
		if got := w.alarms(); len(got) != 1 || got[0] != "DISK_LOW" {
			t.Errorf("alarms: %v", got)
		}
		w.free.Store(1 << 30)
		time.Sleep(16 * time.Second)
		if got := w.alarms(); len(got) != 0 {
			t.Errorf("alarms: %v", got)
		}
		w.edges("default", "DISK_LOW: the disk", "DISK_LOW is over")
	})
}

// A pool that an earlier attempt has made, without an answer, is taken over: for
// whoever repeats the request, and for those who join. Others hear of it.
func TestPoolOfALostAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table := newTable()
		w := start(t, table)
		time.Sleep(time.Second)
		for _, name := range []string{"games", "films"} {
			table.lose()
			_, err := w.admin.CreatePool(t.Context(), &pb.CreatePoolRequest{Pool: name, RequestId: name})
			if !errors.Is(err, member.ErrUnavailable) {
				t.Errorf("create %s without an answer: %v", name, err)
			}
		}
		for range 2 {
			res, err := w.admin.CreatePool(t.Context(), &pb.CreatePoolRequest{Pool: "games", RequestId: "games"})
			if err != nil || res.GetPool().GetRevision() != 1 {
				t.Errorf("create again: %v, %v", res, err)
			}
		}
		for _, id := range []string{"another", ""} {
			_, err := w.admin.CreatePool(t.Context(), &pb.CreatePoolRequest{Pool: "films", RequestId: id})
			if !errors.Is(err, member.ErrAlreadyExists) {
				t.Errorf("create by another request: %v", err)
			}
		}
		res, err := w.admin.GetPool(t.Context(), &pb.GetPoolRequest{Pool: "films"})
		if err != nil || res.GetPool().GetRevision() != 1 {
			t.Errorf("get the pool of the lost answer: %v, %v", res, err)
		}
	})
}

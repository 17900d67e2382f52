package server_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/buddyring/buddyring/coordinator/server"
	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

func (w *world) makePool(name string) *pb.Pool {
	w.t.Helper()
	res, err := w.admin.CreatePool(w.t.Context(), &pb.CreatePoolRequest{Pool: name})
	if err != nil {
		w.t.Fatalf("create pool: %v", err)
	}
	return res.GetPool()
}

func (w *world) deletePool(req *pb.DeletePoolRequest) *pb.DeletePoolResponse {
	w.t.Helper()
	res, err := w.admin.DeletePool(w.t.Context(), req)
	if err != nil {
		w.t.Fatalf("delete pool: %v", err)
	}
	return res
}

// inPool starts an agent whose server joins a pool.
func (w *world) inPool(pool, id string) *agent {
	a := w.newAgent(id)
	a.hello.Pool = pool
	a.connect()
	return a
}

func TestDeletePool(t *testing.T) {
	t.Parallel()
	onEachTable(t, func(t *testing.T, table server.Store) {
		w := start(t, table)
		w.makePool("games")
		a := w.inPool("games", "g-1")
		a.welcomed()
		for what, c := range map[string]struct {
			req  *pb.DeletePoolRequest
			rule string
			want error
		}{
			"the pool that always exists": {req: &pb.DeletePoolRequest{Pool: "default", Force: true}, rule: "default_pool"},
			"one with servers":            {req: &pb.DeletePoolRequest{Pool: "games"}, rule: "not_empty"},
			"one that is not there":       {req: &pb.DeletePoolRequest{Pool: "other"}, want: member.ErrNotFound},
			"none":                        {req: &pb.DeletePoolRequest{Force: true}, want: member.ErrInvalid},
			"at another revision":         {req: &pb.DeletePoolRequest{Pool: "games", Force: true, ExpectedRevision: new(uint64(1))}, want: member.ErrStale},
		} {
			_, err := w.admin.DeletePool(t.Context(), c.req)
			var refused *member.RefusedError
			if errors.As(err, &refused); c.rule != "" && (refused == nil || refused.Rule != c.rule) || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("%s: %v", what, err)
			}
		}
		head := func() uint64 {
			res, err := w.admin.GetPool(t.Context(), &pb.GetPoolRequest{Pool: "games"})
			if err != nil {
				t.Fatal(err)
			}
			return res.GetPool().GetRevision()
		}()
		if res := w.deletePool(&pb.DeletePoolRequest{Pool: "games", Force: true, ValidateOnly: true}); res.GetRevision() != head || res.GetServers() != 1 {
			t.Errorf("validate: %v, at revision %d", res, head)
		}
		req := &pb.DeletePoolRequest{Pool: "games", Force: true, RequestId: "r1", Reason: "closed"}
		res := w.deletePool(req)
		if res.GetRevision() != head+1 || res.GetServers() != 1 {
			t.Errorf("deleted: %v, after revision %d", res, head)
		}
		// Its server is told; and its agent does not make it again.
		if err := <-a.over; !errors.As(err, new(*member.RemovedError)) {
			t.Errorf("the agent is told %v", err)
		}
		a.connect()
		if err := <-a.over; !errors.Is(err, member.ErrNotFound) || !strings.Contains(err.Error(), "deleted") {
			t.Errorf("the agent that joins again is told %v", err)
		}
		repeated := func() {
			t.Helper()
			if again := w.deletePool(req); again.GetRevision() != res.GetRevision() || again.Servers != nil {
				t.Errorf("repeated: %v", again)
			}
			_, err := w.admin.DeletePool(t.Context(), &pb.DeletePoolRequest{Pool: "games", RequestId: "r1"})
			wantField(t, err, "request_id")
			if _, err := w.admin.DeletePool(t.Context(), &pb.DeletePoolRequest{Pool: "games", RequestId: "r2"}); !errors.Is(err, member.ErrNotFound) {
				t.Errorf("another one: %v", err)
			}
		}
		repeated()
		for _, gauge := range []string{"buddyring_members", "buddyring_revision", "buddyring_brake_limit"} {
			if n := w.metric(gauge, "pool", "games"); n != 0 {
				t.Errorf("%s is %v", gauge, n)
			}
		}
		eventually(t, 10*time.Second, func() error { return w.told("pool_deleted", "pool games was deleted at revision") })
		w.shutDown()
		w.run()
		w.leads(5 * time.Second)
		repeated()
		a.connect()
		if err := <-a.over; !errors.Is(err, member.ErrNotFound) {
			t.Errorf("after a restart, the agent is told %v", err)
		}
		// The next one of that name goes on above it, and is another one.
		if made := w.makePool("games"); made.GetRevision() != res.GetRevision()+1 || made.GetMembers() != 0 {
			t.Errorf("made anew: %v", made)
		}
		a.connect()
		if welcome := a.welcomed(); welcome.GetIncarnation() <= res.GetRevision() {
			t.Errorf("welcome %v", welcome)
		}
		if again := w.deletePool(req); again.GetRevision() != res.GetRevision() {
			t.Errorf("the repeat of the first deletion: %v", again)
		}
	})
}

// A late repeat of the CreatePool of a pool that was deleted is not answered with the
// next one of that name, and makes no other; also when another leader is asked, and
// when the pool could not be read at last. After an hour it is a new request.
func TestLateRepeatOfTheFirstCreatePool(t *testing.T) {
	t.Parallel()
	onEachTable(t, func(t *testing.T, table server.Store) {
		spoilt := &spoilt{Store: table}
		w := start(t, spoilt)
		restart := func() {
			w.shutDown()
			w.run()
			w.leads(5 * time.Second)
		}
		create := func(request string) (*pb.CreatePoolResponse, error) {
			return w.admin.CreatePool(t.Context(), &pb.CreatePoolRequest{Pool: "games", RequestId: request})
		}
		late := func(what string) {
			t.Helper()
			if res, err := create("first"); !errors.Is(err, member.ErrNotFound) || !strings.Contains(err.Error(), "deleted since") {
				t.Errorf("the late repeat %s: %v, %v", what, res, err)
			}
		}
		if _, err := create("first"); err != nil {
			t.Fatal(err)
		}
		w.deletePool(&pb.DeletePoolRequest{Pool: "games"})
		late("to this leader")
		restart()
		late("to the next leader")

		second, err := create("second")
		if err != nil {
			t.Fatal(err)
		}
		late("beside the second pool")
		restart()
		late("beside the second pool, to another leader")
		if again, err := create("second"); err != nil || again.GetPool().GetRevision() != second.GetPool().GetRevision() {
			t.Errorf("the repeat of the second: %v, %v", again, err)
		}
		spoilt.spoil("games")
		restart()
		if res, err := create("second"); !errors.Is(err, member.ErrAlreadyExists) {
			t.Errorf("the repeat of the second while it is not served: %v, %v", res, err)
		}
		_, err = w.admin.DeletePool(t.Context(), &pb.DeletePoolRequest{Pool: "games", Force: true, RequestId: "second"})
		wantField(t, err, "request_id")
		w.deletePool(&pb.DeletePoolRequest{Pool: "games", Force: true})
		if res, err := create("second"); !errors.Is(err, member.ErrNotFound) {
			t.Errorf("the late repeat of the second: %v, %v", res, err)
		}
		spoilt.pool.Store(nil)
		w.shutDown()
		time.Sleep(time.Hour + time.Second)
		w.run()
		w.leads(5 * time.Second)
		if _, err := create("first"); err != nil {
			t.Errorf("after an hour: %v", err)
		}
	})
}

// What was asked of a pool is not done to the next one of its name, whichever leader
// is asked; and an id that was used for it is used.
func TestLateRepeatsOfWhatWasAskedOfADeletedPool(t *testing.T) {
	t.Parallel()
	onEachTable(t, func(t *testing.T, table server.Store) {
		w := start(t, table)
		w.makePool("games")
		wish := &pb.SetIntentRequest{Pool: "games", ServerId: "g-1", Wish: pb.Wish_WISH_BANNED, RequestId: "ban"}
		if _, err := w.admin.SetIntent(t.Context(), wish); err != nil {
			t.Fatal(err)
		}
		end := &pb.DeletePoolRequest{Pool: "games", RequestId: "end"}
		w.deletePool(end)
		w.makePool("games")
		w.deletePool(&pb.DeletePoolRequest{Pool: "games"})
		used := &pb.CreatePoolRequest{Pool: "games", RequestId: "ban"}
		_, err := w.admin.CreatePool(t.Context(), used)
		wantField(t, err, "request_id")
		third := w.makePool("games").GetRevision()
		for range 2 {
			if _, err := w.admin.SetIntent(t.Context(), wish); err != nil {
				t.Errorf("the late repeat of a wish: %v", err)
			}
			w.deletePool(end)
			res, err := w.admin.GetPool(t.Context(), &pb.GetPoolRequest{Pool: "games"})
			if err != nil || res.GetPool().GetRevision() != third {
				t.Errorf("the third pool, made at revision %d: %v, %v", third, res, err)
			}
			w.shutDown()
			w.run()
			w.leads(5 * time.Second)
			_, err = w.admin.CreatePool(t.Context(), used)
			wantField(t, err, "request_id")
		}
	})
}

// told looks for an event in the history of the default pool.
func (w *world) told(kind, text string) error {
	res, err := w.admin.ListEvents(w.t.Context(), &pb.ListEventsRequest{Pool: "default", Kinds: []string{kind}})
	if err == nil && !slices.ContainsFunc(res.GetEvents(), func(e *pb.Event) bool { return strings.HasPrefix(e.GetText(), text) }) {
		return fmt.Errorf("the history has %v", res.GetEvents())
	}
	return err
}

// Who follows a pool hears of its end, and who was away hears of it, too: also
// where there is one of that name again.
func TestSubscribersHearOfADeletion(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := start(t, newTable())
		revision := w.makePool("games").GetRevision()
		live, away := w.newRouter("r1").subscribe(), w.newRouter("r2").subscribe()
		late := w.newRouter("r3").subscribe()
		for _, r := range []*router{live, away, late} {
			r.caughtUp("games", revision)
		}
		away.cancel()
		late.cancel()
		time.Sleep(100 * time.Millisecond)
		events, err := w.admin.WatchEvents(t.Context(), &pb.WatchEventsRequest{Pool: "games", FromRevision: revision})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := events.Recv(); err != nil {
			t.Fatal(err)
		}
		end := w.deletePool(&pb.DeletePoolRequest{Pool: "games"}).GetRevision()
		time.Sleep(2 * time.Second)
		gone := fmt.Sprintf("deleted games %d in epoch 1", end)
		if log := live.messages(); !slices.Contains(log, gone) {
			t.Errorf("a live router heard %v", log)
		}
		var last *pb.Event
		for err == nil {
			var res *pb.WatchEventsResponse
			if res, err = events.Recv(); err == nil {
				last = res.GetEvent()
			}
		}
		if !errors.Is(err, member.ErrNotFound) || last.GetKind() != "pool_deleted" || last.GetRevision() != end {
			t.Errorf("who watched the history got %v at last, and then %v", last, err)
		}
		away.subscribe()
		time.Sleep(time.Second)
		if log := away.messages(); !slices.Contains(log, gone) {
			t.Errorf("who was away heard %v", log)
		}
		w.shutDown()
		w.run()
		made := w.makePool("games").GetRevision()
		late.subscribe()
		late.caughtUp("games", made)
		want := []string{"start", fmt.Sprintf("deleted games %d in epoch 2", end), fmt.Sprintf("snapshot games %d", made), "synced"}
		got := slices.DeleteFunc(late.messages(), func(m string) bool { return strings.Contains(m, "default") })
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("who was away for long (-want +got):\n%s", d)
		}
		for _, r := range []*router{live, away, late} {
			if r.fault != nil {
				t.Errorf("%s: %v", r.id, r.fault)
			}
		}
		list, err := w.admin.ListRouters(t.Context(), &pb.ListRoutersRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range list.GetRouters() {
			if r.GetRouterId() == "r3" && len(r.GetLags()) > 0 {
				t.Errorf("%s lags: %v", r.GetRouterId(), r.GetLags())
			}
		}
	})
}

// A COMMIT without an answer is settled as that of any change.
func TestADeletionWhoseAnswerIsLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table := newTable()
		w := start(t, table)
		made := w.makePool("games").GetRevision()
		table.lose()
		if res := w.deletePool(&pb.DeletePoolRequest{Pool: "games"}); res.GetRevision() != made+1 {
			t.Errorf("deleted: %v", res)
		}
		release := table.hold()
		w.makePool("games")
		done := make(chan error, 1)
		go func() {
			_, err := w.admin.DeletePool(t.Context(), &pb.DeletePoolRequest{Pool: "games"})
			done <- err
		}()
		time.Sleep(time.Second)
		select {
		case err := <-done:
			t.Fatalf("answered before it is durable: %v", err)
		default:
		}
		release()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

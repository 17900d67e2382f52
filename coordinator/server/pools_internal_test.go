package server

import (
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// Who has the last revision of a pool has not been told of its end yet; who has a
// later one has the next pool of that name.
func TestDeletedSince(t *testing.T) {
	t.Parallel()
	r := new(roster).without(member.DeletedPool{Name: "games", Position: member.Position{Epoch: 1, Revision: 7}})
	for revision, want := range map[member.Revision]int{6: 1, 7: 1, 8: 0} {
		if got := r.deletedSince(map[member.Pool]member.Revision{"games": revision}); len(got) != want {
			t.Errorf("at revision %d: %v", revision, got)
		}
	}
}

// told is the stream of a subscriber that keeps what it is told; rows stand for a
// snapshot or a delta.
type told struct {
	pb.MembershipService_SubscribeServer

	log []string
	// then is called with each message when it is there.
	then func(message string)
}

func (s *told) SendMsg(m any) error {
	message := "rows"
	if r, ok := m.(*pb.SubscribeResponse); ok {
		switch r := r.GetMessage().(type) {
		case *pb.SubscribeResponse_PoolDeleted:
			message = fmt.Sprintf("deleted %s %d", r.PoolDeleted.GetPool(), r.PoolDeleted.GetRevision())
		case *pb.SubscribeResponse_Compacted:
			message = "compacted " + r.Compacted.GetPool()
		case *pb.SubscribeResponse_SoftSynced:
			message = "synced"
		}
	}
	s.log = append(s.log, message)
	if s.then != nil {
		s.then(message)
	}
	return nil
}

// A pool that is deleted and made again while a subscriber is being told something
// else is another one: the router hears of the deletion before it gets the new one.
// It would take its servers for those of the old one gone on.
func TestPoolThatIsMadeAgainBetweenTwoLooks(t *testing.T) {
	t.Parallel()
	b := newBell()
	p := newPools(nil, leadership{epoch: 1}, b, false)
	p.start = func(s member.PoolState) (*host, error) { return &host{pool: s.Name, history: newHistory(s, b)}, nil }
	create := func(name member.Pool, revision member.Revision) {
		state := member.PoolState{Name: name, Position: member.Position{Epoch: 1, Revision: revision}, LastChange: fmt.Sprint(revision)}
		if _, err := p.add(state); err != nil {
			t.Fatal(err)
		}
	}
	end := func(name member.Pool, revision member.Revision) {
		p.drop(member.DeletedPool{Name: name, Position: member.Position{Epoch: 1, Revision: revision}})
	}
	stream := &told{}
	s := &subscription{
		service: &membershipService{
			lead: p.lead, pools: p, marks: newMarks(b), metrics: newMetrics(prometheus.NewRegistry()), snapshots: newLine(1),
		},
		stream: stream, over: newEnding(), cursors: map[member.Pool]member.Position{},
	}
	look := func(want ...string) {
		t.Helper()
		stream.log = nil
		if err := s.catchUp(); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(stream.log, want) {
			t.Errorf("told %q, want %q", stream.log, want)
		}
	}
	create("films", 3)
	create("games", 3)
	look("rows", "rows", "synced")
	end("films", 4)
	stream.then = func(message string) {
		if message == "deleted films 4" {
			end("games", 4)
			create("games", 5)
		}
	}
	look("deleted films 4")
	look("deleted games 4", "rows")
	look()
}

// Nothing is left of what routers have of a deleted pool: not in their runs either,
// out of which it would come back with the next ack.
func TestRoutersForgetADeletedPool(t *testing.T) {
	t.Parallel()
	r := newRouters(newOwnAlarms(newAlarms(slog.New(slog.DiscardHandler), prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "x"}, []string{"name", "pool"}))))
	at := func(name member.Pool) placed {
		return placed{name, point{Position: member.Position{Epoch: 1, Revision: 5}}}
	}
	for _, run := range []string{"x", "y"} {
		if err := r.connect(arrival{id: "r1", run: run}, time.Now()); err != nil {
			t.Fatal(err)
		}
		r.ack("r1", run, ack{
			applied: []placed{at("films"), at("games")}, held: []heldServer{{"films", "a"}, {"games", "b"}},
		}, time.Now())
	}
	r.forget("games")
	for _, more := range []bool{false, true} {
		if more {
			if err := r.connect(arrival{id: "r1", run: "x"}, time.Now()); err != nil {
				t.Fatal(err)
			}
		}
		got := r.list()[0]
		if len(got.applied) != 1 || got.applied[0].pool != "films" || !slices.Equal(got.held, []heldServer{{"films", "a"}}) {
			t.Errorf("it has %v and keeps %v", got.applied, got.held)
		}
	}
	for name, run := range r.by["r1"].runs {
		if len(run.applied) > 1 || len(run.held) != 1 {
			t.Errorf("run %s has %v and keeps %v", name, run.applied, run.held)
		}
	}
}

// A deletion of which the history does not tell is told of once, and not again when
// its event is so old that it may have been pruned.
func TestUntold(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 29, 12, 0, 0, 0, time.UTC)
	deleted := func(name member.Pool, revision member.Revision, ago time.Duration) member.DeletedPool {
		return member.DeletedPool{
			Name: name, Position: member.Position{Epoch: 1, Revision: revision},
			Deletion: member.Deletion{At: now.Add(-ago), Actor: "ann", Reason: "closed"},
		}
	}
	all := []member.DeletedPool{
		deleted("told", 7, time.Hour), deleted("untold", 8, time.Hour), deleted("again", 9, time.Hour), deleted("old", 3, 25*time.Hour),
		deleted("restored", 7+2*store.RestoreStep, time.Hour),
	}
	told := []member.Event{eventOf(all[0]), eventOf(deleted("again", 5, 2*time.Hour)), eventOf(deleted("restored", 7, time.Hour))}
	want := []member.Event{eventOf(all[1]), eventOf(all[2])}
	if got := untold(all, told, now); !slices.EqualFunc(got, want, func(a, b member.Event) bool { return a.Text == b.Text && a.Actor == b.Actor }) {
		t.Errorf("untold are %v, want %v", got, want)
	}
}

package pool_test

import (
	"errors"
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/internal/member"
)

// deletion plays a machine up to the proposal of its end.
type deletion struct {
	t      *testing.T
	d      *desk
	change member.Change
	// replies and refusals are what the end has told to whom.
	replies  map[pool.Token]error
	refusals map[member.ID]error
	published,
	cleared int
}

func (x *deletion) ask(force bool, token pool.Token) {
	x.t.Helper()
	for _, e := range x.d.m.Step(x.d.now, pool.DeletePool{
		Call: pool.Call{Token: token, RequestID: "r", Hash: "h", Reason: "old", Actor: "ann"}, Force: force,
	}) {
		x.hear(e)
	}
}

func (x *deletion) hear(e pool.Effect) {
	switch e := e.(type) {
	case pool.Propose:
		x.change = e.Change
	case pool.Reply:
		x.replies[e.Token] = e.Err
	case pool.Refuse:
		x.refusals[x.d.peers[e.Session].hello.ID] = e.Err
	case pool.Publish:
		x.published++
	case pool.Clear:
		x.cleared++
	}
}

func (x *deletion) outcome(in pool.Input) {
	for _, e := range x.d.m.Step(x.d.now, in) {
		x.hear(e)
	}
}

func deletionOf(t *testing.T, ids ...member.ID) *deletion {
	d := newDesk(t)
	d.pool(ids...)
	return &deletion{t: t, d: d, replies: map[pool.Token]error{}, refusals: map[member.ID]error{}}
}

// A pool with servers is deleted by force only.
func TestDeleteWantsAnEmptyPool(t *testing.T) {
	t.Parallel()
	x := deletionOf(t, "a", "b")
	x.ask(false, 1)
	var refused *member.RefusedError
	if !errors.As(x.replies[1], &refused) || refused.Rule != "not_empty" || x.change.ID != "" {
		t.Fatalf("%v, proposed %q", x.replies[1], x.change.ID)
	}
	x.ask(true, 2)
	if x.change.Delete == nil || *x.change.Delete != (member.Deletion{At: x.d.now, Actor: "ann", Reason: "old"}) || len(x.change.Remove) != 2 {
		t.Fatalf("proposed %+v", x.change)
	}
	empty := deletionOf(t)
	empty.ask(false, 1)
	if empty.change.Delete == nil || len(empty.change.Requests) != 1 {
		t.Fatalf("proposed %+v", empty.change)
	}
}

// The end is the last change, it is for itself, and everybody who waits hears of
// it.
func TestDeleteIsTheEnd(t *testing.T) {
	t.Parallel()
	x := deletionOf(t, "a", "b")
	d := x.d
	d.intend("zebra", member.WishDrain) // under way
	x.ask(true, 1)
	late := agent("late")
	late.Session = 900
	d.peers[900] = &peer{hello: late}
	for _, in := range []pool.Input{
		late, pool.RemoveServer{Call: pool.Call{Token: 2}, ID: "a"}, pool.DeletePool{Call: pool.Call{Token: 3}, Force: true},
	} {
		x.outcome(in)
	}
	first := *d.flight
	d.table.apply(t, first)
	x.outcome(pool.Committed{ChangeID: first.ID})
	x.published = 0
	if c := x.change; c.Delete == nil || len(c.Put)+len(c.Intents) > 0 || c.Revision() != first.Revision()+1 {
		t.Fatalf("proposed %+v", c)
	}
	if _, told := x.replies[1]; told {
		t.Fatal("answered before it is durable")
	}
	x.outcome(pool.Committed{ChangeID: x.change.ID})
	if x.replies[1] != nil || x.published != 1 {
		t.Errorf("reply %v, %d publications", x.replies[1], x.published)
	}
	for _, token := range []pool.Token{2, 3} {
		is(t, x.replies[token], member.ErrNotFound)
	}
	for _, id := range []member.ID{"a", "b"} {
		var removed *member.RemovedError
		if !errors.As(x.refusals[id], &removed) || removed.ID != id || removed.Cause != member.CauseOperator {
			t.Errorf("%s is told %v", id, x.refusals[id])
		}
	}
	is(t, x.refusals["late"], member.ErrNotFound)
	if more := d.m.Step(d.now, pool.Tick{}, agent("c")); len(more) > 0 {
		t.Errorf("it goes on: %v", more)
	}
	if at := d.m.Position().Revision; at != x.change.Revision() {
		t.Errorf("at revision %d", at)
	}
}

// It does not go together with anything that was asked before it.
func TestDeleteWaitsForWhatIsBefore(t *testing.T) {
	t.Parallel()
	x := deletionOf(t, "a", "b")
	for _, e := range x.d.m.Step(x.d.now,
		pool.RemoveServer{Call: pool.Call{Token: 1}, ID: "a"}, pool.DeletePool{Call: pool.Call{Token: 2}, Force: true},
	) {
		x.hear(e)
	}
	first := x.change
	if first.Delete != nil || len(first.Remove) != 1 {
		t.Fatalf("proposed %+v", first)
	}
	x.outcome(pool.Committed{ChangeID: first.ID})
	if c := x.change; c.Delete == nil || len(c.Remove) != 1 || c.Remove[0].ID != "b" {
		t.Errorf("proposed %+v", c)
	}
}

// A deletion that fails has deleted nothing, and what waited behind it goes on.
func TestDeleteThatFails(t *testing.T) {
	t.Parallel()
	x := deletionOf(t, "a", "b")
	x.ask(true, 1)
	x.outcome(pool.RemoveServer{Call: pool.Call{Token: 2}, ID: "a"})
	x.outcome(pool.Rejected{ChangeID: x.change.ID, Err: errDatabase})
	is(t, x.replies[1], member.ErrUnavailable)
	if len(x.refusals) > 0 {
		t.Errorf("refused: %v", x.refusals)
	}
	x.d.now = x.d.now.Add(time.Second)
	x.outcome(pool.Tick{})
	if c := x.change; c.Delete != nil || len(c.Remove) != 1 {
		t.Errorf("proposed %+v", c)
	}
}

// What an alarm was about is gone.
func TestDeleteClearsAlarms(t *testing.T) {
	t.Parallel()
	x := deletionOf(t, "a", "b")
	x.d.say("a", "disk full")
	x.ask(true, 1)
	if x.change.ID == "" {
		x.outcome(pool.Committed{ChangeID: x.d.flight.ID})
	}
	x.outcome(pool.Committed{ChangeID: x.change.ID})
	if x.cleared != 1 {
		t.Errorf("%d alarms are over", x.cleared)
	}
}

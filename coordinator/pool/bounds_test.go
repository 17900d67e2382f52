package pool_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/internal/member"
)

func TestLargeQueuesGoInParts(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.intend("zebra", member.WishDrain)
	for i := range 2500 {
		d.hello(agent(member.ID(fmt.Sprintf("s%04d", i))))
	}
	d.commit()
	for _, want := range []int{1000, 1000, 500} {
		joins := 0
		for _, e := range d.flight.Events {
			if e.Kind == member.EventJoined {
				joins++
			}
		}
		if joins != want {
			t.Fatalf("%d join at once, want %d", joins, want)
		}
		d.commit()
	}
	if len(d.table.rows) != 2500 {
		t.Fatalf("%d rows", len(d.table.rows))
	}
}

// A change of which nothing remains does not keep the rest waiting.
func TestQueueGoesOnAfterRefusals(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.intend("zebra", member.WishDrain)
	var calls []*call
	for range 2500 {
		calls = append(calls, d.remove("nobody"))
	}
	d.commit()
	d.wait(time.Millisecond)
	for _, c := range calls {
		if c.reply == nil {
			t.Fatal("a command waits for nothing")
		}
	}
}

// A watcher that changes its mind all the time opens few rounds.
func TestFlappingWatcherOpensFewRounds(t *testing.T) {
	t.Parallel()
	d := five(t)
	observer := d.table.rows["c"].First
	for range 1000 {
		d.report(observer, "c", down)
		d.report(observer, "c", up)
		d.wait(time.Millisecond)
	}
	if n := d.counts[pool.CountRound]; n == 0 || n > 11 {
		t.Fatalf("%d rounds in a second", n)
	}
}

// What waits for a database that is away is bounded.
func TestNotesAreBounded(t *testing.T) {
	t.Parallel()
	d := five(t)
	for i := range 2000 {
		d.close(d.byID["c"], true)
		d.wait(6 * time.Second)
		d.hello(agent("c"))
		d.digests()
		if d.flight != nil && i > 0 {
			d.reject()
		}
	}
	if n := d.m.Sizes()["notes"]; n > 600 {
		t.Fatalf("%d notes wait", n)
	}
}

// Everything that was decided about one lasting doubt takes the place of one
// decision, not more and more memory. What is not kept of it is told of, once, after
// the head.
func TestDecisionsAreBounded(t *testing.T) {
	t.Parallel()
	d := five(t)
	d.report(d.table.rows["c"].First, "c", down)
	before, each := 0, 0
	for round := range 40 {
		d.answerAll("c", up)
		all := d.m.Decisions("c")
		if len(all) != 1 || len(all[0].Explanation.Timeline) > 160 {
			t.Fatalf("%d decisions", len(all))
		}
		told := len(all[0].Explanation.Timeline)
		for i, moment := range all[0].Explanation.Timeline {
			if moment.Kind != "left_out" {
				continue
			}
			var n int
			if _, err := fmt.Sscanf(moment.Text, "%d moments before this are left out", &n); err != nil || i != 20 {
				t.Fatalf("%q at %d: %v", moment.Text, i, err)
			}
			told += n - 1
		}
		// A round is like the other.
		if round > 2 && told-before != each {
			t.Fatalf("round %d has %d moments, the one before has %d", round, told-before, each)
		}
		before, each = told, told-before
		d.nextRound("c")
	}
}

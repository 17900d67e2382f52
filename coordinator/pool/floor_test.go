package pool_test

import (
	"slices"
	"testing"
	"time"

	"github.com/buddyring/buddyring/internal/member"
)

// Each test here is about one rule of the floor and fails without it.

func TestFloor(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		edit func(*member.Settings)
		want int
	}{
		"holds":        {func(s *member.Settings) { s.BrakePercent = 100 }, 0},
		"switched off": {off, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := many(t, 8, nil)
			d.set(test.edit)
			d.commitAll()
			for i := range 3 {
				d.die(numbered(i))
			}
			if s := d.m.Brake().Safety; s.Lost != 3 || s.ReferenceSize != 8 || test.want == 0 && s.FloorLimit != 4 {
				t.Fatalf("%+v", s)
			}
			// One more would do; two are more than the floor allows.
			dead := []member.ID{d.table.order[0], d.table.order[2]}
			d.missAll(dead)
			if got := d.gone(dead); got != test.want {
				t.Fatalf("%d are removed, want %d; kept by %s", got, test.want, d.rule(dead[0]))
			}
			if held := test.want == 0; d.alarm("FLOOR", "") != held || held && d.rule(dead[0]) != "floor" {
				t.Errorf("kept by %s, %v", d.rule(dead[0]), d.alarms)
			}
		})
	}
}

// Whoever is back, or joins in the place of a lost member, makes room again once
// it is ACTIVE.
func TestFloorRises(t *testing.T) {
	t.Parallel()
	d := many(t, 8, nil)
	d.set(func(s *member.Settings) { s.BrakePercent = 100 })
	d.commitAll()
	for i := range 4 {
		d.die(numbered(i))
	}
	back := numbered(0)
	d.hello(reboot(back))
	d.hello(agent("new"))
	d.commitAll()
	if s := d.m.Brake().Safety; s.Lost != 4 || s.ReferenceSize != 8 {
		t.Fatalf("%s and %s make room: %+v", d.phase(back), d.phase("new"), s)
	}
	d.report(d.table.rows["new"].First, "new", up)
	d.commitAll()
	if s := d.m.Brake().Safety; s.Lost != 3 {
		t.Fatalf("new is %s: %+v", d.phase("new"), s)
	}
	d.report(d.table.rows[back].First, back, up)
	d.live(10 * time.Second)
	d.commitAll()
	if s := d.m.Brake().Safety; s.Lost != 2 || s.ReferenceSize != 8 {
		t.Fatalf("%s is %s: %+v", back, d.phase(back), s)
	}
}

// A fault that takes one server a minute, each of which says hello again and is
// never reached, is too slow for the brake and stops at the floor. A new leader
// counts alike.
func TestFloorCountsTheUnreachedAsLost(t *testing.T) {
	t.Parallel()
	d := many(t, 16, nil)
	d.set(func(s *member.Settings) { s.FloorPercent = 25 })
	d.commitAll()
	dead := d.apart(5)
	last := dead[4:]
	for _, id := range dead[:4] {
		d.missAll([]member.ID{id})
		if d.gone([]member.ID{id}) != 1 {
			t.Fatalf("%s is kept by %q", id, d.rule(id))
		}
		d.hello(reboot(id))
		d.commitAll()
		for _, o := range d.table.order {
			d.said[[2]member.ID{o, id}] = down // also as a temporary watcher
		}
		d.live(61 * time.Second)
		d.commitAll()
	}
	if p := []member.Phase{d.phase(dead[0]), d.phase(dead[1])}; !slices.Equal(p, []member.Phase{member.PhaseHeld, member.PhaseJoining}) {
		t.Fatalf("they are %v", p)
	}
	d.missAll(last)
	if d.gone(last) != 0 || d.rule(last[0]) != "floor" || !d.alarm("FLOOR", "") || d.m.Brake().Safety.Lost != 4 {
		t.Fatalf("kept by %q: %+v", d.rule(last[0]), d.m.Brake().Safety)
	}
	d.table.at.Epoch++
	d.boot()
	if s := d.m.Brake().Safety; s.Lost != 4 || s.ReferenceSize != 16 {
		t.Fatalf("after a change of the leader: %+v", s)
	}
}

// A HELD member that is taken out for good is lost already: it is not counted twice.
func TestFloorCountsTheHeldOnce(t *testing.T) {
	t.Parallel()
	d := many(t, 8, nil)
	d.set(func(s *member.Settings) {
		s.BrakePercent, s.HoldDown, s.HeldPercent = 100, 5*time.Minute, 100
	})
	d.commitAll()
	for i := range 4 {
		d.die(numbered(i))
		d.hello(reboot(numbered(i)))
		d.commitAll()
	}
	id := numbered(0)
	d.close(d.byID[id], false)
	d.miss(id)
	for range 60 {
		d.nextRound(id)
		d.answersOf([]member.ID{id})
		if d.gone([]member.ID{id}) == 1 {
			break
		}
	}
	x := d.m.Decisions(id)[0].Explanation
	if !d.removed(id) || x.Before.Lost != 4 || x.After.Lost != 4 || d.m.Brake().Safety.Lost != 4 {
		t.Fatalf("kept by %q: %+v, then %+v", d.rule(id), x.Before, x.After)
	}
}

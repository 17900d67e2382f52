package pool_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/coordinator/verdict"
	"github.com/buddyring/buddyring/internal/member"
)

// Each test here is about one rule of the brake and shows both: with
// the rule nobody is removed, without it everybody is.

// many is a pool of n in which all is well. Servers are s00, s01, …; site, if not
// nil, says where each is.
func many(t *testing.T, n int, site func(i int) (zone, rack string)) *desk {
	t.Helper()
	d := newDesk(t)
	for i := range n {
		h := agent(numbered(i))
		if site != nil {
			h.Spec.Zone, h.Spec.Rack = site(i)
		}
		d.hello(h)
		d.commitAll()
		if row := d.table.rows[h.ID]; row.First != "" {
			d.report(row.First, h.ID, up)
			d.commitAll()
		}
	}
	d.digests()
	d.wait(time.Second)
	return d
}

func numbered(i int) member.ID { return member.ID(fmt.Sprintf("s%03d", i)) }

// apart picks k members no two of which are neighbours, in ring order.
func (d *desk) apart(k int) []member.ID {
	d.t.Helper()
	var ids []member.ID
	for i := 0; i < len(d.table.order)-1 && len(ids) < k; i += 3 {
		ids = append(ids, d.table.order[i])
	}
	if len(ids) < k {
		d.t.Fatalf("only %d of %d are apart", len(ids), k)
	}
	return ids
}

// missAll lets all observers miss these servers at once: first the watchers, then
// everybody who is asked.
func (d *desk) missAll(ids []member.ID) {
	d.t.Helper()
	for _, id := range ids {
		d.miss(id)
	}
	d.answersOf(ids)
}

// answersOf answers the newest rounds about servers with misses.
func (d *desk) answersOf(ids []member.ID) {
	d.t.Helper()
	var last time.Time
	for _, id := range ids {
		for _, o := range d.observers(id) {
			if !slices.Contains(ids, o) {
				d.answer(o, id, down, false)
			}
		}
		if at := d.notary.newest[id].lastProbe; at.After(last) {
			last = at
		}
	}
	d.wait(max(0, last.Sub(d.now)))
	for _, id := range ids {
		for _, o := range d.observers(id) {
			if !slices.Contains(ids, o) {
				d.answer(o, id, down, true)
			}
		}
	}
}

// gone counts who of these has been removed, or is about to be.
func (d *desk) gone(ids []member.ID) int {
	d.t.Helper()
	d.wait(300 * time.Millisecond)
	d.commitAll()
	n := 0
	for _, id := range ids {
		if d.removed(id) {
			n++
		}
	}
	return n
}

func off(s *member.Settings) {
	s.BrakePercent, s.BrakeZonePercent, s.FloorPercent = 100, 100, 100
}

func TestBrakeHoldsASet(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		edit func(*member.Settings)
		dead int
		want int
	}{
		"as many as it allows": {nil, 3, 3},
		"one more":             {nil, 4, 0},
		"ten at once":          {nil, 10, 0},
		"switched off":         {off, 10, 10},
		"with more allowed":    {func(s *member.Settings) { s.BrakeLeast = 10 }, 10, 10},
		"with a percentage":    {func(s *member.Settings) { s.BrakePercent = 33 }, 10, 10},
		"with less allowed":    {func(s *member.Settings) { s.BrakeLeast, s.BrakePercent, s.BrakeRackPercent = 2, 6, 0 }, 3, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := many(t, 31, nil)
			if test.edit != nil {
				d.set(test.edit)
				d.commitAll()
			}
			dead := d.apart(test.dead)
			d.missAll(dead)
			if got := d.gone(dead); got != test.want {
				t.Fatalf("%d of %d are removed, want %d", got, test.dead, test.want)
			}
			if braked := test.want == 0; d.alarm("BRAKE", "") != braked || d.m.Status().Braked != braked {
				t.Errorf("alarms %v", d.alarms)
			}
			if test.want > 0 {
				return
			}
			for _, id := range dead {
				if _, suspect := d.marks[id]; !suspect || d.rule(id) != "brake" {
					t.Errorf("%s is suspect: %v, by rule %q", id, suspect, d.rule(id))
				}
			}
		})
	}
}

// The verdicts of a set come one after the other, and the first ones have to wait
// for company: when the fourth comes, all are held.
func TestBrakeTakesBackWaitingVerdicts(t *testing.T) {
	t.Parallel()
	d := many(t, 31, nil)
	dead := d.apart(4)
	for _, id := range dead[:3] {
		d.miss(id)
	}
	d.answersOf(dead[:2])
	if d.flight != nil {
		t.Fatal("the third is not waited for")
	}
	d.miss(dead[3])
	if got := d.gone(dead); got != 0 || d.rule(dead[0]) == "brake" {
		t.Fatalf("%d are removed, kept by %q", got, d.rule(dead[0]))
	}
	if !d.alarm("BRAKE", "") {
		t.Error("no alarm")
	}
}

// Removals count for a minute, also for a coordinator that has just started.
func TestBrakeCountsRemovals(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		restart bool
		// ahead is how far the clock was ahead of the one that has just started.
		ahead time.Duration
	}{"": {}, "across a restart": {restart: true}, "of a clock that was ahead": {true, 10 * time.Minute}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := many(t, 31, nil)
			dead := d.apart(4)
			for _, id := range dead[:3] {
				d.die(id)
			}
			if test.restart {
				for id, left := range d.table.departed {
					left.LeftAt = left.LeftAt.Add(test.ahead)
					d.table.departed[id] = left
				}
				d.table.at.Epoch++
				d.boot()
				for _, id := range d.table.order {
					d.hello(agent(id))
				}
				d.digests()
				d.commitAll()
			}
			last := dead[3]
			d.missAll([]member.ID{last})
			if d.gone(dead[3:]) != 0 || d.rule(last) != "brake" {
				t.Fatalf("removed, or kept by %s", d.rule(last))
			}
			for range 60 {
				d.nextRound(last)
				d.answersOf([]member.ID{last})
				if d.gone(dead[3:]) == 1 {
					break
				}
			}
			if !d.removed(last) || d.alarm("BRAKE", "") {
				t.Fatalf("kept by %s, alarms %v", d.rule(last), d.alarms)
			}
		})
	}
}

// The largest rack may go at once, up to a quarter of the pool.
func TestBrakeAllowsARack(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ rack, dead, want int }{
		"a rack":                    {6, 6, 6},
		"a rack and one more":       {6, 7, 0},
		"a rack that is half of it": {15, 9, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := many(t, 30, nil)
			// The racks are given afterwards, so that the dead are no neighbours.
			dead := d.apart(test.dead)
			racked := append(slices.Clone(dead), slices.DeleteFunc(slices.Clone(d.table.order), func(id member.ID) bool { return slices.Contains(dead, id) })...)[:test.rack]
			for _, id := range racked {
				d.call(func(c pool.Call) pool.Input {
					return pool.UpdateServer{Call: c, ID: id, Edit: func(s member.Spec) (member.Spec, error) {
						s.Rack = "r1"
						return s, nil
					}}
				}, pool.Call{})
			}
			d.commitAll()
			d.missAll(dead)
			if got := d.gone(dead); got != test.want {
				t.Fatalf("%d of %d are removed, want %d", got, test.dead, test.want)
			}
		})
	}
}

func TestZoneBrake(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		size int
		edit func(*member.Settings)
		dead int
		want int
	}{
		"a third of a zone":   {6, nil, 1, 1},
		"more than a third":   {6, nil, 2, 0},
		"more of a small one": {5, nil, 3, 3},
		"switched off":        {6, func(s *member.Settings) { s.BrakeZonePercent = 100 }, 3, 3},
		"of a larger one":     {12, nil, 3, 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := many(t, 31, nil)
			if test.edit != nil {
				d.set(test.edit)
			}
			dead := d.apart(test.dead)
			zone := append(slices.Clone(dead), slices.DeleteFunc(slices.Clone(d.table.order), func(id member.ID) bool { return slices.Contains(dead, id) })...)[:test.size]
			for _, id := range zone {
				d.call(func(c pool.Call) pool.Input {
					return pool.UpdateServer{Call: c, ID: id, Edit: func(s member.Spec) (member.Spec, error) {
						s.Zone = "east"
						return s, nil
					}}
				}, pool.Call{})
			}
			d.commitAll()
			d.missAll(dead)
			if got := d.gone(dead); got != test.want {
				t.Fatalf("%d of %d are removed, want %d", got, test.dead, test.want)
			}
			if test.want == 0 && (d.rule(dead[0]) != "zone_brake" || !strings.Contains(d.m.Alarms()[0].Text, "zone east")) {
				t.Errorf("kept by %s, %v", d.rule(dead[0]), d.m.Alarms())
			}
		})
	}
}

// A zone does not shrink below the brake's size by what it has lost: one of six
// may go, and then not the others one by one.
func TestZoneBrakeRemembersTheZone(t *testing.T) {
	t.Parallel()
	d := many(t, 31, func(i int) (string, string) {
		if i < 6 {
			return "east", ""
		}
		return "west", ""
	})
	d.die(numbered(0))
	d.missAll([]member.ID{numbered(1)})
	if d.gone([]member.ID{numbered(1)}) != 0 || d.rule(numbered(1)) != "zone_brake" {
		t.Fatalf("removed, or kept by %s", d.rule(numbered(1)))
	}
}

// Suspects whose streams answer are behind a filter or a lossy link, and do not
// speak for a mass failure.
func TestBrakeLeavesOutThoseWhoseStreamAnswers(t *testing.T) {
	t.Parallel()
	d := many(t, 31, nil)
	filtered := d.apart(6)
	for _, id := range filtered {
		d.miss(id)
		d.echo(id)
	}
	d.answersOf(filtered)
	if d.m.Status().Braked || d.alarm("BRAKE", "") {
		t.Fatal("the brake is on")
	}
	if s := d.m.Brake().Safety; s.Suspects != 0 {
		t.Fatalf("%+v", s)
	}
}

func TestBrakeEnds(t *testing.T) {
	t.Parallel()
	d := many(t, 31, nil)
	dead := d.apart(8)
	d.missAll(dead)
	if d.gone(dead) != 0 {
		t.Fatal("removed")
	}
	since := d.m.Brake().Stops[0].Since
	// All but one are back: the evidence is gone.
	for _, id := range dead[1:] {
		d.report(d.table.rows[id].First, id, up)
		d.report(d.table.rows[id].Second, id, up)
		d.nextOrNone(id, up)
	}
	back := d.now
	if !d.alarm("BRAKE", "") {
		t.Fatal("the brake lets go at the first sign of calm")
	}
	for d.m.Status().Braked && d.now.Sub(back) < 30*time.Second {
		d.live(100 * time.Millisecond)
	}
	if calm := d.now.Sub(back); d.m.Status().Braked || d.alarm("BRAKE", "") || calm < 5*time.Second || calm > 10*time.Second {
		t.Fatalf("after %v: %+v", d.now.Sub(back), d.m.Brake())
	}
	if since.IsZero() {
		t.Error("nobody knows since when")
	}
	d.commitAll()
	for range 10 {
		d.nextRound(dead[0])
		d.answersOf(dead[:1])
		if d.gone(dead[:1]) == 1 {
			return
		}
	}
	t.Fatalf("the one that is dead stays by %s", d.rule(dead[0]))
}

// nextOrNone answers the round that is open about a server, if there is one.
func (d *desk) nextOrNone(id member.ID, s pool.Sight) {
	d.t.Helper()
	for _, o := range d.observers(id) {
		if p := d.byID[o]; p != nil && p.speaks() {
			d.answer(o, id, s, true)
		}
	}
}

// The history says that the brake holds a removal also when it has just said something
// else about the server.
func TestBrakeIsNotedBesideAnotherRule(t *testing.T) {
	t.Parallel()
	d := many(t, 31, nil)
	dead := d.apart(8)
	d.report(d.table.rows[dead[0]].First, dead[0], down)
	d.answerAll(dead[0], up)
	if d.rule(dead[0]) != "others_reach_it" && d.rule(dead[0]) != "answers" {
		t.Fatalf("by %q", d.rule(dead[0]))
	}
	d.report(d.table.rows[dead[0]].First, dead[0], up)
	d.wait(6 * time.Second)
	d.commitAll()
	d.missAll(dead)
	d.live(6 * time.Second)
	if d.flight == nil {
		t.Fatal("nothing is noted")
	}
	var rules []string
	for _, e := range d.flight.Events {
		if e.Kind == member.EventNotRemoved && e.ID == dead[0] {
			rules = append(rules, e.Explanation.Rule)
		}
	}
	d.commitAll()
	if !slices.Equal(rules, []string{"brake"}) {
		t.Errorf("noted by %q", rules)
	}
}

// The alarm says what is held, why and since when; the history says it too.
func TestBrakeTells(t *testing.T) {
	t.Parallel()
	d := many(t, 31, nil)
	dead := d.apart(7)
	d.missAll(dead)
	d.live(10 * time.Second)
	d.commitAll()
	var alarm member.Alarm
	for _, a := range d.m.Alarms() {
		if a.Name == "BRAKE" {
			alarm = a
		}
	}
	sorted := slices.Sorted(slices.Values(dead))
	want := fmt.Sprintf("removals by verdict are held: 7 of 31 servers are suspect or were removed within 1 min, and the brake allows 3; held: %s, %s, %s, %s, %s and 2 more",
		sorted[0], sorted[1], sorted[2], sorted[3], sorted[4])
	if alarm.Text != want || alarm.Since.IsZero() {
		t.Errorf("%q", alarm.Text)
	}
	status := d.m.Brake()
	if len(status.Held) != 7 || status.Held[0].ID != sorted[0] || status.Held[0].Since.IsZero() || status.Stops[0].Rule != "brake" {
		t.Errorf("%+v", status)
	}
	if s := status.Safety; s != (member.Safety{Members: 31, Suspects: 7, BrakeLimit: 3, Engaged: true, FloorLimit: 15, ReferenceSize: 31}) {
		t.Errorf("%+v", s)
	}
	if before := d.m.Decisions(dead[0])[0].Explanation.Before; before == nil || *before != status.Safety {
		t.Errorf("explained by %+v", before)
	}
}

// In shadow mode the brake says what it would have held.
func TestShadowModeShowsTheBrake(t *testing.T) {
	t.Parallel()
	d := many(t, 31, nil)
	d.set(func(s *member.Settings) { s.Mode = member.ModeShadow })
	d.commitAll()
	dead := d.apart(8)
	d.missAll(dead)
	text := d.m.Decisions(dead[7])[0].Explanation.Text
	if d.rule(dead[7]) != "shadow_mode" || !strings.Contains(text, "its removal would be held: 8 of 31 servers") {
		t.Errorf("%s: %s", d.rule(dead[7]), text)
	}
}

// A removal says where it left the pool between brake and floor.
func TestRemovalTellsOfSafety(t *testing.T) {
	t.Parallel()
	d := five(t)
	d.die("c")
	x := d.m.Decisions("c")[0].Explanation
	before := member.Safety{Members: 5, Suspects: 1, BrakeLimit: 3, FloorLimit: 2, ReferenceSize: 5}
	after := before
	after.Members, after.Lost = 4, 1
	if x.Before == nil || *x.Before != before || x.After == nil || *x.After != after {
		t.Errorf("before %+v, after %+v", x.Before, x.After)
	}
}

// unreached answers the newest rounds about servers: their streams answer, and
// nobody reaches them by probe or connect.
func (d *desk) unreached(ids []member.ID) {
	d.t.Helper()
	var last time.Time
	for _, id := range ids {
		d.echo(id)
		if at := d.notary.newest[id].lastProbe; at.After(last) {
			last = at
		}
	}
	d.wait(max(0, last.Sub(d.now)))
	for _, id := range ids {
		for _, o := range d.observers(id) {
			a := d.answerOf(o, id, down, true)
			a.Evidence.Connect = verdict.ConnectUnanswered
			d.step(a)
		}
	}
}

// Servers that nobody reaches although their streams answer do not speak for a
// mass failure before a round comes to their removal; then they do.
func TestBrakeCountsVerdicts(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		edit func(*member.Settings)
		want int
	}{"on": {nil, 0}, "switched off": {off, 4}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := many(t, 31, nil)
			if test.edit != nil {
				d.set(test.edit)
				d.commitAll()
			}
			cut := d.apart(4)
			for _, id := range cut {
				d.report(d.table.rows[id].Second, id, down)
				d.echo(id)
				d.report(d.table.rows[id].First, id, down)
			}
			d.unreached(cut)
			if s := d.m.Brake().Safety; s.Suspects != 0 || s.Engaged {
				t.Fatalf("they count too early: %+v", s)
			}
			d.nextRound(cut[0])
			d.wait(50 * time.Millisecond)
			d.unreached(cut)
			if got := d.gone(cut); got != test.want {
				t.Fatalf("%d are removed, want %d; kept by %s", got, test.want, d.rule(cut[0]))
			}
			if held := test.want == 0; d.m.Status().Braked != held {
				t.Errorf("%+v", d.m.Brake())
			}
		})
	}
}

// HELD members get no work: they do not use up what the brake lets pass.
func TestBrakeLeavesOutTheHeld(t *testing.T) {
	t.Parallel()
	d := many(t, 31, nil)
	d.set(func(s *member.Settings) {
		s.BrakeLeast, s.BrakePercent, s.BrakeRackPercent, s.BrakeWindow = 1, 0, 0, time.Second
	})
	d.commitAll()
	pair := d.apart(2)
	d.die(pair[0])
	d.hello(reboot(pair[0]))
	d.commitAll()
	d.live(2 * time.Second)
	d.miss(pair[0])
	if p := d.phase(pair[0]); p != member.PhaseHeld {
		t.Fatalf("it is %s", p)
	}
	d.missAll(pair[1:])
	if d.gone(pair[1:]) != 1 {
		t.Fatalf("kept by %s: %+v", d.rule(pair[1]), d.m.Brake())
	}
}

// While anybody is suspect, the machine looks at the brake when something happens, ten
// times a second at most; at once when somebody becomes suspect or is no more.
func TestBrakeIsLookedAtInMeasure(t *testing.T) {
	t.Parallel()
	d := many(t, 31, nil)
	suspects := d.apart(2)
	d.miss(suspects[0])
	marked := d.m.GuardedAt()
	if !marked.Equal(d.now) {
		t.Fatal("it is not looked at with the first suspect")
	}
	looks := map[time.Time]bool{}
	for d.now.Sub(marked) < time.Second {
		d.now = d.now.Add(time.Millisecond)
		d.step(pool.Tick{})
		looks[d.m.GuardedAt()] = true
	}
	if len(looks) < 10 || len(looks) > 12 {
		t.Fatalf("it is looked at %d times in a second", len(looks))
	}
	d.now = d.m.GuardedAt().Add(time.Millisecond)
	d.miss(suspects[1])
	if !d.m.GuardedAt().Equal(d.now) {
		t.Fatal("it is not looked at with the second suspect")
	}
}

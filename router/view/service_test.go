package view_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/router/view"
)

// down is a mark that says that a service is down.
func down(id member.ID, seq uint64) member.Mark {
	return member.Mark{ID: id, Incarnation: 1, ServiceDown: true, Epoch: 1, Seq: seq, TTL: 30 * time.Second}
}

func suspected(id member.ID, seq uint64) member.Mark {
	return member.Mark{ID: id, Incarnation: 1, Suspect: true, Epoch: 1, Seq: seq, TTL: 30 * time.Second}
}

// downRow is the next delta, in which the rows of these say that their service is
// down.
func downRow(v *view.View, ids ...member.ID) view.Delta {
	d := view.Delta{From: v.Position().Revision, To: member.Position{Epoch: 1, Revision: v.Position().Revision + 1}}
	for _, id := range ids {
		row := server(id)
		row.Phase = member.PhaseServiceDown
		d.Put = append(d.Put, row)
	}
	return d
}

// Servers whose service is down get no work, by mark or by row, until they are
// more than half together with the suspects.
func TestServiceDown(t *testing.T) {
	t.Parallel()
	all := []member.ID{"s00", "s01", "s02", "s03"}
	for name, test := range map[string]struct {
		marks []member.Mark
		rows  []member.ID
		want  []string
	}{
		"nobody":                       {nil, nil, []string{"0 s00@1 w100", "0 s01@1 w100", "0 s02@1 w100", "0 s03@1 w100"}},
		"by mark":                      {[]member.Mark{down("s01", 1)}, nil, []string{"0 s00@1 w100", "0 s02@1 w100", "0 s03@1 w100"}},
		"by row":                       {nil, []member.ID{"s01"}, []string{"0 s00@1 w100", "0 s02@1 w100", "0 s03@1 w100"}},
		"by both, counted once":        {[]member.Mark{down("s01", 1), down("s02", 2)}, []member.ID{"s01", "s02"}, []string{"0 s00@1 w100", "0 s03@1 w100"}},
		"half of them":                 {[]member.Mark{down("s01", 1)}, []member.ID{"s02"}, []string{"0 s00@1 w100", "0 s03@1 w100"}},
		"half with a suspect":          {[]member.Mark{down("s01", 1), suspected("s02", 2)}, nil, []string{"0 s00@1 w100", "0 s03@1 w100", "1 s02@1 w100"}},
		"more than half":               {nil, all[1:], []string{"0 s00@1 w100", "2 s01@1 w100", "2 s02@1 w100", "2 s03@1 w100"}},
		"more than half with one":      {[]member.Mark{down("s01", 1), suspected("s02", 2), suspected("s03", 3)}, nil, []string{"0 s00@1 w100", "1 s02@1 w100", "1 s03@1 w100", "2 s01@1 w100"}},
		"all":                          {nil, all, []string{"2 s00@1 w100", "2 s01@1 w100", "2 s02@1 w100", "2 s03@1 w100"}},
		"down and suspect":             {[]member.Mark{{ID: "s01", Incarnation: 1, Suspect: true, ServiceDown: true, Epoch: 1, Seq: 1, TTL: time.Minute}}, nil, []string{"0 s00@1 w100", "0 s02@1 w100", "0 s03@1 w100"}},
		"of an incarnation that ended": {[]member.Mark{{ID: "s01", Incarnation: 9, ServiceDown: true, Epoch: 1, Seq: 1, TTL: time.Minute}}, nil, []string{"0 s00@1 w100", "0 s01@1 w100", "0 s02@1 w100", "0 s03@1 w100"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := pool(t, 4)
			v = apply(t, v, downRow(v, test.rows...)).ApplyMarks(test.marks, start)
			if diff := cmp.Diff(test.want, entryLines(v.Table())); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// Servers without endpoints or weight are no part of the half.
func TestServiceDown_CountsWhoCouldGetWork(t *testing.T) {
	t.Parallel()
	v := pool(t, 4)
	d := downRow(v, "s01", "s02")
	idle := server("s03")
	idle.Weight = 0
	d.Put = append(d.Put, idle)
	v = apply(t, v, d)
	want := []string{"0 s00@1 w100", "2 s01@1 w100", "2 s02@1 w100"}
	if diff := cmp.Diff(want, entryLines(v.Table())); diff != "" {
		t.Errorf("two of three are more than half (-want +got):\n%s", diff)
	}
}

// The newest mark replaces those before it, whatever it says.
func TestApplyMarks_NewestReplaces(t *testing.T) {
	t.Parallel()
	v := pool(t, 5)
	steps := []struct {
		mark member.Mark
		want int
	}{
		{down("s00", 1), 4},
		{member.Mark{ID: "s00", Incarnation: 1, Epoch: 1, Seq: 2}, 5},
		{down("s00", 1), 5},
		{down("s00", 3), 4},
		{suspected("s00", 4), 5},
		{down("s00", 5), 4},
	}
	for i, s := range steps {
		v = v.ApplyMarks([]member.Mark{s.mark}, start)
		if got := len(v.Table().Entries()); got != s.want {
			t.Fatalf("step %d: %d get work, want %d", i, got, s.want)
		}
	}
	if v = v.Expire(start.Add(29 * time.Second)); len(v.Table().Entries()) != 4 {
		t.Fatal("expired before its time")
	}
	if v = v.Expire(start.Add(30 * time.Second)); len(v.Table().Entries()) != 5 {
		t.Fatal("not expired in time")
	}
}

// Picks go to the service-down ones only when nobody else is left.
func TestPick_ServiceDownLast(t *testing.T) {
	t.Parallel()
	v := pool(t, 4)
	v = apply(t, v, downRow(v, "s01", "s02")).ApplyMarks([]member.Mark{suspected("s03", 1)}, start)
	var got []member.ID
	var exclude []member.ID
	for range 4 {
		c, ok := v.Table().Pick(&view.Request{Exclude: exclude, Random: 7})
		if !ok {
			t.Fatal("nobody")
		}
		got, exclude = append(got, c.Server().ID), append(exclude, c.Server().ID)
	}
	slices.Sort(got[2:])
	if want := []member.ID{"s00", "s03", "s01", "s02"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if _, ok := v.Table().Pick(&view.Request{Exclude: exclude}); ok {
		t.Error("somebody is left")
	}
}

// Whoever gets no work leaves no gap when a verdict removes it.
func TestApplyDelta_ServiceDownIsNoLoss(t *testing.T) {
	t.Parallel()
	v := pool(t, 5)
	v = v.ApplyMarks([]member.Mark{down("s00", 1), down("s01", 2)}, start)
	v = apply(t, v, removal(v, 3, member.CauseCrashed))
	if n := len(v.Held()); n != 0 {
		t.Errorf("%d are held back, though one of three went", n)
	}
}

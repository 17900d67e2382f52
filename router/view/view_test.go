package view_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/router/view"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// server returns an ACTIVE row with one unnamed endpoint.
func server(id member.ID) *view.Server {
	return &view.Server{
		ID: id, Incarnation: 1, Phase: member.PhaseActive, Weight: member.DefaultWeight,
		Endpoints: []member.Endpoint{{Address: string(id) + ":80"}},
	}
}

func servers(n int) []*view.Server {
	rows := make([]*view.Server, n)
	for i := range rows {
		rows[i] = server(member.ID(fmt.Sprintf("s%02d", i)))
	}
	return rows
}

// pool returns a view of n servers at epoch 1, revision 10.
func pool(t *testing.T, n int) *view.View {
	t.Helper()
	v, err := view.New("default").ApplySnapshot(view.Snapshot{
		StoreID: "s", Position: member.Position{Epoch: 1, Revision: 10}, Servers: servers(n),
	})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// removal is the next delta of v that removes its first n rows.
func removal(v *view.View, n int, cause member.Cause) view.Delta {
	p := v.Position()
	d := view.Delta{From: p.Revision, To: member.Position{Epoch: p.Epoch, Revision: p.Revision + 1}}
	for _, row := range v.Rows()[:n] {
		d.Removed = append(d.Removed, member.Removal{ID: row.ID, Incarnation: row.Incarnation, Cause: cause})
	}
	return d
}

func apply(t *testing.T, v *view.View, d view.Delta) *view.View {
	t.Helper()
	next, err := v.ApplyDelta(d)
	if err != nil {
		t.Fatal(err)
	}
	return next
}

func TestApplyDelta_HoldsBackTooManyAtOnce(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		of, removed int
		cause       member.Cause
		held        int
	}{
		{1, 1, member.CauseCrashed, 1},
		{1, 1, member.CauseShutdown, 0},
		{1, 1, member.CauseOperator, 0},
		{2, 1, member.CauseCrashed, 0},
		{2, 2, member.CauseUnreachable, 2},
		{3, 1, member.CauseLossy, 0},
		{3, 2, member.CauseLossy, 2},
		{10, 5, member.CauseCrashed, 0},
		{10, 6, member.CauseCrashed, 6},
		{10, 10, member.CauseShutdown, 0},
	} {
		t.Run(fmt.Sprintf("%d of %d %s", c.removed, c.of, c.cause), func(t *testing.T) {
			t.Parallel()
			v := pool(t, c.of)
			v = apply(t, v, removal(v, c.removed, c.cause))
			if got := len(v.Held()); got != c.held {
				t.Errorf("%d held, want %d", got, c.held)
			}
			want := c.of - c.removed + c.held
			if got := len(v.Table().Entries()); got != want {
				t.Errorf("%d servers may get work, want %d", got, want)
			}
		})
	}
}

func TestApplyDelta_HeldBackUntilConfirmedOrBack(t *testing.T) {
	t.Parallel()
	v := pool(t, 3)
	v = apply(t, v, removal(v, 3, member.CauseCrashed))
	if got := v.Table().Count(view.StateHeldBack); got != 3 {
		t.Fatalf("%d held back, want 3", got)
	}
	next := func(d view.Delta) view.Delta {
		d.From = v.Position().Revision
		d.To = member.Position{Epoch: 1, Revision: d.From + 1}
		return d
	}
	joining, back := server("s00"), server("s00")
	joining.Phase, joining.Incarnation, back.Incarnation = member.PhaseJoining, 12, 12

	v = apply(t, v, next(view.Delta{Put: []*view.Server{joining}}))
	if got := v.Table().Count(view.StateHeldBack); got != 3 {
		t.Errorf("%d held back while the first joins again, want 3", got)
	}
	v = apply(t, v, next(view.Delta{Put: []*view.Server{back}}))
	want := []string{"0 s00@12 w100", "3 s01@1 w100", "3 s02@1 w100"}
	if diff := cmp.Diff(want, entryLines(v.Table())); diff != "" {
		t.Errorf("after the return of the first (-want +got):\n%s", diff)
	}
	v = apply(t, v, next(view.Delta{MassChangeConfirmed: true}))
	if diff := cmp.Diff([]string{"0 s00@12 w100"}, entryLines(v.Table())); diff != "" {
		t.Errorf("after the confirmation (-want +got):\n%s", diff)
	}
}

func TestApplySnapshot_ThatTakesTooMany(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		snapshot view.Snapshot
		held     int
	}{
		"new store, half gone":           {view.Snapshot{StoreID: "t", Servers: servers(5)}, 0},
		"new store, more than half gone": {view.Snapshot{StoreID: "t", Servers: servers(4)}, 6},
		"new store, empty":               {view.Snapshot{StoreID: "t"}, 10},
		"revision went back, most gone":  {view.Snapshot{StoreID: "s", Position: member.Position{Epoch: 1, Revision: 9}, Servers: servers(1)}, 9},
		"other history, most gone":       {view.Snapshot{StoreID: "s", Position: member.Position{Epoch: 1, Revision: 99}, OtherHistory: true, Servers: servers(1)}, 9},
		"the same history, most gone":    {view.Snapshot{StoreID: "s", Position: member.Position{Epoch: 1, Revision: 99}, Servers: servers(1)}, 0},
		"the same history, most gone at once": {
			view.Snapshot{StoreID: "s", Position: member.Position{Epoch: 2, Revision: 99}, Recent: true, Servers: servers(4)}, 6,
		},
		"the same history, half gone at once": {
			view.Snapshot{StoreID: "s", Position: member.Position{Epoch: 2, Revision: 99}, Recent: true, Servers: servers(5)}, 0,
		},
		"the same revision in a next epoch": {view.Snapshot{StoreID: "s", Position: member.Position{Epoch: 2, Revision: 10}, Servers: servers(10)}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := pool(t, 10).ApplyMarks([]member.Mark{{ID: "s00", Incarnation: 1, Suspect: true, Epoch: 1, TTL: time.Hour}}, start)
			continues := v.Continues(c.snapshot)
			next, err := v.ApplySnapshot(c.snapshot)
			if err != nil {
				t.Fatal(err)
			}
			if got := len(next.Held()); got != c.held {
				t.Errorf("%d held, want %d", got, c.held)
			}
			if got := next.Table().Count(view.StateSuspect) == 1; len(c.snapshot.Servers) > 0 && got != continues {
				t.Errorf("mark kept: %v, history continues: %v", got, continues)
			}
		})
	}
}

func TestApply_FencesAndGaps(t *testing.T) {
	t.Parallel()
	v := pool(t, 3)
	at := func(epoch member.Epoch, revision member.Revision) member.Position {
		return member.Position{Epoch: epoch, Revision: revision}
	}
	for name, c := range map[string]struct {
		apply func() (*view.View, error)
		want  error
	}{
		"snapshot of a lower epoch": {func() (*view.View, error) {
			return v.ApplySnapshot(view.Snapshot{StoreID: "s", Position: at(0, 99)})
		}, member.ErrFenced},
		"delta of a lower epoch": {func() (*view.View, error) {
			return v.ApplyDelta(view.Delta{From: 10, To: at(0, 11)})
		}, member.ErrFenced},
		"delta from later": {func() (*view.View, error) {
			return v.ApplyDelta(view.Delta{From: 11, To: at(1, 12)})
		}, view.ErrGap},
		"delta from earlier": {func() (*view.View, error) {
			return v.ApplyDelta(view.Delta{From: 9, To: at(1, 10)})
		}, view.ErrGap},
		"delta backwards": {func() (*view.View, error) {
			return v.ApplyDelta(view.Delta{From: 10, To: at(1, 9)})
		}, view.ErrGap},
		"delta before any snapshot": {func() (*view.View, error) {
			return view.New("default").ApplyDelta(view.Delta{To: at(1, 1)})
		}, view.ErrGap},
		"bookmark ahead":   {func() (*view.View, error) { return v.Confirm(at(1, 11)) }, view.ErrGap},
		"bookmark behind":  {func() (*view.View, error) { return v.Confirm(at(1, 9)) }, view.ErrGap},
		"bookmark fenced":  {func() (*view.View, error) { return v.Confirm(at(0, 10)) }, member.ErrFenced},
		"bookmark":         {func() (*view.View, error) { return v.Confirm(at(1, 10)) }, nil},
		"bookmark, leader": {func() (*view.View, error) { return v.Confirm(at(2, 10)) }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := c.apply(); !errors.Is(err, c.want) {
				t.Errorf("error %v, want %v", err, c.want)
			}
		})
	}
}

func TestApplyMarks(t *testing.T) {
	t.Parallel()
	suspect := func(incarnation member.Incarnation, epoch member.Epoch, seq uint64) member.Mark {
		return member.Mark{ID: "s00", Incarnation: incarnation, Suspect: true, Epoch: epoch, Seq: seq, TTL: 30 * time.Second}
	}
	cleared := func(m member.Mark) member.Mark {
		m.Suspect, m.TTL = false, 0
		return m
	}
	for name, c := range map[string]struct {
		marks   []member.Mark
		suspect bool
	}{
		"suspect":                       {[]member.Mark{suspect(1, 1, 1)}, true},
		"cleared":                       {[]member.Mark{suspect(1, 1, 1), cleared(suspect(1, 1, 2))}, false},
		"clear arrives first":           {[]member.Mark{cleared(suspect(1, 1, 2)), suspect(1, 1, 1)}, false},
		"clear of a lower epoch":        {[]member.Mark{suspect(1, 2, 1), cleared(suspect(1, 1, 9))}, true},
		"clear of a higher epoch":       {[]member.Mark{suspect(1, 1, 9), cleared(suspect(1, 2, 1))}, false},
		"lower epoch than the view":     {[]member.Mark{suspect(1, 0, 1)}, false},
		"an incarnation that is over":   {[]member.Mark{suspect(0, 1, 1)}, false},
		"an incarnation not yet joined": {[]member.Mark{suspect(11, 1, 1)}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := pool(t, 2)
			for _, m := range c.marks {
				v = v.ApplyMarks([]member.Mark{m}, start)
			}
			if got := v.Table().Count(view.StateSuspect) == 1; got != c.suspect {
				t.Errorf("suspect: %v, want %v", got, c.suspect)
			}
		})
	}
}

func TestApplyMarks_WaitForTheirRow(t *testing.T) {
	t.Parallel()
	v := pool(t, 1).ApplyMarks([]member.Mark{
		{ID: "new", Incarnation: 11, Suspect: true, Epoch: 1, Seq: 1, TTL: time.Minute},
		{ID: "never", Incarnation: 11, Suspect: true, Epoch: 1, Seq: 2, TTL: time.Minute},
	}, start)
	row := server("new")
	row.Incarnation = 11
	v = apply(t, v, view.Delta{From: 10, To: member.Position{Epoch: 1, Revision: 11}, Put: []*view.Server{row}})
	want := []string{"0 s00@1 w100", "1 new@11 w100"}
	if diff := cmp.Diff(want, entryLines(v.Table())); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestMarks_RenewalKeepsTheTable(t *testing.T) {
	t.Parallel()
	mark := member.Mark{ID: "s00", Incarnation: 1, Suspect: true, Epoch: 1, Seq: 1, TTL: 10 * time.Second}
	v := pool(t, 2).ApplyMarks([]member.Mark{mark}, start)
	renewed := v.ApplyMarks([]member.Mark{mark}, start.Add(9*time.Second))
	if renewed.Table() != v.Table() {
		t.Error("a renewal made another table")
	}
	if got := renewed.Expire(start.Add(18 * time.Second)); got != renewed {
		t.Error("a renewed mark expired with its first time to live")
	}
	if got := renewed.Expire(start.Add(19 * time.Second)).Table().Count(view.StateSuspect); got != 0 {
		t.Errorf("%d suspects after the time to live, want 0", got)
	}
}

func TestEndMarks_VoidsWhatDidNotComeAgain(t *testing.T) {
	t.Parallel()
	mark := func(id member.ID, epoch member.Epoch) []member.Mark {
		return []member.Mark{{ID: id, Incarnation: 1, Suspect: true, Epoch: epoch, Seq: 1, TTL: time.Minute}}
	}
	v := pool(t, 3).ApplyMarks(mark("s00", 1), start).ApplyMarks(mark("s01", 2), start).ApplyMarks(mark("s02", 2), start)
	v = v.BeginMarks()
	if got := v.Table().Count(view.StateSuspect); got != 3 {
		t.Fatalf("%d suspects while the marks are awaited, want 3", got)
	}
	v = v.ApplyMarks(mark("s02", 2), start).EndMarks(2)
	want := []string{"0 s01@1 w100", "1 s00@1 w100", "1 s02@1 w100"}
	if diff := cmp.Diff(want, entryLines(v.Table())); diff != "" {
		t.Errorf("the mark of epoch 1 holds on, that of s01 does not (-want +got):\n%s", diff)
	}
	// A full set in the middle of a stream, as after marks that were skipped.
	want = []string{"0 s01@1 w100", "0 s02@1 w100", "1 s00@1 w100"}
	if diff := cmp.Diff(want, entryLines(v.EndMarks(2).Table())); diff != "" {
		t.Errorf("the mark of s02 did not come again (-want +got):\n%s", diff)
	}
}

// The next mark to expire is the one whose time is up first, wherever it is.
func TestNextExpiry(t *testing.T) {
	t.Parallel()
	v := pool(t, 3)
	for _, m := range []struct {
		id  member.ID
		ttl time.Duration
	}{{"s01", 20 * time.Second}, {"s02", 30 * time.Second}, {"s00", 25 * time.Second}} {
		v = v.ApplyMarks([]member.Mark{{ID: m.id, Incarnation: 1, Suspect: true, Epoch: 1, Seq: 1, TTL: m.ttl}}, start)
	}
	for _, want := range []time.Duration{20 * time.Second, 25 * time.Second, 30 * time.Second} {
		at, ok := v.NextExpiry()
		if !ok || !at.Equal(start.Add(want)) {
			t.Fatalf("%v after %s, want after %s", ok, at.Sub(start), want)
		}
		v = v.Expire(at)
	}
	if at, ok := v.NextExpiry(); ok {
		t.Errorf("after %s without a mark", at.Sub(start))
	}
}

func TestRestore(t *testing.T) {
	t.Parallel()
	v := pool(t, 3)
	v = apply(t, v, removal(v, 2, member.CauseCrashed))
	again := view.Restore("default", view.Snapshot{StoreID: v.StoreID(), Position: v.Position(), Servers: v.Rows()}, v.Held())
	if diff := cmp.Diff(entryLines(v.Table()), entryLines(again.Table())); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
	if !again.Known() || again.Position() != v.Position() || again.StoreID() != "s" {
		t.Errorf("restored at %v of %q", again.Position(), again.StoreID())
	}
}

package pool_test

import (
	"cmp"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/ring"
	"github.com/buddyring/buddyring/internal/member"
)

// table is the durable state of a pool as the naive model has it: a change is
// either in it, whole, or not.
type table struct {
	at        member.Position
	settings  member.Settings
	reference int
	rows      map[member.ID]member.Server
	intents   map[member.ID]member.Intent
	departed  map[member.ID]member.Departed
	requests  map[string]member.Request
	// order is the ring as a list.
	order []member.ID
	// over holds the incarnations that were removed.
	over map[member.ID]map[member.Incarnation]bool
}

func newTable() *table {
	return &table{
		at: member.Position{Epoch: 1}, settings: member.DefaultSettings(),
		rows: map[member.ID]member.Server{}, intents: map[member.ID]member.Intent{},
		departed: map[member.ID]member.Departed{}, requests: map[string]member.Request{},
		over: map[member.ID]map[member.Incarnation]bool{},
	}
}

// losses is when servers were removed by verdict, as far as the table knows. Who
// has a row that is older has not left since.
func (tb *table) losses() map[member.ID]time.Time {
	lost := map[member.ID]time.Time{}
	for id, d := range tb.departed {
		if row, present := tb.rows[id]; !present || row.JoinedAt.After(d.LeftAt) {
			lost[id] = d.LeftAt
		}
	}
	return lost
}

// load is what a new leader reads.
func (tb *table) load() member.PoolState {
	state := member.PoolState{Name: "web", Position: tb.at, Settings: tb.settings, ReferenceSize: tb.reference}
	for _, id := range slices.Sorted(maps.Keys(tb.rows)) {
		state.Servers = append(state.Servers, tb.rows[id].Clone())
	}
	for _, id := range slices.Sorted(maps.Keys(tb.intents)) {
		state.Intents = append(state.Intents, tb.intents[id])
	}
	for _, id := range slices.Sorted(maps.Keys(tb.departed)) {
		state.Departed = append(state.Departed, tb.departed[id])
	}
	return state
}

// apply writes a change as the store does: fenced, what is to go first. It fails
// the test when the change does not fit the table or leaves no valid ring.
func (tb *table) apply(t testing.TB, c member.Change) {
	t.Helper()
	if c.Base != tb.at {
		t.Fatalf("change %s is made from %v, the table is at %v", c.ID, c.Base, tb.at)
	}
	tb.at.Revision = c.Revision()
	if c.Settings != nil {
		tb.settings = *c.Settings
	}
	if c.ReferenceSize != nil {
		tb.reference = *c.ReferenceSize
	}
	tb.removeRows(t, c)
	tb.putRows(t, c)
	tb.follow(t, c)
	for _, id := range c.Forget {
		delete(tb.intents, id)
	}
	for _, i := range c.Intents {
		tb.intents[i.ID] = i
	}
	for _, d := range c.Departed {
		tb.departed[d.ID] = d
	}
	for _, r := range c.Requests {
		if _, taken := tb.requests[r.ID]; taken {
			t.Fatalf("request %s is answered twice", r.ID)
		}
		tb.requests[r.ID] = r
	}
	for i, e := range c.Events {
		if e.Revision != c.Revision() || e.Seq != i || e.Epoch != c.Base.Epoch || e.At.IsZero() || e.Kind == "" || e.Text == "" {
			t.Fatalf("event %d of revision %d: %+v", i, c.Revision(), e)
		}
	}
}

func (tb *table) removeRows(t testing.TB, c member.Change) {
	t.Helper()
	for _, r := range c.Remove {
		row, ok := tb.rows[r.ID]
		if !ok || row.Incarnation != r.Incarnation {
			t.Fatalf("change %s removes %s at incarnation %d, the table has %v at %d", c.ID, r.ID, r.Incarnation, ok, row.Incarnation)
		}
		tb.end(row)
		delete(tb.rows, r.ID)
	}
}

func (tb *table) end(row member.Server) {
	if tb.over[row.ID] == nil {
		tb.over[row.ID] = map[member.Incarnation]bool{}
	}
	tb.over[row.ID][row.Incarnation] = true
}

func (tb *table) putRows(t testing.TB, c member.Change) {
	t.Helper()
	for i, row := range c.Put {
		if i > 0 && c.Put[i-1].ID >= row.ID {
			t.Fatalf("change %s has rows twice or in disorder", c.ID)
		}
		before, had := tb.rows[row.ID]
		isNew := !had || before.Incarnation != row.Incarnation
		switch {
		case tb.over[row.ID][row.Incarnation]:
			t.Fatalf("incarnation %d of %s comes back", row.Incarnation, row.ID)
		case isNew && row.Incarnation != member.Incarnation(c.Revision()) && !tells(c, member.EventRepaired, row.ID):
			t.Fatalf("%s joins at revision %d as incarnation %d", row.ID, c.Revision(), row.Incarnation)
		case row.Phase == member.PhaseUnspecified || row.Phase > member.PhaseHeld || len(row.Spec.ProbeAddresses) == 0 || row.InstanceID == "":
			t.Fatalf("row %+v", row)
		case (row.Phase == member.PhaseHeld) == row.HeldUntil.IsZero():
			t.Fatalf("%s is %s until %v", row.ID, row.Phase, row.HeldUntil)
		}
		if had && isNew {
			tb.end(before)
		}
		tb.rows[row.ID] = row.Clone()
	}
}

// follow checks the new ring against the list: those that left are cut out, the
// newcomers and those that were moved are anywhere, and everybody else stands in
// the order of before.
func (tb *table) follow(t testing.TB, c member.Change) {
	t.Helper()
	rows := make([]ring.Row, 0, len(tb.rows))
	for _, row := range tb.rows {
		rows = append(rows, ring.Row{ID: row.ID, Buddies: member.Buddies{First: row.First, Second: row.Second}})
	}
	if problems := ring.Check(rows); len(problems) > 0 {
		t.Fatalf("revision %d: %v", c.Revision(), problems)
	}
	stay := slices.DeleteFunc(slices.Clone(tb.order), func(id member.ID) bool {
		return tells(c, member.EventMoved, id) || tells(c, member.EventReplaced, id) || slices.ContainsFunc(c.Remove, func(r member.Removal) bool { return r.ID == id })
	})
	tb.order = tb.walk()
	old := slices.DeleteFunc(slices.Clone(tb.order), func(id member.ID) bool { return !slices.Contains(stay, id) })
	if !slices.Equal(turn(stay), turn(old)) {
		t.Fatalf("revision %d: the ring was %v and is %v", c.Revision(), stay, tb.order)
	}
	if len(tb.order) > len(tb.rows) {
		t.Fatalf("revision %d: %d rows in a ring of %d", c.Revision(), len(tb.rows), len(tb.order))
	}
}

// tells reports whether a change has an event of a kind about id.
func tells(c member.Change, kind member.EventKind, id member.ID) bool {
	return slices.ContainsFunc(c.Events, func(e member.Event) bool { return e.Kind == kind && e.ID == id })
}

// walk lists the members along first buddies from the smallest id.
func (tb *table) walk() []member.ID {
	if len(tb.rows) == 0 {
		return nil
	}
	start := slices.MinFunc(slices.Collect(maps.Keys(tb.rows)), cmp.Compare)
	order := []member.ID{start}
	for id := tb.rows[start].First; id != "" && id != start; id = tb.rows[id].First {
		order = append(order, id)
	}
	return order
}

// turn begins a circle at its smallest id.
func turn(circle []member.ID) []member.ID {
	if len(circle) == 0 {
		return nil
	}
	i := slices.Index(circle, slices.Min(circle))
	return slices.Concat(circle[i:], circle[:i])
}

package pool_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/internal/member"
)

// meddled is a desk whose table somebody edits behind the machine's back.
type meddled struct {
	*desk
	// rows are those that were edited, until the next repair is written.
	rows map[member.ID]member.Server
	// unreadable are rows that were edited so that they cannot be read.
	unreadable []member.ID
}

// repair asks for one, with the table as it stands.
func (d *meddled) repair(of pool.Call) *call {
	d.t.Helper()
	return d.call(d.repairOf, of)
}

func (d *meddled) repairOf(c pool.Call) pool.Input {
	rows := maps.Clone(d.table.rows)
	maps.Copy(rows, d.rows)
	for _, id := range d.unreadable {
		delete(rows, id)
	}
	in := pool.RepairRing{Call: c, At: d.table.at, Unreadable: d.unreadable}
	for _, id := range slices.Sorted(maps.Keys(rows)) {
		in.Rows = append(in.Rows, rows[id].Clone())
	}
	return in
}

// meddle edits a row; of a stranger it makes one.
func (d *meddled) meddle(id member.ID, edit func(*member.Server)) {
	row, known := d.table.rows[id]
	if !known {
		row = byHand(id)
	}
	edit(&row)
	d.rows[id] = row
}

func byHand(id member.ID) member.Server {
	return member.Server{ID: id, Incarnation: 1, Phase: member.PhaseActive, Spec: agent(id).Spec, InstanceID: "by hand"}
}

// written says that the edits are gone, as the change under way is written over
// them: those of these rows.
func (d *meddled) written(ids ...member.ID) {
	d.t.Helper()
	for _, id := range ids {
		if !slices.ContainsFunc(d.flight.Put, func(s member.Server) bool { return s.ID == id }) {
			d.fail("%s is not written", id)
		}
	}
	d.rows = map[member.ID]member.Server{}
	d.commit()
}

func meddledPool(t *testing.T, ids ...member.ID) *meddled {
	t.Helper()
	d := &meddled{desk: newDesk(t), rows: map[member.ID]member.Server{}}
	d.pool(ids...)
	for _, id := range d.table.order {
		p := d.byID[id]
		d.step(pool.AssignmentAck{Session: p.hello.Session, Seq: p.assigned.Seq})
	}
	return d
}

func apart(s *member.Server) { s.First, s.Second = "", "" }

// found are the repairs of a reply.
func found(c *call) []string {
	var all []string
	for _, r := range c.reply.Repairs {
		all = append(all, fmt.Sprintf("%s %s", r.Kind, r.ID))
	}
	return all
}

// together hands over commands in one step, so that they go into one change.
func (d *desk) together(commands ...func(pool.Call) pool.Input) []*call {
	d.t.Helper()
	calls, inputs := make([]*call, len(commands)), make([]pool.Input, len(commands))
	for i, in := range commands {
		d.last++
		calls[i] = &call{of: pool.Call{Token: pool.Token(d.last)}}
		calls[i].in = in(calls[i].of)
		d.calls[calls[i].of.Token], inputs[i] = calls[i], calls[i].in
	}
	d.step(inputs...)
	return calls
}

// What was read of the table is compared with the same revision of the memory,
// or not at all: what has changed since is no fault.
func TestARepairOfAnotherRevision(t *testing.T) {
	t.Parallel()
	d := &meddled{desk: busy(t)}
	c := d.repair(pool.Call{})
	d.commit() // what was under way when the table was read
	is(t, c.reply.Err, pool.ErrMoved)
	is(t, c.reply.Err, member.ErrUnavailable)
	if d.flight != nil || len(c.reply.Repairs) > 0 {
		t.Errorf("repairs %v, proposed %v", c.reply.Repairs, d.flight)
	}
	stale := d.table.at.Revision - 1
	is(t, d.repair(pool.Call{ExpectedRevision: &stale}).reply.Err, member.ErrStale)
}

// A row that nobody can read is written as in memory. One of nobody in memory is
// left to a person.
func TestARepairOfARowThatCannotBeRead(t *testing.T) {
	t.Parallel()
	d := meddledPool(t, "a", "b", "c")
	d.unreadable = []member.ID{"b", "stranger"}
	c := d.repair(pool.Call{})
	d.written("b")
	if got := found(c); !slices.Equal(got, []string{"row_written b"}) ||
		c.reply.Repairs[0].Text != "the row of b in the table could not be read; it is written as in memory" {
		t.Errorf("repairs %v", c.reply.Repairs)
	}
}

// Everything that tells of the server counts, not only its buddies.
func TestARepairOfWhatARowSays(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(*member.Server){
		"buddies":     apart,
		"phase":       func(s *member.Server) { s.Phase = member.PhaseDraining },
		"incarnation": func(s *member.Server) { s.Incarnation++ },
		"spec":        func(s *member.Server) { s.Spec.Weight = 7 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := meddledPool(t, "a", "b", "c")
			d.meddle("b", edit)
			c := d.repair(pool.Call{RequestID: "r", Hash: "h"})
			if c.reply != nil {
				t.Fatal("answered before it is durable")
			}
			d.written("b")
			if diff := cmp.Diff([]string{"row_written b"}, found(c)); diff != "" || c.reply.Err != nil {
				t.Errorf("%v (-want +got):\n%s", c.reply.Err, diff)
			}
			again := d.repair(pool.Call{RequestID: "r", Hash: "h"})
			if again.reply.Revision != c.reply.Revision || len(again.reply.Repairs) > 0 {
				t.Errorf("repeated: %+v", again.reply)
			}
			if left := d.repair(pool.Call{}); len(left.reply.Repairs) > 0 || d.flight != nil {
				t.Errorf("left: %v", left.reply.Repairs)
			}
		})
	}
}

// A repair goes with whatever else is in its change: who leaves in it is not put
// back, who joins in it is no stranger.
func TestARepairAmongOthers(t *testing.T) {
	t.Parallel()
	d := meddledPool(t, "a", "b", "c", "d")
	d.meddle("b", apart)
	d.meddle("c", apart)
	d.meddle("e", apart)
	d.last++
	hello := agent("e")
	hello.Session = pool.SessionID(d.last)
	d.peers[hello.Session] = &peer{hello: hello}
	calls := d.together(
		func(c pool.Call) pool.Input { return pool.RemoveServer{Call: c, ID: "c"} },
		func(pool.Call) pool.Input { return hello },
		d.repairOf,
	)
	delete(d.calls, calls[1].of.Token)
	if d.flight == nil || len(d.flight.Remove) != 1 || d.flight.Remove[0].ID != "c" {
		t.Fatalf("proposed %+v", d.flight)
	}
	d.written("b", "e")
	if diff := cmp.Diff([]string{"row_written b"}, found(calls[2])); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// A change that fails has repaired nothing.
func TestARepairThatFails(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.pool("a", "b", "c")
	state := d.table.load()
	apart(&state.Servers[1])
	rows := slices.Clone(state.Servers)
	m, err := pool.New(state, pool.Config{Now: d.now})
	if err != nil {
		t.Fatal(err)
	}
	step := func(in pool.Input) (proposed *member.Change, reply *pool.Reply) {
		for _, e := range m.Step(d.now, in) {
			switch e := e.(type) {
			case pool.Propose:
				proposed = &e.Change
			case pool.Reply:
				reply = &e
			}
		}
		d.now = d.now.Add(time.Second)
		return proposed, reply
	}
	alarmed := func() bool {
		return slices.ContainsFunc(m.Alarms(), func(a member.Alarm) bool { return a.Name == "RING_BROKEN" })
	}
	step(pool.Tick{})
	for _, fails := range []bool{true, false} {
		if !alarmed() {
			t.Fatal("no alarm")
		}
		c, _ := step(pool.RepairRing{Rows: rows, At: d.table.at})
		var outcome pool.Input = pool.Committed{ChangeID: c.ID}
		if fails {
			outcome = pool.Rejected{ChangeID: c.ID, Err: errDatabase}
		}
		if _, r := step(outcome); r == nil || errors.Is(r.Err, member.ErrUnavailable) != fails {
			t.Errorf("reply %+v", r)
		}
	}
	if alarmed() {
		t.Error("the alarm goes on")
	}
}

// Strangers of the table get the place that they name, as far as there is one.
func TestWhereStrangersJoin(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		members       []member.ID
		first, second member.ID
		order         []member.ID
	}{
		"between both":         {[]member.ID{"a", "b", "c"}, "c", "b", []member.ID{"a", "b", "x", "c"}},
		"the second is one":    {[]member.ID{"a", "b", "c"}, "", "b", []member.ID{"a", "b", "x", "c"}},
		"the first is one":     {[]member.ID{"a", "b", "c"}, "b", "nobody", []member.ID{"a", "x", "b", "c"}},
		"neither is one":       {[]member.ID{"a", "b", "c"}, "", "", []member.ID{"a", "x", "b", "c"}},
		"beside the only one":  {[]member.ID{"a"}, "a", "", []member.ID{"a", "x"}},
		"into an empty pool":   {nil, "b", "c", []member.ID{"x"}},
		"its own buddy, alone": {nil, "x", "x", []member.ID{"x"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := &meddled{desk: newDesk(t), rows: map[member.ID]member.Server{}}
			d.inOrder(c.members)
			d.meddle("x", func(s *member.Server) { s.First, s.Second, s.Incarnation = c.first, c.second, 7 })
			call := d.repair(pool.Call{ValidateOnly: true})
			if !slices.Contains(found(call), "taken_in x") || d.flight != nil {
				t.Fatalf("would do %v, proposed %v", found(call), d.flight)
			}
			d.repair(pool.Call{})
			d.written("x")
			if diff := cmp.Diff(c.order, d.table.order); diff != "" {
				t.Errorf("order (-want +got):\n%s", diff)
			}
			want, places := member.PhaseJoining, len(c.members)
			if len(c.order) == 1 {
				want, places = member.PhaseActive, 1
			}
			row := d.table.rows["x"]
			if row.Phase != want || row.Incarnation != member.Incarnation(d.table.at.Revision) {
				t.Errorf("x is %s with incarnation %d", row.Phase, row.Incarnation)
			}
			if d.table.reference != places {
				t.Errorf("reference size %d", d.table.reference)
			}
		})
	}
}

// inOrder starts a machine on rows that are in this order.
func (d *desk) inOrder(order []member.ID) {
	for i, id := range order {
		row, n := byHand(id), len(order)
		if n > 1 {
			row.First, row.Second = order[(i+1)%n], order[(i+n-1)%n]
		}
		d.table.rows[id] = row
	}
	d.table.reference = len(order)
	d.table.order = d.table.walk()
	d.boot()
}

// The rows say a server twice: that is no table of ours.
func TestRowsThatAreThereTwice(t *testing.T) {
	t.Parallel()
	tb := newTable()
	state := tb.load()
	state.Servers = []member.Server{{ID: "a"}, {ID: "a"}}
	if m, err := pool.New(state, pool.Config{}); err == nil {
		t.Errorf("a machine of %d", len(m.Servers()))
	}
}

// Strangers that are one ring among themselves, in whatever order they are read,
// all come into the empty pool's ring.
func TestStrangersOfAnEmptyPool(t *testing.T) {
	t.Parallel()
	d := &meddled{desk: newDesk(t), rows: map[member.ID]member.Server{}}
	d.inOrder(nil)
	order := []member.ID{"a", "c", "b", "d"}
	for i, id := range order {
		d.meddle(id, func(s *member.Server) { s.First, s.Second = order[(i+1)%4], order[(i+3)%4] })
	}
	d.repair(pool.Call{})
	d.written(order...)
	if len(d.table.order) != 4 || len(d.table.rows) != 4 {
		t.Errorf("of %v these stand in the ring: %v", order, d.table.order)
	}
	if left := d.repair(pool.Call{}); len(left.reply.Repairs) > 0 {
		t.Errorf("left: %v", left.reply.Repairs)
	}
}

// A stranger that a repair takes in cannot go in the same change: what is asked
// about it waits.
func TestWhoIsTakenInGoesLater(t *testing.T) {
	t.Parallel()
	d := meddledPool(t, "a", "b", "c")
	d.meddle("x", func(*member.Server) {})
	d.together(d.repairOf, func(c pool.Call) pool.Input { return pool.RemoveServer{Call: c, ID: "x"} })
	if len(d.flight.Remove) > 0 {
		t.Fatalf("proposed %+v", d.flight)
	}
	d.written("x")
	if d.flight == nil || len(d.flight.Remove) != 1 || d.flight.Remove[0].ID != "x" {
		t.Fatalf("then proposed %+v", d.flight)
	}
	d.commit()
}

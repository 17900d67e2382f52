package pool

import (
	"fmt"
	"slices"
	"strings"

	"github.com/buddyring/buddyring/coordinator/ring"
	"github.com/buddyring/buddyring/internal/member"
)

// ErrMoved is the answer to a RepairRing whose rows are not those of the present
// position.
var ErrMoved = fmt.Errorf("%w: the pool has changed since its table was read", member.ErrUnavailable)

// Repair is one thing that a RepairRing makes right.
type Repair struct {
	ID   member.ID
	Kind RepairKind
	// Text is one plain sentence: what was and what is.
	Text string
}

// RepairKind names what is done.
type RepairKind string

// The kinds of repairs.
const (
	// RowWritten: the row of a member is written as it is in memory.
	RowWritten RepairKind = "row_written"
	// TakenIn: a member that only the table knows joins.
	TakenIn RepairKind = "taken_in"
	// AgentTold: an agent is told again whom to watch.
	AgentTold RepairKind = "agent_told"
)

// mend returns the ring of rows. Where they make none, they get the buddies that
// they have in a mended one, and are listed.
func mend(rows []member.Server) (*ring.Ring, map[member.ID]bool, error) {
	places := make([]ring.Row, len(rows))
	for i, s := range rows {
		places[i] = ring.Row{ID: s.ID, Buddies: member.Buddies{First: s.First, Second: s.Second}}
	}
	changed := map[member.ID]bool{}
	r, err := ring.FromRows(places)
	if err == nil {
		return r, changed, nil
	}
	r = ring.Mend(places)
	if r.Len() != len(rows) {
		return nil, nil, err
	}
	for i := range rows {
		row := &rows[i]
		if b, _ := r.Buddies(row.ID); b.First != row.First || b.Second != row.Second {
			row.First, row.Second = b.First, b.Second
			changed[row.ID] = true
		}
	}
	return r, changed, nil
}

// lookRing raises the alarm about rows that made no ring when they were read.
func (m *Machine) lookRing() {
	if ids := sortedKeys(m.unwritten); len(ids) > 0 {
		m.raise(alarmRingBroken, "", fmt.Sprintf("the rows of the table made no ring when this coordinator read them; "+
			"it goes on with one in which these have other buddies: %s", named(ids)))
	}
}

// written ends that alarm once none of those rows is left.
func (m *Machine) written(c member.Change) {
	if len(m.unwritten) == 0 {
		return
	}
	for _, row := range c.Put {
		delete(m.unwritten, row.ID)
	}
	for _, r := range c.Remove {
		delete(m.unwritten, r.ID)
	}
	if len(m.unwritten) == 0 {
		m.clearAlarm(alarmRingBroken, "")
	}
}

// RowDiffers says how a row of the table is another one than in memory, and is
// empty where both say the same of the server.
func RowDiffers(table, memory member.Server) string {
	switch {
	case table.First != memory.First || table.Second != memory.Second:
		return fmt.Sprintf("%s has buddies %q and %q in the table, %q and %q in memory",
			memory.ID, table.First, table.Second, memory.First, memory.Second)
	case table.Phase != memory.Phase || table.Incarnation != memory.Incarnation || !table.Spec.Equal(memory.Spec):
		return fmt.Sprintf("%s is %s with incarnation %d in the table, %s with %d in memory, or their specs differ",
			memory.ID, table.Phase, table.Incarnation, memory.Phase, memory.Incarnation)
	}
	return ""
}

// listDiffers returns, by id, the buddies that an agent has not acknowledged to
// watch, and those whom it has although nobody wants it to.
func (m *Machine) listDiffers(s *server, sess *session) (unwatched, surplus []member.ID) {
	buddies := []member.ID{s.row.First, s.row.Second}
	slices.Sort(buddies)
	for _, id := range slices.Compact(buddies) {
		if id != "" && !slices.Contains(sess.ackedSubjects, id) {
			unwatched = append(unwatched, id)
		}
	}
	for _, id := range slices.Sorted(slices.Values(sess.ackedSubjects)) {
		if !slices.Contains(buddies, id) && !m.helping[s.row.ID][id] {
			surplus = append(surplus, id)
		}
	}
	return unwatched, surplus
}

// mending is what a RepairRing comes to.
type mending struct {
	repairs []Repair
	// rows are members whose row is to be written, strangers rows of the table to be
	// taken in, agents members whose agent is to be told again.
	rows      []member.ID
	strangers []member.Server
	agents    []member.ID
}

func (d *mending) add(id member.ID, kind RepairKind, format string, args ...any) {
	d.repairs = append(d.repairs, Repair{id, kind, fmt.Sprintf(format, args...)})
}

func (b *batch) prepareRepair(call Call, c RepairRing) (func(), error) {
	if base := b.change.Base; c.At != base {
		return nil, fmt.Errorf("%w: it was at epoch %d revision %d, the coordinator is at epoch %d revision %d",
			ErrMoved, c.At.Epoch, c.At.Revision, base.Epoch, base.Revision)
	}
	d := b.diagnose(c)
	for _, row := range d.strangers {
		if b.intent(row.ID).Wish == member.WishBanned {
			return nil, &member.RefusedError{Rule: "intent", Reason: fmt.Sprintf(
				"%s has a row in the table, is unknown to the coordinator, and is banned; end the ban, repair, and ban it again", row.ID)}
		}
	}
	b.repairs[call.Token] = d.repairs
	if len(d.repairs) == 0 {
		return nil, nil
	}
	return func() { b.repair(call, d) }, nil
}

// diagnose compares rows of the table with what the change will leave, and the
// agents' lists with what they were told. Whoever leaves in the change is passed
// over, and so are rows that nobody can read and that are of no member.
func (b *batch) diagnose(c RepairRing) mending {
	m, d := b.m, mending{}
	inTable := make(map[member.ID]member.Server, len(c.Rows))
	for _, row := range c.Rows {
		inTable[row.ID] = row
	}
	for _, id := range sortedKeys(m.servers) {
		row, ok := inTable[id]
		text := RowDiffers(row, m.servers[id].row)
		if slices.Contains(c.Unreadable, id) {
			text = fmt.Sprintf("the row of %s in the table could not be read", id)
		} else if !ok {
			text = fmt.Sprintf("%s has no row in the table", id)
		}
		if text != "" && b.has(id) {
			d.rows = append(d.rows, id)
			d.add(id, RowWritten, "%s; it is written as in memory", text)
		}
	}
	for _, row := range c.Rows {
		if m.servers[row.ID] == nil && !b.has(row.ID) {
			d.strangers = append(d.strangers, row)
			d.add(row.ID, TakenIn, "%s has a row in the table, but is not in memory; it joins", row.ID)
		}
	}
	for _, id := range sortedKeys(m.servers) {
		s := m.servers[id]
		sess := m.sessions[s.session]
		if sess == nil || !b.has(id) {
			continue
		}
		if unwatched, surplus := m.listDiffers(s, sess); len(unwatched)+len(surplus) > 0 {
			d.agents = append(d.agents, id)
			d.add(id, AgentTold, "the agent of %s %s; it is told again whom to watch", id, watchesWrong(unwatched, surplus))
		}
	}
	return d
}

func watchesWrong(unwatched, surplus []member.ID) string {
	var parts []string
	if len(unwatched) > 0 {
		parts = append(parts, "has not acknowledged that it watches "+named(unwatched))
	}
	if len(surplus) > 0 {
		parts = append(parts, "still watches "+named(surplus))
	}
	return strings.Join(parts, " and ")
}

// repair puts what was found into the change.
func (b *batch) repair(call Call, d mending) {
	m := b.m
	for _, id := range d.rows {
		b.row(id)
	}
	for _, row := range d.strangers {
		b.takeIn(row)
	}
	for _, r := range d.repairs {
		row, _ := b.peek(r.ID)
		b.event(member.Event{Kind: member.EventRepaired, ID: r.ID, Incarnation: row.Incarnation, Actor: call.Actor, Text: because(r.Text, call.Reason)})
	}
	b.after(func() {
		for _, id := range d.agents {
			m.tellAgain(id)
		}
	}, nil)
}

// takeIn makes a member of a row that only the table has: in the place that it
// names as far as there is one, as somebody whom nobody has reached yet.
func (b *batch) takeIn(row member.Server) {
	m := b.m
	b.draft.Splice(row.ID, b.placeOf(row))
	row = row.Clone()
	row.Incarnation, row.JoinedAt = b.incarnation(), m.now
	b.rows[row.ID] = &row
	row.Phase = member.PhaseUnspecified
	if b.draft.Len() == 1 {
		b.enter(&row, b.welcome(row.ID))
	} else {
		b.enter(&row, member.PhaseJoining)
	}
}

// placeOf is the member beside which a row of the table says that it stands.
func (b *batch) placeOf(row member.Server) member.ID {
	if b.has(row.Second) {
		return row.Second
	}
	if next, ok := b.draft.Buddies(row.First); ok {
		if next.Second == "" {
			return row.First // the only one
		}
		return next.Second
	}
	for _, id := range slices.Concat(sortedKeys(b.m.servers), sortedKeys(b.rows)) {
		if b.has(id) {
			return id
		}
	}
	return "" // there is nobody yet
}

// tellAgain sends an agent its assignment as if it were new.
func (m *Machine) tellAgain(id member.ID) {
	s := m.servers[id]
	if s == nil {
		return
	}
	if sess := m.sessions[s.session]; sess != nil {
		sess.assigned = m.assignment(id)
		m.emit(Assign{sess.id, sess.assigned})
	}
}

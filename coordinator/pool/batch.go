package pool

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/buddyring/buddyring/coordinator/ring"
	"github.com/buddyring/buddyring/coordinator/verdict"
	"github.com/buddyring/buddyring/internal/member"
)

// item is one thing that waits for the next change; exactly one field is set.
type item struct {
	// join is an id in Machine.joining; update a member whose agent has something
	// new to say; abandon a JOINING member whose agent has gone; over an id whose
	// wish has expired; move a member that wants another place; depart one that has
	// drained.
	join, update, abandon, over, move, depart member.ID
	leave                                     *Leave
	call                                      *command
	// settle says that the reference size may have to become the pool's size.
	settle bool
}

// batch is the change in the making, and what to do once its outcome is known.
type batch struct {
	m      *Machine
	change member.Change
	draft  *ring.Draft
	// rows are the rows to write, as they will be; their buddies are filled in at
	// the end. gone are those to delete.
	rows map[member.ID]*member.Server
	gone map[member.ID]member.Cause
	// why holds the explanations of removals.
	why map[member.ID]*member.Explanation
	// evidence is of when the oldest evidence for a removal is, zero without such
	// removals.
	evidence time.Time
	// intents holds the wishes to write, nil to forget one; joins the hellos that
	// get a new incarnation.
	intents   map[member.ID]*member.Intent
	joins     map[member.ID]*session
	reference int
	requests  map[string]bool
	// repairs are what each RepairRing has found.
	repairs map[Token][]Repair
	// held counts the HELD members, -1 before the first count.
	held int
	// serving counts the members that get work, -1 while that is not known.
	serving int
	then    []outcome
	notes   []member.Event
}

// outcome is what follows a change; either may be nil.
type outcome struct {
	committed func()
	rejected  func(error)
}

// propose makes the next change of what waits, if none is under way.
func (m *Machine) propose() {
	notesDue := len(m.notes) > 0 && !m.now.Before(m.notesAt)
	idle := len(m.confirmed)+len(m.queue)+len(m.due) == 0 && !notesDue
	if idle || m.flight != nil || m.now.Before(m.retryAt) {
		return
	}
	b := &batch{
		m: m, draft: m.ring.Draft(), rows: map[member.ID]*member.Server{}, gone: map[member.ID]member.Cause{},
		why: map[member.ID]*member.Explanation{}, intents: map[member.ID]*member.Intent{},
		joins: map[member.ID]*session{}, reference: m.reference, requests: map[string]bool{}, repairs: map[Token][]Repair{},
		held: -1, serving: -1,
		change: member.Change{Pool: m.name, Base: m.position},
	}
	b.takeVerdicts()
	b.takeQueue()
	b.takePhases()
	if !b.touched() && !notesDue {
		return
	}
	b.finish()
	m.flight = b
	m.emit(Propose{b.change, b.until()})
}

func (b *batch) takeQueue() {
	m := b.m
	waiting, rest := m.queue, []item(nil)
	if len(waiting) > batchLimit {
		waiting, rest = waiting[:batchLimit], waiting[batchLimit:]
		m.wake(m.now, wakePropose, "", 0)
	}
	m.queue = nil
	for i, it := range waiting {
		if !b.take(it) {
			rest = slices.Concat(waiting[i:], rest)
			break
		}
	}
	// Refusals within may have queued more.
	m.queue = slices.Concat(rest, m.queue)
}

// take puts an item into the change and returns false if it must wait for the
// next one, as everything does about a server that comes or goes in this one.
func (b *batch) take(it item) bool {
	if id := b.about(it); b.comesOrGoes(id) || b.change.Delete != nil {
		return false
	}
	switch {
	case it.join != "":
		b.join(it.join)
	case it.update != "":
		b.update(it.update)
	case it.leave != nil:
		return b.leave(*it.leave)
	case it.depart != "":
		b.depart(it.depart)
	case it.abandon != "":
		b.abandon(it.abandon)
	case it.over != "":
		b.intentOver(it.over)
	case it.move != "":
		b.move(it.move)
	case it.settle:
		b.settle()
	case it.call != nil:
		return b.call(*it.call)
	}
	return true
}

// about is the server that an item is about, or empty.
func (b *batch) about(it item) member.ID {
	switch {
	case it.leave != nil:
		if sess := b.m.sessions[it.leave.Session]; sess != nil {
			return sess.hello.ID
		}
		return ""
	case it.call != nil:
		return it.call.id
	}
	return cmp.Or(it.join, it.update, it.abandon, it.over, it.move, it.depart)
}

// comesOrGoes reports whether a membership of id begins or ends in the change, be it
// that a repair takes it in.
func (b *batch) comesOrGoes(id member.ID) bool {
	_, gone := b.gone[id]
	takenIn := b.rows[id] != nil && b.m.servers[id] == nil
	return gone || takenIn || b.joins[id] != nil
}

// touched reports whether the change changes anything.
func (b *batch) touched() bool {
	return len(b.rows)+len(b.gone)+len(b.intents)+len(b.change.Events)+len(b.change.Requests) > 0 || b.change.Settings != nil
}

// intent is an operator's wish as the change will leave it; the zero value if
// there is none.
func (b *batch) intent(id member.ID) member.Intent {
	i, ok := b.intents[id]
	switch {
	case !ok:
		return b.m.intents[id]
	case i == nil:
		return member.Intent{}
	}
	return *i
}

// row returns the row of a member as the change will leave it, for editing; nil
// for a stranger. Of its spec, only the whole may be replaced: others share it.
func (b *batch) row(id member.ID) *member.Server {
	if r, ok := b.rows[id]; ok {
		return r
	}
	if _, gone := b.gone[id]; gone {
		return nil
	}
	s := b.m.servers[id]
	if s == nil {
		return nil
	}
	r := s.row
	b.rows[id] = &r
	return &r
}

// has reports whether id is a member as the change will leave it.
func (b *batch) has(id member.ID) bool { return b.draft.Has(id) }

func (b *batch) event(e member.Event) {
	e.At, e.Epoch = b.m.now, b.change.Base.Epoch
	b.change.Events = append(b.change.Events, e)
}

// after arranges for what follows the change.
func (b *batch) after(committed func(), rejected func(error)) {
	b.then = append(b.then, outcome{committed, rejected})
}

func (b *batch) site(id member.ID) ring.Site {
	spec := member.Spec{}
	if r, ok := b.rows[id]; ok {
		spec = r.Spec
	} else if s := b.m.servers[id]; s != nil {
		spec = s.row.Spec
	}
	return ring.Site{Zone: spec.Zone, Rack: spec.Rack}
}

// abandon takes out a JOINING member that nobody has ever reached and whose
// agent has gone.
func (b *batch) abandon(id member.ID) {
	m, s := b.m, b.m.servers[id]
	if s == nil || s.row.Phase != member.PhaseJoining || s.reached || m.live(id) != nil {
		return
	}
	b.restOn(m.now)
	b.remove(id, member.CauseUnreachable, "never_reached", member.Event{Actor: actorSelf, Text: fmt.Sprintf("%s never became active: nobody reached it, and its agent has gone", id)})
	b.after(nil, func(error) { m.queue = append(m.queue, item{abandon: id}) })
}

// takeVerdicts takes out the members with a confirmed verdict, together once no
// other suspect lacks one, or gatherTime after the first.
func (b *batch) takeVerdicts() {
	m := b.m
	if len(m.confirmed) == 0 {
		return
	}
	ids := sortedKeys(m.confirmed)
	oldest := m.now
	for _, id := range ids {
		if at := m.servers[id].inquiry.verdict.at; at.Before(oldest) {
			oldest = at
		}
	}
	if m.now.Sub(oldest) < gatherTime && m.undecidedSuspects() {
		return
	}
	for _, id := range ids {
		s := m.servers[id]
		v := s.inquiry.verdict
		_, forbidden := m.gate(s, v.cause)
		if forbidden || !m.judged(s) || b.draft.Len() == 1 {
			m.withdraw(s)
			continue
		}
		if s.row.Phase == member.PhaseHeld && !m.lostForGood(s) {
			b.holdAnew(s, v)
		} else {
			b.removeByVerdict(s, v)
		}
	}
}

func (m *Machine) undecidedSuspects() bool {
	for id := range m.marked {
		if q := &m.servers[id].inquiry; q.verdict == nil && q.round != nil {
			return true
		}
	}
	return false
}

func (b *batch) removeByVerdict(s *server, v *confirmed) {
	m, id := b.m, s.row.ID
	text := fmt.Sprintf("%s was removed as %s: %s", id, v.cause, v.ruling.Reason)
	b.restOn(v.at)
	b.remove(id, v.cause, v.ruling.Rule, member.Event{Actor: actorSelf, Text: text})
	var before *member.Departed
	if d, ok := m.departed[id]; ok {
		before = &d
	}
	score := verdict.Flap(before, m.now)
	b.change.Departed = append(b.change.Departed, member.Departed{
		ID: id, Incarnation: s.row.Incarnation, Cause: v.cause, BootID: s.row.BootID, LeftAt: m.now,
		FlapScore: score, HoldDown: verdict.HoldDown(score, m.holdFirst(v.cause), m.settings.HoldDownMax),
	})
	lost, firstLost := loss{id: id, at: m.now, site: siteOf(&s.row)}, s.inquiry.firstLost
	confirmed := m.isReleased(id)
	if confirmed {
		// An operator has confirmed that it is gone.
		b.change.MassChangeConfirmed = true
		b.reference = max(0, b.reference-1)
	}
	b.after(func() {
		m.guard.unquietAt = m.now
		if !confirmed {
			m.recordLoss(lost)
		}
		m.emit(Removed{Cause: v.cause, Detection: m.now.Sub(firstLost)})
	}, nil)
}

// restOn notes that a removal rests on evidence of that time.
func (b *batch) restOn(evidence time.Time) {
	if b.evidence.IsZero() || evidence.Before(b.evidence) {
		b.evidence = evidence
	}
}

// until is Propose.Until.
func (b *batch) until() time.Time {
	if b.evidence.IsZero() {
		return time.Time{}
	}
	return b.evidence.Add(verdictLife + commitTime + time.Duration(len(b.change.Remove))*removalTime)
}

// remove takes a member out of the ring and the table, with an explanation.
func (b *batch) remove(id member.ID, cause member.Cause, rule string, e member.Event) {
	s := b.m.servers[id]
	why := b.m.explanation(s, cause.String(), verdict.Ruling{Rule: rule})
	why.Text = e.Text
	b.why[id], e.Explanation = &why, &why
	b.draft.Unlink(id)
	delete(b.rows, id)
	b.gone[id], b.serving = cause, -1
	b.change.Remove = append(b.change.Remove, member.Removal{ID: id, Incarnation: s.row.Incarnation, Cause: cause})
	e.Kind, e.ID, e.Incarnation, e.Cause = member.EventRemoved, id, s.row.Incarnation, cause
	b.event(e)
}

// takePhases moves members on whose phase is due.
func (b *batch) takePhases() {
	m := b.m
	for _, id := range sortedKeys(m.due) {
		if b.comesOrGoes(id) || b.change.Delete != nil {
			continue
		}
		delete(m.due, id)
		if s := m.servers[id]; s != nil {
			b.moveOn(s)
			// Whether it moves or not may hang on the rest of the change.
			b.after(nil, func(error) { m.due[id] = true })
		}
	}
}

func (b *batch) moveOn(s *server) {
	m, id := b.m, s.row.ID
	row, err := b.peek(id)
	if err != nil {
		return
	}
	welcome := s.reached || b.draft.Len() == 1
	next, kind := row.Phase, member.EventActivated
	switch {
	case row.Phase == member.PhaseJoining && welcome:
		next = b.welcome(id)
	case row.Phase == member.PhaseHeld && !m.now.Before(row.HeldUntil) && (s.mark != nil || m.maybeLossy(s)):
		// It is not let out while it is suspect, or may be lossy.
		m.wake(m.now.Add(time.Second), wakeHeld, string(id), 0)
	case row.Phase == member.PhaseHeld && !m.now.Before(row.HeldUntil):
		kind, next = member.EventReleased, member.PhaseJoining
		if welcome {
			next = b.welcome(id)
		}
	case routed(row.Phase), row.Phase == member.PhaseDraining:
		next = b.welcome(id)
	}
	kind = serviceEvent(row.Phase, next, kind)
	if next == row.Phase {
		return
	}
	b.enter(b.row(id), next)
	text := fmt.Sprintf("%s is %s", id, next)
	if next == member.PhaseServiceDown {
		text = fmt.Sprintf("the service of %s is down: %s", id, s.health.words())
	}
	b.event(member.Event{Kind: kind, ID: id, Incarnation: row.Incarnation, Actor: actorSelf, Text: text})
}

// finish completes the change: buddies, order, explanations' rows, notes.
func (b *batch) finish() {
	m := b.m
	for _, id := range b.draft.Changed() {
		b.row(id)
	}
	for id, row := range b.rows {
		buddies, _ := b.draft.Buddies(id)
		row.First, row.Second = buddies.First, buddies.Second
	}
	b.reference = max(b.reference, b.placed())
	if rows := b.rowChanges(); len(b.why) > 0 {
		after := b.safetyAfter()
		for _, e := range b.why {
			e.Rows, e.After = rows, after
		}
	}
	m.changeSeq++
	c := &b.change
	c.ID = fmt.Sprintf("%d-%d-%016x", c.Base.Epoch, m.changeSeq, m.salt)
	c.Events = append(c.Events, m.notes...)
	b.notes, m.notes = m.notes, nil
	for i := range c.Events {
		c.Events[i].Revision, c.Events[i].Seq = c.Revision(), i
	}
	for _, id := range sortedKeys(b.rows) {
		c.Put = append(c.Put, *b.rows[id])
	}
	for _, id := range sortedKeys(b.intents) {
		if i := b.intents[id]; i != nil {
			c.Intents = append(c.Intents, *i)
		} else {
			c.Forget = append(c.Forget, id)
		}
	}
	if b.reference != m.reference {
		c.ReferenceSize = &b.reference
	}
}

// rowChangeLimit bounds the rows that one explanation shows.
const rowChangeLimit = 64

func (b *batch) rowChanges() []member.RowChange {
	var changes []member.RowChange
	add := func(id member.ID) {
		c := member.RowChange{ID: id}
		if before, ok := b.m.ring.Buddies(id); ok {
			c.Before = &before
		}
		if after, ok := b.draft.Buddies(id); ok {
			c.After = &after
		}
		if len(changes) < rowChangeLimit {
			changes = append(changes, c)
		}
	}
	for _, r := range b.change.Remove {
		add(r.ID)
	}
	for _, id := range b.draft.Changed() {
		add(id)
	}
	return changes
}

func (m *Machine) inFlight(id member.ID) bool {
	if m.flight == nil {
		return false
	}
	_, gone := m.flight.gone[id]
	return gone
}

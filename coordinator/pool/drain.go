package pool

import (
	"fmt"
	"time"

	"github.com/buddyring/buddyring/coordinator/verdict"
	"github.com/buddyring/buddyring/internal/member"
)

// leavePatience is how long a member that had begun to shut down under an earlier
// leader may be without a stream before it is taken out.
const leavePatience = 30 * time.Second

// Lag is a router that has not confirmed a revision.
type Lag struct {
	Router member.ID
	// Seen is when it was last heard, Connected whether it is subscribed now.
	Seen      time.Time
	Connected bool
	// Applied is what it has confirmed last, 0 for nothing.
	Applied member.Revision
}

// leave is the normal shutdown of a member that drains first. A member that is
// DRAINING though no operator wants it has one, so that it ends.
type leave struct {
	// session is the stream that is to hear the outcome; it may have ended.
	session SessionID
	// instance is the run of the agent that leaves. Another run takes it back.
	instance string
	reason   string
	// asked says that this leader was asked for it, and waits for the routers or
	// has waited.
	asked bool
	// until is when the wait for the routers ends, revision what they are to confirm.
	until    time.Time
	revision member.Revision
	// drained is the outcome of that wait, nil before.
	drained *Drained
}

// leave hears a normal shutdown (R12).
func (m *Machine) leave(in Leave) {
	sess := m.sessions[in.Session]
	if sess == nil || !sess.accepted || sess.leaving {
		m.count(CountDropped)
		return
	}
	sess.leaving, sess.leaveBy = true, m.now.Add(in.Drain)
	m.queue = append(m.queue, item{leave: &in})
}

// answerLeave tells a stream how its leave went.
func (m *Machine) answerLeave(id SessionID, done LeaveDone) {
	sess := m.sessions[id]
	if sess == nil {
		return
	}
	sess.leaving, sess.left = false, done.Left
	done.Session = id
	m.emit(done)
}

// leave takes out a server that shuts down normally, at once or after a drain. It
// returns false if that must wait for the next change.
func (b *batch) leave(in Leave) bool {
	m := b.m
	sess := m.sessions[in.Session]
	if sess == nil {
		return true
	}
	s := m.servers[sess.hello.ID]
	switch {
	case s == nil || s.session != sess.id:
		m.answerLeave(sess.id, LeaveDone{Left: true, Text: "it was not a member any more"})
		return true
	case s.row.Incarnation != in.Incarnation:
		m.answerLeave(sess.id, LeaveDone{Text: fmt.Sprintf("incarnation %d is over; it is %d now", in.Incarnation, s.row.Incarnation)})
		return true
	case in.Drain > 0:
		return b.beginLeave(s, sess, in)
	}
	b.letGo(s, in.Reason)
	b.after(func() { m.answerLeave(sess.id, LeaveDone{Left: true}) },
		func(err error) { m.answerLeave(sess.id, LeaveDone{Text: err.Error()}) })
	return true
}

// letGo takes a member out that shuts down.
func (b *batch) letGo(s *server, why string) {
	id := s.row.ID
	text := because(fmt.Sprintf("%s shut down normally", id), why)
	b.remove(id, member.CauseShutdown, "left", member.Event{Actor: "agent/" + string(id), Text: text})
	b.shrink(id)
}

// beginLeave has a member drain before it leaves: its row says so, and then the
// routers are awaited. One that gets no work anyway waits for them only.
func (b *batch) beginLeave(s *server, sess *session, in Leave) bool {
	m, id := b.m, s.row.ID
	if l := s.leave; l != nil && l.asked {
		l.session = sess.id
		return true
	}
	row, err := b.peek(id)
	if err != nil || row.Phase != s.row.Phase {
		return false
	}
	l := &leave{session: sess.id, instance: sess.hello.InstanceID, reason: in.Reason, asked: true, until: sess.leaveBy}
	if !routed(row.Phase) {
		s.leave = l
		m.awaitRouters(s, m.position.Revision)
		return true
	}
	if err := b.spare(s); err != nil {
		m.answerLeave(sess.id, LeaveDone{Text: err.Reason})
		return true
	}
	b.startDraining(s)
	s.leave = l
	b.event(member.Event{
		Kind: member.EventDraining, ID: id, Incarnation: row.Incarnation, Actor: "agent/" + string(id),
		Text: because(fmt.Sprintf("%s drains and then shuts down", id), in.Reason),
	})
	revision := b.change.Revision()
	b.after(func() {
		switch {
		case m.servers[id] != s:
		case s.leave == l:
			m.awaitRouters(s, revision)
		default:
			// It stays after all.
			m.due[id] = true
		}
	}, func(err error) {
		if s.leave == l {
			s.leave = nil
		}
		m.answerLeave(l.session, LeaveDone{Text: err.Error()})
	})
	return true
}

// startDraining writes that a member gets no new work. Many may in one change, so
// the count of those that do is kept.
func (b *batch) startDraining(s *server) {
	left := b.serving
	if left > 0 && b.serves(s) {
		left--
	}
	b.enter(b.row(s.row.ID), member.PhaseDraining)
	b.serving = left
}

// leaves reports whether a member shuts down.
func (m *Machine) leaves(id member.ID) bool {
	s := m.servers[id]
	return s != nil && s.leave != nil
}

// routed reports whether a phase may get work.
func routed(p member.Phase) bool { return p == member.PhaseActive || p == member.PhaseServiceDown }

func (m *Machine) awaitRouters(s *server, r member.Revision) {
	s.leave.revision = r
	m.emit(AwaitRouters{ID: s.row.ID, Incarnation: s.row.Incarnation, Revision: r, Until: s.leave.until})
}

// drained hears that the routers have confirmed, or that the wait is over. The wait
// of a leave that was taken back says nothing about the next one.
func (m *Machine) drained(in Drained) {
	s := m.servers[in.ID]
	if s == nil || s.row.Incarnation != in.Incarnation || s.leave == nil || !s.leave.asked || s.leave.drained != nil || s.leave.revision != in.Revision {
		return
	}
	s.leave.drained = &in
	m.queue = append(m.queue, item{depart: in.ID})
}

// depart takes out a member that has drained.
func (b *batch) depart(id member.ID) {
	m, s := b.m, b.m.servers[id]
	if s == nil || s.leave == nil || !b.has(id) {
		return
	}
	l := s.leave
	done := LeaveDone{Left: true}
	why := l.reason
	switch {
	case l.drained == nil:
		why = "it had begun to under an earlier leader, and its agent has gone"
	case len(l.drained.Missing) == 0:
		done.Drained = true
	default:
		done.Drained, done.Missing = true, l.drained.Missing
		names := make([]member.ID, len(done.Missing))
		for i, lag := range done.Missing {
			names[i] = lag.Router
		}
		why = "not confirmed by routers: " + named(names)
		if l.reason != "" {
			why = l.reason + "; " + why
		}
	}
	b.letGo(s, why)
	b.after(func() { m.answerLeave(l.session, done) }, func(err error) {
		m.answerLeave(l.session, LeaveDone{Text: err.Error()})
		m.wake(m.now, wakeLeave, string(id), 0)
	})
}

// adoptLeaves takes up the leaves that an earlier leader had begun: who is
// DRAINING though no operator wants it.
func (m *Machine) adoptLeaves() {
	for id, s := range m.servers {
		if s.row.Phase == member.PhaseDraining && m.wish(id) != member.WishDrain {
			s.leave = &leave{instance: s.row.InstanceID}
			m.wake(m.now.Add(leavePatience), wakeLeave, string(id), 0)
		}
	}
}

// lookLeave goes on with a leave that has come to a halt: the change failed, or
// nobody has asked this leader for it.
func (m *Machine) lookLeave(s *server) {
	l := s.leave
	switch {
	case l == nil || l.asked && l.drained == nil:
	case !l.asked && m.live(s.row.ID) != nil:
		m.stays(s, "")
	default:
		m.queue = append(m.queue, item{depart: s.row.ID})
	}
}

// stays ends the leave of a member whose agent turns out to be another run than
// the one that has asked for it.
func (m *Machine) stays(s *server, instance string) {
	if s.leave == nil || s.leave.instance == instance {
		return
	}
	s.leave = nil
	m.due[s.row.ID] = true
}

// spare says by the floor whether the pool can do without a member of its own
// accord: at most max(1, floor percent of the reference size) may be away, which
// is down, suspect, held, joining, draining or lost, and it itself. A member that
// gets no work is away already.
func (b *batch) spare(s *server) *member.RefusedError {
	if b.m.settings.FloorPercent >= 100 || !b.serves(s) {
		return nil
	}
	if b.serving < 0 {
		b.serving = 0
		for _, other := range b.m.servers {
			if b.serves(other) {
				b.serving++
			}
		}
	}
	meant := max(b.reference, b.draft.Len())
	limit := verdict.FloorLimit(meant, b.m.settings)
	if meant-b.serving+1 <= limit {
		return nil
	}
	return &member.RefusedError{Rule: "floor", Reason: fmt.Sprintf(
		"not safe to stop: %d of %d left, and the floor allows %d to be away", b.serving, meant, limit)}
}

// serves reports whether a member gets work, as the change will leave it.
func (b *batch) serves(s *server) bool {
	row, err := b.peek(s.row.ID)
	return err == nil && row.Phase == member.PhaseActive && isCandidate(&row) && s.mark == nil && !s.health.down
}

func (b *batch) prepareDrain(call Call, c DrainServer) (func(), error) {
	row, err := b.peek(c.ID)
	if err != nil {
		return nil, err
	}
	if c.Incarnation != 0 && c.Incarnation != row.Incarnation {
		return nil, fmt.Errorf("incarnation %d of %s is over; it is %d now: %w", c.Incarnation, c.ID, row.Incarnation, member.ErrStale)
	}
	if s := b.m.servers[c.ID]; s != nil && !c.Force {
		if refused := b.spare(s); refused != nil {
			return nil, refused
		}
	}
	return b.prepareIntent(call, SetIntent{Call: call, ID: c.ID, Wish: member.WishDrain})
}

// prepareResume returns nil where nothing is to be done.
func (b *batch) prepareResume(call Call, c ResumeServer) (func(), error) {
	if s := b.m.servers[c.ID]; s != nil && s.leave != nil {
		return nil, &member.RefusedError{Rule: "leaving", Reason: fmt.Sprintf("%s shuts down by itself and is about to leave", c.ID)}
	}
	switch wish := b.intent(c.ID).Wish; wish {
	case member.WishDrain:
		return b.prepareIntent(call, SetIntent{Call: call, ID: c.ID, Wish: member.WishActive})
	case member.WishUnspecified, member.WishActive:
	case member.WishMaintenance, member.WishBanned:
		return nil, &member.RefusedError{Rule: "intent", Reason: fmt.Sprintf("the intent for %s is %s, not drain; set another one", c.ID, wish)}
	}
	return nil, nil
}

// standing is what an operator's wish means to a member.
func (m *Machine) standing(id member.ID) Standing {
	i := m.intents[id]
	if i.Wish != member.WishDrain {
		return Standing{}
	}
	return Standing{Drained: true, Actor: i.Actor, Reason: i.Reason}
}

// tellStandings tells the members whose wish has changed, so that whoever looks at
// a host knows that somebody keeps work away from it.
func (m *Machine) tellStandings(c member.Change) {
	tell := func(id member.ID) {
		s := m.servers[id]
		if s == nil || s.session == 0 {
			return
		}
		sess, now := m.sessions[s.session], m.standing(id)
		if sess == nil || sess.left || sess.standing == now {
			return
		}
		sess.standing = now
		m.emit(Stand{Session: sess.id, Standing: now})
	}
	for _, i := range c.Intents {
		tell(i.ID)
	}
	for _, id := range c.Forget {
		tell(id)
	}
}

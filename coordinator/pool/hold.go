package pool

import (
	"fmt"
	"time"

	"github.com/buddyring/buddyring/coordinator/verdict"
	"github.com/buddyring/buddyring/internal/member"
)

const (
	// heldPatience is how long a HELD member may be silent and unreached before it
	// is taken out.
	heldPatience = 30 * time.Second
	// heldNear is how near the end of a hold-down is when a loss begins it anew.
	heldNear = 10 * time.Second
)

// forgiven is the flap score up to which a contradicted removal has no hold-down:
// that of a first removal, or of one long after another.
const forgiven = 1.5

// holdFirst is the first hold-down after a removal for a cause.
func (m *Machine) holdFirst(cause member.Cause) time.Duration {
	if cause == member.CauseCrashed {
		return m.settings.HoldDown
	}
	return m.settings.HoldDownLoss
}

// holdBack puts a server that was removed by verdict into its hold-down, unless
// too many are held. One that was removed as crashed and comes back on the same
// boot contradicts that: within its hold-down it was well all the time and is not
// held, unless it flaps; later it was unreachable, and is held as after loss. The first return
// settles both: what is remembered has no hold-down and no boot afterwards. The
// text says which it was.
func (b *batch) holdBack(h Hello, row *member.Server, first bool) string {
	m := b.m
	d, was := m.departed[h.ID]
	if !was || d.HoldDown == 0 && d.BootID == "" {
		return ""
	}
	settled := d
	settled.HoldDown, settled.BootID = 0, ""
	b.change.Departed = append(b.change.Departed, settled)
	hold, why := d.HoldDown, "it was removed as "+d.Cause.String()
	if d.Cause == member.CauseCrashed && d.BootID != "" && d.BootID == h.BootID {
		away := m.now.Sub(d.LeftAt)
		why = fmt.Sprintf("its removal is contradicted: it is back %s later, within its hold-down, without having rebooted", seconds(away))
		hold = verdict.HoldDown(d.FlapScore, m.settings.HoldDownLoss, m.settings.HoldDownMax)
		switch {
		case away > d.HoldDown:
			why = fmt.Sprintf("it is back %s after its removal without having rebooted, so it was unreachable", seconds(away))
		case d.FlapScore > forgiven:
			why += ", and was removed before not long ago"
		default:
			hold = 0
		}
		b.contradicted(d, why)
	}
	switch {
	case hold == 0:
		return why
	case first || b.countHeld() >= max(1, b.draft.Len()*m.settings.HeldPercent/100):
		return why + "; it is not held: " + notHeld(first)
	}
	b.held++
	b.enter(row, member.PhaseHeld)
	row.HeldUntil = m.now.Add(hold)
	return why
}

func notHeld(first bool) string {
	if first {
		return "there is no other server"
	}
	return "as many are held as may be"
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

// countHeld counts the HELD members, those of this change included.
func (b *batch) countHeld() int {
	if b.held < 0 {
		b.held = 0
		for _, s := range b.m.servers {
			if s.row.Phase == member.PhaseHeld {
				b.held++
			}
		}
	}
	return b.held
}

// contradicted records that a removed server proves alive with the same boot.
func (b *batch) contradicted(d member.Departed, why string) {
	m := b.m
	text := fmt.Sprintf("%s was removed as %s at revision %d or before: %s", d.ID, d.Cause, b.change.Base.Revision, why)
	b.event(member.Event{Kind: member.EventContradicted, ID: d.ID, Incarnation: d.Incarnation, Cause: d.Cause, Actor: actorSelf, Text: text})
	b.after(func() {
		m.count(CountContradicted)
		m.raise(alarmRemovalContradicted, d.ID, text)
		m.wake(m.now.Add(contradictedFor), wakeContradicted, string(d.ID), 0)
	}, nil)
}

// lostForGood reports whether a HELD member has been silent and unreached for so
// long that it is taken out. HELD members get no work, so there is no hurry.
func (m *Machine) lostForGood(s *server) bool {
	return s.mark != nil && m.now.Sub(s.inquiry.suspectSince) >= heldPatience && m.now.Sub(s.repliedAt) >= heldPatience
}

// gateHeld lets one verdict of an incident begin the hold-down of a HELD member
// anew; the further ones change nothing. Loss may last, so only one that is found
// near the end of the hold-down does.
func (m *Machine) gateHeld(s *server, cause member.Cause) (member.RefusedError, bool) {
	left := s.row.HeldUntil.Sub(m.now)
	if cause == member.CauseLossy && left > heldNear {
		return member.RefusedError{Rule: "held", Reason: fmt.Sprintf("it is held and gets no work for another %v", left.Round(time.Second))}, true
	}
	if d := m.departed[s.row.ID]; s.mark == nil || d.LeftAt.Before(s.inquiry.suspectSince) {
		return member.RefusedError{}, false
	}
	return member.RefusedError{Rule: "held", Reason: fmt.Sprintf("it is held and gets no work; it is taken out when it has been suspect for %v", heldPatience)}, true
}

// holdAnew answers a verdict about a HELD member: its row stays, and its
// hold-down begins anew, doubled.
func (b *batch) holdAnew(s *server, v *confirmed) {
	m, id := b.m, s.row.ID
	row := b.row(id)
	var before *member.Departed
	if d, ok := m.departed[id]; ok {
		before = &d
	}
	hold := min(2*row.HeldUntil.Sub(row.Since), m.settings.HoldDownMax)
	// The hold-down counts from now on.
	row.Since, row.HeldUntil = m.now, m.now.Add(hold)
	b.change.Departed = append(b.change.Departed, member.Departed{
		ID: id, Incarnation: row.Incarnation, Cause: v.cause, LeftAt: m.now, FlapScore: verdict.Flap(before, m.now),
	})
	e := m.explanation(s, "held", verdict.Ruling{Rule: "held_anew"})
	e.Text = fmt.Sprintf("%s was found %s while it was held; it gets no work, so it stays and is held anew for %v: %s",
		id, v.cause, hold.Round(time.Millisecond), v.ruling.Reason)
	b.event(member.Event{Kind: member.EventHeld, ID: id, Incarnation: row.Incarnation, Cause: v.cause, Actor: actorSelf, Text: e.Text, Explanation: &e})
	revision := b.change.Revision()
	b.after(func() {
		m.log(e, revision)
		m.wake(m.now.Add(hold), wakeHeld, string(id), 0)
		if s.inquiry.verdict == v {
			s.inquiry.verdict = nil
			delete(m.confirmed, id)
			m.again(s, verdict.Undecided)
		}
	}, nil)
}

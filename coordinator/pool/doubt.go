package pool

import (
	"slices"

	"github.com/buddyring/buddyring/coordinator/verdict"
	"github.com/buddyring/buddyring/internal/member"
)

// good hears that a watcher reaches a server.
func (m *Machine) good(s *server, observer member.ID, before Sight) {
	m.reach(s, observer)
	q, seen := &s.inquiry, s.sights.of(observer)
	if q.overruled[observer] {
		// All others have found that it is wrong about this server.
		return
	}
	q.last = slices.DeleteFunc(q.last, func(id member.ID) bool { return id == observer })
	// A reply from before the newest round says nothing against it.
	isNews := m.now.Add(-seen.LastReplyAge).After(q.opened)
	if isNews && before == verdict.SightDown && !q.recanted[observer] {
		// What was missed before that is over. Once: one observer must not wipe out what
		// the others have found again and again.
		q.recant(observer)
	}
	if isNews {
		q.repeated, q.goesOn, q.credited = false, false, false
		if m.outvoted(s, observer) {
			return
		}
		m.refute(s, member.CauseCrashed, member.CauseUnreachable)
	}
	if before == verdict.SightDown {
		m.tell(s, member.Moment{Kind: "cleared", Who: string(observer), Role: "buddy", Result: "up", RTT: seen.RTT})
	}
	switch r := q.round; {
	case r == nil:
		if m.filtered[s.row.ID] && !m.doubted(s) {
			m.endIncident(s)
		}
	case before == verdict.SightDown && s.claim == nil && len(r.Down()) == 0 && !m.doubted(s):
		m.endRound(s)
		m.endIncident(s)
		m.judgeLoss(s, r)
	case isNews:
		if !r.Heard(observer) {
			m.tell(s, member.Moment{Kind: "answer", Round: r.ID, Who: string(observer), Role: "buddy", Result: "up", RTT: seen.RTT, Text: "its own probes"})
		}
		m.noteReach(s, observer)
	}
}

// noteReach notes in the present round that an observer, asked in it or not, reaches
// the server.
func (m *Machine) noteReach(s *server, observer member.ID) {
	r := s.inquiry.round
	if !slices.Contains(r.Observers(), observer) {
		m.servers[observer].load++
	}
	r.Reach(observer, m.now)
	m.progress(s)
}

// outvoted hears a reply by an observer while a verdict by a round waits, and reports
// whether the verdict stands. Once is a reply: it falls. Who makes it fall again is
// overruled, as one observer must not keep a dead server by changing its mind or by
// speaking when all others have, and has missed nothing either: the verdict stands if
// the others' word is enough. If not, it falls, and others are asked in its place; where
// there are none, it is heard again.
func (m *Machine) outvoted(s *server, observer member.ID) bool {
	q := &s.inquiry
	if q.verdict == nil || q.verdict.round == nil || q.verdict.void {
		return false
	}
	if q.saviours == nil {
		q.saviours = map[member.ID]bool{}
	}
	if !q.saviours[observer] {
		q.saviours[observer] = true
		return false
	}
	stands := m.standsWithout(s, observer)
	if !stands {
		asked := append(q.verdict.round.Observers(), sortedKeys(q.overruled)...)
		if _, another := m.drawObserver(s, asked); !another {
			return false
		}
	}
	m.overrule(s, observer)
	if stands {
		m.tell(s, member.Moment{
			Kind: "answer", Round: q.verdict.round.ID, Who: string(observer), Result: "up", Text: "not counted: it contradicts the others' verdict again",
		})
	}
	return stands
}

// standsWithout reports whether the verdict that waits would be the same without what
// an observer has missed, and without those who were overruled before.
func (m *Machine) standsWithout(s *server, observer member.ID) bool {
	q := &s.inquiry
	c := q.verdict.round.Case(m.others(s), func(id member.ID) bool {
		return id != observer && !q.overruled[id] && m.trusts(id)
	})
	c.Repeated = q.verdict.cause == member.CauseUnreachable
	cause, _ := causes(verdict.Judge(c).Verdict)
	return cause == q.verdict.cause
}

// contradict hears from a server, which speaks against its being found dead.
func (m *Machine) contradict(s *server) { m.refute(s, member.CauseCrashed) }

// refute hears what speaks against a verdict with one of those causes. It falls
// unless its change is under way; if that is rejected, it falls then.
func (m *Machine) refute(s *server, causes ...member.Cause) {
	if v := s.inquiry.verdict; v == nil || !slices.Contains(causes, v.cause) {
		return
	}
	s.inquiry.verdict.void = true
	if !m.inFlight(s.row.ID) {
		m.withdraw(s)
	}
}

// reach notes that this incarnation has been reached by an observer. While a round has
// just found that three others miss it, one says too little: a liar could keep a HELD
// server for ever.
func (m *Machine) reach(s *server, observer member.ID) {
	missing := slices.DeleteFunc(m.finals(s), func(id member.ID) bool { return id == observer })
	if len(missing) < 3 {
		s.repliedAt = m.now
	}
	if s.reached {
		return
	}
	s.reached = true
	m.due[s.row.ID] = true
	m.clearAlarm(alarmNotJoining, s.row.ID)
}

// doubt hears that a watcher misses a server. It opens a round at most.
func (m *Machine) doubt(s *server, observer member.ID, before Sight) {
	if !m.judged(s) {
		return
	}
	q, seen := &s.inquiry, s.sights.of(observer)
	if q.tale == nil {
		m.beginIncident(s, seen.firstLost)
		q.credited = true
	}
	isNew := before != verdict.SightDown
	if isNew {
		m.tell(s, member.Moment{
			Kind: "doubt", Who: string(observer), Role: "buddy", Result: "down",
			Sent: seen.Sent, Lost: seen.Lost, Age: m.now.Sub(seen.firstLost),
		})
		q.acquitted = false
		// A new doubt need not wait as long as one that was looked into.
		q.next = q.opened.Add(roundPause)
		m.wake(q.next, wakeAgain, string(s.row.ID), 0)
	}
	if q.round == nil && q.verdict == nil && !m.now.Before(q.next) {
		m.openRound(s)
	}
}

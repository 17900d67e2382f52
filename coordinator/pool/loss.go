package pool

import (
	"fmt"
	"slices"
	"time"

	"github.com/buddyring/buddyring/coordinator/verdict"
	"github.com/buddyring/buddyring/internal/member"
)

const (
	// lossWitnesses is how many witnesses measure a server that its watchers see
	// losing packets; each sends lossProbes over lossOver. A watcher has lost four
	// probes by then, one every half second: with lossTime for the measurement and
	// its answers the loss has lasted for verdict.LossyFor.
	lossWitnesses = 3
	lossProbes    = 15
	lossOver      = 1500 * time.Millisecond
	lossTime      = lossOver + 300*time.Millisecond
)

// lossInquiry is what the machine is finding out about a server that loses
// packets.
type lossInquiry struct {
	// since is since when all its watchers that count see it lossy, zero if they do
	// not.
	since time.Time
	// replied says that somebody has had a reply since: a server that never
	// answers is not lossy, but dead, unreachable, or behind a filter.
	replied bool
	// round is the number of the witnesses' measurement, 0 for none; witnesses maps
	// those asked to what they have found.
	round     uint64
	witnesses map[member.ID]lossFinding
}

type lossFinding uint8

const (
	lossUnknown lossFinding = iota
	lossSome
	lossHeavy
	lossClean
)

// lossWatchers counts the watchers that count and have seen the server lossy for
// so long, and those that do not. Observers that lose packets themselves do not
// count.
func (m *Machine) lossWatchers(s *server, long time.Duration) (lossy, clean int) {
	for _, w := range m.watchers(s) {
		o := m.servers[w.id]
		if m.live(w.id) == nil || !m.trusts(w.id) || !o.loss.since.IsZero() || m.sessions[o.session].selfScore > 0 {
			continue
		}
		switch seen, known := s.sights[w.id]; {
		case !known:
		case seen.lossySince.IsZero():
			// A temporary watcher may have sent too few probes to tell.
			if w.role != RoleTemporary {
				clean++
			}
		case m.now.Sub(seen.lossySince) >= long:
			lossy++
		}
	}
	return lossy, clean
}

// judgeLoss begins or ends an inquiry about loss from what the watchers see.
func (m *Machine) judgeLoss(s *server) {
	lossy, clean := m.lossWatchers(s, 0)
	is := lossy >= 2 && clean == 0 && m.ring.Len() > 3 && m.judged(s) && !m.filtered[s.row.ID]
	if !is {
		m.refute(s, member.CauseLossy)
	}
	switch {
	case is && s.loss.since.IsZero():
		if m.answersNow(s) {
			m.measureLoss(s)
		}
	case !is && !s.loss.since.IsZero():
		m.endLoss(s)
		if s.inquiry.round == nil && s.inquiry.verdict == nil && !m.doubted(s) {
			m.endIncident(s)
		}
	}
}

// answersNow reports whether the server answers at all at this moment: an outage,
// however long, is no loss but a matter for rounds.
func (m *Machine) answersNow(s *server) bool {
	q := &s.inquiry
	if q.verdict != nil || q.round != nil && len(q.round.Reaching()) == 0 && m.unproven(s) {
		return false
	}
	return slices.ContainsFunc(m.watchers(s), func(w watcher) bool {
		return s.sights[w.id].Sight == verdict.SightUp && m.live(w.id) != nil
	})
}

// measureLoss asks witnesses.
func (m *Machine) measureLoss(s *server) {
	if s.inquiry.tale == nil {
		m.beginIncident(s, m.now)
	}
	m.roundSeq++
	s.loss = lossInquiry{since: m.now, round: m.roundSeq, witnesses: map[member.ID]lossFinding{}}
	m.losses[m.roundSeq] = s
	m.tell(s, member.Moment{Kind: "loss", Round: m.roundSeq, Who: "coordinator", Text: fmt.Sprintf("its watchers lose %d and more of ten probes; witnesses send %d each over %v", verdict.LossyFrom, lossProbes, lossOver)})
	for len(s.loss.witnesses) < lossWitnesses {
		id, ok := m.drawObserver(s, sortedKeys(s.loss.witnesses))
		if !ok {
			break
		}
		s.loss.witnesses[id] = lossUnknown
		m.emit(Ask{
			Session: m.live(id).id, Round: s.loss.round, Subject: m.subject(s, RoleWitness), Probes: lossProbes,
			Over: lossOver, Timeout: m.timeout(s), Exhaustive: true,
		})
		m.tell(s, member.Moment{Kind: "asked", Round: s.loss.round, Who: string(id), Role: RoleWitness.String()})
	}
	m.wake(m.now.Add(lossTime), wakeLoss, string(s.row.ID), s.loss.round)
}

// lossAnswer takes the answer of a witness and reports whether it was about loss.
func (m *Machine) lossAnswer(sess *session, in Answer) bool {
	s := m.losses[in.Round]
	if s == nil {
		return false
	}
	e := in.Evidence
	found, asked := s.loss.witnesses[sess.hello.ID]
	if !asked || found != lossUnknown || in.Subject != s.row.ID || in.Incarnation != s.row.Incarnation {
		m.count(CountDropped)
		return true
	}
	if !in.Final {
		return true
	}
	switch {
	case e.Sight != verdict.SightUp && e.Sight != verdict.SightDown, in.SelfScore > 0, e.Sent < lossProbes/2:
	case 2*e.Lost >= e.Sent:
		found = lossHeavy
	case 10*e.Lost <= verdict.LossyUntil*e.Sent:
		found = lossClean
	default:
		found = lossSome
	}
	s.loss.witnesses[sess.hello.ID] = found
	s.loss.replied = s.loss.replied || e.Sight == verdict.SightUp
	m.tell(s, member.Moment{
		Kind: "answer", Round: in.Round, Who: string(sess.hello.ID), Role: RoleWitness.String(), Result: e.Sight.String(),
		Sent: e.Sent, Lost: e.Lost, RTT: e.RTT, Text: e.Trouble,
	})
	return true
}

// lookLoss judges a server whose watchers have seen it lossy for long enough.
func (m *Machine) lookLoss(s *server, round uint64) {
	l := &s.loss
	if l.round != round || l.since.IsZero() {
		return
	}
	sum := verdict.Loss{Replied: l.replied}
	sum.Watchers, _ = m.lossWatchers(s, lossTime)
	for id, found := range l.witnesses {
		switch {
		case found == lossClean:
			sum.Clean++
		case found == lossHeavy && m.trusts(id) && m.servers[id].loss.since.IsZero():
			sum.Witnesses++
		}
	}
	m.endLoss(s)
	if s.inquiry.verdict != nil {
		return
	}
	ruling := verdict.JudgeLoss(sum)
	m.tell(s, member.Moment{Kind: "verdict", Round: round, Who: "coordinator", Result: ruling.Verdict.String(), Text: ruling.Reason})
	if ruling.Verdict == verdict.Lossy && m.mayRemove(s, member.CauseLossy, &ruling) {
		if s.inquiry.round != nil {
			m.endRound(s)
		}
		return
	}
	m.notRemoved(s, ruling)
	m.judgeLoss(s)
}

// endLoss forgets what was found about loss.
func (m *Machine) endLoss(s *server) {
	delete(m.losses, s.loss.round)
	s.loss = lossInquiry{}
}

package pool

import (
	"fmt"
	"time"

	"github.com/buddyring/buddyring/coordinator/verdict"
	"github.com/buddyring/buddyring/internal/member"
)

const (
	// lossWitnesses is how many witnesses measure a server beside its watchers; each
	// sends lossProbes over lossOver, in one measurement after the other.
	lossWitnesses = 3
	lossProbes    = 8
	lossOver      = 250 * time.Millisecond
	// lossPause is the time between two measurements once the loss has lasted for
	// long enough, while a gate is shut; lossRest that between two inquiries about
	// one server, limitedRest that after it was found that something limits ICMP, or may.
	lossPause, lossRest, limitedRest = time.Second, 5 * time.Second, time.Minute
	// lossWary is how long a HELD server is not let out after it was found lossy: a
	// rest, and as long for the next inquiry to begin and to find it so again.
	lossWary = 2 * lossRest
	// lossSeen is how long a loss has lasted at least when two watchers have lost
	// LossyFrom regular probes each.
	lossSeen = 1200 * time.Millisecond
	// mostEchoes bounds the measurements of which it is kept how the stream answered.
	mostEchoes = 64
)

// lossInquiry is what the machine is finding out about a server that loses
// packets.
type lossInquiry struct {
	// since is since when it is known to lose them, zero when there is no inquiry;
	// began is when this one did, rest until when there is no other one.
	since, began, rest time.Time
	// wary is until when a HELD server stays so, since it was found lossy a moment ago
	// or may be.
	wary time.Time
	// round is the number of the measurement under way, 0 for none; lastProbe is when
	// its last probes go out, found maps those asked to what they have found.
	round     uint64
	lastProbe time.Time
	found     map[member.ID]lossFound
	// echoes are how its stream has answered in each of the measurements in a row that
	// have found it lossy. echo is how stream, the one at the beginning of the present
	// measurement, has answered in that.
	echoes []time.Duration
	stream SessionID
	echo   time.Duration
}

type lossFound struct {
	verdict.LossFinding

	witness bool
	done    bool
}

// lossWatchers counts the watchers that count and see the server lossy, and those
// that do not.
func (m *Machine) lossWatchers(s *server) (lossy, clean int) {
	for _, w := range m.watchers(s) {
		if !m.measures(w.id) {
			continue
		}
		switch seen, known := s.sights.find(w.id); {
		case !known:
		case seen.lossy:
			lossy++
		case w.role != RoleTemporary:
			// A temporary watcher may have sent too few probes to tell.
			clean++
		}
	}
	return lossy, clean
}

// measures reports whether what an observer says about loss counts: not if it
// loses packets itself.
func (m *Machine) measures(id member.ID) bool {
	sess := m.live(id)
	return sess != nil && sess.selfScore == 0 && m.trusts(id) && m.servers[id].loss.since.IsZero()
}

// judgeLoss begins an inquiry when two watchers see a server lossy and none does
// not, or when those who reached it in a round lost many probes before: then it has
// lost them since the round was opened. It must have answered meanwhile, for an
// outage, however long, is a matter for rounds.
func (m *Machine) judgeLoss(s *server, r *verdict.Round) {
	if !s.loss.since.IsZero() || m.now.Before(s.loss.rest) || s.inquiry.verdict != nil || !m.mayLose(s) {
		return
	}
	since := m.now.Add(-lossSeen)
	losing := s.sights.lossy() >= 2 // nearly always false, and soon told
	if losing {
		lossy, clean := m.lossWatchers(s)
		losing = lossy >= 2 && clean == 0
	}
	if !losing {
		if r == nil || !r.Losing(probeSpacing) {
			return
		}
		since = r.Opened
	}
	if s.repliedAt.Before(since) {
		return
	}
	if s.inquiry.tale == nil {
		m.beginIncident(s, m.now)
	}
	s.loss = lossInquiry{since: since, began: m.now}
	m.tell(s, member.Moment{Kind: "loss", Who: "coordinator", Text: "many probes to it are lost; its watchers and witnesses measure how many"})
	m.measureLoss(s)
}

// mayLose reports whether a server could be taken out for loss.
func (m *Machine) mayLose(s *server) bool {
	return m.ring.Len() > 3 && m.judged(s) && !m.filtered[s.row.ID]
}

// measureLoss asks the watchers and witnesses for one measurement, and the server
// itself for an echo.
func (m *Machine) measureLoss(s *server) {
	l := &s.loss
	m.roundSeq++
	l.round, l.lastProbe, l.found = m.roundSeq, m.now.Add(lossOver), map[member.ID]lossFound{}
	l.stream, l.echo = s.session, verdict.EchoMissing
	m.losses[l.round] = s
	if sess := m.live(s.row.ID); sess != nil {
		m.challenge(sess)
	}
	for _, w := range m.watchers(s) {
		if m.measures(w.id) {
			m.askLoss(s, w.id, false)
		}
	}
	for range lossWitnesses {
		id, ok := m.drawObserver(s, sortedKeys(l.found))
		if !ok {
			break
		}
		m.askLoss(s, id, true)
	}
	m.wake(m.now.Add(lossOver+m.timeout(s)+straggle), wakeLoss, string(s.row.ID), l.round)
}

func (m *Machine) askLoss(s *server, id member.ID, witness bool) {
	s.loss.found[id] = lossFound{witness: witness}
	m.emit(Ask{
		Session: m.live(id).id, Round: s.loss.round, Subject: m.subject(s, RoleWitness), Probes: lossProbes,
		Over: lossOver, Timeout: m.timeout(s), Exhaustive: true,
	})
	role := "buddy"
	if witness {
		role = RoleWitness.String()
	}
	m.tell(s, member.Moment{Kind: "asked", Round: s.loss.round, Who: string(id), Role: role, Text: fmt.Sprintf("to count what is lost of %d probes", lossProbes)})
}

// lossAnswer takes the answer of an observer and reports whether it was about loss.
func (m *Machine) lossAnswer(sess *session, in Answer) bool {
	s := m.losses[in.Round]
	if s == nil {
		return false
	}
	e := in.Evidence
	f, asked := s.loss.found[sess.hello.ID]
	if !asked || f.done || in.Subject != s.row.ID || in.Incarnation != s.row.Incarnation {
		m.count(CountDropped)
		return true
	}
	if e.Sight == verdict.SightUp {
		m.reach(s, sess.hello.ID)
	}
	if !in.Final {
		return true
	}
	f.done = true
	early := m.now.Before(s.loss.lastProbe)
	// Who has given up has counted only a part of what it lost, or lost it by its own
	// trouble.
	whole := e.Trouble == "" && in.SelfScore == 0 && e.Sent >= lossProbes/2 && !early
	if whole && (e.Sight == verdict.SightUp || e.Sight == verdict.SightDown) {
		f.LossFinding = verdict.FindLoss(e.Sent, e.Lost)
	}
	s.loss.found[sess.hello.ID] = f
	m.tell(s, member.Moment{
		Kind: "answer", Round: in.Round, Who: string(sess.hello.ID), Result: e.Sight.String(),
		Sent: e.Sent, Lost: e.Lost, RTT: e.RTT, Text: e.Trouble,
	})
	if !early && s.loss.complete() {
		m.weighLoss(s)
	}
	return true
}

// complete reports whether all have answered.
func (l *lossInquiry) complete() bool {
	for _, f := range l.found {
		if !f.done {
			return false
		}
	}
	return true
}

// lookLoss looks at a measurement whose time is up, or begins the next one after a
// pause.
func (m *Machine) lookLoss(s *server, round uint64) {
	switch l := &s.loss; {
	case l.since.IsZero() || l.round != round:
	case round == 0 && m.mayLose(s):
		m.measureLoss(s)
	case round == 0:
		m.endLoss(s)
		m.judgeSuspicion(s)
	default:
		m.weighLoss(s)
	}
}

// weighLoss judges a server after a measurement, and begins the next one as long
// as it is found lossy.
func (m *Machine) weighLoss(s *server) {
	l := &s.loss
	sum := m.sumLoss(s)
	delete(m.losses, l.round)
	ruling := verdict.JudgeLoss(sum)
	m.tell(s, member.Moment{Kind: "verdict", Round: l.round, Who: "coordinator", Result: ruling.Verdict.String(), Text: ruling.Reason})
	l.round = 0
	lossy := ruling.Verdict == verdict.Lossy
	if lossy || ruling.Rule == verdict.LossTooShort {
		l.wary = m.now.Add(lossWary)
	}
	switch {
	case s.inquiry.verdict != nil || !m.mayLose(s):
		// Something else has decided meanwhile.
		m.endLoss(s)
		m.judgeSuspicion(s)
	case !lossy && ruling.Rule != verdict.LossTooShort:
		m.endLoss(s)
		switch ruling.Rule {
		case verdict.ICMPLimited:
			s.loss = lossInquiry{rest: m.now.Add(limitedRest)}
		case verdict.NoStream:
			s.loss = lossInquiry{rest: m.now.Add(limitedRest), wary: m.now.Add(limitedRest + lossWary)}
		}
		m.judgeSuspicion(s)
		m.notRemoved(s, ruling)
		if s.inquiry.round == nil && s.inquiry.verdict == nil && !m.doubted(s) {
			m.endIncident(s)
		}
	case !lossy:
		l.echoes = sum.Echoes
		m.judgeSuspicion(s)
		m.measureLoss(s)
	case m.mayRemove(s, member.CauseLossy, &ruling):
		m.endLoss(s)
		if s.inquiry.round != nil {
			m.endRound(s)
		}
	default:
		l.echoes = sum.Echoes
		m.judgeSuspicion(s)
		m.notRemoved(s, ruling)
		m.wake(m.now.Add(lossPause), wakeLoss, string(s.row.ID), 0)
	}
}

// sumLoss sums a measurement up for judgement.
func (m *Machine) sumLoss(s *server) verdict.Loss {
	l := &s.loss
	echo := l.echo
	if stays := s.session != 0 && s.session == l.stream; echo == verdict.EchoMissing && !stays && !m.fellSilent(s) {
		// A stream that has ended, as with its agent, says nothing about the network.
		echo = verdict.StreamMissing
	}
	sum := verdict.Loss{
		Echoes: append(l.echoes[max(0, len(l.echoes)+1-mostEchoes):], echo), Lasted: m.now.Sub(l.since), Replied: s.repliedAt.After(l.began),
	}
	for id, f := range l.found {
		switch {
		case f.LossFinding == verdict.LossClean:
			sum.Clean++
		case f.LossFinding != verdict.LossHeavy || !m.measures(id):
		case f.witness:
			sum.Witnesses++
		default:
			sum.Watchers++
		}
	}
	return sum
}

// endLoss forgets what was found about loss.
func (m *Machine) endLoss(s *server) {
	delete(m.losses, s.loss.round)
	rest := s.loss.rest
	if !s.loss.since.IsZero() {
		rest = m.now.Add(lossRest)
	}
	s.loss = lossInquiry{rest: rest, wary: s.loss.wary}
}

// maybeLossy reports whether a server is being measured for loss, or was found lossy
// so lately that the next inquiry may not have begun.
func (m *Machine) maybeLossy(s *server) bool {
	return !s.loss.since.IsZero() || m.now.Before(s.loss.wary)
}

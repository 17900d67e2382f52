package pool

import (
	"fmt"

	"github.com/buddyring/buddyring/coordinator/verdict"
	"github.com/buddyring/buddyring/internal/member"
)

// freshMost is how many observers a second round asks.
const freshMost = 4

// openSecond opens a second round after one in which a single observer reached
// the server and all others missed it: only observers are asked who were not
// asked before. It reports whether there are enough of them. Until it is over the
// one's positives do not count, so that it cannot keep a dead server for ever.
func (m *Machine) openSecond(s *server, first *verdict.Round) bool {
	q := &s.inquiry
	odd := first.Reaching()[0]
	q.first, q.asked = first, first.Observers()
	if !m.enoughFresh(s, verdict.FreshNeeded) {
		return false
	}
	m.overrule(s, odd)
	m.beginRound(s, m.settings.StallTolerance)
	q.round.Second, q.round.Odd = true, odd
	m.ask(s, q.round, watcher{odd, RoleWitness})
	m.askObservers(s, q.round, 1+freshMost)
	return true
}

// enoughFresh reports whether n members could be asked who were not.
func (m *Machine) enoughFresh(s *server, n int) bool {
	except := append([]member.ID(nil), s.inquiry.asked...)
	for range n {
		id, ok := m.drawObserver(s, except)
		if !ok {
			return false
		}
		except = append(except, id)
	}
	return true
}

func (m *Machine) overrule(s *server, observer member.ID) {
	if s.inquiry.overruled == nil {
		s.inquiry.overruled = map[member.ID]bool{}
	}
	s.inquiry.overruled[observer] = true
}

// settleOdd ends what openSecond began: the odd one out is heard again if the
// others reached the server, and muted if they found it dead and it insists.
func (m *Machine) settleOdd(s *server, r *verdict.Round, ruling verdict.Ruling) {
	if !r.Second {
		return
	}
	s.inquiry.asked = nil
	if ruling.Verdict != verdict.Crashed {
		delete(s.inquiry.overruled, r.Odd)
		return
	}
	if o := m.servers[r.Odd]; o != nil && r.OddInsists() {
		m.mute(o, fmt.Sprintf("%s says that it reaches %s, which all others miss", r.Odd, s.row.ID))
	}
}

package sim

import (
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/coordinator/verdict"
	"github.com/buddyring/buddyring/internal/member"
)

// Lie is what a lying agent says of everybody.
type Lie uint8

// The lies.
const (
	Honest Lie = iota
	SaysDown
	SaysUp
	SaysAnything
)

// Lies are the names of the lies.
func Lies() []string { return []string{"down", "up", "random"} }

// ParseLie reads the name of a lie.
func ParseLie(field, s string) (Lie, error) {
	for i, name := range Lies() {
		if s == name {
			return Lie(i + 1), nil
		}
	}
	return Honest, member.Invalid(field, "%q is none of %v", s, Lies())
}

// lieEvery is how often a liar accuses its subjects anew.
const lieEvery = 250 * time.Millisecond

// coloured is what a host says when it means e.
func (s *Sim) coloured(h *host, e pool.Evidence) pool.Evidence {
	down := false
	switch h.agent.lie {
	case Honest:
		return e
	case SaysDown:
		down = true
	case SaysUp:
	case SaysAnything:
		down = s.random.Uint64()&1 == 0
	}
	if down {
		// The age that serves the liar best: old enough to earn all the credit there is.
		return pool.Evidence{Sight: verdict.SightDown, Sent: 10, Lost: 10, FirstLostAge: time.Second}
	}
	return pool.Evidence{Sight: verdict.SightUp, Sent: 10, RTT: time.Millisecond}
}

// keepLying makes a liar accuse whom it watches again and again.
func (s *Sim) keepLying(h *host, st *stream) {
	if h.agent.lie == Honest || h.agent.link.stream != st {
		return
	}
	for _, sub := range h.agent.saved.subjects {
		e := s.coloured(h, pool.Evidence{})
		lost := 0
		if e.Sight == verdict.SightDown {
			lost = 10
		}
		s.sendUp(st, pool.Report{Session: st.id, Subject: sub.ID, Incarnation: sub.Incarnation, Evidence: e, LostOfTen: lost})
	}
	s.agentAfter(h, lieEvery, func() { s.keepLying(h, st) })
}

// lieAbout answers a question as late as an honest "down" would come, so that it
// counts.
func (s *Sim) lieAbout(h *host, st *stream, ask pool.Ask) {
	e := s.coloured(h, pool.Evidence{})
	a := pool.Answer{Session: st.id, Round: ask.Round, Subject: ask.Subject.ID, Incarnation: ask.Subject.Incarnation, Evidence: e}
	if e.Sight == verdict.SightUp {
		a.Final = true
		s.sendUp(st, a)
		return
	}
	if len(ask.Connect) > 0 {
		a.Evidence.Connect = verdict.ConnectUnanswered
	}
	s.sendUp(st, a)
	s.agentAfter(h, ask.Over+ask.Timeout/2, func() {
		a.Final = true
		s.sendUp(st, a)
	})
}

package sim

import (
	"errors"
	"time"

	"github.com/buddyring/buddyring/agent/detector"
	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/internal/member"
)

// This file does again, without goroutines and sockets, what package
// agent/daemon does around the detector: it says hello, keeps what it was
// assigned, hands reports on, sends digests, echoes, examines, and comes back
// when a stream is over. The times and the pauses are the daemon's.

const (
	digestEvery = 5 * time.Second
	ackTime     = 2 * time.Second
	welcomeTime = 20 * time.Second
	saveTime    = 2 * time.Millisecond
	renewTime   = 500 * time.Millisecond

	retryFirst, retryMax     = 250 * time.Millisecond, 2 * time.Second
	refusedFirst, refusedMax = 5 * time.Second, 30 * time.Second
	defaultSpread            = time.Second
	maxExaminations          = 64
)

// assignment is whom the agent watches.
type assignment struct {
	subjects []detector.Subject
	interval time.Duration
}

// link is the agent's side of its session, and what it has learnt of them.
type link struct {
	stream   *stream
	welcomed bool
	digests  uint64
	// unacked is the digest that is waited for, or 0.
	unacked uint64

	spread         time.Duration
	pause, refused time.Duration
	stale          bool
}

// The messages that are not of package pool.
type (
	digest struct {
		pool.Digest

		seq uint64
	}
	digestAck struct{ seq uint64 }
	// farewell ends a session from the coordinator's side.
	farewell struct{ err error }
)

var errNoAck = errors.New("a digest was not acknowledged")

// startAgent starts a new run of the agent, which watches at once whom it
// watched before.
func (s *Sim) startAgent(h *host) {
	h.run++
	a := &h.agent
	*a = agent{
		running: true, paused: a.paused, deaf: a.deaf, lie: a.lie, busy: a.busy,
		incarnation: a.incarnation, saved: a.saved, detector: detector.New(), tick: never,
		link: link{spread: defaultSpread, pause: retryFirst, refused: refusedFirst},
	}
	if len(a.saved.subjects) > 0 {
		s.drive(h, a.detector.Assign(h.clock.read(s.now), a.saved.interval, a.saved.subjects))
	}
	s.attempt(h)
}

// stopAgent ends the process; its kernel, if it lives, closes the stream.
func (s *Sim) stopAgent(h *host) {
	if !h.agent.running {
		return
	}
	if st := h.agent.link.stream; st != nil {
		s.closeUp(st)
	}
	h.run++
	h.agent.running, h.agent.exams, h.agent.backlog, h.agent.link = false, nil, nil, link{}
}

// attempt opens a stream and says hello.
func (s *Sim) attempt(h *host) {
	s.connect(h, func(open bool) {
		if !open {
			s.lost(h, false, nil)
			return
		}
		st := s.coordinator.accept(h)
		h.agent.link.stream, h.agent.link.welcomed, h.agent.link.unacked = st, false, 0
		s.sendUp(st, pool.Hello{
			Session: st.id, ID: h.id, Spec: h.spec(), BootID: h.bootID(), InstanceID: h.instanceID(h.run),
			Incarnation: h.agent.incarnation, TellRemoval: true, Peer: h.addr.String(),
		})
		s.agentAfter(h, welcomeTime, func() {
			if h.agent.link.stream == st && !h.agent.link.welcomed {
				s.leaveStream(h, member.ErrUnavailable)
			}
		})
	})
}

// leaveStream closes the stream from this side.
func (s *Sim) leaveStream(h *host, why error) {
	l := &h.agent.link
	s.closeUp(l.stream)
	l.stream = nil
	s.lost(h, l.welcomed, why)
}

// lost waits after an attempt or a session has ended, as the daemon's itinerary
// says for one address, and tries again.
func (s *Sim) lost(h *host, wasWelcomed bool, why error) {
	l := &h.agent.link
	h.agent.exams = nil
	l.welcomed = false
	if wasWelcomed {
		l.pause, l.refused, l.stale = retryFirst, refusedFirst, false
	}
	part := func(d time.Duration) time.Duration { return time.Duration(s.random.Float64() * float64(d)) }
	var wait time.Duration
	switch {
	case errors.Is(why, member.ErrStale) && !l.stale:
		l.stale = true
		wait = part(renewTime)
	case errors.Is(why, member.ErrAlreadyExists), errors.Is(why, member.ErrRefused), errors.Is(why, member.ErrInvalid):
		wait = l.refused/2 + part(l.refused/2)
		l.refused = min(2*l.refused, refusedMax)
	case wasWelcomed:
		wait = part(l.spread)
	default:
		wait = l.pause/2 + part(l.pause/2)
		l.pause = min(l.pause*8/5, max(retryMax, l.spread))
	}
	s.agentAfter(h, wait, func() { s.attempt(h) })
}

// hearCoordinator takes one message in the agent's process.
func (s *Sim) hearCoordinator(st *stream, message any) {
	h := st.host
	l := &h.agent.link
	if l.stream != st {
		return
	}
	switch m := message.(type) {
	case pool.Welcome:
		s.accepted(h, m)
	case pool.Assign:
		s.obey(h, m.Assignment)
	case pool.Ask:
		s.examine(h, st, m)
	case pool.Challenge:
		s.sendUp(st, pool.Echo(m))
	case digestAck:
		if m.seq >= l.unacked {
			l.unacked = 0
		}
	case farewell:
		if removed, ok := errors.AsType[*member.RemovedError](m.err); ok && removed.Incarnation == h.agent.incarnation {
			h.agent.incarnation = 0
		}
		s.closeUp(st)
		l.stream = nil
		s.lost(h, l.welcomed, m.err)
	}
}

func (s *Sim) accepted(h *host, m pool.Welcome) {
	l := &h.agent.link
	l.welcomed = true
	l.spread = max(time.Second, time.Duration(m.Members)*time.Millisecond)
	h.agent.incarnation = m.Incarnation
	s.obey(h, m.Assignment)
	for _, v := range h.agent.detector.Views(h.clock.read(s.now)) {
		if v.Evidence.Sight != detector.Unknown {
			s.report(h, detector.Report{Key: v.Key, Evidence: v.Evidence, LostOfTen: v.LostOfTen})
		}
	}
	s.sendDigest(h, l.stream)
	s.keepLying(h, l.stream)
}

// obey watches whom the coordinator says and acknowledges it once it is saved.
func (s *Sim) obey(h *host, a pool.Assignment) {
	st := h.agent.link.stream
	h.agent.saved = assignment{subjects: make([]detector.Subject, len(a.Subjects)), interval: a.Interval}
	for i, sub := range a.Subjects {
		h.agent.saved.subjects[i] = toSubject(sub)
	}
	s.drive(h, h.agent.detector.Assign(h.clock.read(s.now), a.Interval, h.agent.saved.subjects))
	s.agentAfter(h, saveTime, func() {
		s.sendUp(st, pool.AssignmentAck{Session: st.id, Seq: a.Seq})
	})
}

// report hands a change of sight on.
func (s *Sim) report(h *host, r detector.Report) {
	st := h.agent.link.stream
	if st == nil || !h.agent.link.welcomed {
		return
	}
	s.sendUp(st, pool.Report{
		Session: st.id, Subject: r.ID, Incarnation: r.Incarnation, LostOfTen: r.LostOfTen,
		Evidence: s.coloured(h, toEvidence(r.Evidence, h.clock.read(s.now))),
	})
}

// sendDigest says everything that is seen, now and every few seconds.
func (s *Sim) sendDigest(h *host, st *stream) {
	l := &h.agent.link
	if l.stream != st {
		return
	}
	now := h.clock.read(s.now)
	d := pool.Digest{Session: st.id}
	d.SelfScore, _ = h.agent.detector.Self(now)
	if h.agent.lie != Honest {
		d.SelfScore = 0
	}
	for _, v := range h.agent.detector.Views(now) {
		if v.Evidence.Sight == detector.Unknown {
			continue
		}
		d.Subjects = append(d.Subjects, pool.SubjectDigest{
			Subject: v.ID, Incarnation: v.Incarnation, LostOfTen: v.LostOfTen,
			Evidence: s.coloured(h, toEvidence(v.Evidence, now)),
		})
	}
	l.digests++
	s.sendUp(st, digest{d, l.digests})
	if l.unacked == 0 {
		l.unacked = l.digests
		s.agentAfter(h, ackTime, func() {
			if l.stream == st && l.unacked != 0 {
				s.leaveStream(h, errNoAck)
			}
		})
	}
	s.agentAfter(h, digestEvery, func() { s.sendDigest(h, st) })
}

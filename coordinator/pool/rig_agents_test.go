package pool_test

import (
	"net/netip"
	"slices"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/coordinator/verdict"
	"github.com/buddyring/buddyring/internal/member"
)

// connect opens a stream, often beside one that is open.
func (g *rig) connect(a *rigAgent) {
	if !a.up {
		return
	}
	switch g.n(8) {
	case 0:
		a.restart(g)
	case 1:
		a.hello.Incarnation = 0
	case 2:
		a.hello.Spec = a.hello.Spec.Clone()
		a.hello.Spec.Weight = uint32(g.n(200))
	case 3:
		a.hello.Identity = []string{"", "spiffe://x/" + string(a.hello.ID)}[g.n(2)]
	default:
		a.hello.Incarnation = a.known
	}
	if a.peer != nil && a.peer.open() && g.n(2) == 0 {
		g.close(a.peer, g.n(2) == 0)
	}
	a.sees = map[member.ID]pool.Sight{}
	h := a.hello
	g.last++
	h.Session = pool.SessionID(g.last)
	a.peer = &peer{hello: h}
	g.peers[h.Session] = a.peer
	g.play(h)
}

// crash takes a host off the network, without a word.
func (g *rig) crash(a *rigAgent) {
	a.up = false
	g.truth(a)
	if g.n(4) == 0 {
		g.disconnect(a)
	}
}

func (g *rig) revive(a *rigAgent) {
	if a.up {
		return
	}
	a.up = true
	if g.n(2) == 0 {
		a.reboot(g)
	}
	g.truth(a)
	g.connect(a)
}

func (g *rig) disconnect(a *rigAgent) {
	if a.peer != nil && a.peer.open() {
		g.close(a.peer, a.up && g.n(2) == 0)
	}
}

// truth lets the watchers of a host notice what has become of it.
func (g *rig) truth(a *rigAgent) {
	for _, o := range g.agents {
		if o == a || o.peer == nil {
			continue
		}
		for _, s := range o.peer.assigned.Subjects {
			if s.ID == a.hello.ID {
				g.later(time.Duration(20+g.n(500))*time.Millisecond, func() { g.notice(o, s) })
			}
		}
	}
}

// notice reports what an agent sees, if it has changed.
func (g *rig) notice(o *rigAgent, s pool.Subject) {
	if !o.up || o.peer == nil || !o.peer.open() {
		return
	}
	seen := g.sight(s)
	if o.sees[s.ID] == seen {
		return
	}
	o.sees[s.ID] = seen
	g.play(pool.Report{Session: o.peer.hello.Session, Subject: s.ID, Incarnation: s.Incarnation, Evidence: evidence(seen), LostOfTen: g.lost(s.ID)})
}

// sight is what an observer sees: the truth, or something else.
func (g *rig) sight(s pool.Subject) pool.Sight {
	if g.n(8) >= g.honest && !g.calm {
		return pool.Sight(g.n(4))
	}
	if g.isUp(s.Addresses) {
		return up
	}
	return down
}

func (g *rig) isUp(addresses []netip.Addr) bool {
	return slices.ContainsFunc(g.agents, func(a *rigAgent) bool {
		return a.up && slices.Contains(addresses, a.hello.Spec.ProbeAddresses[0])
	})
}

// watch lets an agent take up an assignment.
func (g *rig) watch(a *rigAgent, as pool.Assignment) {
	if g.n(2) == 0 {
		g.later(time.Millisecond, func() { g.play(pool.AssignmentAck{Session: a.peer.hello.Session, Seq: as.Seq}) })
	}
	for _, s := range as.Subjects {
		g.later(time.Duration(1+g.n(20))*time.Millisecond, func() { g.notice(a, s) })
	}
}

func (g *rig) agentOf(id pool.SessionID) *rigAgent {
	for _, a := range g.agents {
		if a.peer != nil && a.peer.hello.Session == id && a.peer.open() {
			return a
		}
	}
	return nil
}

// examine lets an observer answer a question, as agents do: at once when the
// server replies, otherwise after the first lost probe and at the end.
func (g *rig) examine(e pool.Ask) {
	a := g.agentOf(e.Session)
	if a == nil || !a.up {
		return
	}
	answer := func(s pool.Sight, final bool) {
		if a.peer != nil && a.peer.open() && a.peer.hello.Session == e.Session {
			selfScore := 0
			if g.n(16) == 0 && !g.calm {
				selfScore = 1
			}
			g.remember(pool.Answer{
				Session: e.Session, Round: e.Round, Subject: e.Subject.ID, Incarnation: e.Subject.Incarnation,
				Evidence: g.examined(e, s, final), Final: final, SelfScore: selfScore,
			})
		}
	}
	s := g.sight(e.Subject)
	if s != down {
		answer(s, true)
		return
	}
	g.later(e.Timeout, func() { answer(down, false) })
	g.later(e.Over+e.Timeout, func() { answer(g.sight(e.Subject), true) })
}

// lost is how many of ten probes a watcher loses to a member: with some, many.
func (g *rig) lost(id member.ID) int {
	if g.lossy[id] && !g.calm {
		return 4 + g.n(7)
	}
	return g.n(3)
}

// examined is what an observer's probes and connects come to.
func (g *rig) examined(e pool.Ask, s pool.Sight, final bool) pool.Evidence {
	ev := evidence(s)
	if e.Exhaustive {
		ev.Sent, ev.Lost = e.Probes, min(e.Probes, g.lost(e.Subject.ID))
		return ev
	}
	if s != up && final {
		ev.Connect = verdict.ConnectUnanswered
		if g.isUp(e.Subject.Addresses) && g.n(4) == 0 || g.n(32) == 0 && !g.calm {
			ev.Connect = verdict.ConnectAnswered
		}
	}
	return ev
}

// speak lets somebody say something about somebody.
func (g *rig) speak() {
	a := g.agents[g.n(rigAgents)]
	if a.peer == nil || !a.peer.open() {
		return
	}
	var subjects []pool.SubjectDigest
	for _, s := range a.peer.assigned.Subjects {
		subjects = append(subjects, pool.SubjectDigest{Subject: s.ID, Incarnation: s.Incarnation, Evidence: evidence(g.sight(s)), LostOfTen: g.lost(s.ID)})
	}
	if g.n(2) == 0 {
		g.play(pool.Digest{Session: a.peer.hello.Session, Subjects: subjects, SelfScore: max(0, g.n(8)-6)})
		return
	}
	if len(subjects) > 0 {
		s := subjects[g.n(len(subjects))]
		g.play(pool.Report{Session: a.peer.hello.Session, Subject: s.Subject, Incarnation: s.Incarnation - member.Incarnation(g.n(9)/8), Evidence: s.Evidence, LostOfTen: s.LostOfTen})
	}
}

// doubtAll lets all watchers of a member miss it.
func (g *rig) doubtAll(id member.ID) {
	row, ok := g.table.rows[id]
	if !ok || row.First == "" {
		return
	}
	for _, o := range []member.ID{row.First, row.Second} {
		if p := g.byID[o]; p != nil && p.open() {
			g.play(pool.Report{Session: p.hello.Session, Subject: id, Incarnation: row.Incarnation, Evidence: evidence(down)})
		}
	}
}

// leave lets an agent leave, at once or after a drain; or the routers answer
// those that drain.
func (g *rig) leave() {
	if g.n(2) == 0 {
		g.confirm()
	}
	a := g.agents[g.n(rigAgents)]
	if a.peer != nil && a.peer.open() {
		g.play(pool.Leave{
			Session: a.peer.hello.Session, Incarnation: a.known - member.Incarnation(g.n(9)/8), Drain: time.Duration(g.n(3)) * time.Second,
		})
	}
}

// repeat says something again, or two things at once.
func (g *rig) repeat() {
	if len(g.old) > 0 {
		a, b := g.old[g.n(len(g.old))], g.old[g.n(len(g.old))]
		if in, ok := a.(pool.Answer); ok && g.n(2) == 0 {
			// Another speaks up in the name of the round.
			if p := g.byID[serverID(g.n(rigServers))]; p != nil {
				in.Session = p.hello.Session
				a = in
			}
		}
		g.play(a, b)
	}
}

// nonsense says what no agent and no host would.
func (g *rig) nonsense() {
	s, id := pool.SessionID(g.n(int(g.last)+3)), serverID(g.n(rigServers+1))
	e := pool.Evidence{
		Sight: pool.Sight(g.n(6)), Sent: g.n(9) - 4, Lost: g.n(9) - 4, RTT: time.Duration(g.n(9)-4) * time.Second,
		FirstLostAge: time.Duration(g.n(9)-4) * time.Hour, LastReplyAge: time.Duration(g.n(9)-4) * time.Hour,
	}
	inc := member.Incarnation(g.n(int(g.table.at.Revision) + 2))
	switch g.n(11) {
	case 9:
		g.play(pool.ServiceHealth{Session: s, Incarnation: inc, Down: g.n(2) == 0, Undecided: g.n(4) == 0, Text: "nonsense"})
	case 10:
		// A check that fails, now and then.
		if p := g.byID[serverID(g.n(rigServers))]; p != nil && p.speaks() {
			g.play(pool.ServiceHealth{Session: p.hello.Session, Incarnation: p.inc, Down: g.n(2) == 0, Text: "http://: 503"})
		}
	case 0:
		g.play(pool.Report{Session: s, Subject: id, Incarnation: inc, Evidence: e})
	case 1:
		g.play(pool.Digest{Session: s, SelfScore: g.n(5) - 2, Subjects: []pool.SubjectDigest{{Subject: id, Incarnation: inc, Evidence: e}}})
	case 2:
		g.play(pool.Answer{Session: s, Round: uint64(g.n(9)), Subject: id, Incarnation: inc, Evidence: e, Final: g.n(2) == 0, SelfScore: g.n(5) - 2})
	case 3:
		g.play(pool.Echo{Session: s, Nonce: uint64(g.n(9))})
	case 4:
		g.play(pool.AssignmentAck{Session: s, Seq: uint64(g.n(99))})
	case 5:
		g.play(pool.Dialed{Round: uint64(g.n(9)), Answered: g.n(2) == 0})
	case 6:
		g.play(pool.Committed{ChangeID: "9-1"})
	case 7:
		g.play(pool.Rejected{ChangeID: "9-1", Err: errDatabase})
	case 8:
		// The clock of the host goes back, or the host comes late.
		now := g.now
		g.now = g.now.Add(-time.Duration(g.n(5)) * time.Second)
		g.step(pool.Tick{})
		g.now = now
	}
}

package pool_test

import (
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/internal/member"
)

// settle lets all be well for a while: nobody lies any more, and who is there
// says what it sees. Then nobody may be left waiting, and everything must have
// come out as it is.
func (g *rig) settle() {
	g.calm, g.old = true, nil
	for turns := 0; turns < 11 || g.lingers(); turns++ {
		g.confirm()
		for _, a := range g.agents {
			if a.up && a.peer != nil && a.peer.speaks() {
				in := pool.Digest{Session: a.peer.hello.Session}
				for _, s := range a.peer.assigned.Subjects {
					in.Subjects = append(in.Subjects, pool.SubjectDigest{Subject: s.ID, Incarnation: s.Incarnation, Evidence: evidence(g.sight(s))})
				}
				g.play(in)
			}
		}
		g.pass(5 * time.Second)
		for g.flight != nil {
			g.decide()
		}
	}
	for id, p := range g.peers {
		if p.open() && !p.welcomed {
			g.fail("session %d of %s gets no answer", id, p.hello.ID)
		}
	}
	for token, c := range g.calls {
		if c.reply == nil {
			g.fail("token %d gets no answer: %+v", token, c.in)
		}
	}
	live := 0
	for _, row := range g.table.rows {
		if g.isLive(row) {
			live++
		}
	}
	for _, row := range g.table.rows {
		g.checkSettled(row, live)
	}
	g.calm = false
}

// lingers reports whether a dead member was let out of its hold-down so lately that its
// agent, of which nobody has heard, still has time to come.
func (g *rig) lingers() bool {
	for _, row := range g.table.rows {
		if row.Phase == member.PhaseJoining && !g.isUp(row.Spec.ProbeAddresses) && !g.isLive(row) && g.now.Sub(row.Since) < joinPatience {
			return true
		}
	}
	return false
}

// isLive reports whether a member's host is well and its agent has a stream.
func (g *rig) isLive(row member.Server) bool {
	p := g.byID[row.ID]
	a := (*rigAgent)(nil)
	if p != nil {
		a = g.agentOf(p.hello.Session)
	}
	return a != nil && a.up && p.speaks()
}

// stopped are the rules that may have let go only now.
var stopped = map[string]bool{"brake": true, "zone_brake": true, "floor": true}

func (g *rig) checkSettled(row member.Server, live int) {
	st, _ := g.m.Server(row.ID)
	n := len(g.table.rows)
	judged := g.table.settings.Mode == member.ModeEnforce && g.table.intents[row.ID].Wish != member.WishMaintenance
	watched := row.First != "" && (g.isLive(g.table.rows[row.First]) || g.isLive(g.table.rows[row.Second]))
	switch isUp := g.isUp(row.Spec.ProbeAddresses); {
	case g.isLive(row) && (row.Phase == member.PhaseServiceDown || st.ServiceText != "" || g.alarm("SERVICE_DOWN", row.ID)):
		g.fail("the service of %s is well and said to be down", row.ID)
	case isUp && st.Suspect && n > 1:
		g.fail("%s is well and suspect", row.ID)
	case isUp && row.Phase == member.PhaseJoining && (watched || n == 1):
		g.fail("%s is well and does not become active", row.ID)
	case isUp && g.alarm("UNREACHED", row.ID):
		g.fail("%s is well and said to be unreached", row.ID)
	case !isUp && row.Phase == member.PhaseJoining && !g.isLive(row):
		g.fail("%s is dead and goes on joining", row.ID)
	case !isUp && judged && row.Phase != member.PhaseJoining && live >= min(3, n-1) && n > 2 && len(g.m.Brake().Stops) == 0 && !stopped[g.rule(row.ID)]:
		g.fail("%s is dead and stays by %s, of %d with %d live ones", row.ID, g.rule(row.ID), n, live)
	case g.isLive(row) && g.alarm("AGENT_DOWN", row.ID):
		g.fail("the agent of %s is there and said to be down", row.ID)
	case !g.isLive(row) && !g.alarm("AGENT_DOWN", row.ID) && !st.Suspect:
		g.fail("the agent of %s is down and nobody is told", row.ID)
	}
}

// drain lets everybody go and time pass: the machine must keep nothing then.
func (g *rig) drain() {
	// The machine pauses after a rejected change.
	g.commitAll()
	g.wait(time.Second)
	g.commitAll()
	for i := range rigServers + 1 {
		g.intend(serverID(i), member.WishActive)
	}
	g.commitAll()
	for len(g.table.order) > 0 {
		for _, id := range g.table.order {
			g.remove(id)
		}
		g.commitAll()
	}
	for _, p := range g.peers {
		if p.open() {
			g.close(p, true)
		}
	}
	g.answers = nil
	for g.flight != nil || !g.timer.IsZero() {
		g.commitAll()
		g.wait(24 * time.Hour)
	}
	for what, n := range g.m.Sizes() {
		if n != 0 {
			g.fail("%d %s are left", n, what)
		}
	}
	if n := g.m.Wakes(); n != 0 || !g.timer.IsZero() {
		g.fail("%d looks are left, the next at %v", n, g.timer)
	}
}

package pool_test

import (
	"fmt"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/internal/member"
)

// restart ends the machine: the process dies, or another leader takes over. The
// change under way may or may not have made it into the table.
func (g *rig) restart() {
	if g.n(2) == 0 {
		g.fence()
	}
	if g.flight != nil && g.n(2) == 0 {
		g.table.apply(g.t, *g.flight)
	}
	g.table.at.Epoch++
	g.now = g.now.Add(time.Duration(g.n(20)) * time.Second)
	g.mirrored = g.n(16) == 0
	g.boot()
	g.answers, g.old = nil, nil
	g.learnIntents()
	for _, a := range g.agents {
		a.peer, a.sees = nil, map[member.ID]pool.Sight{}
	}
}

// fence tells the machine of another leader: everybody who waits must hear of it.
func (g *rig) fence() {
	g.effects = g.m.Step(g.now, pool.Fenced{})
	for _, e := range g.effects {
		switch e := e.(type) {
		case pool.Refuse:
			g.refuse(e)
		case pool.Reply:
			g.reply(e)
			if e.Err == nil {
				g.fail("token %d is answered well although the machine is fenced", e.Token)
			}
		case pool.LeaveDone:
			if e.Left {
				g.fail("session %d has left although the machine is fenced", e.Session)
			}
		case pool.SetTimer:
		default:
			g.fail("%s although the machine is fenced", text(e))
		}
	}
	for id, p := range g.peers {
		if p.open() {
			g.fail("session %d of %s is not told of the fence", id, p.hello.ID)
		}
	}
	for token, c := range g.calls {
		if c.reply == nil {
			g.fail("token %d is not told of the fence", token)
		}
	}
	if more := g.m.Step(g.now, pool.Tick{}); len(more) > 0 {
		g.fail("a fenced machine goes on: %s", texts(more))
	}
}

// operate gives an operator's command.
func (g *rig) operate() {
	id := serverID(g.n(rigServers + 1))
	of := pool.Call{Actor: "ops", ValidateOnly: g.n(12) == 0}
	if g.n(4) == 0 {
		of.RequestID, of.Hash = fmt.Sprint("request ", g.n(6)), fmt.Sprint(g.n(2))
	}
	if g.n(6) == 0 {
		revision := g.table.at.Revision + member.Revision(g.n(3)) - 1
		of.ExpectedRevision = &revision
	}
	g.call(func(c pool.Call) pool.Input { return g.command(c, id) }, of)
}

func (g *rig) command(c pool.Call, id member.ID) pool.Input {
	switch k := g.n(16); {
	case k == 15:
		return pool.ReplaceServer{Call: c, ID: id, By: serverID(g.n(rigServers + 1)), Force: g.n(2) == 0}
	case k == 14:
		return pool.DrainServer{Call: c, ID: id, Incarnation: member.Incarnation(max(0, g.n(20)-16)), Force: g.n(2) == 0}
	case k == 13:
		return pool.ResumeServer{Call: c, ID: id}
	case k == 12:
		return pool.ReleaseBrake{Call: c}
	case k < 5:
		expires := time.Duration(0)
		if g.n(3) == 0 {
			expires = time.Duration(1+g.n(3000)) * time.Millisecond
		}
		return pool.SetIntent{Call: c, ID: id, Wish: member.WishActive + member.Wish(g.n(4)), ExpiresIn: expires}
	case k < 7:
		return pool.RemoveServer{Call: c, ID: id, Incarnation: member.Incarnation(max(0, g.n(20)-16))}
	case k < 9:
		weight := uint32(g.n(int(member.MaxWeight) + 10))
		return pool.UpdateServer{Call: c, ID: id, Edit: func(s member.Spec) (member.Spec, error) {
			s.Weight = weight
			return s, nil
		}}
	default:
		edited := member.DefaultSettings()
		edited.Mode = []member.Mode{member.ModeEnforce, member.ModeEnforce, member.ModeEnforce, member.ModeShadow, member.ModePaused, 9}[g.n(6)]
		edited.RemovalGrace = []time.Duration{0, 0, time.Second}[g.n(3)]
		edited.HoldDown = []time.Duration{0, time.Second, 5 * time.Second}[g.n(3)]
		edited.BrakeLeast = []int{0, 1, 3, 3}[g.n(4)]
		edited.BrakePercent = []int{10, 10, 100}[g.n(3)]
		edited.FloorPercent = []int{50, 50, 100}[g.n(3)]
		return pool.UpdateSettings{Call: c, Edit: func(member.Settings) (member.Settings, error) { return edited, nil }}
	}
}

// heardReply follows in the naive model of the wishes what was acknowledged.
func (g *rig) heardReply(c *call) {
	if c.reply.Err != nil || c.of.ValidateOnly || g.requests[c.of.RequestID] {
		return
	}
	if c.of.RequestID != "" {
		g.requests[c.of.RequestID] = true
	}
	at := c.reply.Revision
	switch in := c.in.(type) {
	case pool.SetIntent:
		g.acknowledge(in.ID, rigIntent{in.Wish, in.ExpiresIn, at})
	case pool.DrainServer:
		g.acknowledge(in.ID, rigIntent{member.WishDrain, 0, at})
	case pool.ResumeServer:
		g.acknowledge(in.ID, rigIntent{member.WishActive, 0, at})
	case pool.ReplaceServer:
		if in.ID != in.By {
			g.acknowledge(in.ID, rigIntent{member.WishBanned, 0, at})
		}
	}
}

// acknowledge notes an intent unless a later one is known.
func (g *rig) acknowledge(id member.ID, i rigIntent) {
	if i.at >= g.intents[id].at {
		g.intents[id] = i
	}
}

// learnIntents takes the table's word after the machine's replies were lost.
func (g *rig) learnIntents() {
	for id := range g.table.requests {
		g.requests[id] = true
	}
	g.intents = map[member.ID]rigIntent{}
	for id, i := range g.table.intents {
		life := time.Duration(0)
		if !i.ExpiresAt.IsZero() {
			life = i.ExpiresAt.Sub(i.SetAt)
		}
		g.intents[id] = rigIntent{i.Wish, life, 0}
	}
}

// follow compares the table with what was acknowledged.
func (g *rig) follow() {
	if n, most := g.m.Wakes(), 200+40*(len(g.table.rows)+len(g.byID))+len(g.table.requests)+len(g.table.departed); n > most {
		g.fail("%d looks are arranged, more than %d", n, most)
	}
	if g.flight != nil {
		return
	}
	for i := range rigServers + 1 {
		id := serverID(i)
		model, is := g.intents[id], g.table.intents[id]
		want := model.wish
		if want == member.WishActive {
			want = member.WishUnspecified
		}
		if is.Wish != want && (is.Wish != member.WishUnspecified || model.life == 0) {
			g.fail("%s was acknowledged as the intent for %s, the table has %s", want, id, is.Wish)
		}
	}
}

package pool_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/internal/member"
)

// source draws the choices of a rig: a seeded generator, or a fuzzer's bytes.
type source interface {
	// n returns a number from 0 to k-1.
	n(k int) int
}

type seeded struct{ *rand.Rand }

func (s seeded) n(k int) int { return s.IntN(k) }

// fuzzed takes its choices from bytes, and 0 once they are used up.
type fuzzed struct{ data *[]byte }

func (f fuzzed) n(k int) int {
	v := 0
	for span := 1; span < k && len(*f.data) > 0; span <<= 8 {
		v = v<<8 | int((*f.data)[0])
		*f.data = (*f.data)[1:]
	}
	return v % k
}

// rig plays agents, database, operators and clock at a desk at random: most of
// them behave, so that things get somewhere, and some lie, repeat themselves,
// come late or make no sense.
type rig struct {
	*desk
	source
	agents []*rigAgent
	// answers are what agents are about to say, with when.
	answers []due
	// old are answers that were given, to be given again.
	old []pool.Input
	// honest is how many of eight answers are true; calm makes all of them so, and
	// all commits succeed.
	honest int
	calm   bool
	// intents is the naive model of the wishes: what was acknowledged last.
	intents map[member.ID]rigIntent
	// lossy are the members whose links lose many packets.
	lossy map[member.ID]bool
	// requests are the request ids that were acknowledged.
	requests map[string]bool
}

type due struct {
	at time.Time
	do func()
}

type rigIntent struct {
	wish member.Wish
	// life is 0 for a wish without an end.
	life time.Duration
	// at is the revision at which it was acknowledged. Of two calls under way at
	// once the one that took effect first may be answered last.
	at member.Revision
}

// rigAgent is a host and its agent. Several may go by one name.
type rigAgent struct {
	hello pool.Hello
	boots int
	runs  int
	// up is whether its host is well.
	up    bool
	peer  *peer
	sees  map[member.ID]pool.Sight
	known member.Incarnation
}

const (
	rigServers = 8
	rigAgents  = rigServers + 2
)

func newRig(t testing.TB, s source, record bool) *rig {
	g := &rig{desk: newDesk(t), source: s, intents: map[member.ID]rigIntent{}, requests: map[string]bool{}, lossy: map[member.ID]bool{}}
	g.honest = 4 + s.n(5)
	g.record, g.replied = record, g.heardReply
	for i := range rigAgents {
		h := agent(serverID(i % rigServers))
		// The last two are clones of the first two, elsewhere.
		h.Spec.ProbeAddresses = []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 1, byte(i)})}
		h.Spec.Rack, h.Spec.Zone = fmt.Sprint("r", s.n(4)), fmt.Sprint("z", s.n(2))
		h.TellRemoval = i%2 == 0
		a := &rigAgent{hello: h, sees: map[member.ID]pool.Sight{}}
		g.agents = append(g.agents, a)
		a.reboot(g)
		a.up = true
	}
	if g.mirrored = s.n(16) == 0; g.mirrored {
		g.boot()
	}
	g.populate(s.n(rigServers + 1))
	return g
}

func serverID(i int) member.ID { return member.ID(string(rune('a' + i))) }

func (a *rigAgent) reboot(g *rig) {
	a.boots++
	a.hello.BootID = fmt.Sprintf("%s-boot-%d", a.hello.Spec.ProbeAddresses[0], a.boots)
	a.restart(g)
}

func (a *rigAgent) restart(*rig) {
	a.runs++
	a.hello.InstanceID = fmt.Sprintf("%s-run-%d", a.hello.BootID, a.runs)
}

// populate joins some members without further ado.
func (g *rig) populate(n int) {
	for _, a := range g.agents[:n] {
		g.connect(a)
	}
	g.commitAll()
	for _, id := range g.table.order {
		if row := g.table.rows[id]; row.First != "" {
			g.report(row.First, id, up)
		}
	}
	g.commitAll()
	g.pass(time.Duration(g.n(3)) * time.Second)
}

// steps plays so many random turns.
func (g *rig) steps(n int) {
	for range n {
		g.turn()
		g.follow()
	}
}

// turn does one thing.
func (g *rig) turn() {
	switch g.n(25) {
	case 0, 1:
		g.connect(g.agents[g.n(rigAgents)])
	case 2:
		g.crash(g.agents[g.n(rigAgents)])
	case 3:
		g.revive(g.agents[g.n(rigAgents)])
	case 4:
		g.disconnect(g.agents[g.n(rigAgents)])
	case 5, 6, 7:
		g.speak()
	case 8:
		g.leave()
	case 9, 10:
		g.operate()
	case 11:
		g.repeat()
	case 12:
		g.nonsense()
	case 13:
		if g.flight != nil {
			g.reject()
		}
	case 14:
		if g.n(6) == 0 {
			g.restart()
		}
	case 15:
		g.doubtAll(serverID(g.n(rigServers)))
	case 23:
		if id := serverID(g.n(rigServers)); g.n(3) == 0 {
			g.lossy[id] = !g.lossy[id]
		}
	case 22:
		// A death that takes its course.
		a := g.agents[g.n(rigAgents)]
		g.crash(a)
		g.doubtAll(a.hello.ID)
		g.pass(time.Duration(500+g.n(500)) * time.Millisecond)
	case 16, 17, 18:
		g.pass(time.Duration(1+g.n(200)) * time.Millisecond)
	case 19, 20:
		g.pass(time.Duration(400+g.n(800)) * time.Millisecond)
	case 21:
		g.pass(time.Duration(1+g.n(8)) * time.Second)
	default:
		if g.flight != nil {
			g.commit()
		}
	}
}

// play makes a step and arranges what follows from its effects.
func (g *rig) play(in ...pool.Input) {
	g.step(in...)
	for _, e := range g.effects {
		g.expect(e)
	}
}

func (g *rig) expect(e pool.Effect) {
	switch e := e.(type) {
	case pool.Ask:
		g.later(time.Millisecond, func() { g.examine(e) })
	case pool.Challenge:
		g.later(time.Duration(1+g.n(300))*time.Millisecond, func() {
			a := g.agentOf(e.Session)
			if a != nil && a.up && (g.n(8) < g.honest || g.calm) {
				g.remember(pool.Echo(e))
			}
		})
	case pool.Dial:
		g.later(min(e.Timeout, time.Second), func() {
			g.remember(pool.Dialed{Round: e.Round, Answered: g.n(4) == 0 && !g.calm, CannotJudge: g.n(8) == 0 && !g.calm})
		})
	case pool.Welcome:
		if a := g.agentOf(e.Session); a != nil {
			a.known = e.Incarnation
			g.watch(a, e.Assignment)
		}
	case pool.Refuse:
		var removed *member.RemovedError
		for _, a := range g.agents {
			if errors.As(e.Err, &removed) && a.hello.ID == removed.ID && a.known == removed.Incarnation {
				a.known = 0
			}
		}
	case pool.Assign:
		if a := g.agentOf(e.Session); a != nil {
			g.watch(a, e.Assignment)
		}
	}
}

// remember says something, and keeps it to be said again.
func (g *rig) remember(in pool.Input) {
	g.old = append(g.old, in)
	g.play(in)
}

func (g *rig) later(after time.Duration, do func()) {
	g.answers = append(g.answers, due{g.now.Add(after), do})
}

// pass lets time pass: Ticks when they are wanted, and what agents say.
func (g *rig) pass(span time.Duration) {
	for end := g.now.Add(span); ; {
		next, tick := end, false
		if !g.timer.IsZero() && !g.timer.After(next) {
			next, tick = g.timer, true
		}
		first := -1
		for i, a := range g.answers {
			if a.at.Before(next) {
				next, first, tick = a.at, i, false
			}
		}
		if next.After(g.now) {
			g.now = next
		}
		switch {
		case first >= 0:
			do := g.answers[first].do
			g.answers[first] = g.answers[len(g.answers)-1]
			g.answers = g.answers[:len(g.answers)-1]
			do()
		case tick:
			g.play(pool.Tick{})
		default:
			return
		}
		if g.flight != nil && (g.calm || g.n(4) == 0) {
			g.decide()
		}
	}
}

// decide settles the change under way.
func (g *rig) decide() {
	if g.n(8) == 0 && !g.calm {
		g.reject()
	} else {
		g.commit()
	}
	for _, e := range g.effects {
		g.expect(e)
	}
}

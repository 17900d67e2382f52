package pool_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/coordinator/verdict"
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
		ev.Sent, ev.Lost = e.Probes, g.lost(e.Subject.ID)
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
	switch k := g.n(15); {
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
	switch in := c.in.(type) {
	case pool.SetIntent:
		g.intents[in.ID] = rigIntent{in.Wish, in.ExpiresIn}
	case pool.DrainServer:
		g.intents[in.ID] = rigIntent{wish: member.WishDrain}
	case pool.ResumeServer:
		g.intents[in.ID] = rigIntent{wish: member.WishActive}
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
		g.intents[id] = rigIntent{i.Wish, life}
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

// settle lets all be well for a while: nobody lies any more, and who is there
// says what it sees. Then nobody may be left waiting, and everything must have
// come out as it is.
func (g *rig) settle() {
	g.calm, g.old = true, nil
	for range 11 {
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

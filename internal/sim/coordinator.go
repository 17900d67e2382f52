package sim

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/coordinator/ring"
	"github.com/buddyring/buddyring/internal/member"
)

const poolName = member.DefaultPool

// coordinator is the shell around the machine of the pool, with its table.
type coordinator struct {
	s       *Sim
	machine *pool.Machine
	clock   clock

	streams map[pool.SessionID]*stream
	lastID  pool.SessionID
	// timer is when the machine wants a Tick, or the zero time; armed, when one is
	// arranged for.
	timer time.Time
	armed time.Duration
	// rows is the table, written by commits.
	rows map[member.ID]member.Server

	meter    meter
	messages int
}

// The server's keepalive, after which it gives a connection up.
const keepalive = 30 * time.Second

func newCoordinator(s *Sim) (*coordinator, error) {
	c := &coordinator{
		s: s, clock: newClock(), streams: map[pool.SessionID]*stream{}, armed: never, rows: map[member.ID]member.Server{},
	}
	state := member.PoolState{Name: poolName, Position: member.Position{Epoch: 1}, Settings: s.options.Settings}
	if !s.options.Bootstrap {
		state.Servers = s.fullTable(c.clock.read(0))
		state.Position.Revision = member.Revision(len(state.Servers))
		state.ReferenceSize = len(state.Servers)
	}
	for _, row := range state.Servers {
		c.rows[row.ID] = row.Clone()
	}
	var err error
	c.machine, err = pool.New(state, pool.Config{Seed: s.options.Seed, Now: c.clock.read(0)})
	return c, err
}

// fullTable is the table of a pool that all hosts have joined, one after the
// other; their agents have it in their state directories.
func (s *Sim) fullTable(now time.Time) []member.Server {
	draft := ring.New().Draft()
	site := func(id member.ID) ring.Site { return ring.Site{Zone: s.byID[id].zone, Rack: s.byID[id].rack} }
	for _, i := range s.random.Perm(len(s.hosts)) {
		h := s.hosts[i]
		at, _ := draft.Place(site(h.id), s.random.Uint64, site)
		draft.Splice(h.id, at)
	}
	rows := make([]member.Server, len(s.hosts))
	for i, h := range s.hosts {
		buddies, _ := draft.Buddies(h.id)
		h.agent.incarnation = member.Incarnation(i + 1)
		rows[i] = member.Server{
			ID: h.id, Incarnation: h.agent.incarnation, Phase: member.PhaseActive, First: buddies.First, Second: buddies.Second,
			Spec: h.spec(), BootID: h.bootID(), InstanceID: h.instanceID(1), JoinedAt: now, Since: now,
		}
	}
	return rows
}

func (c *coordinator) start() { c.step(pool.Tick{}) }

// accept opens the coordinator's side of a stream.
func (c *coordinator) accept(h *host) *stream {
	c.lastID++
	st := &stream{id: c.lastID, host: h, boot: h.boot, run: h.run, agentOpen: true, coordinatorOpen: true, heard: c.s.now}
	c.streams[st.id] = st
	c.keepAlive(st)
	return st
}

// keepAlive ends a stream of which nothing is heard for too long.
func (c *coordinator) keepAlive(st *stream) {
	c.s.after(st.heard+keepalive-c.s.now, func() {
		switch {
		case !st.coordinatorOpen:
		case c.s.now-st.heard >= keepalive:
			c.ended(st, false)
		default:
			c.keepAlive(st)
		}
	})
}

// ended hears that a stream is over; byPeer, that the host's kernel said so.
func (c *coordinator) ended(st *stream, byPeer bool) {
	if !st.coordinatorOpen {
		return
	}
	st.coordinatorOpen = false
	delete(c.streams, st.id)
	c.step(pool.Closed{Session: st.id, ByPeer: byPeer})
}

// hear takes a message of an agent.
func (c *coordinator) hear(st *stream, message any) {
	if !st.coordinatorOpen {
		return
	}
	c.messages++
	switch m := message.(type) {
	case fin:
		c.ended(st, true)
	case digest:
		c.s.sendDown(st, digestAck{m.seq})
		c.step(m.Digest)
	case pool.Report:
		c.disturbed(st, m)
	case pool.Answer:
		c.disturbed(st, m)
	case pool.Echo:
		c.disturbed(st, m)
	case pool.Input:
		c.step(m)
	}
}

// chaosDelay is the mean delay of what is disturbed on its way.
const chaosDelay = 2 * time.Second

// disturbed hands on a message that may come twice, or late.
func (c *coordinator) disturbed(st *stream, in pool.Input) {
	s := c.s
	if s.options.Chaos == 0 || s.random.Float64() >= s.options.Chaos {
		c.step(in)
		return
	}
	if s.random.Uint64()&1 == 0 {
		c.step(in)
	}
	s.after(time.Duration(s.random.ExpFloat64()*float64(chaosDelay)), func() {
		if st.coordinatorOpen {
			c.step(in)
		}
	})
}

// step hands inputs to the machine and carries out the effects.
func (c *coordinator) step(inputs ...pool.Input) {
	now := c.clock.read(c.s.now)
	c.s.trace.inputs(c.s, inputs)
	c.meter.begin()
	effects := c.machine.Step(now, inputs...)
	c.meter.end()
	for _, e := range effects {
		c.carryOut(e)
	}
}

func (c *coordinator) carryOut(effect pool.Effect) {
	s := c.s
	s.trace.effect(s, effect)
	switch e := effect.(type) {
	case pool.Propose:
		c.commit(e)
	case pool.Publish:
		s.ledger.published(s, e.Change)
		for _, r := range s.routers {
			r.publish(s, e.Change)
		}
	case pool.PublishMark:
		s.ledger.marked(s, e.Mark)
		for _, r := range s.routers {
			r.mark(s, e.Mark)
		}
	case pool.Welcome:
		s.ledger.welcomedAt = s.now
		c.say(e.Session, e)
	case pool.Assign:
		c.say(e.Session, e)
	case pool.Ask:
		c.say(e.Session, e)
	case pool.Challenge:
		c.say(e.Session, e)
	case pool.Refuse:
		c.refuse(e)
	case pool.Dial:
		c.dial(e)
	case pool.Raise:
		s.ledger.raised(e.Alarm)
	case pool.Clear:
		s.ledger.cleared(e.Key)
	case pool.Count:
		s.ledger.counts[e.What]++
	case pool.SetTimer:
		c.timer = e.At
		c.arm()
	case pool.LeaveDone, pool.AwaitRouters, pool.Reply, pool.Removed, pool.Stand:
	}
}

func (c *coordinator) say(id pool.SessionID, message any) {
	if st := c.streams[id]; st != nil {
		c.messages++
		c.s.sendDown(st, message)
	}
}

func (c *coordinator) refuse(e pool.Refuse) {
	if st := c.streams[e.Session]; st != nil {
		c.say(e.Session, farewell{e.Err})
		st.coordinatorOpen = false
		delete(c.streams, e.Session)
	}
}

// arm arranges for a Tick at the time that the machine wants. One that comes too
// early arranges for another.
func (c *coordinator) arm() {
	if c.timer.IsZero() {
		return
	}
	at := c.s.now + c.clock.virtual(c.timer.Sub(c.clock.read(c.s.now)))
	if at >= c.armed {
		return
	}
	c.armed = at
	c.s.queue.push(at, event{do: func() {
		if c.armed != at {
			return
		}
		c.armed = never
		if c.timer.IsZero() || c.timer.After(c.clock.read(c.s.now)) {
			c.arm()
			return
		}
		c.step(pool.Tick{})
		c.arm()
	}})
}

// dial connects to a host by TCP.
func (c *coordinator) dial(e pool.Dial) {
	s := c.s
	answered := false
	for _, to := range e.Addresses {
		if a, err := parseAddrPort(to); err == nil {
			h := s.hostAt(a.Addr())
			answered = answered || h != nil && s.net.carries(packet{to: h}, s.now) && s.net.carries(packet{from: h}, s.now)
		}
	}
	wait := e.Timeout
	if answered {
		wait = min(wait, 2*s.net.Delay)
	}
	s.after(wait, func() { c.step(pool.Dialed{Round: e.Round, Answered: answered}) })
}

var errRejected = errors.New("the database is not there")

// commit writes a change as a store does. One that would come too late is settled
// when the store is back, and is not made.
func (c *coordinator) commit(e pool.Propose) {
	s, change := c.s, e.Change
	o := &s.options.Store
	wait := o.Delay + time.Duration(s.random.ExpFloat64()*float64(o.Jitter)) + time.Duration(len(change.Put)+len(change.Remove))*o.Row
	if begun := s.options.Settle + o.HangAt; o.HangFor > 0 && s.now >= begun && s.now < begun+o.HangFor {
		wait += begun + o.HangFor - s.now
	}
	failed := s.random.Float64() < o.Fail
	if at := c.clock.read(s.now + wait); !e.Until.IsZero() && at.After(e.Until) {
		failed = true
	}
	s.after(wait, func() {
		if failed {
			c.step(pool.Rejected{ChangeID: change.ID, Err: fmt.Errorf("%w: %w", member.ErrUnavailable, errRejected)})
			return
		}
		c.write(change)
		c.step(pool.Committed{ChangeID: change.ID})
	})
}

func (c *coordinator) write(change member.Change) {
	for _, r := range change.Remove {
		delete(c.rows, r.ID)
	}
	for _, row := range change.Put {
		c.rows[row.ID] = row
	}
	if c.s.options.CheckRing {
		c.check(change.Revision())
	}
}

// check proves that the table is one ring.
func (c *coordinator) check(at member.Revision) {
	rows := make([]ring.Row, 0, len(c.rows))
	for _, r := range c.rows {
		rows = append(rows, ring.Row{ID: r.ID, Buddies: member.Buddies{First: r.First, Second: r.Second}})
	}
	slices.SortFunc(rows, func(a, b ring.Row) int { return strings.Compare(string(a.ID), string(b.ID)) })
	for _, problem := range ring.Check(rows) {
		c.s.ledger.brokenRing = append(c.s.ledger.brokenRing, fmt.Sprintf("revision %d: %s", at, problem))
	}
}

// watchersOf are the hosts that watch a member, by the table.
func (c *coordinator) watchersOf(id member.ID) []*host {
	row := c.rows[id]
	var hosts []*host
	for _, w := range slices.Compact([]member.ID{row.First, row.Second}) {
		if h := c.s.byID[w]; h != nil {
			hosts = append(hosts, h)
		}
	}
	return hosts
}

package pool_test

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/internal/member"
)

// desk is a machine of which the test plays the agents, the clock, the database
// and the operators, step by step. After each step it asserts what must always
// hold.
type desk struct {
	t testing.TB
	m *pool.Machine
	// twin, if not nil, is given the same inputs and must have the same effects;
	// there is one if mirrored was set before the machine was started.
	twin     *pool.Machine
	mirrored bool
	table    *table
	now      time.Time
	// timer is when the machine wants its next Tick.
	timer time.Time
	// flight is the change whose outcome is open, until how long it may be tried.
	flight *member.Change
	until  time.Time
	peers  map[pool.SessionID]*peer
	// byID are the streams that were accepted last.
	byID    map[member.ID]*peer
	calls   map[pool.Token]*call
	marks   map[member.ID]member.Mark
	alarms  map[member.AlarmKey]member.Alarm
	counts  map[pool.Counter]int
	effects []pool.Effect
	// awaits are the routers' confirmations that are waited for.
	awaits []pool.AwaitRouters
	notary *notary
	last   uint64
	// said is what members were told to report last of others; the rest is up.
	said     map[[2]member.ID]pool.Sight
	digestAt time.Time
	// replied, if not nil, hears of every reply.
	replied func(*call)
	// stepped and verdicts count steps and removals by verdict.
	stepped, verdicts int
	// record keeps the steps as text, for a test that has failed.
	record bool
	trace  []string
}

// peer is one stream of an agent.
type peer struct {
	hello    pool.Hello
	welcomed bool
	refused  error
	closed   bool
	assigned pool.Assignment
	inc      member.Incarnation
	left     *pool.LeaveDone
	standing pool.Standing
	nonce    uint64
	// swept says that the nonce is that of a sweep.
	swept bool
	asks  []pool.Ask
}

func (p *peer) open() bool { return p.refused == nil && !p.closed }

// speaks reports whether it is the stream of a member.
func (p *peer) speaks() bool { return p.open() && p.welcomed && (p.left == nil || !p.left.Left) }

// call is an operator's command.
type call struct {
	in    pool.Input
	of    pool.Call
	reply *pool.Reply
}

func newDesk(t testing.TB) *desk {
	d := &desk{t: t, table: newTable(), now: time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)}
	d.boot()
	return d
}

// boot starts a machine from the table.
func (d *desk) boot() {
	d.m, d.twin = d.fresh(), nil
	if d.mirrored {
		d.twin = d.fresh()
	}
	d.timer, d.flight = time.Time{}, nil
	d.peers, d.byID, d.calls = map[pool.SessionID]*peer{}, map[member.ID]*peer{}, map[pool.Token]*call{}
	d.marks, d.alarms = map[member.ID]member.Mark{}, map[member.AlarmKey]member.Alarm{}
	d.counts, d.said = map[pool.Counter]int{}, map[[2]member.ID]pool.Sight{}
	d.awaits = nil
	d.notary = newNotary(d)
	d.sameRows()
	d.step(pool.Tick{})
}

func (d *desk) fresh() *pool.Machine {
	m, err := pool.New(d.table.load(), pool.Config{Seed: 42, Now: d.now})
	if err != nil {
		d.t.Fatalf("boot: %v", err)
	}
	return m
}

// step hands over inputs, carries out the effects, and checks.
func (d *desk) step(in ...pool.Input) {
	d.t.Helper()
	d.log(in, nil)
	for _, i := range in {
		d.notary.hear(i)
	}
	d.stepped++
	d.effects = d.m.Step(d.now, in...)
	if d.twin != nil {
		if other := d.twin.Step(d.now, in...); !reflect.DeepEqual(d.effects, other) {
			d.fail("two machines differ:\n%s\n%s", texts(d.effects), texts(other))
		}
	}
	d.log(nil, d.effects)
	for _, e := range d.effects {
		d.notary.see(e)
		d.carryOut(e)
	}
	d.check()
}

func (d *desk) fail(format string, args ...any) {
	d.t.Helper()
	for _, line := range d.trace {
		d.t.Log(line)
	}
	d.t.Fatalf(format, args...)
}

func (d *desk) log(in []pool.Input, effects []pool.Effect) {
	if !d.record {
		return
	}
	at := d.now.Format("05.000")
	for _, i := range in {
		if c, ok := i.(pool.UpdateSettings); ok {
			i = pool.UpdateSettings{Call: c.Call}
		}
		if c, ok := i.(pool.UpdateServer); ok {
			i = pool.UpdateServer{Call: c.Call, ID: c.ID}
		}
		d.trace = append(d.trace, fmt.Sprintf("%s < %T %+v", at, i, i))
	}
	for _, e := range effects {
		d.trace = append(d.trace, fmt.Sprintf("%s > %s", at, text(e)))
	}
}

func texts(effects []pool.Effect) string {
	var all string
	for _, e := range effects {
		all += text(e) + "\n"
	}
	return all
}

func text(e pool.Effect) string {
	if p, ok := e.(pool.Propose); ok {
		all := "Propose " + p.Change.ID
		for _, ev := range p.Change.Events {
			all += fmt.Sprintf("\n           %s %s: %s", ev.Kind, ev.ID, ev.Text)
		}
		return all
	}
	if p, ok := e.(pool.Publish); ok {
		return "Publish " + p.Change.ID
	}
	return fmt.Sprintf("%T %+v", e, e)
}

func (d *desk) carryOut(e pool.Effect) {
	d.t.Helper()
	switch e := e.(type) {
	case pool.Propose:
		d.propose(e)
	case pool.Welcome:
		d.welcome(e)
	case pool.Refuse:
		d.refuse(e)
	case pool.Assign:
		if p := d.peers[e.Session]; p != nil {
			d.assign(p, e.Assignment)
		}
	case pool.Ask:
		if p := d.peers[e.Session]; p != nil {
			p.asks = append(p.asks, e)
		}
	case pool.Challenge:
		if p := d.peers[e.Session]; p != nil {
			p.nonce = e.Nonce
			p.swept = d.m.SweptNow(p.hello.ID)
		}
	case pool.LeaveDone:
		d.leaveDone(e)
	case pool.Reply:
		d.reply(e)
	case pool.PublishMark:
		d.mark(e.Mark)
	case pool.Raise:
		if old, active := d.alarms[e.Alarm.Key()]; active && old.Text == e.Alarm.Text {
			d.fail("alarm %v is raised twice", e.Alarm.Key())
		}
		d.alarms[e.Alarm.Key()] = e.Alarm
	case pool.Clear:
		if _, active := d.alarms[e.Key]; !active {
			d.fail("alarm %v ends, but is not active", e.Key)
		}
		delete(d.alarms, e.Key)
	case pool.Count:
		d.counts[e.What]++
	case pool.SetTimer:
		d.timer = e.At
	case pool.AwaitRouters:
		d.awaited(e)
	case pool.Stand:
		if p := d.peers[e.Session]; p != nil {
			p.standing = e.Standing
		}
	case pool.Dial, pool.Publish, pool.Removed:
	}
}

func (d *desk) propose(e pool.Propose) {
	d.t.Helper()
	c := e.Change
	if d.flight != nil {
		d.fail("change %s is proposed while %s is under way", c.ID, d.flight.ID)
	}
	if c.Base != d.table.at {
		d.fail("change %s is made from %v, the table is at %v", c.ID, c.Base, d.table.at)
	}
	d.notary.judge(c)
	d.checkUntil(e)
	d.flight, d.until = &c, e.Until
}

// checkUntil: what rests on evidence is not tried for long, and the rest for ever.
func (d *desk) checkUntil(e pool.Propose) {
	d.t.Helper()
	evidence := slices.ContainsFunc(e.Change.Remove, func(r member.Removal) bool { return r.Cause.ByVerdict() })
	most := verdictLife + time.Second + time.Duration(len(e.Change.Remove))*time.Millisecond
	if left := e.Until.Sub(d.now); evidence != !e.Until.IsZero() || evidence && (left <= time.Second || left > most) {
		d.fail("change %s with removals %v is to be tried until %v, it is %v", e.Change.ID, e.Change.Remove, e.Until, d.now)
	}
}

// welcome: the membership is durable, and its stream is the agent's only one.
func (d *desk) welcome(e pool.Welcome) {
	p := d.peers[e.Session]
	if p == nil || !p.open() {
		d.fail("session %d is welcome, but has ended", e.Session)
	}
	row := d.table.rows[p.hello.ID]
	switch {
	case p.welcomed:
		d.fail("session %d of %s is welcome twice", e.Session, p.hello.ID)
	case row.Incarnation != e.Incarnation || e.Incarnation == 0:
		d.fail("%s is welcome at incarnation %d, the table has %d", p.hello.ID, e.Incarnation, row.Incarnation)
	case !e.Resumed && row.InstanceID != p.hello.InstanceID:
		d.fail("%s joins as run %s, the table has %s", p.hello.ID, p.hello.InstanceID, row.InstanceID)
	case e.Phase != row.Phase || e.Members != len(d.table.rows):
		d.fail("%s is welcome as %s of %d, the table has it %s of %d", p.hello.ID, e.Phase, e.Members, row.Phase, len(d.table.rows))
	}
	if old := d.byID[p.hello.ID]; old != nil && old.speaks() {
		d.fail("%s has two streams", p.hello.ID)
	}
	p.welcomed, p.inc, p.standing = true, e.Incarnation, e.Standing
	d.byID[p.hello.ID] = p
	d.assign(p, e.Assignment)
}

func (d *desk) refuse(e pool.Refuse) {
	p := d.peers[e.Session]
	if p == nil || !p.open() || e.Err == nil {
		d.fail("session %d is refused, but has ended: %v", e.Session, e.Err)
	}
	var removed *member.RemovedError
	if row, ok := d.table.rows[p.hello.ID]; ok && errors.As(e.Err, &removed) && row.Incarnation == removed.Incarnation {
		d.fail("incarnation %d of %s is said to be removed, the table has it", row.Incarnation, row.ID)
	}
	p.refused = e.Err
}

func (d *desk) assign(p *peer, a pool.Assignment) {
	if !p.welcomed || a.Seq <= p.assigned.Seq {
		d.fail("%s is assigned %d after %d", p.hello.ID, a.Seq, p.assigned.Seq)
	}
	p.assigned = a
}

// awaited: who drains does so durably by the revision to be confirmed.
func (d *desk) awaited(e pool.AwaitRouters) {
	row, ok := d.table.rows[e.ID]
	switch {
	case !ok || row.Incarnation != e.Incarnation:
		d.fail("the routers are awaited for incarnation %d of %s, the table has %+v", e.Incarnation, e.ID, row)
	case row.Phase == member.PhaseActive || row.Phase == member.PhaseServiceDown:
		d.fail("the routers are awaited for %s, which is %s", e.ID, row.Phase)
	case e.Revision > d.table.at.Revision:
		d.fail("the routers are to confirm revision %d, the table is at %d", e.Revision, d.table.at.Revision)
	case e.Until.Before(d.now.Add(-time.Minute)):
		d.fail("the routers were to confirm by %v, it is %v", e.Until, d.now)
	}
	d.awaits = append(d.awaits, e)
}

// confirm lets the routers confirm what they are awaited for.
func (d *desk) confirm(missing ...pool.Lag) {
	d.t.Helper()
	awaits := d.awaits
	d.awaits = nil
	for _, e := range awaits {
		d.step(pool.Drained{ID: e.ID, Incarnation: e.Incarnation, Revision: e.Revision, Missing: missing})
	}
}

func (d *desk) leaveDone(e pool.LeaveDone) {
	p := d.peers[e.Session]
	if p == nil {
		d.fail("session %d has left, but was never there", e.Session)
	}
	p.left = &e
	if row, ok := d.table.rows[p.hello.ID]; ok && e.Left && row.Incarnation == p.inc && p.inc != 0 {
		d.fail("%s is told that incarnation %d has left, and it is in the table", p.hello.ID, p.inc)
	}
}

func (d *desk) reply(e pool.Reply) {
	c := d.calls[e.Token]
	if c == nil || c.reply != nil {
		d.fail("token %d is answered twice or was never there", e.Token)
	}
	c.reply = &e
	if e.Err == nil && e.Revision > d.table.at.Revision {
		d.fail("token %d took effect at revision %d, the table is at %d", e.Token, e.Revision, d.table.at.Revision)
	}
	if d.replied != nil {
		d.replied(c)
	}
}

func (d *desk) mark(k member.Mark) {
	if k.Epoch != d.table.at.Epoch || k.Seq == 0 || (k.Suspect || k.ServiceDown) == (k.TTL == 0) {
		d.fail("mark %+v", k)
	}
	if k.Suspect {
		d.marks[k.ID] = k
	} else {
		delete(d.marks, k.ID)
	}
}

// commit makes the change under way durable and says so.
func (d *desk) commit() {
	d.t.Helper()
	if d.flight == nil {
		d.fail("nothing is proposed")
	}
	c := *d.flight
	d.flight = nil
	d.table.apply(d.t, c)
	for _, r := range c.Remove {
		delete(d.marks, r.ID)
		if r.Cause == member.CauseCrashed {
			d.verdicts++
		}
	}
	for _, row := range c.Put {
		if k, ok := d.marks[row.ID]; ok && k.Incarnation != row.Incarnation {
			delete(d.marks, row.ID)
		}
	}
	d.step(pool.Committed{ChangeID: c.ID})
	if len(d.effects) == 0 {
		d.fail("change %s is not published", c.ID)
	}
}

// reject says that the change under way has not happened.
func (d *desk) reject() {
	d.t.Helper()
	id := d.flight.ID
	d.flight = nil
	d.step(pool.Rejected{ChangeID: id, Err: errDatabase})
}

var errDatabase = fmt.Errorf("the database is away: %w", member.ErrUnavailable)

// commitAll commits until nothing is proposed.
func (d *desk) commitAll() {
	d.t.Helper()
	for d.flight != nil {
		d.commit()
	}
}

// check asserts what must hold after every step.
func (d *desk) check() {
	if wrong := d.m.Contradiction(); wrong != "" {
		d.fail("%s", wrong)
	}
	published := slices.ContainsFunc(d.effects, func(e pool.Effect) bool { _, ok := e.(pool.Publish); return ok })
	if published {
		d.sameRows()
	}
	if d.m.Position() != d.table.at {
		d.fail("the machine is at %v, the table at %v", d.m.Position(), d.table.at)
	}
	for id, p := range d.byID {
		if p.speaks() {
			d.checkAssigned(id, p)
		}
	}
	if !d.timer.IsZero() && d.timer.Before(d.now.Add(-time.Second)) {
		d.fail("a Tick is wanted at %v, it is %v", d.timer, d.now)
	}
	if len(d.m.Alarms()) != len(d.alarms) {
		d.fail("alarms %v, said %v", d.m.Alarms(), d.alarms)
	}
}

// sameRows: what the machine believes is what is in the table.
func (d *desk) sameRows() {
	rows := d.m.Ring()
	if len(rows) != len(d.table.rows) {
		d.fail("the machine has %d rows, the table %d", len(rows), len(d.table.rows))
	}
	for _, row := range rows {
		if want := d.table.rows[row.ID]; !reflect.DeepEqual(want, row) {
			d.fail("the table has\n%+v, the machine\n%+v", want, row)
		}
	}
	for _, i := range d.m.Intents() {
		if d.table.intents[i.ID] != i {
			d.fail("intent %+v, the table has %+v", i, d.table.intents[i.ID])
		}
	}
	if n := len(d.m.Intents()); n != len(d.table.intents) {
		d.fail("%d intents, the table has %d", n, len(d.table.intents))
	}
	st := d.m.Status()
	if st.Settings != d.table.settings || st.ReferenceSize != d.table.reference {
		d.fail("settings %+v of %d, the table has %+v of %d", st.Settings, st.ReferenceSize, d.table.settings, d.table.reference)
	}
}

// checkAssigned: an agent watches its buddies, as the table has them, and those
// whom it helps out.
func (d *desk) checkAssigned(id member.ID, p *peer) {
	row, ok := d.table.rows[id]
	if !ok || row.Incarnation != p.inc {
		d.fail("%s has a stream of incarnation %d, the table has %d", id, p.inc, row.Incarnation)
	}
	interval := d.table.settings.ProbeInterval
	if len(d.table.rows) == 2 {
		interval /= 2
	}
	if p.assigned.Interval != interval {
		d.fail("%s probes every %v instead of %v", id, p.assigned.Interval, interval)
	}
	subjects := p.assigned.Subjects
	expect := func(buddy member.ID, role pool.Role) {
		if len(subjects) == 0 {
			d.fail("%s does not watch %s: %+v", id, buddy, p.assigned.Subjects)
		}
		s, other := subjects[0], d.table.rows[buddy]
		if s.ID != buddy || s.Role != role || s.Incarnation != other.Incarnation || !slices.Equal(s.Addresses, other.Spec.ProbeAddresses) || s.Probe != other.Spec.Probe {
			d.fail("%s watches %+v as %s, the table has %+v", id, s, role, other)
		}
		subjects = subjects[1:]
	}
	if row.First != "" {
		expect(row.First, pool.RoleFirst)
	}
	if row.Second != row.First {
		expect(row.Second, pool.RoleSecond)
	}
	for _, s := range subjects {
		st, ok := d.m.Server(s.ID)
		if s.Role != pool.RoleTemporary || !ok || !slices.Contains(st.Temporary, id) {
			d.fail("%s watches %+v for no reason", id, s)
		}
	}
}

// wait lets time pass, with the Ticks that the machine wants.
func (d *desk) wait(span time.Duration) {
	d.t.Helper()
	d.echoSweep()
	for end := d.now.Add(span); ; {
		if d.timer.IsZero() || d.timer.After(end) {
			d.now = end
			return
		}
		if d.timer.After(d.now) {
			d.now = d.timer
		}
		d.step(pool.Tick{})
	}
}

// echoSweep lets everybody of whom nobody says that it is down answer a sweep.
func (d *desk) echoSweep() {
	d.t.Helper()
	for _, id := range d.table.order {
		p := d.byID[id]
		if p == nil || !p.swept || !p.speaks() {
			continue
		}
		p.swept = false
		missed := false
		for edge, s := range d.said {
			missed = missed || edge[1] == id && s == down
		}
		if !missed {
			d.echo(id)
		}
	}
}

// What agents say.

// agent is what a hello says, for the most part from its name.
func agent(id member.ID) pool.Hello {
	last := byte(1)
	for _, c := range []byte(id) {
		last = last*7 + c
	}
	return pool.Hello{
		ID: id, BootID: string(id) + "-boot", InstanceID: string(id) + "-run", Peer: "peer of " + string(id), Version: "1",
		Spec: member.Spec{
			ProbeAddresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, last})}, Weight: 100,
			Endpoints: []member.Endpoint{{Address: string(id) + ".test:80"}},
		},
	}
}

// hello opens a stream and returns it.
func (d *desk) hello(h pool.Hello) *peer {
	d.t.Helper()
	d.last++
	h.Session = pool.SessionID(d.last)
	p := &peer{hello: h}
	d.peers[h.Session] = p
	d.step(h)
	return p
}

func (d *desk) close(p *peer, byPeer bool) {
	d.t.Helper()
	p.closed = true
	d.step(pool.Closed{Session: p.hello.Session, ByPeer: byPeer})
}

// pool joins members, makes them ACTIVE and proves their streams.
func (d *desk) pool(ids ...member.ID) {
	d.t.Helper()
	for _, id := range ids {
		d.hello(agent(id))
		d.commitAll()
		row := d.table.rows[id]
		if row.First != "" {
			d.report(row.First, id, up)
			d.commitAll()
		}
	}
	d.digests()
}

// digests lets everybody who has a stream say what it has reported last, or else
// that all is well.
func (d *desk) digests() {
	d.t.Helper()
	for _, id := range d.table.order {
		if p := d.byID[id]; p != nil && p.open() {
			d.digest(p, 0)
		}
	}
}

func (d *desk) digest(p *peer, selfScore int) {
	d.t.Helper()
	in := pool.Digest{Session: p.hello.Session, SelfScore: selfScore}
	for _, subject := range p.assigned.Subjects {
		s := d.said[[2]member.ID{p.hello.ID, subject.ID}]
		if s == 0 {
			s = up
		}
		in.Subjects = append(in.Subjects, pool.SubjectDigest{Subject: subject.ID, Incarnation: subject.Incarnation, Evidence: evidence(s)})
	}
	d.step(in)
}

// live lets time pass, with a digest of everybody every five seconds.
func (d *desk) live(span time.Duration) {
	d.t.Helper()
	for end := d.now.Add(span); d.now.Before(end); {
		if !d.now.Before(d.digestAt) {
			d.digestAt = d.now.Add(5 * time.Second)
			d.digests()
		}
		d.wait(min(d.digestAt.Sub(d.now), end.Sub(d.now)))
	}
}

// nextRound lets time pass until the next round about a server is opened.
func (d *desk) nextRound(id member.ID) {
	d.t.Helper()
	before := d.notary.newest[id]
	for range 1000 {
		d.live(10 * time.Millisecond)
		if d.notary.newest[id] != before {
			return
		}
	}
	d.fail("no other round about %s", id)
}

func evidence(s pool.Sight) pool.Evidence {
	if s == up {
		return pool.Evidence{Sight: up, Sent: 1, RTT: time.Millisecond}
	}
	return pool.Evidence{Sight: s, Sent: 1, Lost: 1, FirstLostAge: 20 * time.Millisecond}
}

// report says what one member sees of another.
func (d *desk) report(observer, subject member.ID, s pool.Sight) {
	d.t.Helper()
	d.said[[2]member.ID{observer, subject}] = s
	d.step(pool.Report{
		Session: d.byID[observer].hello.Session, Subject: subject,
		Incarnation: d.table.rows[subject].Incarnation, Evidence: evidence(s),
	})
}

// observers lists who was asked for the newest round about a server.
func (d *desk) observers(subject member.ID) []member.ID {
	r := d.notary.newest[subject]
	if r == nil {
		return nil
	}
	return r.observers
}

// answer answers the newest round about a server.
func (d *desk) answer(observer, subject member.ID, s pool.Sight, final bool) {
	d.t.Helper()
	d.step(d.answerOf(observer, subject, s, final))
}

func (d *desk) answerOf(observer, subject member.ID, s pool.Sight, final bool) pool.Answer {
	return pool.Answer{
		Session: d.byID[observer].hello.Session, Round: d.notary.newest[subject].id, Subject: subject,
		Incarnation: d.table.rows[subject].Incarnation, Evidence: evidence(s), Final: final,
	}
}

// answerAll lets all observers of the newest round see the same: a first lost
// probe at once, where they miss it, and the final answer at the end.
func (d *desk) answerAll(subject member.ID, s pool.Sight) {
	d.t.Helper()
	if s == down {
		for _, id := range d.observers(subject) {
			d.answer(id, subject, s, false)
		}
	}
	d.toLastProbe(subject)
	for _, id := range d.observers(subject) {
		d.answer(id, subject, s, true)
	}
}

// toLastProbe waits until the last probes of the newest round are due.
func (d *desk) toLastProbe(subject member.ID) {
	d.t.Helper()
	d.wait(max(0, d.notary.newest[subject].lastProbe.Sub(d.now)))
}

func (d *desk) echo(id member.ID) {
	d.t.Helper()
	p := d.byID[id]
	d.step(pool.Echo{Session: p.hello.Session, Nonce: p.nonce})
}

// What operators say.

func (d *desk) call(in func(pool.Call) pool.Input, of pool.Call) *call {
	d.t.Helper()
	d.last++
	of.Token = pool.Token(d.last)
	if of.Earlier == nil {
		of.Earlier = d.answered(of.RequestID)
	}
	c := &call{of: of}
	d.calls[of.Token] = c
	c.in = in(of)
	d.step(c.in)
	return c
}

// answered is what the table tells of a request id, also of the change under way: its
// COMMIT may not be through, and it may be lost yet.
func (d *desk) answered(id string) *member.Request {
	if r, ok := d.table.requests[id]; ok {
		return &r
	}
	if d.flight == nil {
		return nil
	}
	for _, r := range d.flight.Requests {
		if r.ID == id {
			return &r
		}
	}
	return nil
}

func (d *desk) intend(id member.ID, w member.Wish) *call {
	d.t.Helper()
	return d.call(func(c pool.Call) pool.Input { return pool.SetIntent{Call: c, ID: id, Wish: w} }, pool.Call{})
}

func (d *desk) remove(id member.ID) *call {
	d.t.Helper()
	return d.call(func(c pool.Call) pool.Input { return pool.RemoveServer{Call: c, ID: id} }, pool.Call{})
}

func (d *desk) set(edit func(*member.Settings)) *call {
	d.t.Helper()
	return d.call(func(c pool.Call) pool.Input {
		return pool.UpdateSettings{Call: c, Edit: func(s member.Settings) (member.Settings, error) {
			edit(&s)
			return s, nil
		}}
	}, pool.Call{})
}

// What is to be seen.

func (d *desk) removed(id member.ID) bool {
	_, ok := d.table.rows[id]
	return !ok
}

// removes reports whether the change under way takes a member out.
func (d *desk) removes(id member.ID) bool {
	return d.flight != nil && slices.ContainsFunc(d.flight.Remove, func(r member.Removal) bool { return r.ID == id })
}

// rule is that of the newest decision about a server.
func (d *desk) rule(id member.ID) string {
	all := d.m.Decisions(id)
	if len(all) == 0 {
		return ""
	}
	return all[0].Explanation.Rule
}

func (d *desk) alarm(name string, id member.ID) bool {
	_, ok := d.alarms[member.AlarmKey{Name: name, Pool: "web", Subject: string(id)}]
	return ok
}

func is(t testing.TB, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Fatalf("error %v, want %v", got, want)
	}
}

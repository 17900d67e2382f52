package pool

import (
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/buddyring/buddyring/coordinator/ring"
	"github.com/buddyring/buddyring/internal/member"
)

// Fixed times of the machine; the settings of a pool hold the others.
const (
	// warmUp is how long a new leader removes nobody, unless warmUpShare of the
	// members' streams are back before.
	warmUp      = 15 * time.Second
	warmUpShare = 0.9
	// silence is how long an agent may send no digest before its stream counts
	// as silent.
	silence = 12 * time.Second
	// proofTime is how long a nonce may take where an answer is waited for.
	proofTime = 250 * time.Millisecond
	// agentDownAfter is how long a member may have no stream before an alarm;
	// temporaryAfter, before its subjects get temporary watchers.
	agentDownAfter = 5 * time.Second
	temporaryAfter = time.Second
	// joinPatience is how long a JOINING member may be without a stream before
	// it is taken out, and how long it may wait for a good probe before an alarm.
	joinPatience = 30 * time.Second
	// verdictLife is how long a confirmed verdict may wait for its commit.
	verdictLife = 2 * time.Second
	// commitTime, and removalTime for each removal, is how long that commit may take
	// at least; one that begins sooner has more.
	commitTime  = time.Second
	removalTime = time.Millisecond
	// gatherTime is how long a confirmed verdict waits for those about other
	// suspects, so that one change removes them all.
	gatherTime = 250 * time.Millisecond
	// markTTL is how long a suspect mark holds at routers unless renewed.
	markTTL = 30 * time.Second
	// retryAfter is the pause after a rejected change.
	retryAfter = 250 * time.Millisecond
	// noteDelay is how long decisions without a change of rows wait for company
	// before they are written.
	noteDelay = 5 * time.Second
	// requestLife is how long answers to client requests are kept, departedLife
	// what is remembered of servers that left by verdict.
	requestLife  = time.Hour
	departedLife = 7 * 24 * time.Hour
	// stallLimit is how late a Tick may come before the coordinator itself counts
	// as having stood still.
	stallLimit = time.Second
)

// batchLimit bounds the queue items of one change.
const batchLimit = 1000

// Config is what a machine needs besides the durable state.
type Config struct {
	// Seed seeds the machine's own generator: placement, witnesses, nonces, and
	// what makes the ids of its changes unique.
	Seed uint64
	// Now is when the machine starts; its warm-up begins.
	Now time.Time
}

// Machine is the machine of one pool; see the package.
type Machine struct {
	name      member.Pool
	position  member.Position
	settings  member.Settings
	reference int
	// placed counts the members that fill a place.
	placed   int
	ring     *ring.Ring
	servers  map[member.ID]*server
	intents  map[member.ID]member.Intent
	departed map[member.ID]member.Departed
	// requests are those that this machine has answered. loaded is the revision at
	// which it began: all up to there was durable.
	requests map[string]member.Request
	loaded   member.Revision

	sessions map[SessionID]*session
	rounds   map[uint64]*server
	alarms   map[member.AlarmKey]member.Alarm
	// logs holds the newest decisions per server; logOrder bounds it. noted is
	// when a decision about a server went into the history last.
	logs     map[member.ID][]Decision
	logOrder []member.ID
	noted    map[noteKey]time.Time
	// notes are events that wait for a change, no longer than until notesAt.
	notes   []member.Event
	notesAt time.Time

	// queue holds what waits for the next change; joining the newest hello of each
	// id that waits there for a row. flight is the change under way, or nil;
	// greetAgain are hellos that wait for its outcome.
	queue      []item
	joining    map[member.ID]*session
	flight     *batch
	greetAgain []*session
	retryAt    time.Time
	// due are the members whose phase may have to change; stale, those whose
	// assignment may.
	due, stale map[member.ID]bool
	// confirmed are the members with a verdict that waits for its commit; marked
	// those that are suspect.
	confirmed, marked map[member.ID]bool
	// ailing are the members whose service is down.
	ailing map[member.ID]bool
	guard  guard
	// helping maps a temporary watcher to its subjects as such; it has no empty
	// sets.
	helping map[member.ID]map[member.ID]bool
	// yielding are the members whose name another machine may take, with until when.
	yielding map[member.ID]time.Time
	// unwritten are the members whose rows made no ring when they were read, and
	// have not been written since.
	unwritten map[member.ID]bool
	// uncovered are the members for which no temporary watcher was found; coverAt is
	// when the machine looks again.
	uncovered map[member.ID]bool
	coverAt   time.Time
	// losses are the measurements of loss under way, filtered the members that
	// answer TCP but no probe. sweptAt is when the newest sweep began, movedAt when
	// a member was moved last.
	losses           map[uint64]*server
	filtered         map[member.ID]bool
	sweptAt, movedAt time.Time

	random *rand.Rand
	// salt tells the ids of this machine's changes from those of any other, also
	// of one that leads a copy of the database in the same epoch.
	salt      uint64
	now       time.Time
	startedAt time.Time
	// warming says that removals wait; back counts the members seen so far.
	warming bool
	back    int
	wakes   wakes
	timer   time.Time
	effects []Effect
	dead    bool

	changeSeq, roundSeq, assignSeq, softSeq uint64
}

// New returns the machine of a pool as it was loaded. state is kept; rows that
// make no ring get the buddies that they have in a mended one. A server that is
// there twice is an error.
func New(state member.PoolState, cfg Config) (*Machine, error) {
	r, unwritten, err := mend(state.Servers)
	if err != nil {
		return nil, err
	}
	m := &Machine{
		name: state.Name, position: state.Position, settings: state.Settings, reference: state.ReferenceSize,
		ring: r, unwritten: unwritten, servers: make(map[member.ID]*server, r.Len()),
		intents: map[member.ID]member.Intent{}, departed: map[member.ID]member.Departed{},
		requests: map[string]member.Request{}, loaded: state.Position.Revision, sessions: map[SessionID]*session{}, joining: map[member.ID]*session{},
		rounds: map[uint64]*server{}, alarms: map[member.AlarmKey]member.Alarm{},
		logs: map[member.ID][]Decision{}, due: map[member.ID]bool{}, stale: map[member.ID]bool{},
		confirmed: map[member.ID]bool{}, marked: map[member.ID]bool{}, ailing: map[member.ID]bool{}, guard: newGuard(cfg.Now),
		noted:   map[noteKey]time.Time{},
		helping: map[member.ID]map[member.ID]bool{}, uncovered: map[member.ID]bool{},
		losses: map[uint64]*server{}, filtered: map[member.ID]bool{}, yielding: map[member.ID]time.Time{},
		random: rand.New(rand.NewPCG(cfg.Seed, uint64(state.Position.Epoch))), //nolint:gosec // placement and witnesses need no secrecy; nonces only tell echoes apart
		salt:   rand.NewPCG(^cfg.Seed, uint64(state.Position.Epoch)).Uint64(),
		now:    cfg.Now, startedAt: cfg.Now, warming: r.Len() > 0,
	}
	for _, row := range state.Servers {
		m.load(row)
	}
	for _, i := range state.Intents {
		i.ExpiresAt, i.SetAt = m.until(i.ExpiresAt, i.SetAt), m.past(i.SetAt)
		m.keepIntent(i)
	}
	for _, d := range state.Departed {
		d.LeftAt = m.past(d.LeftAt)
		m.keepDeparted(d)
	}
	m.adoptLeaves()
	m.recallLosses(state)
	m.resettle()
	m.wake(cfg.Now.Add(warmUp), wakeWarm, "", 0)
	m.wake(cfg.Now, wakeRing, "", 0)
	return m, nil
}

// load takes over a row of the table. A hold-down ends at the latest when one
// of the longest kind would that begins now.
func (m *Machine) load(row member.Server) {
	row.HeldUntil = earlier(m.until(row.HeldUntil, row.Since), m.now.Add(m.settings.HoldDownMax))
	row.Since, row.JoinedAt = m.past(row.Since), m.past(row.JoinedAt)
	m.adopt(row)
	if m.ring.Len() == 1 {
		m.due[row.ID] = true
	}
}

// onClock returns a time that was read from the table as one of the machine's
// own clock, on which it comes no sooner or later when the wall clock is set.
func (m *Machine) onClock(at time.Time) time.Time {
	if at.IsZero() {
		return at
	}
	return m.now.Add(at.Sub(m.now))
}

// past is onClock of what has happened. The clock of the coordinator that wrote it
// may be ahead of this one's: then it happened now.
func (m *Machine) past(at time.Time) time.Time { return earlier(m.onClock(at), m.now) }

// until is onClock of the end of what began at since, both by one clock. That of the
// coordinator that wrote them may be ahead of this one's: then it lasts from now on.
func (m *Machine) until(at, since time.Time) time.Time {
	if at.IsZero() {
		return at
	}
	return earlier(m.onClock(at), m.now.Add(at.Sub(since)))
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// adopt takes in a member that is new to the machine.
func (m *Machine) adopt(row member.Server) {
	s := &server{row: row, lostAt: m.now}
	m.servers[row.ID] = s
	m.fill(&s.row, 1)
	m.wake(row.HeldUntil, wakeHeld, string(row.ID), 0)
	m.assumeHealth(s)
	m.missFrom(s, m.now)
}

// missFrom arranges for the looks at a member whose stream is missing since at.
func (m *Machine) missFrom(s *server, at time.Time) {
	for _, after := range []time.Duration{temporaryAfter, agentDownAfter, silence} {
		m.wake(at.Add(after), wakeAbsent, string(s.row.ID), 0)
	}
	if s.row.Phase == member.PhaseJoining {
		m.wake(at.Add(joinPatience), wakeAbsent, string(s.row.ID), 0)
	}
}

func (m *Machine) keepIntent(i member.Intent) {
	m.intents[i.ID] = i
	m.wake(i.ExpiresAt, wakeIntent, string(i.ID), 0)
}

func (m *Machine) keepDeparted(d member.Departed) {
	m.departed[d.ID] = d
	m.wake(d.LeftAt.Add(departedLife), wakeDeparted, string(d.ID), 0)
}

func (m *Machine) keepRequest(q member.Request) {
	m.requests[q.ID] = q
	m.wake(q.At.Add(requestLife), wakeRequest, q.ID, 0)
}

// Step takes inputs that happened by now and returns what is to be done, in
// order. A now that goes back is taken as standing still. Its wall clock stamps
// rows and events, its monotonic reading (if any) measures.
func (m *Machine) Step(now time.Time, inputs ...Input) []Effect {
	if m.dead {
		return nil
	}
	before := m.now
	if now.After(m.now) {
		m.now = now
	}
	m.effects = nil
	m.excuse(before)
	for _, in := range inputs {
		m.take(in)
		if m.dead {
			return m.effects
		}
	}
	m.awake()
	m.guarded()
	m.tendServices()
	m.propose()
	m.reassign()
	m.setTimer()
	return m.effects
}

// excuse makes up for a stall of the coordinator itself, which shows in a Tick
// that comes late: what has not arrived since the step before speaks against
// nobody.
func (m *Machine) excuse(before time.Time) {
	if m.timer.IsZero() || m.now.Sub(m.timer) < stallLimit {
		return
	}
	stall := m.now.Sub(before)
	m.startedAt, m.sweptAt = m.startedAt.Add(stall), m.sweptAt.Add(stall)
	for _, sess := range m.sessions {
		sess.lastHeard = sess.lastHeard.Add(stall)
		if sess.nonce != 0 {
			sess.nonceAt = sess.nonceAt.Add(stall)
			m.wake(sess.nonceAt.Add(proofTime), wakeStream, "", uint64(sess.id))
		}
	}
	for _, s := range m.servers {
		s.sweptAt = s.sweptAt.Add(stall)
		if s.session == 0 {
			s.lostAt = s.lostAt.Add(stall)
			m.missFrom(s, s.lostAt)
		}
	}
}

func (m *Machine) take(in Input) {
	switch in := in.(type) {
	case Hello:
		m.hello(in)
	case Closed:
		m.closed(in)
	case Report:
		m.report(in)
	case Digest:
		m.takeDigest(in)
	case ServiceHealth:
		m.takeHealth(in)
	case Answer:
		m.answer(in)
	case Echo:
		m.echo(in)
	case AssignmentAck:
		m.assignmentAck(in)
	case Leave:
		m.leave(in)
	case Drained:
		m.drained(in)
	case Dialed:
		m.dialed(in)
	case UpdateServer:
		m.enqueue(in.Call, in.ID, in)
	case RemoveServer:
		m.enqueue(in.Call, in.ID, in)
	case SetIntent:
		m.enqueue(in.Call, in.ID, in)
	case DrainServer:
		m.enqueue(in.Call, in.ID, in)
	case ResumeServer:
		m.enqueue(in.Call, in.ID, in)
	case UpdateSettings:
		m.enqueue(in.Call, "", in)
	case ReleaseBrake:
		m.enqueue(in.Call, "", in)
	case ReplaceServer:
		m.enqueue(in.Call, in.ID, in)
	case DeletePool:
		m.enqueue(in.Call, "", in)
	case RepairRing:
		m.enqueue(in.Call, "", in)
	case Committed:
		m.committed(in)
	case Rejected:
		m.rejected(in)
	case Fenced:
		m.fenced()
	case Note:
		m.note(in.Event)
	case Tick:
	}
}

func (m *Machine) emit(e Effect) { m.effects = append(m.effects, e) }

func (m *Machine) count(c Counter) { m.emit(Count{c}) }

// sortedKeys returns the keys of a map in order: effects must not depend on the
// order of a map.
func sortedKeys[V any](byID map[member.ID]V) []member.ID {
	if len(byID) == 0 {
		return nil // most are, at most steps
	}
	return slices.Sorted(maps.Keys(byID))
}

// open reports whether a session, or nil, has not ended.
func (m *Machine) open(sess *session) bool { return sess != nil && m.sessions[sess.id] == sess }

// live returns the member's stream if it is there and not silent.
func (m *Machine) live(id member.ID) *session {
	s := m.servers[id]
	if s == nil || s.session == 0 {
		return nil
	}
	sess := m.sessions[s.session]
	if sess == nil || m.now.Sub(sess.lastHeard) >= silence {
		return nil
	}
	return sess
}

// judged reports whether the member may be removed by verdict.
func (m *Machine) judged(s *server) bool {
	return s.row.Phase != member.PhaseJoining && m.settings.Mode != member.ModePaused &&
		m.wish(s.row.ID) != member.WishMaintenance
}

func (m *Machine) wish(id member.ID) member.Wish {
	if i, ok := m.intents[id]; ok {
		return i.Wish
	}
	return member.WishActive
}

// nonce draws a random number that is not 0.
func (m *Machine) nonce() uint64 {
	for {
		if n := m.random.Uint64(); n != 0 {
			return n
		}
	}
}

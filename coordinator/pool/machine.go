package pool

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/buddyring/buddyring/coordinator/ring"
	"github.com/buddyring/buddyring/coordinator/verdict"
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
	// requestLife is how long answers to client requests are kept.
	requestLife = time.Hour
)

// batchLimit bounds the queue items of one change.
const batchLimit = 1000

// Config is what a machine needs besides the durable state.
type Config struct {
	// Seed seeds the machine's own generator: placement, witnesses, nonces.
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
	ring      *ring.Ring
	servers   map[member.ID]*server
	intents   map[member.ID]member.Intent
	departed  map[member.ID]member.Departed
	requests  map[string]member.Request

	sessions map[SessionID]*session
	rounds   map[uint64]*server
	alarms   map[member.AlarmKey]member.Alarm
	// logs holds the newest decisions per server; logOrder bounds it. noted is
	// when a decision about a server went into the history last.
	logs     map[member.ID][]Decision
	logOrder []member.ID
	noted    map[member.ID]time.Time
	// notes are events that wait for a change, no longer than until notesAt.
	notes   []member.Event
	notesAt time.Time

	// queue holds what waits for the next change; flight is the change under
	// way, or nil.
	queue   []item
	flight  *batch
	retryAt time.Time
	// due are the members whose phase may have to change; stale, those whose
	// assignment may.
	due, stale map[member.ID]bool
	// confirmed are the members with a verdict that waits for its commit; marked,
	// those that are suspect.
	confirmed, marked map[member.ID]bool
	// helping maps a temporary watcher to its temporary subjects.
	helping map[member.ID]map[member.ID]bool

	random    *rand.Rand
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
	seed                                    uint64
}

// server is a member: its row, and what is known about it beyond the row.
type server struct {
	row member.Server
	// session is the accepted stream, 0 for none; lostAt is since when there is
	// none, lostByPeer how the last one ended. seen says that there was one in
	// this epoch; instance and said are of its newest hello.
	session    SessionID
	instance   string
	said       *member.Spec
	lostAt     time.Time
	lostByPeer bool
	seen       bool
	// sights are what its watchers see; rtt the largest round trip seen lately.
	sights map[member.ID]sight
	rtt    time.Duration
	// reached says that an observer has reached this incarnation.
	reached bool
	// temporary maps an absent watcher to the one in its place.
	temporary map[member.ID]member.ID
	inquiry   inquiry
	// claim is a stranger's hello for this id that waits for the old address to
	// be verified.
	claim *session
	// mark is the suspect mark that routers hold, nil for none; markAt is when it
	// was published.
	mark   *member.Mark
	markAt time.Time
}

// sight is what one watcher sees of a server.
type sight struct {
	Evidence
	at time.Time
	// firstLost is when the first of the present run of lost probes was sent.
	firstLost time.Time
}

// session is one stream.
type session struct {
	id        SessionID
	hello     Hello
	accepted  bool
	since     time.Time
	lastHeard time.Time
	// nonce is the newest challenge not yet answered, 0 for none.
	nonce   uint64
	nonceAt time.Time
	// lookAt is when the machine next looks whether the stream is silent.
	lookAt   time.Time
	assigned Assignment
	acked    uint64
	// ackedSubjects are the subjects of the assignment acknowledged last.
	ackedSubjects []member.ID
	digest        []SubjectDigest
	selfScore     int
	// rival is a session of another agent under the same name that waits for
	// this one to prove itself.
	rival *session
}

// New returns the machine of a pool as it was loaded. state is kept.
func New(state member.PoolState, cfg Config) (*Machine, error) {
	rows := make([]ring.Row, len(state.Servers))
	for i, s := range state.Servers {
		rows[i] = ring.Row{ID: s.ID, Buddies: member.Buddies{First: s.First, Second: s.Second}}
	}
	r, err := ring.FromRows(rows)
	if err != nil {
		return nil, err
	}
	m := &Machine{
		name: state.Name, position: state.Position, settings: state.Settings, reference: state.ReferenceSize,
		ring: r, servers: make(map[member.ID]*server, len(rows)),
		intents: map[member.ID]member.Intent{}, departed: map[member.ID]member.Departed{},
		requests: map[string]member.Request{}, sessions: map[SessionID]*session{},
		rounds: map[uint64]*server{}, alarms: map[member.AlarmKey]member.Alarm{},
		logs: map[member.ID][]Decision{}, due: map[member.ID]bool{}, stale: map[member.ID]bool{},
		confirmed: map[member.ID]bool{}, marked: map[member.ID]bool{}, noted: map[member.ID]time.Time{},
		helping: map[member.ID]map[member.ID]bool{},
		random:  rand.New(rand.NewPCG(cfg.Seed, uint64(state.Position.Epoch))), //nolint:gosec // placement and witnesses need no secrecy; nonces only tell echoes apart
		now:     cfg.Now, startedAt: cfg.Now, warming: len(rows) > 0, seed: cfg.Seed,
	}
	for _, s := range state.Servers {
		m.servers[s.ID] = newServer(s, cfg.Now)
		m.adopted(m.servers[s.ID])
	}
	for _, i := range state.Intents {
		m.intents[i.ID] = i
		m.wake(i.ExpiresAt, wakeIntent, string(i.ID), 0)
	}
	for _, d := range state.Departed {
		m.departed[d.ID] = d
	}
	for _, q := range state.Requests {
		m.requests[q.ID] = q
		m.wake(q.At.Add(requestLife), wakeRequest, q.ID, 0)
	}
	m.wake(cfg.Now.Add(warmUp), wakeWarm, "", 0)
	return m, nil
}

func newServer(row member.Server, now time.Time) *server {
	return &server{row: row, lostAt: now, sights: map[member.ID]sight{}, temporary: map[member.ID]member.ID{}}
}

// adopted arms the timers of a member that is new to the machine.
func (m *Machine) adopted(s *server) {
	m.wake(s.row.HeldUntil, wakeHeld, string(s.row.ID), uint64(s.row.Incarnation))
	m.wake(s.lostAt.Add(agentDownAfter), wakeAbsent, string(s.row.ID), 0)
	m.wake(s.lostAt.Add(temporaryAfter), wakeAbsent, string(s.row.ID), 0)
	if s.row.Phase == member.PhaseJoining {
		m.wake(m.now.Add(joinPatience), wakeAbsent, string(s.row.ID), 0)
	}
}

// Step takes inputs that happened by now and returns what is to be done, in
// order. now must not go back; its wall clock stamps rows and events, its
// monotonic reading (if any) measures.
func (m *Machine) Step(now time.Time, inputs ...Input) []Effect {
	if m.dead {
		return nil
	}
	m.now = now
	m.effects = nil
	for _, in := range inputs {
		m.take(in)
		if m.dead {
			return m.effects
		}
	}
	m.awake()
	m.propose()
	m.reassign()
	m.setTimer()
	return m.effects
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
	case Answer:
		m.answer(in)
	case Echo:
		m.echo(in)
	case AssignmentAck:
		m.assignmentAck(in)
	case Leave:
		m.leave(in)
	case Dialed:
		m.dialed(in)
	case UpdateServer:
		m.enqueue(in.Call, in)
	case RemoveServer:
		m.enqueue(in.Call, in)
	case SetIntent:
		m.enqueue(in.Call, in)
	case UpdateSettings:
		m.enqueue(in.Call, in)
	case Committed:
		m.committed(in)
	case Rejected:
		m.rejected(in)
	case Fenced:
		m.fenced()
	case Tick:
	}
}

func (m *Machine) emit(e Effect) { m.effects = append(m.effects, e) }

func (m *Machine) count(c Counter) { m.emit(Count{c}) }

// sorted returns the keys of a set in order: effects must not depend on the
// order of a map.
func sorted(set map[member.ID]bool) []member.ID {
	ids := make([]member.ID, 0, len(set))
	for id := range set {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

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

// watchers lists who watches a member now, with their roles.
func (m *Machine) watchers(s *server) []watcher {
	var ws []watcher
	if s.row.First == "" {
		return nil
	}
	// The previous server watches it as its first buddy, the next as its second.
	ws = append(ws, watcher{s.row.Second, RoleFirst})
	if s.row.First != s.row.Second {
		ws = append(ws, watcher{s.row.First, RoleSecond})
	}
	for i := range ws {
		if t, ok := s.temporary[ws[i].id]; ok {
			ws = append(ws, watcher{t, RoleTemporary})
		}
	}
	return ws
}

type watcher struct {
	id   member.ID
	role Role
}

func (m *Machine) watches(observer member.ID, s *server) bool {
	return slices.ContainsFunc(m.watchers(s), func(w watcher) bool { return w.id == observer })
}

// nonce draws a random number that is not 0.
func (m *Machine) nonce() uint64 {
	for {
		if n := m.random.Uint64(); n != 0 {
			return n
		}
	}
}

// inquiry is what the machine is finding out about one member.
type inquiry struct {
	round   *verdict.Round
	dialing bool
	// next is when another round may be opened, after tries rounds that came to
	// nothing.
	next  time.Time
	tries int
	// lastProbe is when the present round's last probes go out.
	lastProbe time.Time
	// last holds the negatives of the newest finished round until lastUntil.
	last      []member.ID
	lastUntil time.Time
	// lastProof is the stream's proof in the newest finished round.
	lastProof verdict.Proof
	// suspectSince is when two observers first missed it, zero if they do not.
	suspectSince time.Time
	// firstLost is the first lost probe of the present incident.
	firstLost time.Time
	verdict   *confirmed
	tale      *tale
}

// confirmed is a verdict that waits for its commit.
type confirmed struct {
	cause  member.Cause
	ruling verdict.Ruling
	at     time.Time
}

package pool_test

import (
	"cmp"
	"container/heap"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/coordinator/verdict"
	"github.com/buddyring/buddyring/internal/member"
)

// world is a pool machine with hosts around it, in virtual time: hosts probe,
// answer and echo as agents do, and a table that commits, rejects or fences.
type world struct {
	t      testing.TB
	m      *pool.Machine
	now    time.Time
	start  time.Time
	events events
	seq    int
	hosts  map[member.ID]*host
	table  *table
	timer  time.Time
	// commitTime is how long a commit takes; failNext makes that many fail.
	commitTime time.Duration
	failNext   int
	trace      []string
	replies    map[pool.Token]pool.Reply
	alarms     map[string]bool
	suspects   map[member.ID]bool
	down       map[member.ID]bool
	sessions   map[pool.SessionID]*host
	nextID     uint64
	dialOpen   bool
	// hanging are the routers that confirm nothing.
	hanging []member.ID
}

// host is a machine with an agent.
type host struct {
	id     member.ID
	addr   netip.Addr
	zone   string
	rack   string
	up     bool
	agent  bool
	paused bool
	deaf   bool
	// mum says that it acknowledges no assignment.
	mum     bool
	icmpOff bool
	// tcpOff says that no connect to it is answered; loss is how many of ten probes
	// to it are lost.
	tcpOff bool
	loss   int
	// sent counts the probes to others; window holds the newest ten outcomes.
	sent     map[member.ID]int
	window   map[member.ID][]bool
	boot     int
	instance int
	session  pool.SessionID
	inc      member.Incarnation
	sights   map[member.ID]pool.Sight
	lost     map[member.ID]time.Time
	assigned pool.Assignment
	// checked is what its checks found last, nil without checks.
	checked *pool.ServiceHealth
	// lie, when set, is what it always says of others; fickle, that it reaches them
	// after all when it has just missed them to the end of a round.
	lie      pool.Sight
	fickle   bool
	left     string
	refused  error
	probeGen int
}

type event struct {
	at  time.Time
	seq int
	do  func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return cmp.Or(e[i].at.Compare(e[j].at), cmp.Compare(e[i].seq, e[j].seq)) < 0
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	old := *e
	last := old[len(old)-1]
	*e = old[:len(old)-1]
	return last
}

func newWorld(t testing.TB) *world {
	start := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	w := &world{
		t: t, now: start, start: start, hosts: map[member.ID]*host{}, commitTime: 3 * time.Millisecond,
		replies: map[pool.Token]pool.Reply{}, alarms: map[string]bool{}, suspects: map[member.ID]bool{},
		sessions: map[pool.SessionID]*host{},
		table:    newTable(),
	}
	w.boot()
	return w
}

// boot starts a machine from the table, as a coordinator does.
func (w *world) boot() {
	m, err := pool.New(w.table.load(), pool.Config{Seed: 1, Now: w.now})
	if err != nil {
		w.t.Fatalf("boot: %v", err)
	}
	w.m = m
	w.suspects, w.down = map[member.ID]bool{}, map[member.ID]bool{}
	w.step(pool.Tick{})
}

func (w *world) at(d time.Duration, do func()) {
	w.seq++
	heap.Push(&w.events, event{w.now.Add(d), w.seq, do})
}

// run lets virtual time pass.
func (w *world) run(d time.Duration) {
	end := w.now.Add(d)
	for len(w.events) > 0 && !w.events[0].at.After(end) {
		e := heap.Pop(&w.events).(event)
		w.now = e.at
		e.do()
	}
	w.now = end
}

func (w *world) step(in ...pool.Input) {
	for _, e := range w.m.Step(w.now, in...) {
		w.do(e)
	}
	if wrong := w.m.Contradiction(); wrong != "" {
		w.t.Fatalf("%s\n%s", wrong, strings.Join(w.trace, "\n"))
	}
}

func (w *world) log(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf("%8.3f  ", w.now.Sub(w.start).Seconds())+fmt.Sprintf(format, args...))
}

func (w *world) do(e pool.Effect) {
	switch e := e.(type) {
	case pool.Propose:
		w.propose(e.Change)
	case pool.Welcome:
		w.welcome(e)
	case pool.Refuse:
		w.refuse(e)
	case pool.Assign:
		if h := w.sessions[e.Session]; h != nil {
			w.assign(h, e.Assignment)
		}
	case pool.Ask:
		w.ask(e)
	case pool.Challenge:
		w.challenge(e)
	case pool.Dial:
		w.at(e.Timeout, func() { w.step(pool.Dialed{Round: e.Round, Answered: w.dialOpen}) })
	case pool.AwaitRouters:
		w.await(e)
	case pool.LeaveDone:
		if h := w.sessions[e.Session]; h != nil {
			h.left = fmt.Sprintf("left=%v %s", e.Left, e.Text)
			w.logLeave(h, e)
			if e.Left {
				w.killAgent(h)
			}
		}
	case pool.Reply:
		w.replies[e.Token] = e
	case pool.Publish:
		w.publish(e.Change)
	case pool.PublishMark:
		w.mark(e.Mark)
	case pool.Raise:
		if w.alarms[e.Alarm.Name+" "+e.Alarm.Subject] {
			return
		}
		w.alarms[e.Alarm.Name+" "+e.Alarm.Subject] = true
		w.log("alarm %s %s", e.Alarm.Name, e.Alarm.Subject)
	case pool.Clear:
		delete(w.alarms, e.Key.Name+" "+e.Key.Subject)
		w.log("alarm over %s %s", e.Key.Name, e.Key.Subject)
	case pool.Count, pool.Removed:
	case pool.SetTimer:
		w.timer = e.At
		if !e.At.IsZero() {
			at := e.At
			w.at(at.Sub(w.now), func() {
				if w.timer.Equal(at) {
					w.timer = time.Time{}
					w.step(pool.Tick{})
				}
			})
		}
	}
}

// await lets the routers confirm, but for those that hang.
func (w *world) await(e pool.AwaitRouters) {
	m, done := w.m, pool.Drained{ID: e.ID, Incarnation: e.Incarnation, Revision: e.Revision}
	after := 5 * time.Millisecond
	for _, id := range w.hanging {
		done.Missing = append(done.Missing, pool.Lag{Router: id, Seen: w.start, Connected: true})
		after = e.Until.Sub(w.now)
	}
	w.at(after, func() {
		if w.m == m {
			w.step(done)
		}
	})
}

func (w *world) logLeave(h *host, e pool.LeaveDone) {
	switch {
	case !e.Left:
		w.log("%s has not left: %s", h.id, e.Text)
	case e.Drained && len(e.Missing) == 0:
		w.log("%s has left: SAFE", h.id)
	case e.Drained:
		w.log("%s has left: PARTIAL, without %s", h.id, e.Missing[0].Router)
	}
}

func (w *world) mark(k member.Mark) {
	if k.ServiceDown != w.down[k.ID] {
		w.down[k.ID] = k.ServiceDown
		w.log("service of %s down: %v", k.ID, k.ServiceDown)
	}
	if k.Suspect == w.suspects[k.ID] {
		return
	}
	if k.Suspect {
		w.suspects[k.ID] = true
		w.log("suspect %s", k.ID)
	} else {
		delete(w.suspects, k.ID)
		w.log("not suspect %s", k.ID)
	}
}

// propose commits a change as the store does, after commitTime.
func (w *world) propose(c member.Change) {
	m := w.m
	w.at(w.commitTime, func() {
		if w.m != m {
			return
		}
		if w.failNext > 0 {
			w.failNext--
			w.step(pool.Rejected{ChangeID: c.ID, Err: member.ErrUnavailable})
			return
		}
		w.table.apply(w.t, c)
		w.step(pool.Committed{ChangeID: c.ID})
	})
}

func (w *world) publish(c member.Change) {
	for _, e := range c.Events {
		w.log("r%d %s %s: %s", e.Revision, e.Kind, e.ID, e.Text)
	}
	for _, r := range c.Remove {
		delete(w.suspects, r.ID)
	}
}

func (w *world) host(id string) *host {
	h := w.hosts[member.ID(id)]
	if h == nil {
		h = &host{id: member.ID(id), addr: netip.AddrFrom4([4]byte{10, 0, 0, byte(len(w.hosts) + 1)}), up: true, boot: 1}
		w.hosts[h.id] = h
	}
	return h
}

// startAgent starts a new run of the agent and says hello.
func (w *world) startAgent(h *host) {
	h.agent, h.paused = true, false
	h.instance++
	h.sights, h.lost = map[member.ID]pool.Sight{}, map[member.ID]time.Time{}
	h.sent, h.window = map[member.ID]int{}, map[member.ID][]bool{}
	h.assigned = pool.Assignment{}
	w.hello(h)
}

func (w *world) hello(h *host) {
	if !h.agent || !h.up {
		return
	}
	w.nextID++
	h.session = pool.SessionID(w.nextID)
	w.sessions[h.session] = h
	h.refused = nil
	w.step(pool.Hello{
		Session: h.session, ID: h.id, Incarnation: h.inc, BootID: fmt.Sprintf("%s-boot-%d", h.id, h.boot),
		InstanceID: fmt.Sprintf("%s-run-%d-%d", h.addr, h.boot, h.instance), Peer: h.addr.String(),
		Spec: member.Spec{
			ProbeAddresses: []netip.Addr{h.addr}, Zone: h.zone, Rack: h.rack, Weight: 100,
			Endpoints: []member.Endpoint{{Address: h.addr.String() + ":80"}},
		},
	})
}

// killAgent ends the agent alone: its kernel closes the stream.
func (w *world) killAgent(h *host) {
	h.agent = false
	h.probeGen++
	if h.session != 0 && h.up {
		id := h.session
		h.session = 0
		w.at(0, func() { w.step(pool.Closed{Session: id, ByPeer: true}) })
	}
}

func (w *world) welcome(e pool.Welcome) {
	h := w.sessions[e.Session]
	if h == nil || h.session != e.Session {
		return
	}
	h.inc = e.Incarnation
	w.assign(h, e.Assignment)
}

func (w *world) refuse(e pool.Refuse) {
	h := w.sessions[e.Session]
	delete(w.sessions, e.Session)
	if h == nil || h.session != e.Session {
		return
	}
	h.session, h.refused = 0, e.Err
	if h.up && h.agent {
		w.log("refused %s: %v", h.id, e.Err)
		gen := h.instance
		w.at(time.Second, func() {
			if h.instance == gen && h.session == 0 {
				w.hello(h)
			}
		})
	}
}

func (w *world) assign(h *host, a pool.Assignment) {
	if !h.running() {
		return
	}
	for _, s := range a.Subjects {
		old := slices.IndexFunc(h.assigned.Subjects, func(o pool.Subject) bool { return o.ID == s.ID && o.Incarnation == s.Incarnation })
		if old < 0 {
			delete(h.sights, s.ID)
			delete(h.lost, s.ID)
		}
	}
	h.assigned = a
	h.probeGen++
	gen := h.probeGen
	for _, s := range a.Subjects {
		w.at(time.Millisecond, func() { w.probe(h, s, gen, false) })
		w.at(a.Interval-w.now.Sub(w.start)%a.Interval+s.PhaseOffset%a.Interval, func() { w.probe(h, s, gen, true) })
	}
	w.at(5*time.Second, func() { w.digest(h, gen) })
	if !h.mum {
		w.step(pool.AssignmentAck{Session: h.session, Seq: a.Seq})
	}
}

func (h *host) running() bool { return h.up && h.agent && !h.paused && h.session != 0 }

// reaches reports whether a probe from h is answered.
func (w *world) reaches(h *host, addr netip.Addr) bool {
	for _, o := range w.hosts {
		if o.addr == addr {
			return o.up && !o.icmpOff && !h.deaf && h.up
		}
	}
	return false
}

func (w *world) see(h *host, s pool.Subject) pool.Sight {
	if h.lie != 0 {
		return h.lie
	}
	if w.reaches(h, s.Addresses[0]) {
		return 1
	}
	return 2
}

const (
	up   pool.Sight = 1
	down pool.Sight = 2
)

// probe sends one probe; its outcome is known after the time-out.
func (w *world) probe(h *host, s pool.Subject, gen int, repeat bool) {
	if h.probeGen != gen || !h.agent {
		return
	}
	if repeat {
		w.at(h.assigned.Interval, func() { w.probe(h, s, gen, true) })
	}
	sent := w.now
	seen := w.outcome(h, s)
	wait := time.Millisecond
	if seen == down {
		wait = 20 * time.Millisecond
		if _, ok := h.lost[s.ID]; !ok {
			h.lost[s.ID] = sent
		}
	}
	w.at(wait, func() {
		if h.probeGen != gen || !h.running() {
			return
		}
		before, lossy := h.sights[s.ID], h.lossOf(s.ID) >= 4
		h.sights[s.ID] = seen
		if seen == up {
			delete(h.lost, s.ID)
		}
		h.window[s.ID] = append(h.window[s.ID], seen == down)
		h.window[s.ID] = h.window[s.ID][max(0, len(h.window[s.ID])-10):]
		if before != seen || lossy != (h.lossOf(s.ID) >= 4) {
			w.step(pool.Report{
				Session: h.session, Subject: s.ID, Incarnation: s.Incarnation, Evidence: w.evidence(h, s, seen), LostOfTen: h.lossOf(s.ID),
			})
		}
	})
}

// outcome is what becomes of a probe: as things are, but for those that are lost.
func (w *world) outcome(h *host, s pool.Subject) pool.Sight {
	seen := w.see(h, s)
	for _, o := range w.hosts {
		if o.addr == s.Addresses[0] && o.loss > 0 {
			h.sent[s.ID]++
			if h.sent[s.ID]*o.loss%10 < o.loss {
				return down
			}
		}
	}
	return seen
}

// selfScore is 1 for one to whom all whom it watches are silent at once.
func (h *host) selfScore() int {
	for _, s := range h.assigned.Subjects {
		if h.sights[s.ID] != down {
			return 0
		}
	}
	return min(len(h.assigned.Subjects)/2, 1)
}

func (h *host) lossOf(id member.ID) int {
	lost := 0
	for _, l := range h.window[id] {
		if l {
			lost++
		}
	}
	return lost
}

// connects reports whether a connect to a subject is answered.
func (w *world) connects(h *host, s pool.Subject) bool {
	for _, o := range w.hosts {
		if o.addr == s.Addresses[0] {
			return o.up && !o.tcpOff && h.up
		}
	}
	return false
}

func (w *world) evidence(h *host, s pool.Subject, seen pool.Sight) pool.Evidence {
	if seen == up {
		return pool.Evidence{Sight: up, Sent: 1, RTT: time.Millisecond}
	}
	return pool.Evidence{Sight: down, Sent: 1, Lost: 1, FirstLostAge: w.now.Sub(h.lost[s.ID])}
}

func (w *world) digest(h *host, gen int) {
	if h.probeGen != gen || !h.agent {
		return
	}
	w.at(5*time.Second, func() { w.digest(h, gen) })
	if !h.running() {
		return
	}
	d := pool.Digest{Session: h.session, Health: h.checked, SelfScore: h.selfScore()}
	for _, s := range h.assigned.Subjects {
		if seen := h.sights[s.ID]; seen != 0 {
			d.Subjects = append(d.Subjects, pool.SubjectDigest{Subject: s.ID, Incarnation: s.Incarnation, Evidence: w.evidence(h, s, seen), LostOfTen: h.lossOf(s.ID)})
		}
	}
	w.step(d)
}

func (w *world) ask(e pool.Ask) {
	h := w.sessions[e.Session]
	if h == nil {
		return
	}
	answer := func(after time.Duration, ev pool.Evidence, final bool) {
		w.at(after, func() {
			if h.running() && h.session == e.Session {
				w.step(pool.Answer{Session: e.Session, Round: e.Round, Subject: e.Subject.ID, Incarnation: e.Subject.Incarnation, Evidence: ev, Final: final, SelfScore: h.selfScore()})
			}
		})
	}
	w.at(time.Millisecond, func() {
		if x := (&exam{host: h, ask: e, answer: answer}); e.Exhaustive {
			w.measure(x)
		} else {
			w.examine(x)
		}
	})
}

// exam is an examination for a round.
type exam struct {
	host       *host
	ask        pool.Ask
	sent, lost int
	answer     func(time.Duration, pool.Evidence, bool)
}

// spacing is the time to the next probe.
func (x *exam) spacing() time.Duration {
	gaps := time.Duration(x.ask.Probes - 1)
	return x.ask.Over*time.Duration(x.sent)/gaps - x.ask.Over*time.Duration(x.sent-1)/gaps
}

// examine sends the probes of a round: any reply ends it. Once the first is lost
// it connects, too.
func (w *world) examine(x *exam) {
	if !x.host.running() {
		return
	}
	x.sent++
	if w.outcome(x.host, x.ask.Subject) == up {
		x.answer(time.Millisecond, pool.Evidence{Sight: up, Sent: x.sent, Lost: x.sent - 1, RTT: time.Millisecond}, true)
		return
	}
	lost := pool.Evidence{Sight: down, Sent: x.sent, Lost: x.sent}
	connected := w.connects(x.host, x.ask.Subject)
	switch x.sent {
	case x.ask.Probes:
		lost.Connect = verdict.ConnectUnanswered
		if connected {
			lost.Connect = verdict.ConnectAnswered
		}
		x.answer(x.ask.Timeout, lost, true)
		if x.host.fickle {
			w.at(x.ask.Timeout+time.Millisecond, func() { w.changeMind(x.host, x.ask.Subject) })
		}
		return
	case 1:
		x.answer(x.ask.Timeout, lost, false)
		if connected {
			lost.Connect = verdict.ConnectAnswered
			x.answer(x.ask.Timeout+time.Millisecond, lost, false)
		}
	}
	w.at(x.spacing(), func() { w.examine(x) })
}

// changeMind says that a host reaches a server, and that it does not.
func (w *world) changeMind(h *host, s pool.Subject) {
	for _, seen := range []pool.Sight{up, down} {
		w.step(pool.Report{Session: h.session, Subject: s.ID, Incarnation: s.Incarnation, Evidence: w.evidence(h, s, seen)})
	}
}

// measure sends all probes and counts the lost ones.
func (w *world) measure(x *exam) {
	if !x.host.running() {
		return
	}
	x.sent++
	if w.outcome(x.host, x.ask.Subject) != up {
		x.lost++
	}
	if x.sent < x.ask.Probes {
		w.at(x.spacing(), func() { w.measure(x) })
		return
	}
	e := pool.Evidence{Sight: up, Sent: x.sent, Lost: x.lost, RTT: time.Millisecond}
	if x.lost == x.sent {
		e = pool.Evidence{Sight: down, Sent: x.sent, Lost: x.lost}
	}
	x.answer(x.ask.Timeout, e, true)
}

func (w *world) challenge(e pool.Challenge) {
	wait := time.Millisecond
	if h := w.sessions[e.Session]; h != nil && h.loss >= 5 {
		// What is lost of the stream is sent again.
		wait = 400 * time.Millisecond
	}
	w.at(wait, func() {
		if h := w.sessions[e.Session]; h != nil && h.running() && h.session == e.Session {
			w.step(pool.Echo(e))
		}
	})
}

// crash takes the host off the network: its stream falls silent.
func (w *world) crash(h *host) {
	h.up, h.agent = false, false
	h.session = 0
	h.probeGen++
}

// reboot brings a crashed host back.
func (w *world) reboot(h *host) {
	h.up, h.boot, h.instance = true, h.boot+1, 0
	w.startAgent(h)
}

// leave shuts a host down normally, after a drain unless that is 0.
func (w *world) leave(h *host, drain time.Duration) {
	w.step(pool.Leave{Session: h.session, Incarnation: h.inc, Drain: drain})
}

func (w *world) command(in func(pool.Call) pool.Input, call pool.Call) pool.Token {
	w.nextID++
	call.Token = pool.Token(w.nextID)
	if call.Actor == "" {
		call.Actor = "ops"
	}
	w.step(in(call))
	return call.Token
}

// restart kills the coordinator and starts another one on the same table.
func (w *world) restart() {
	w.table.at.Epoch++
	w.sessions = map[pool.SessionID]*host{}
	w.boot()
	for _, id := range slices.Sorted(maps.Keys(w.hosts)) {
		h := w.hosts[id]
		h.session = 0
		h.probeGen++
		if h.up && h.agent && !h.paused {
			w.at(time.Duration(len(w.sessions)+1)*10*time.Millisecond, func() {
				h.assigned = pool.Assignment{}
				h.sights, h.lost = map[member.ID]pool.Sight{}, map[member.ID]time.Time{}
				h.sent, h.window = map[member.ID]int{}, map[member.ID][]bool{}
				w.hello(h)
			})
		}
	}
}

func netipFrom(a [4]byte) netip.Addr { return netip.AddrFrom4(a) }

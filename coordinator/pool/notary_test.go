package pool_test

import (
	"maps"
	"slices"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/coordinator/verdict"
	"github.com/buddyring/buddyring/internal/member"
)

// The promises of design page 3 that the notary holds the machine to, in its own
// words.
const (
	warmUp      = 15 * time.Second
	ageCredit   = 100 * time.Millisecond
	verdictLife = 2 * time.Second
	// heldPatience is how long a HELD member may be silent and unreached.
	heldPatience = 30 * time.Second
	// joinPatience is how long a JOINING member may be without a stream.
	joinPatience = 30 * time.Second
)

// notary hears everything that is said at a desk and, when a removal by verdict
// is proposed, works out from that alone whether it was allowed.
type notary struct {
	d       *desk
	started time.Time
	warm    bool
	seen    map[member.ID]bool
	// newest are the rounds opened last, by server; byID all of the open ones.
	newest map[member.ID]*minutes
	byID   map[uint64]*minutes
	// reached is when each watcher's sight of a server was last positive, by server.
	reached map[member.ID]map[member.ID]time.Time
	// measured are what observers have found about loss, by round.
	measured map[uint64]*measurement
	// lostSilent says that the last stream of a server timed out.
	lostSilent map[member.ID]bool
	// lost is when a server was removed by verdict, also one that is back.
	lost map[member.ID]time.Time
	// released is until when an operator may have let removals pass.
	released time.Time
}

// minutes are what was said in a round.
type minutes struct {
	id          uint64
	subject     member.ID
	incarnation member.Incarnation
	opened      time.Time
	lastProbe   time.Time
	observers   []member.ID
	finals      map[member.ID]pool.Sight
	// ups are the observers that reached it or had an answered connect; alive says
	// that its stream proved itself, ended that a newer round has begun or it was
	// removed.
	ups          map[member.ID]bool
	alive, ended bool
	nonces       []uint64
	// unconnected counts the negatives with no answered connect.
	unconnected int
	// before is the round before it; overruled the observer found odd in a second
	// round before it.
	before    *minutes
	overruled member.ID
	// found says that as many have missed it as are needed, turns counts the replies of
	// each observer after that, also in rounds before.
	found bool
	turns map[member.ID]int
	// asked is whether a connect was asked for.
	asked, dialed, answered bool
	deadline                time.Time
	// lastNegative is when the newest final negative came, pair whether the pool
	// was one of two then.
	lastNegative time.Time
	pair         bool
	// members and suspects are the least members and the most other suspects there
	// were since.
	members, suspects int
}

// measurement is what observers have found about loss.
type measurement struct {
	subject     member.ID
	incarnation member.Incarnation
	at          time.Time
	asked       []member.ID
	heavy       []member.ID
	clean       bool
	replied     bool
}

func newNotary(d *desk) *notary {
	return &notary{
		d: d, started: d.now, seen: map[member.ID]bool{}, warm: len(d.table.rows) == 0,
		newest: map[member.ID]*minutes{}, byID: map[uint64]*minutes{}, reached: map[member.ID]map[member.ID]time.Time{},
		measured:   map[uint64]*measurement{},
		lostSilent: map[member.ID]bool{}, lost: d.table.losses(),
	}
}

// current is the member for whom a stream speaks.
func (n *notary) current(id pool.SessionID) (member.ID, bool) {
	p := n.d.peers[id]
	if p == nil || !p.speaks() || n.d.byID[p.hello.ID] != p {
		return "", false
	}
	return p.hello.ID, true
}

func (n *notary) hear(in pool.Input) {
	switch in := in.(type) {
	case pool.Report:
		n.sight(in.Session, in.Subject, in.Incarnation, in.Evidence)
	case pool.Digest:
		for _, s := range in.Subjects {
			n.sight(in.Session, s.Subject, s.Incarnation, s.Evidence)
		}
	case pool.Answer:
		n.answer(in)
	case pool.Echo:
		if id, ok := n.current(in.Session); ok {
			if r := n.newest[id]; r != nil && slices.Contains(r.nonces, in.Nonce) {
				r.alive = true
			}
		}
	case pool.Closed:
		// The desk has closed the stream already.
		if p := n.d.peers[in.Session]; p != nil && p.refused == nil && n.d.byID[p.hello.ID] == p {
			n.lostSilent[p.hello.ID] = !in.ByPeer
			if r := n.newest[p.hello.ID]; r != nil && in.ByPeer {
				r.alive = true
			}
		}
	case pool.ReleaseBrake:
		// It may wait for its commit.
		n.released = n.d.now.Add(10 * time.Minute)
	case pool.Dialed:
		if r := n.byID[in.Round]; r != nil && r.asked && !n.d.now.After(r.deadline) {
			r.dialed, r.answered = !in.CannotJudge, in.Answered && !in.CannotJudge
		}
	}
}

func (n *notary) sight(session pool.SessionID, subject member.ID, inc member.Incarnation, e pool.Evidence) {
	id, ok := n.current(session)
	row, is := n.d.table.rows[subject]
	if !ok || !is || row.Incarnation != inc {
		return
	}
	st, _ := n.d.m.Server(subject)
	if row.First != id && row.Second != id && !slices.Contains(st.Temporary, id) {
		return
	}
	if e.Sight == verdict.SightUp {
		at := n.d.now.Add(-max(0, e.LastReplyAge))
		note(n.reached, subject, id, at)
		if r := n.newest[subject]; r != nil && at.After(r.opened) {
			if n.isFound(r) {
				r.turns[id]++
			}
			r.ups[id] = true
		}
	}
}

// answer notes what an observer has found.
func (l *measurement) answer(id member.ID, in pool.Answer) {
	if l.subject != in.Subject || l.incarnation != in.Incarnation || !slices.Contains(l.asked, id) || !in.Final || in.SelfScore > 0 || slices.Contains(l.heavy, id) {
		return
	}
	l.replied = l.replied || in.Evidence.Sight == verdict.SightUp
	switch e := in.Evidence; {
	case e.Sight != verdict.SightUp && e.Sight != verdict.SightDown:
	case 2*e.Lost >= e.Sent:
		l.heavy = append(l.heavy, id)
	case 10*e.Lost <= 2*e.Sent:
		l.clean = true
	}
}

func note(times map[member.ID]map[member.ID]time.Time, subject, observer member.ID, at time.Time) {
	if times[subject] == nil {
		times[subject] = map[member.ID]time.Time{}
	}
	times[subject][observer] = at
}

func (n *notary) answer(in pool.Answer) {
	id, ok := n.current(in.Session)
	if l := n.measured[in.Round]; ok && l != nil {
		l.answer(id, in)
		return
	}
	if ok {
		n.speaksLate(id, in)
	}
	r := n.byID[in.Round]
	if !ok || r == nil || r.subject != in.Subject || r.incarnation != in.Incarnation || !slices.Contains(r.observers, id) {
		return
	}
	if _, twice := r.finals[id]; twice {
		return
	}
	if in.Evidence.Connect == verdict.ConnectAnswered {
		r.ups[id] = true
	}
	if !in.Final {
		return
	}
	s := in.Evidence.Sight
	if s == verdict.SightDown && (in.SelfScore > 0 || n.d.now.Before(r.lastProbe)) {
		s = verdict.SightCannotJudge
	}
	r.finals[id] = s
	switch s {
	case verdict.SightUp:
		r.ups[id] = true
	case verdict.SightDown:
		r.lastNegative, r.pair = n.d.now, len(n.d.table.rows) == 2
		if in.Evidence.Connect == verdict.ConnectUnanswered {
			r.unconnected++
		}
		n.isFound(r)
	case verdict.SightUnknown, verdict.SightCannotJudge:
	}
}

// isFound reports whether as many have missed a server in a round as are needed.
func (n *notary) isFound(r *minutes) bool {
	r.found = r.found || r.negatives() >= n.needed(r)
	return r.found
}

// speaksLate notes that an observer reaches a server that others have found dead, in
// its first answer to a round about it.
func (n *notary) speaksLate(id member.ID, in pool.Answer) {
	r := n.newest[in.Subject]
	alive := in.Evidence.Sight == verdict.SightUp || in.Evidence.Connect == verdict.ConnectAnswered
	if r == nil || r.incarnation != in.Incarnation || !alive || !n.isFound(r) {
		return
	}
	for b := r; b != nil; b = b.before {
		if _, twice := b.finals[id]; b.id == in.Round && !twice && slices.Contains(b.observers, id) {
			r.turns[id]++
		}
	}
}

func (n *notary) see(e pool.Effect) {
	switch e := e.(type) {
	case pool.Welcome:
		p := n.d.peers[e.Session]
		n.seen[p.hello.ID] = true
		delete(n.lostSilent, p.hello.ID)
		n.lookWarm()
	case pool.Refuse:
		if p := n.d.peers[e.Session]; n.d.byID[p.hello.ID] == p {
			n.lostSilent[p.hello.ID] = true
		}
	case pool.Ask:
		if e.Exhaustive {
			if n.measured[e.Round] == nil {
				n.measured[e.Round] = &measurement{subject: e.Subject.ID, incarnation: e.Subject.Incarnation, at: n.d.now}
			}
			l := n.measured[e.Round]
			l.asked = append(l.asked, n.d.peers[e.Session].hello.ID)
			return
		}
		r := n.round(e.Round, e.Subject.ID)
		r.incarnation = e.Subject.Incarnation
		if last := n.d.now.Add(e.Over); r.lastProbe.IsZero() || last.Before(r.lastProbe) {
			r.lastProbe, r.deadline = last, last.Add(e.Timeout+150*time.Millisecond)
		}
		r.observers = append(r.observers, n.d.peers[e.Session].hello.ID)
	case pool.Dial:
		if r := n.byID[e.Round]; r != nil {
			r.asked = true
		}
	case pool.Challenge:
		// The nonces of a round go out before its questions.
		if id, ok := n.current(e.Session); ok && n.newest[id] != nil {
			n.newest[id].nonces = append(n.newest[id].nonces, e.Nonce)
		}
	case pool.Publish:
		for _, r := range e.Change.Remove {
			if r.Cause == member.CauseCrashed {
				n.lost[r.ID] = n.d.now
			}
		}
		n.lookWarm()
		for _, r := range n.newest {
			r.members = min(r.members, len(n.d.table.rows))
		}
	case pool.PublishMark:
		for id, r := range n.newest {
			r.suspects = max(r.suspects, n.suspectsBeside(id, e.Mark.ID))
		}
	}
}

// suspectsBeside counts the suspects, with another one, but without id.
func (n *notary) suspectsBeside(id, another member.ID) int {
	suspects := map[member.ID]bool{another: true}
	for other := range n.d.marks {
		suspects[other] = true
	}
	delete(suspects, id)
	return len(suspects)
}

func (n *notary) round(id uint64, subject member.ID) *minutes {
	if r := n.byID[id]; r != nil {
		return r
	}
	old := n.newest[subject]
	if old != nil {
		old.ended = true
		delete(n.byID, old.id)
	}
	r := &minutes{
		id: id, subject: subject, opened: n.d.now, finals: map[member.ID]pool.Sight{}, ups: map[member.ID]bool{}, turns: map[member.ID]int{}, before: old,
		members: len(n.d.table.rows), suspects: n.suspectsBeside(subject, subject),
	}
	// Its nonce, if it has one, is the newest that was asked for at this time.
	for _, e := range n.d.effects {
		if c, ok := e.(pool.Challenge); ok && n.d.peers[c.Session].hello.ID == subject {
			r.nonces = append(r.nonces, c.Nonce)
		}
	}
	if old != nil && len(old.positives()) == 0 && old.negatives() >= 2 {
		if r.overruled = old.odd(); r.overruled == "" {
			r.overruled = old.overruled
		}
	}
	if old != nil && old.incarnation == n.d.table.rows[subject].Incarnation {
		r.turns = old.turns
	}
	n.newest[subject], n.byID[id] = r, r
	return r
}

func (n *notary) lookWarm() {
	seen := 0
	for id := range n.seen {
		if _, ok := n.d.table.rows[id]; ok {
			seen++
		}
	}
	if 10*seen >= 9*len(n.d.table.rows) {
		n.warm = true
	}
}

// judge fails the test unless all removals by verdict were allowed.
func (n *notary) judge(c member.Change) {
	n.d.t.Helper()
	verdicts := 0
	for _, r := range c.Remove {
		abandoned := r.Cause == member.CauseUnreachable && n.d.table.rows[r.ID].Phase == member.PhaseJoining
		if !r.Cause.ByVerdict() || abandoned {
			continue
		}
		verdicts++
		n.judgeGates(r)
		switch r.Cause {
		case member.CauseCrashed:
			n.judgeCrashed(r)
		case member.CauseUnreachable:
			n.judgeUnreachable(r)
		case member.CauseLossy:
			n.judgeLossy(r)
		case member.CauseUnspecified, member.CauseShutdown, member.CauseOperator:
		}
	}
	if verdicts > 0 && verdicts == len(n.d.table.rows) {
		n.d.fail("the last servers are removed by verdict")
	}
	if verdicts > 0 && n.d.now.After(n.released) {
		n.judgeBrake(c)
		n.judgeFloor(verdicts)
	}
}

// judgeBrake counts whoever is certain to count for the brake, against the
// largest number that it may let pass.
func (n *notary) judgeBrake(c member.Change) {
	tb, counted, members := n.d.table, map[member.ID]bool{}, len(n.d.table.rows)
	for id, at := range n.lost {
		if n.d.now.Sub(at) < tb.settings.BrakeWindow {
			counted[id] = true
			if _, back := tb.rows[id]; !back {
				members++
			}
		}
	}
	for id := range n.d.marks {
		if r := n.newest[id]; r != nil && !r.alive && n.d.now.Sub(r.opened) > time.Second/4 && tb.rows[id].Phase != member.PhaseHeld {
			counted[id] = true
		}
	}
	for _, r := range c.Remove {
		if r.Cause == member.CauseCrashed {
			counted[r.ID] = true
		}
	}
	s := tb.settings
	if most := max(s.BrakeLeast, members*s.BrakePercent/100, members*s.BrakeRackPercent/100); len(counted) > most {
		n.d.fail("%d of %d count for the brake, %d may be removed", len(counted), members, most)
	}
}

func (n *notary) judgeFloor(verdicts int) {
	tb, missing := n.d.table, 0
	for id := range tb.departed {
		if _, present := tb.rows[id]; !present {
			missing++
		}
	}
	lost := min(max(0, tb.reference-len(tb.rows)), missing) + verdicts
	if most := max(1, tb.reference*tb.settings.FloorPercent/100); lost > most && tb.settings.FloorPercent < 100 {
		n.d.fail("%d are lost of %d, %d may be", lost, tb.reference, most)
	}
}

// judgeGates is about what forbids a removal by any verdict.
func (n *notary) judgeGates(removal member.Removal) {
	n.d.t.Helper()
	id, now, tb := removal.ID, n.d.now, n.d.table
	row, k := tb.rows[id], n.d.marks[id]
	switch {
	case tb.settings.Mode != member.ModeEnforce:
		n.d.fail("%s is to be removed in mode %s", id, tb.settings.Mode)
	case tb.intents[id].Wish == member.WishMaintenance:
		n.d.fail("%s is to be removed in maintenance", id)
	case row.Phase == member.PhaseJoining:
		n.d.fail("%s is to be removed while it joins", id)
	case row.Phase == member.PhaseHeld && (k.ID == "" || now.Sub(k.Since) < heldPatience):
		n.d.fail("%s is to be removed while it is held: %+v", id, k)
	case !n.warm && now.Sub(n.started) < warmUp:
		n.d.fail("%s is to be removed %v after the start", id, now.Sub(n.started))
	case tb.settings.RemovalGrace > 0 && (k.ID == "" || now.Sub(k.Since) < tb.settings.RemovalGrace):
		n.d.fail("%s is to be removed before its grace: %+v", id, k)
	}
}

func (n *notary) judgeCrashed(removal member.Removal) {
	n.d.t.Helper()
	id, now := removal.ID, n.d.now
	r := n.aboutRow(id)
	negatives, needed := r.negatives(), n.needed(r)
	switch {
	case len(r.positives()) > 0:
		n.d.fail("%s is to be removed although %v reached it", id, r.positives())
	case r.alive:
		n.d.fail("%s is to be removed although its stream proved itself", id)
	case r.answered:
		n.d.fail("%s is to be removed although a connect was answered", id)
	case negatives < needed:
		n.d.fail("%s is to be removed with %d negatives of %d", id, negatives, needed)
	case r.lastProbe.Sub(r.opened) < r.least(n.d.table.settings.StallTolerance):
		n.d.fail("%s is to be removed after probes over %v", id, r.lastProbe.Sub(r.opened))
	case now.Sub(r.lastNegative) > verdictLife+time.Second:
		n.d.fail("%s is to be removed by evidence of %v ago", id, now.Sub(r.lastNegative))
	case r.pair && !r.dialed:
		n.d.fail("%s is to be removed from a pool of two without a connect", id)
	case r.pair && len(r.nonces) == 0 && !n.lostSilent[id]:
		n.d.fail("%s is to be removed from a pool of two without silence", id)
	}
	for observer, at := range n.reached[id] {
		if at.After(r.opened) && !r.mayIgnore(observer) && n.watches(observer, id) {
			n.d.fail("%s is to be removed although %s, a watcher, reaches it", id, observer)
		}
	}
}

// least is the shortest time over which probes must have gone out in a round. One
// that goes on where another has ended in which nobody reached the server may be
// shorter.
func (r *minutes) least(tolerance time.Duration) time.Duration {
	b := r.before
	if b != nil && b.incarnation == r.incarnation && len(b.ups) == 0 && !b.alive && !b.answered && b.negatives() > 0 &&
		b.lastProbe.Sub(b.opened) >= tolerance-ageCredit && !r.opened.After(b.deadline.Add(100*time.Millisecond)) {
		return tolerance / 2
	}
	return tolerance - ageCredit
}

// aboutRow is the newest round about a member, which must be about its present
// incarnation.
func (n *notary) aboutRow(id member.ID) *minutes {
	n.d.t.Helper()
	r, row := n.newest[id], n.d.table.rows[id]
	if r == nil || r.incarnation != row.Incarnation {
		n.d.fail("%s is to be removed without a round about incarnation %d", id, row.Incarnation)
	}
	return r
}

func (n *notary) watches(observer, id member.ID) bool {
	st, _ := n.d.m.Server(id)
	return st.Server.First == observer || st.Server.Second == observer || slices.Contains(st.Temporary, observer)
}

func (r *minutes) negatives() int {
	count, odd := 0, r.odd()
	for id, s := range r.finals {
		if s == verdict.SightDown && !r.ups[id] && id != odd {
			count++
		}
	}
	return count
}

// odd is the one observer of the round before that reached the server against two
// and more, if this round asks only others; or else empty.
func (r *minutes) odd() member.ID {
	b := r.before
	if b == nil || len(b.ups) != 1 || b.negatives() < 2 || b.alive || b.answered || b.incarnation != r.incarnation {
		return ""
	}
	odd := slices.Collect(maps.Keys(b.ups))[0]
	for _, id := range r.observers {
		if slices.Contains(b.observers, id) && id != odd {
			return ""
		}
	}
	return odd
}

// positives are those who reach the server and may not be ignored.
func (r *minutes) positives() []member.ID {
	return slices.DeleteFunc(slices.Collect(maps.Keys(r.ups)), r.mayIgnore)
}

// mayIgnore reports whether an observer's positives may be ignored: others, who
// were not asked with it, have found the server dead, or it has spoken up twice when all
// others had.
func (r *minutes) mayIgnore(observer member.ID) bool {
	return r.odd() == observer || r.overruled == observer || r.turns[observer] >= 2
}

func (n *notary) judgeUnreachable(removal member.Removal) {
	n.d.t.Helper()
	id := removal.ID
	r := n.aboutRow(id)
	for _, one := range []*minutes{r, r.before} {
		switch {
		case one == nil || one.incarnation != r.incarnation:
			n.d.fail("%s is to be removed as unreachable after one round", id)
		case one.negatives() < 3 || one.unconnected < 3 || len(one.positives()) > 0 || one.answered:
			n.d.fail("%s is to be removed as unreachable: %+v", id, one)
		}
	}
	if len(n.d.table.rows) <= 3 && r.members <= 3 {
		n.d.fail("%s is to be removed as unreachable from a pool of %d", id, len(n.d.table.rows))
	}
}

func (n *notary) judgeLossy(removal member.Removal) {
	n.d.t.Helper()
	id, row := removal.ID, n.d.table.rows[removal.ID]
	streak, since, answered := 0, n.d.now, false
	for _, round := range slices.Backward(slices.Sorted(maps.Keys(n.measured))) {
		l := n.measured[round]
		if l.subject != id {
			continue
		}
		if l.incarnation != row.Incarnation || len(l.heavy) < 3 || l.clean {
			break
		}
		streak, since, answered = streak+1, l.at, answered || l.replied
	}
	answered = answered || slices.ContainsFunc(slices.Collect(maps.Values(n.reached[id])), since.Before)
	// Rounds go on beside the measurements, one after the other.
	for r := n.newest[id]; r != nil && r.incarnation == row.Incarnation && r.lastProbe.After(since); r = r.before {
		answered = answered || len(r.ups) > 0
	}
	if streak < 10 || n.d.now.Sub(since) < 2500*time.Millisecond || !answered {
		n.d.fail("%s is to be removed as lossy after %d measurements over %v, answered %v", id, streak, n.d.now.Sub(since), answered)
	}
}

// needed is how many negatives there must be at least.
func (n *notary) needed(r *minutes) int {
	if r.odd() != "" {
		return 2
	}
	others := r.members - 1
	if others >= 3 {
		others = max(2, others-r.suspects)
	}
	return max(1, min(3, others))
}

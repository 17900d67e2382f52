package pool

import (
	"slices"
	"time"

	"github.com/buddyring/buddyring/coordinator/verdict"
	"github.com/buddyring/buddyring/internal/member"
)

// server is a member: its row, and what is known about it beyond the row.
type server struct {
	row member.Server
	// session is the accepted stream, 0 for none; lostAt is since when there is
	// none, lostByPeer how the last one ended. seen says that there was one in
	// this epoch.
	session    SessionID
	lostAt     time.Time
	lostByPeer bool
	seen       bool
	// said is the newest hello that was accepted in this epoch, nil for none;
	// untold that the row has yet to take over what it says.
	said   *Hello
	untold bool
	// sights are what its watchers see; rtt the largest round trip seen lately.
	sights sights
	rtt    time.Duration
	// reached says that an observer has reached this incarnation, repliedAt when one
	// did last.
	reached   bool
	repliedAt time.Time
	// temporary maps an absent watcher to the one in its place; nil for none so far.
	temporary map[member.ID]member.ID
	// bad maps watchers that miss it, while others reach it, to since when.
	bad map[member.ID]time.Time
	// moveAt is when the machine next looks whether it wants another place.
	moveAt  time.Time
	inquiry inquiry
	loss    lossInquiry
	// load is in how many rounds it is asked as an observer now; muted, since when
	// it is not heard as one, zero if it is.
	load  int
	muted time.Time
	// sweptAt is when its stream was last asked for an echo in a sweep.
	sweptAt time.Time
	// condemned is until when its newest round counts as one that came to its
	// removal.
	condemned time.Time
	// health is what its agent's checks say of its service.
	health health
	// leave is its normal shutdown under way, nil for none.
	leave *leave
	// claim is a stranger's hello for this id that waits for the old address to
	// be verified.
	claim *session
	// mark is the suspect mark that routers hold, nil for none; markAt is when a
	// mark was published last, also one that says only how its service is.
	mark   *member.Mark
	markAt time.Time
}

// sight is what one watcher sees of a server.
type sight struct {
	Evidence
	// firstLost is when the first of the present run of lost probes was sent.
	firstLost time.Time
	// lossy says that it loses many of ten probes.
	lossy bool
}

// sights are what the watchers of a server see, in no order. There are two of them,
// rarely a few more: a map takes three times as much memory.
type sights []watcherSight

type watcherSight struct {
	by member.ID
	sight
}

func (l sights) index(by member.ID) int {
	return slices.IndexFunc(l, func(s watcherSight) bool { return s.by == by })
}

// find returns what a watcher sees, and whether it has said so.
func (l sights) find(by member.ID) (sight, bool) {
	if i := l.index(by); i >= 0 {
		return l[i].sight, true
	}
	return sight{}, false
}

// of returns what a watcher sees, the zero value if it has not said so.
func (l sights) of(by member.ID) sight {
	seen, _ := l.find(by)
	return seen
}

// lossy counts the watchers that see the server lossy, whether they count or not.
func (l sights) lossy() (n int) {
	for i := range l {
		if l[i].lossy {
			n++
		}
	}
	return n
}

func (l *sights) put(by member.ID, seen sight) {
	if i := l.index(by); i >= 0 {
		(*l)[i].sight = seen
	} else {
		*l = append(*l, watcherSight{by, seen})
	}
}

func (l *sights) drop(by member.ID) {
	if i := l.index(by); i >= 0 {
		*l = slices.Delete(*l, i, i+1)
	}
}

// session is one stream.
type session struct {
	id       SessionID
	hello    Hello
	accepted bool
	// left says that it was told that its server has left, leaving that it waits to
	// be told.
	left    bool
	leaving bool
	// leaveBy is when its routers are to have confirmed.
	leaveBy   time.Time
	since     time.Time
	lastHeard time.Time
	// nonce is the newest challenge not yet answered, 0 for none; provenAt is when
	// one was answered last.
	nonce    uint64
	nonceAt  time.Time
	provenAt time.Time
	// lookAt is when the machine next looks whether the stream is silent.
	lookAt   time.Time
	assigned Assignment
	// standing is what it was told last.
	standing Standing
	acked    uint64
	// ackedSubjects are the subjects of the assignment acknowledged last.
	ackedSubjects []member.ID
	digest        []SubjectDigest
	selfScore     int
	// bereft says that its only trouble then was that all whom it watches were silent.
	bereft bool
	// rival is a session of another agent under the same name that waits for
	// this one to prove itself.
	rival *session
}

// inquiry is what the machine is finding out about one member.
type inquiry struct {
	// round is the present one, nil for none; none is open while a verdict waits.
	round   *verdict.Round
	dialing bool
	// opened is when the newest round was; next when another one may be, after
	// tries rounds that came to nothing.
	opened, next time.Time
	tries        int
	// first is the first of two rounds, asked its observers. overruled are those whose
	// positives do not count until a gate refuses or the incident is over; saviours are
	// those who have reached the server while a verdict waited.
	first    *verdict.Round
	saviours map[member.ID]bool
	// recanted are those who have missed the server in the present incident and reached
	// it then.
	recanted map[member.ID]bool
	// reachers have reached the server in a round of the present incident.
	reachers  map[member.ID]bool
	asked     []member.ID
	overruled map[member.ID]bool
	// repeated says that the newest finished round came to Unreached with nobody
	// connecting; acquitted, that it found the server well though some miss it.
	// goesOn, that too few observers missed it and nothing spoke for it: the next
	// round goes on where that one ended.
	repeated, acquitted, goesOn bool
	// last holds the final negatives of the newest finished round until lastUntil.
	last      []member.ID
	lastUntil time.Time
	// lastProof and lastDial are what the stream and the connect proved in the
	// newest finished round of the present incident.
	lastProof verdict.Proof
	lastDial  verdict.DialResult
	// suspectSince is when two observers first missed it, zero if they do not.
	suspectSince time.Time
	// firstLost is the first lost probe of the present incident. credited says that its
	// age counts for the next round: that the incident began with that doubt, and there
	// was neither a round nor a reply since.
	firstLost time.Time
	credited  bool
	verdict   *confirmed
	tale      *tale
}

// remind keeps an observer to be asked again in the present incident.
func (q *inquiry) remind(id member.ID) {
	if q.reachers == nil {
		q.reachers = map[member.ID]bool{}
	}
	q.reachers[id] = true
}

// recant forgets all that was missed so far, by the word of an observer that had.
func (q *inquiry) recant(id member.ID) {
	if q.recanted == nil {
		q.recanted = map[member.ID]bool{}
	}
	q.recanted[id], q.last = true, nil
}

// confirmed is a verdict that waits for its commit.
type confirmed struct {
	cause  member.Cause
	ruling verdict.Ruling
	at     time.Time
	// round is the one it came from, nil for a measurement of loss.
	round *verdict.Round
	// void says that there was a sign of life after it.
	void bool
}

// watchers lists who watches a member now, with their roles.
func (m *Machine) watchers(s *server) []watcher {
	if s.row.First == "" {
		return nil
	}
	ws := make([]watcher, 0, 4) // so many, which the callers keep on their stacks
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

// watches reports whether observer is one of the watchers of s. It is asked with
// every digest.
func (m *Machine) watches(observer member.ID, s *server) bool {
	switch {
	case s.row.First == "":
		return false
	case observer == s.row.First, observer == s.row.Second:
		return true
	case len(s.temporary) == 0:
		return false
	}
	return slices.ContainsFunc(m.watchers(s), func(w watcher) bool { return w.id == observer })
}

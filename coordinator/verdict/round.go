package verdict

import (
	"slices"
	"time"

	"github.com/buddyring/buddyring/internal/member"
)

// ReplaceAfter is how long an observer may stay silent before another one is
// asked in its place.
const ReplaceAfter = 250 * time.Millisecond

// Round is one confirmation round about one incarnation of a server. Only
// answers to the round count: from those asked, once, for this incarnation, in
// time.
type Round struct {
	ID          uint64
	Subject     member.ID
	Incarnation member.Incarnation
	// Opened is when it began, LastProbe when the observers send their last
	// probes. After Enough it ends when those who have answered suffice, at
	// Deadline in any case.
	Opened, LastProbe, Enough, Deadline time.Time
	Dial                                DialResult
	// Second says that it asks observers who were not asked before, to find out
	// who is odd: all others, or Odd, the one who reached the server. Odd is asked
	// once more, but its answer does not count.
	Second bool
	Odd    member.ID

	// nonces are what the subject's stream was asked to echo in the round.
	nonces        []uint64
	silent, alive bool
	observers     []observer
}

type observer struct {
	id       member.ID
	askedAt  time.Time
	evidence Evidence
	heard    bool
	final    bool
	// connected says that a connect of its was answered.
	connected bool
	// failed says that Failing has listed it, replaced that it is not waited for;
	// doubtful that it does not trust itself.
	failed, replaced, doubtful bool
}

// Ask notes that an observer was asked. Asking one twice is ignored.
func (r *Round) Ask(id member.ID, at time.Time) {
	if r.find(id) == nil {
		r.observers = append(r.observers, observer{id: id, askedAt: at})
	}
}

// Heard reports whether id has answered.
func (r *Round) Heard(id member.ID) bool {
	o := r.find(id)
	return o != nil && o.heard
}

// Observers lists who was asked, in that order.
func (r *Round) Observers() []member.ID {
	ids := make([]member.ID, len(r.observers))
	for i, o := range r.observers {
		ids[i] = o.id
	}
	return ids
}

// Answer is what an observer says.
type Answer struct {
	At       time.Time
	Evidence Evidence
	// Final says that the observer is done.
	Final bool
	// SelfScore is above 0 when the observer does not trust itself.
	SelfScore int
}

// Answer notes an answer and reports whether it counts: not from somebody who
// was not asked, nor after a final answer. A negative of an observer that does
// not trust itself, or that is done before its last probe was due, counts as
// "cannot judge"; a positive always counts, and so does an answered connect.
func (r *Round) Answer(id member.ID, a Answer) bool {
	o := r.find(id)
	if o == nil || o.final {
		return false
	}
	o.doubtful = a.SelfScore > 0
	if a.Evidence.Sight == SightDown && (a.SelfScore > 0 || a.Final && a.At.Before(r.LastProbe)) {
		a.Evidence.Sight = SightCannotJudge
	}
	o.evidence, o.heard, o.final = a.Evidence, true, a.Final
	o.connected = o.connected || a.Evidence.Connect == ConnectAnswered
	return true
}

// Reach notes that a watcher, asked or not, had a reply during the round.
func (r *Round) Reach(id member.ID, at time.Time) {
	r.Ask(id, at)
	o := r.find(id)
	o.evidence, o.heard, o.final = Evidence{Sight: SightUp}, true, true
}

// Challenge notes that the subject's stream was asked to echo nonce.
func (r *Round) Challenge(nonce uint64) { r.nonces = append(r.nonces, nonce) }

// Echo notes the subject's echo and reports whether it is this round's.
func (r *Round) Echo(nonce uint64) bool {
	ours := slices.Contains(r.nonces, nonce)
	r.alive = r.alive || ours
	return ours
}

// KernelAlive notes that the peer's FIN or RST was read.
func (r *Round) KernelAlive() { r.alive = true }

// StreamSilent notes that the subject's stream had fallen silent before the
// round.
func (r *Round) StreamSilent() { r.silent = true }

// Proof is what the subject's stream says so far.
func (r *Round) Proof() Proof {
	switch {
	case r.alive:
		return ProofAlive
	case r.silent || len(r.nonces) > 0:
		return ProofSilent
	}
	return ProofAbsent
}

// Failing lists the observers to be replaced now, each once: those that have
// been silent for too long, and those that cannot judge while there is time to
// ask somebody else.
func (r *Round) Failing(now time.Time) []member.ID {
	var ids []member.ID
	for i := range r.observers {
		o := &r.observers[i]
		silent := !o.heard && now.Sub(o.askedAt) >= ReplaceAfter
		useless := (o.final || o.doubtful) && o.evidence.Sight == SightCannotJudge && now.Before(r.LastProbe)
		if (silent || useless) && !o.failed {
			o.failed = true
			ids = append(ids, o.id)
		}
	}
	return ids
}

// Replace says that another observer is asked in the place of a failing one, which
// is not waited for any more. Should it answer after all, that counts.
func (r *Round) Replace(failing member.ID) {
	if o := r.find(failing); o != nil {
		o.replaced = true
	}
}

// Down lists the observers whose newest answer, final or not, is negative.
func (r *Round) Down() []member.ID { return r.seeing(SightDown) }

// Missing lists the observers whose final answer is negative.
func (r *Round) Missing() []member.ID {
	return slices.DeleteFunc(r.Down(), func(id member.ID) bool { return !r.find(id).final })
}

// OddInsists reports whether Odd has reached the server again.
func (r *Round) OddInsists() bool {
	o := r.find(r.Odd)
	return o != nil && o.positive()
}

func (o *observer) positive() bool { return o.final && o.evidence.Sight == SightUp || o.connected }

// Reaching lists the observers with a positive: a reply, or an answered connect.
func (r *Round) Reaching() []member.ID {
	var ids []member.ID
	for i := range r.observers {
		if o := &r.observers[i]; o.positive() && o.id != r.Odd {
			ids = append(ids, o.id)
		}
	}
	return ids
}

// Losing reports whether those who reached the server lost two probes and more
// before. An observer
// sends one each spacing until the first reply, so that it has lost those that it
// sent before but for the round trip's own time.
func (r *Round) Losing(spacing time.Duration) bool {
	lost := 0
	for _, o := range r.observers {
		e := o.evidence
		if !o.final || e.Sight != SightUp || o.id == r.Odd {
			continue
		}
		inFlight := int(e.RTT / spacing)
		lost += max(0, e.Sent-1-inFlight)
	}
	return lost >= 2
}

// Up lists the observers whose newest answer is positive.
func (r *Round) Up() []member.ID { return r.seeing(SightUp) }

// Mute lists the observers that have not given a final answer.
func (r *Round) Mute() []member.ID {
	var ids []member.ID
	for _, o := range r.observers {
		if !o.final {
			ids = append(ids, o.id)
		}
	}
	return ids
}

func (r *Round) seeing(s Sight) []member.ID {
	var ids []member.ID
	for _, o := range r.observers {
		if o.heard && o.evidence.Sight == s && !o.connected {
			ids = append(ids, o.id)
		}
	}
	return ids
}

// Complete reports whether the round is over: all have answered, or there was
// time enough and those who have suffice for a quorum, or the deadline has
// passed. Those replaced are not waited for. dialing says that the coordinator's
// own connect is still under way.
func (r *Round) Complete(now time.Time, dialing bool) bool {
	if !now.Before(r.Deadline) {
		return true
	}
	waiting, done := 0, 0
	for _, o := range r.observers {
		switch {
		case o.final && o.evidence.Sight != SightCannotJudge:
			done++
		case !o.final && !o.replaced:
			waiting++
		}
	}
	enough := !now.Before(r.Enough) && done >= quorum
	return !dialing && len(r.observers) > 0 && (waiting == 0 || enough)
}

// quorum is how many answers suffice once there was time enough for all.
const quorum = 4

// Case sums the round up. others is as in Case; trusted reports whether an
// observer's negative counts.
func (r *Round) Case(others int, trusted func(member.ID) bool) Case {
	c := Case{Others: others, Second: r.Second, Proof: r.Proof(), Dial: r.Dial}
	for _, o := range r.observers {
		switch {
		case o.id == r.Odd:
		case o.final && o.evidence.Sight == SightUp:
			c.Up++
		case o.connected:
			c.Connected++
		case o.final && o.evidence.Sight == SightDown && trusted(o.id):
			c.Down++
			if o.evidence.Connect == ConnectUnanswered {
				c.Unconnected++
			}
		default:
			c.Unknown++
		}
	}
	return c
}

func (r *Round) find(id member.ID) *observer {
	for i := range r.observers {
		if r.observers[i].id == id {
			return &r.observers[i]
		}
	}
	return nil
}

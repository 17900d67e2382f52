package verdict

import (
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
	// Opened is when it began, Deadline when it ends at the latest.
	Opened, Deadline time.Time
	// Nonce is what the subject's stream was asked to echo, 0 without a stream.
	Nonce uint64
	Dial  DialResult

	alive     bool
	observers []observer
}

type observer struct {
	id       member.ID
	askedAt  time.Time
	evidence Evidence
	heard    bool
	final    bool
	replaced bool
}

// Ask notes that an observer was asked. Asking one twice is ignored.
func (r *Round) Ask(id member.ID, at time.Time) {
	if r.find(id) == nil {
		r.observers = append(r.observers, observer{id: id, askedAt: at})
	}
}

// Asked reports whether id was asked.
func (r *Round) Asked(id member.ID) bool { return r.find(id) != nil }

// Observers lists who was asked, in that order.
func (r *Round) Observers() []member.ID {
	ids := make([]member.ID, len(r.observers))
	for i, o := range r.observers {
		ids[i] = o.id
	}
	return ids
}

// Answer notes an answer and reports whether it counts: not from somebody who
// was not asked, nor after a final answer. A negative of an observer that does
// not trust itself (selfScore above 0) counts as "cannot judge"; its positive
// still counts.
func (r *Round) Answer(id member.ID, e Evidence, final bool, selfScore int) bool {
	o := r.find(id)
	if o == nil || o.final {
		return false
	}
	if e.Sight == SightDown && selfScore > 0 {
		e.Sight = SightCannotJudge
	}
	o.evidence, o.heard, o.final = e, true, final
	return true
}

// Echo notes the subject's echo and reports whether it is this round's.
func (r *Round) Echo(nonce uint64) bool {
	if r.Nonce == 0 || nonce != r.Nonce {
		return false
	}
	r.alive = true
	return true
}

// KernelAlive notes that the peer's FIN or RST was read.
func (r *Round) KernelAlive() { r.alive = true }

// Proof is what the subject's stream says so far.
func (r *Round) Proof() Proof {
	switch {
	case r.alive:
		return ProofAlive
	case r.Nonce != 0:
		return ProofSilent
	}
	return ProofAbsent
}

// Silent lists the observers to be replaced now, each once.
func (r *Round) Silent(now time.Time) []member.ID {
	var ids []member.ID
	for i := range r.observers {
		o := &r.observers[i]
		if !o.heard && !o.replaced && now.Sub(o.askedAt) >= ReplaceAfter {
			o.replaced = true
			ids = append(ids, o.id)
		}
	}
	return ids
}

// Down lists the observers whose newest answer, final or not, is negative.
func (r *Round) Down() []member.ID { return r.seeing(SightDown) }

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
		if o.heard && o.evidence.Sight == s {
			ids = append(ids, o.id)
		}
	}
	return ids
}

// Probes sums the probes of all answers.
func (r *Round) Probes() (sent, lost int) {
	for _, o := range r.observers {
		sent += o.evidence.Sent
		lost += o.evidence.Lost
	}
	return sent, lost
}

// Complete reports whether the round is over: all have answered, or the
// deadline has passed. Those replaced are not waited for. dialing says that the
// coordinator's own connect is still under way.
func (r *Round) Complete(now time.Time, dialing bool) bool {
	if !now.Before(r.Deadline) {
		return true
	}
	for _, o := range r.observers {
		if !o.final && !o.replaced {
			return false
		}
	}
	return !dialing && len(r.observers) > 0
}

// Case sums the round up. others is as in Case.
func (r *Round) Case(others int) Case {
	c := Case{Others: others, Proof: r.Proof(), Dial: r.Dial}
	for _, o := range r.observers {
		switch {
		case o.final && o.evidence.Sight == SightUp:
			c.Up++
		case o.final && o.evidence.Sight == SightDown:
			c.Down++
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

// Package lease decides which coordinator leads: whether one that stands by may
// take the lead, whether one that leads may go on, and when a coordinator has to
// give way.
//
// The lease is a row that its holder renews each second. Nobody compares wall
// clocks: a standby takes over when the row has stood still for Life of its own
// monotonic time, and a leader that has not renewed it for Quiet of its own
// proposes nothing more. These times decide only who tries. That a leader of
// the past changes nothing is up to the fence in every write.
//
// The package reads and writes no row, reads no clock and starts nothing.
package lease

import (
	"time"

	"github.com/buddyring/buddyring/internal/member"
)

const (
	// RenewEvery is how often a leader renews.
	RenewEvery = time.Second
	// PollEvery is how often a standby looks.
	PollEvery = 250 * time.Millisecond
	// Quiet is how long after its last renewal a leader may still propose.
	Quiet = 3 * time.Second
	// Life is how long the row must stand still before it may be taken over. It
	// is longer than Quiet by as much as a commit usually needs.
	Life = 4 * time.Second
	// Blind is how long a standby may go without an answer before its watch
	// begins anew. Otherwise whoever asks first after an outage of the database
	// would take the lead from a leader that could not renew it.
	Blind = 2 * time.Second
	// Fresh is how long after a renewal the holder is named to those who look for
	// the leader: a dead one is no help.
	Fresh = 5 * RenewEvery / 2
	// twinMoves is how many renewals in the name of a coordinator prove that
	// another run of the same id is alive. What a run that has just died had sent
	// may still arrive.
	twinMoves = 3
)

// Self is who wants to lead.
type Self struct {
	ID member.ID
	// Instance is this run of the program, Predecessor an earlier one that is
	// known to have ended, or "".
	Instance    string
	Predecessor string
	// Known is what it has seen of epochs before it stood by.
	Known Known
}

// Known is the highest epoch that a coordinator has seen of a database. The zero
// value has seen none.
type Known struct {
	storeID string
	epoch   member.Epoch
}

// See takes an epoch that was read or won. Those of another store are of another
// history, and say nothing about this one.
func (k *Known) See(storeID string, epoch member.Epoch) {
	if storeID != k.storeID {
		*k = Known{storeID: storeID}
	}
	k.epoch = max(k.epoch, epoch)
}

// Epoch is the highest that was seen.
func (k Known) Epoch() member.Epoch { return k.epoch }

// Look is a reading of the row. The row was so at some time between the two.
type Look struct {
	Asked, Answered time.Time
	Lease           member.Lease
}

// Step is what to do after a look.
type Step uint8

// The steps.
const (
	// Wait: somebody leads, or may.
	Wait Step = iota
	// Take: try to take the lease that was just seen.
	Take
	// GiveWay: another live run has the same id, and leads.
	GiveWay
)

// Watch is what a coordinator that does not lead has seen of the lease.
type Watch struct {
	self Self
	// notBefore is until when it leaves the lead to others.
	notBefore time.Time

	looked bool
	seen   member.Lease
	// since is when the watch over seen began, and last when it was seen last.
	// movedAt is when it was seen first.
	since, last, movedAt time.Time
	// twins counts the renewals by another run of the same id.
	twins int
	// back is since when the lease has been of a lower epoch than was seen before;
	// zero while it is not.
	back time.Time
}

// NewWatch returns a watch that has seen nothing. Until notBefore it lets others
// take the lead; the zero time for a coordinator that may at once.
func NewWatch(self Self, notBefore time.Time) *Watch {
	return &Watch{self: self, notBefore: notBefore}
}

// See takes a look and says what to do.
func (w *Watch) See(l Look) Step {
	w.note(l)
	switch {
	case w.twins >= twinMoves:
		return GiveWay
	case l.Answered.Before(w.notBefore):
		return Wait
	case l.Lease.Free(), w.ended(l.Lease.Instance), l.Asked.Sub(w.since) >= Life, w.putBack(l.Asked):
		return Take
	}
	return Wait
}

// putBack reports whether the table is older than what was seen before, and not
// for a moment only: it was restored. Whoever leads in a low epoch now is taken
// for a leader of the past by all who have seen the higher one.
func (w *Watch) putBack(asked time.Time) bool {
	return !w.back.IsZero() && asked.Sub(w.back) >= Life
}

func (w *Watch) note(l Look) {
	moved := w.looked && l.Lease.Moved(w.seen)
	if moved || !w.looked {
		w.movedAt = l.Answered
	}
	switch {
	case moved && l.Lease.Holder == w.self.ID && l.Lease.Instance != w.self.Instance:
		w.twins++
	case l.Lease.Holder != w.self.ID:
		w.twins = 0
	}
	if !w.looked || moved || l.Answered.Sub(w.last) > Blind {
		w.since = l.Answered
	}
	w.self.Known.See(l.Lease.StoreID, l.Lease.Epoch)
	switch {
	case l.Lease.Epoch >= w.self.Known.Epoch():
		w.back = time.Time{}
	case w.back.IsZero():
		w.back = l.Answered
	}
	w.looked, w.seen, w.last = true, l.Lease, l.Answered
}

// NextLook is when to look again after a look that was answered at a time:
// regularly, and at the moment at which the lease has stood still for its Life.
func (w *Watch) NextLook(answered time.Time) time.Time {
	next := answered.Add(PollEvery)
	if over := w.since.Add(Life); w.looked && over.After(answered) && over.Before(next) {
		return over
	}
	return next
}

// Tried says that a claim has failed at a time without an answer. The claim would
// have failed had the lease moved, so that the watch goes on.
func (w *Watch) Tried(at time.Time) { w.last = at }

// ended reports whether an instance is this run, which does not lead, or one
// before it.
func (w *Watch) ended(instance string) bool {
	return instance != "" && (instance == w.self.Instance || instance == w.self.Predecessor)
}

// Known is what it has seen of epochs, also before this watch. A claim is above
// them.
func (w *Watch) Known() Known { return w.self.Known }

// Sight is what a standby tells of the leader.
type Sight struct {
	Lease member.Lease
	// MovedAt is when the lease was seen to move last; zero if it was never seen.
	MovedAt time.Time
}

// Sight returns what was seen last.
func (w *Watch) Sight() Sight { return Sight{w.seen, w.movedAt} }

// Alive reports whether somebody holds the lease who seems to be alive.
func (s Sight) Alive(now time.Time) bool {
	return !s.Lease.Free() && !s.MovedAt.IsZero() && now.Sub(s.MovedAt) < Fresh
}

// Tenure is what a leader knows of its own lease. The zero value has never been
// renewed.
type Tenure struct{ renewed time.Time }

// Renewed says that a renewal that was sent at a time has gone through. It is
// counted from then: nobody else has seen it before.
func (t *Tenure) Renewed(sent time.Time) {
	if sent.After(t.renewed) {
		t.renewed = sent
	}
}

// Age is how long ago the newest renewal was sent.
func (t *Tenure) Age(now time.Time) time.Duration { return now.Sub(t.renewed) }

// MayPropose reports whether the leader may try to make changes durable. One
// that may not keeps everything else, since nobody may lead before it has seen
// the lease stand still for Life; when it can renew the lease, it goes on.
func (t *Tenure) MayPropose(now time.Time) bool { return t.Age(now) < Quiet }

package view

import (
	"cmp"
	"slices"
	"time"

	"github.com/buddyring/buddyring/internal/member"
)

// clearMemory is how long a cleared mark is remembered, so that the mark it
// clears is known for an old one should it arrive late. It is how long marks
// live unless they are renewed.
const clearMemory = 30 * time.Second

// soft is what a mark says; the zero value clears an earlier one.
type soft struct{ suspect, serviceDown bool }

// mark is the newest that is known about one incarnation.
type mark struct {
	id          member.ID
	incarnation member.Incarnation
	soft        soft
	epoch       member.Epoch
	seq         uint64
	expires     time.Time
	// unconfirmed is set while the full set of marks is awaited and this one has
	// not been in it.
	unconfirmed bool
}

func (m mark) compare(o mark) int {
	return cmp.Or(compareIDs(m.id, o.id), cmp.Compare(m.incarnation, o.incarnation))
}

// supersedes reports whether m is at least as new as o; the same mark again
// renews itself.
func (m mark) supersedes(o mark) bool {
	return m.epoch > o.epoch || m.epoch == o.epoch && m.seq >= o.seq
}

// ApplyMarks takes soft marks that arrived at now. Marks of a lower epoch than
// known, older ones than the last about the same incarnation, and marks about
// incarnations that are not in the pool are void. Marks about a join that the
// view has not seen yet wait for it. The result is v if nothing changed.
func (v *View) ApplyMarks(marks []member.Mark, now time.Time) *View {
	next := v.derive()
	next.marks = slices.Clone(v.marks)
	changed := false
	for _, m := range marks {
		changed = next.takeMark(m, now) || changed
	}
	if !changed {
		return v
	}
	return next.rebuild()
}

func (v *View) takeMark(in member.Mark, now time.Time) bool {
	if in.Epoch < v.Epoch() {
		return false
	}
	m := mark{in.ID, in.Incarnation, soft{in.Suspect, in.ServiceDown}, in.Epoch, in.Seq, now.Add(in.TTL), false}
	if m.soft == (soft{}) {
		m.expires = now.Add(clearMemory)
	}
	if !v.concerns(m) {
		return false
	}
	v.softEpoch = max(v.softEpoch, m.epoch)
	i, found := slices.BinarySearchFunc(v.marks, m, mark.compare)
	switch {
	case !found:
		v.marks = slices.Insert(v.marks, i, m)
	case m.supersedes(v.marks[i]):
		v.marks[i] = m
	default:
		return false
	}
	return true
}

// concerns reports whether a mark is about a present row, or about one that may
// still arrive: its join is later than the view.
func (v *View) concerns(m mark) bool {
	if !v.known || uint64(m.incarnation) > uint64(v.position.Revision) {
		return true
	}
	row := findRow(v.rows, m.id)
	return row != nil && row.Incarnation == m.incarnation
}

// settleMarks drops the marks that have become void with a change of the rows.
func settleMarks(marks []mark, v *View) []mark {
	if !slices.ContainsFunc(marks, func(m mark) bool { return !v.concerns(m) }) {
		return marks
	}
	return slices.DeleteFunc(slices.Clone(marks), func(m mark) bool { return !v.concerns(m) })
}

// BeginMarks is for the start of a subscription: every mark must come again
// before EndMarks to stay. Until then all of them hold. The result is v if there
// is none.
func (v *View) BeginMarks() *View {
	if len(v.marks) == 0 {
		return v
	}
	next := v.derive()
	next.marks = slices.Clone(v.marks)
	for i := range next.marks {
		next.marks[i].unconfirmed = true
	}
	return next
}

// EndMarks says that the full set of an epoch's marks has arrived: what has not
// come since BeginMarks, or since the last EndMarks, is void. Marks of lower
// epochs hold until they expire, so that a new leader need not have seen yet
// what its predecessor saw.
func (v *View) EndMarks(epoch member.Epoch) *View {
	return v.dropMarks(func(m mark) bool { return m.unconfirmed && m.epoch == epoch }).BeginMarks()
}

// Expire drops the marks that have not been renewed in time. The result is v if
// there is none.
func (v *View) Expire(now time.Time) *View {
	return v.dropMarks(func(m mark) bool { return !now.Before(m.expires) })
}

// Postpone lets the marks hold until t at least: nobody could renew them. The
// result is v where they do.
func (v *View) Postpone(t time.Time) *View {
	if !slices.ContainsFunc(v.marks, func(m mark) bool { return m.expires.Before(t) }) {
		return v
	}
	next := v.derive()
	next.marks = slices.Clone(v.marks)
	for i := range next.marks {
		if m := &next.marks[i]; m.expires.Before(t) {
			m.expires = t
		}
	}
	return next
}

// NextExpiry is when Expire has something to do next; false if never.
func (v *View) NextExpiry() (at time.Time, ok bool) {
	for _, m := range v.marks {
		if !ok || m.expires.Before(at) {
			at, ok = m.expires, true
		}
	}
	return at, ok
}

func (v *View) dropMarks(void func(mark) bool) *View {
	if !slices.ContainsFunc(v.marks, void) {
		return v
	}
	next := v.derive()
	next.marks = slices.DeleteFunc(slices.Clone(v.marks), void)
	return next.rebuild()
}

// markOf says what the marks say of a row, given those from its id on, and
// returns the marks that are left for the rows after it.
func markOf(marks []mark, s *Server) (says soft, rest []mark) {
	for len(marks) > 0 && marks[0].id < s.ID {
		marks = marks[1:]
	}
	rest = marks
	for len(rest) > 0 && rest[0].id == s.ID {
		if rest[0].incarnation == s.Incarnation {
			says = rest[0].soft
		}
		rest = rest[1:]
	}
	return says, rest
}

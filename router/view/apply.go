package view

import (
	"fmt"
	"strings"

	"github.com/buddyring/buddyring/internal/member"
)

// Snapshot is a whole pool. Its servers become part of the view.
type Snapshot struct {
	StoreID  string
	Position member.Position
	// ChangeID is the change that led to Position, "" where it is not known.
	ChangeID string
	// OtherHistory says that the coordinator has found the view's position to be
	// of another history.
	OtherHistory bool
	// Recent says that the view was confirmed shortly before, so that what it has and
	// the snapshot has not went at once. A coordinator that has just taken the lead
	// does not know the changes before, nor their causes: it sends this instead.
	Recent  bool
	Servers []*Server
}

// Delta takes a pool from one revision to another. The servers in Put become
// part of the view.
type Delta struct {
	From member.Revision
	To   member.Position
	// ChangeID is the change that led to To, "" where it is not known.
	ChangeID string
	// Put are rows that are new or changed, Removed rows that are gone. An id in
	// both has left and come back.
	Put     []*Server
	Removed []member.Removal
	// MassChangeConfirmed is set when an operator has confirmed that many
	// servers go at once: nobody is held back any more.
	MassChangeConfirmed bool
}

// Continues reports whether a snapshot belongs to the history that the view
// knows. It does not when it comes from another store, when the revision went
// back, or when the coordinator says so, as after the restore of a backup.
func (v *View) Continues(s Snapshot) bool {
	return !v.known || !s.OtherHistory && s.StoreID == v.storeID && s.Position.Revision >= v.position.Revision
}

// ApplySnapshot replaces the rows. Marks stay where the history continues; when it
// does not, all are void. Then, and where the view is recent, the servers that got
// work and are gone are held back if less than half are left. A snapshot of a lower
// epoch of the same store is member.ErrFenced and changes nothing.
func (v *View) ApplySnapshot(s Snapshot) (*View, error) {
	if v.known && s.StoreID == v.storeID && s.Position.Epoch < v.position.Epoch {
		return nil, v.fenced(s.Position.Epoch)
	}
	next := v.derive()
	next.known, next.storeID, next.position, next.changeID = true, s.StoreID, s.Position, s.ChangeID
	next.rows = v.reuseRows(sortRows(s.Servers))
	held, continues := v.held, v.Continues(s)
	if !continues {
		next.marks, next.softEpoch = nil, 0
	}
	if s.Recent || !continues {
		held = mergeHeld(held, v.lostBySnapshot(next.rows))
	}
	next.held = stillHeld(held, next.rows)
	next.marks = settleMarks(next.marks, next)
	return next.rebuild(), nil
}

// ApplyDelta applies one change. It is ErrGap when the delta does not start
// where the view stands, and member.ErrFenced when it comes from a lower epoch;
// both change nothing.
//
// When verdicts take more than half of the servers that get work at once,
// these are held back: see Held.
func (v *View) ApplyDelta(d Delta) (*View, error) {
	if d.To.Epoch < v.position.Epoch {
		return nil, v.fenced(d.To.Epoch)
	}
	if !v.known || d.From != v.position.Revision || d.To.Revision < d.From {
		return nil, fmt.Errorf("apply delta %d to %d at revision %d: %w", d.From, d.To.Revision, v.position.Revision, ErrGap)
	}
	next := v.derive()
	next.position, next.changeID = d.To, d.ChangeID
	next.rows = v.patchRows(d)
	next.held = v.heldAfter(d, next.rows)
	next.marks = settleMarks(next.marks, next)
	return next.rebuild(), nil
}

// Confirm takes a bookmark: the coordinator says that the pool stands at a
// position and that everything before it has been sent. The result differs from
// v only if the epoch rose. It is ErrGap when the view stands elsewhere, and
// member.ErrFenced when the position is of a lower epoch.
func (v *View) Confirm(p member.Position) (*View, error) {
	if p.Epoch < v.position.Epoch {
		return nil, v.fenced(p.Epoch)
	}
	if !v.known || p.Revision != v.position.Revision {
		return nil, fmt.Errorf("confirm revision %d at revision %d: %w", p.Revision, v.position.Revision, ErrGap)
	}
	if p == v.position {
		return v, nil
	}
	next := v.derive()
	next.position = p
	return next, nil
}

func (v *View) fenced(e member.Epoch) error {
	return fmt.Errorf("apply epoch %d at epoch %d: %w", e, v.position.Epoch, member.ErrFenced)
}

// reuseRows replaces the rows that say the same as the view's by these, so that
// what has not changed keeps its identity.
func (v *View) reuseRows(rows []*Server) []*Server {
	old := v.rows
	for i, s := range rows {
		for len(old) > 0 && old[0].ID < s.ID {
			old = old[1:]
		}
		if len(old) > 0 && old[0].Equal(s) {
			rows[i] = old[0]
		}
	}
	return rows
}

// patchRows merges the view's rows with a delta: removals first, then puts.
func (v *View) patchRows(d Delta) []*Server {
	put := v.reuseRows(sortRows(d.Put))
	gone := endedBy(d.Removed)
	rows := make([]*Server, 0, len(v.rows)+len(put))
	for _, s := range v.rows {
		for len(put) > 0 && put[0].ID < s.ID {
			rows, put = append(rows, put[0]), put[1:]
		}
		switch {
		case len(put) > 0 && put[0].ID == s.ID:
			rows, put = append(rows, put[0]), put[1:]
		case !gone.has(s):
			rows = append(rows, s)
		}
	}
	return append(rows, put...)
}

// ended are the incarnations that a delta ends, by id.
type ended map[member.ID]member.Incarnation

func endedBy(removals []member.Removal) ended {
	e := make(ended, len(removals))
	for _, r := range removals {
		e[r.ID] = max(e[r.ID], r.Incarnation)
	}
	return e
}

func (e ended) has(s *Server) bool {
	incarnation, ok := e[s.ID]
	return ok && s.Incarnation <= incarnation
}

func compareIDs(a, b member.ID) int { return strings.Compare(string(a), string(b)) }

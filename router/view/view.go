package view

import (
	"errors"
	"maps"
	"slices"

	"github.com/buddyring/buddyring/internal/member"
)

// ErrGap says that a change does not follow from the view: something before it
// is missing, or the history went back. The cure is to subscribe again from
// the view's position; the coordinator then sends what is missing, or a
// snapshot.
var ErrGap = errors.New("change does not follow from the view")

// Server is what routing needs to know of one member. Once it is part of a
// view it must not be changed.
type Server struct {
	ID          member.ID
	Incarnation member.Incarnation
	Phase       member.Phase
	// Endpoints may be empty; such a server gets no work.
	Endpoints []member.Endpoint
	Zone      string
	// Weight is the share of new work relative to 100; 0 means no new work.
	Weight uint32
	Labels map[string]string
}

// Equal reports whether two servers are the same to routing.
func (s *Server) Equal(o *Server) bool {
	return s.ID == o.ID && s.Incarnation == o.Incarnation && s.Phase == o.Phase &&
		s.Zone == o.Zone && s.Weight == o.Weight &&
		slices.Equal(s.Endpoints, o.Endpoints) && maps.Equal(s.Labels, o.Labels)
}

// routable reports whether the row allows new work, whatever the marks say.
func (s *Server) routable() bool { return s.Phase == member.PhaseActive && s.equipped() }

// equipped reports whether clients could use the server if all were well with
// it.
func (s *Server) equipped() bool { return s.Weight > 0 && len(s.Endpoints) > 0 }

// View is the state of one pool. It is immutable: the methods that apply
// something return the view after it, and share what has not changed. Safe for
// concurrent use.
type View struct {
	pool    member.Pool
	version uint64
	// known is set by the first snapshot.
	known    bool
	storeID  string
	position member.Position
	// changeID is the change that led to position, "" where it is not known.
	changeID string
	// rows are all members, by id.
	rows []*Server
	// held are removed servers that are kept as a last resort, by id.
	held []*Server
	// marks are ordered by (id, incarnation).
	marks []mark
	// softEpoch is the highest epoch of any mark.
	softEpoch member.Epoch
	table     *Table
}

// New returns the view of a pool of which nothing is known yet. It takes
// marks, which wait for their rows, but only a snapshot makes it known.
func New(pool member.Pool) *View {
	return &View{pool: pool, table: newTable(nil)}
}

// Pool is the pool's name.
func (v *View) Pool() member.Pool { return v.pool }

// Version counts the views that led to this one. It orders the views of one
// pool within one run of the program, soft changes included.
func (v *View) Version() uint64 { return v.version }

// Known reports whether a snapshot has arrived.
func (v *View) Known() bool { return v.known }

// StoreID identifies the database that the position refers to.
func (v *View) StoreID() string { return v.storeID }

// Position is the point in the pool's history that the rows stand for.
func (v *View) Position() member.Position { return v.position }

// ChangeID is the change that led to the position, "" where it is not known. It
// tells the same revision of two histories apart.
func (v *View) ChangeID() string { return v.changeID }

// Epoch is the highest epoch known from rows or marks.
func (v *View) Epoch() member.Epoch { return max(v.position.Epoch, v.softEpoch) }

// Table is what clients may be sent to. It is the same pointer in two views
// that do not differ to clients.
func (v *View) Table() *Table { return v.table }

// Rows are all members by id, in every phase. The caller must not change them.
func (v *View) Rows() []*Server { return v.rows }

// Held are the removed servers that are kept as a last resort, by id. The
// caller must not change them.
func (v *View) Held() []*Server { return v.held }

// Restore returns the view that Rows and Held were taken from, without marks:
// what a router that starts again knows before it hears from a coordinator.
func Restore(pool member.Pool, s Snapshot, held []*Server) *View {
	next := New(pool).derive()
	next.known, next.storeID, next.position, next.changeID = true, s.StoreID, s.Position, s.ChangeID
	next.rows = sortRows(s.Servers)
	next.held = stillHeld(sortRows(held), next.rows)
	return next.rebuild()
}

// derive returns a copy to be changed by this package before anybody sees it.
func (v *View) derive() *View {
	next := *v
	next.version++
	return &next
}

// rebuild gives the view the table that its rows, marks and held servers call
// for, and keeps the old table when that is the same.
func (v *View) rebuild() *View {
	entries := v.entries()
	if !slices.Equal(entries, v.table.entries) {
		v.table = newTable(entries)
	}
	return v
}

// entries are the servers that may get work, in order of preference. Those whose
// service is down, by row or by mark, get none, unless these and the suspects are
// more than half of all that would get work if all were well: then the checks may
// be what is wrong, and they are better than nobody.
func (v *View) entries() []Entry {
	entries := make([]Entry, 0, len(v.rows)+len(v.held))
	var suspects, down []Entry
	marks := v.marks
	for _, s := range v.rows {
		var says soft
		says, marks = markOf(marks, s)
		switch {
		case !s.routable() && (s.Phase != member.PhaseServiceDown || !s.equipped()):
		case s.Phase == member.PhaseServiceDown || says.serviceDown:
			down = append(down, Entry{s, StateServiceDown})
		case says.suspect:
			suspects = append(suspects, Entry{s, StateSuspect})
		default:
			entries = append(entries, Entry{s, StateActive})
		}
	}
	entries = append(entries, suspects...)
	if all := len(entries) + len(down); 2*(len(suspects)+len(down)) > all {
		entries = append(entries, down...)
	}
	for _, s := range v.held {
		entries = append(entries, Entry{s, StateHeldBack})
	}
	return entries
}

// findRow returns the row of an id, or nil.
func findRow(rows []*Server, id member.ID) *Server {
	i, ok := searchRows(rows, id)
	if !ok {
		return nil
	}
	return rows[i]
}

func searchRows(rows []*Server, id member.ID) (int, bool) {
	return slices.BinarySearchFunc(rows, id, func(s *Server, id member.ID) int { return compareIDs(s.ID, id) })
}

// sortRows returns the rows by id; of rows with the same id the last one stays.
func sortRows(rows []*Server) []*Server {
	sorted := slices.Clone(rows)
	slices.SortStableFunc(sorted, func(a, b *Server) int { return compareIDs(a.ID, b.ID) })
	out := sorted[:0]
	for i, s := range sorted {
		if i+1 < len(sorted) && sorted[i+1].ID == s.ID {
			continue
		}
		out = append(out, s)
	}
	return out
}

package server

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// The window that subscribers can resume from: an entry goes when both limits
// are passed.
const (
	windowRevisions = 10_000
	windowAge       = 10 * time.Minute
)

// history is what subscribers and watchers of one pool read: its rows and its
// recent changes. A reader keeps a revision as its cursor and reads at its own
// pace, so that a slow one costs nothing but its own lag. It is safe for
// concurrent use; the messages it gives out are shared and must not be changed.
type history struct {
	name member.Pool
	bell *bell

	mu sync.Mutex
	// position is the newest, base the one before the first of entries.
	position, base point
	rows           map[member.ID]*pb.Server
	phases         map[member.Phase]int
	wishes         map[member.ID]member.Wish
	// entries are those of the newest revisions, without gaps, in order.
	entries []*entry
	// whole is the snapshot of this revision, and deltas are those that lead to it,
	// by the revision that they apply to; both only as far as they were asked for.
	whole  *parcel
	deltas map[member.Revision]*parcel
}

// point is a position and the change that led there, "" where that is not known.
type point struct {
	member.Position
	changeID string
}

// entry is one change.
type entry struct {
	position point
	at       time.Time
	put      []*pb.Server
	removed  []*pb.RemovedServer
	events   []member.Event
	// confirmed says that an operator has confirmed that many servers go.
	confirmed bool
}

func newHistory(state member.PoolState, b *bell) *history {
	start := point{state.Position, state.LastChange}
	h := &history{
		name: state.Name, bell: b, position: start, base: start,
		rows: make(map[member.ID]*pb.Server, len(state.Servers)), phases: map[member.Phase]int{},
		wishes: make(map[member.ID]member.Wish, len(state.Intents)),
	}
	for _, i := range state.Intents {
		h.wishes[i.ID] = i.Wish
	}
	for _, s := range state.Servers {
		h.put(s)
	}
	return h
}

// publish adds a durable change and wakes the readers.
func (h *history) publish(c member.Change, now time.Time) {
	h.add(c, now)
	h.bell.ring()
}

func (h *history) add(c member.Change, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.position = point{member.Position{Epoch: c.Base.Epoch, Revision: c.Revision()}, c.ID}
	e := &entry{position: h.position, at: now, events: numbered(c.Events, h.position.Position), confirmed: c.MassChangeConfirmed}
	for _, r := range c.Remove {
		if h.drop(r) {
			e.removed = append(e.removed, &pb.RemovedServer{
				ServerId: string(r.ID), Incarnation: uint64(r.Incarnation), Cause: toCause(r.Cause),
			})
		}
	}
	h.wish(c, e)
	for _, s := range c.Put {
		e.put = append(e.put, h.put(s))
	}
	h.entries = append(h.entries, e)
	h.whole, h.deltas = nil, nil
	h.trim(now)
}

// numbered gives events their place, as the store does.
func numbered(events []member.Event, at member.Position) []member.Event {
	events = slices.Clone(events)
	for i := range events {
		events[i].Revision, events[i].Epoch, events[i].Seq = at.Revision, at.Epoch, i
	}
	return events
}

// wish takes over the change's intents. Rows show them, so members whose row
// does not change otherwise are written again.
func (h *history) wish(c member.Change, e *entry) {
	again := func(id member.ID, wish member.Wish) {
		row, ok := h.rows[id]
		if !ok || puts(c, id) {
			return
		}
		row = copyRow(row)
		row.Intent = toWish(wish)
		h.rows[id] = row
		e.put = append(e.put, row)
	}
	for _, id := range c.Forget {
		delete(h.wishes, id)
		again(id, member.WishActive)
	}
	for _, i := range c.Intents {
		h.wishes[i.ID] = i.Wish
		again(i.ID, i.Wish)
	}
}

// puts reports whether the change writes the row of id.
func puts(c member.Change, id member.ID) bool {
	return slices.ContainsFunc(c.Put, func(s member.Server) bool { return s.ID == id })
}

func copyRow(r *pb.Server) *pb.Server {
	return &pb.Server{
		ServerId: r.GetServerId(), Pool: r.GetPool(), Spec: r.GetSpec(), Phase: r.GetPhase(),
		Incarnation: r.GetIncarnation(), FirstBuddy: r.GetFirstBuddy(), SecondBuddy: r.GetSecondBuddy(),
		JoinedAt: r.GetJoinedAt(), PhaseSince: r.GetPhaseSince(), HeldUntil: r.GetHeldUntil(), Intent: r.GetIntent(),
	}
}

// put takes a row. What a server says about itself hardly ever changes, and is
// shared by all versions of its row, as are their times.
func (h *history) put(s member.Server) *pb.Server {
	var spec *pb.ServerSpec
	old, ok := h.rows[s.ID]
	if ok {
		h.phases[member.Phase(old.GetPhase())]--
		spec = old.GetSpec()
	}
	if spec == nil || !isSpec(spec, s.Spec) {
		spec = toSpec(s.Spec)
	}
	row := toRowWith(spec, h.name, s, h.wishes[s.ID])
	row.JoinedAt = shared(old.GetJoinedAt(), row.GetJoinedAt())
	row.PhaseSince = shared(old.GetPhaseSince(), row.GetPhaseSince())
	h.rows[s.ID] = row
	h.phases[s.Phase]++
	return row
}

// shared is the old message of a time that is still the same.
func shared(old, now *timestamppb.Timestamp) *timestamppb.Timestamp {
	if old != nil && now != nil && old.GetSeconds() == now.GetSeconds() && old.GetNanos() == now.GetNanos() {
		return old
	}
	return now
}

func (h *history) drop(r member.Removal) bool {
	row, ok := h.rows[r.ID]
	if !ok || row.GetIncarnation() != uint64(r.Incarnation) {
		return false
	}
	h.phases[member.Phase(row.GetPhase())]--
	delete(h.rows, r.ID)
	return true
}

func (h *history) trim(now time.Time) {
	n := 0
	for len(h.entries)-n > windowRevisions && now.Sub(h.entries[n].at) > windowAge {
		n++
	}
	if n > 0 {
		h.base = h.entries[n-1].position
	}
	clear(h.entries[:n])
	h.entries = h.entries[n:]
}

// head is where the history stands.
func (h *history) head() member.Position {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.position.Position
}

// after returns the changes after a revision, and false when the history does
// not reach back that far, or not forward.
func (h *history) after(cursor member.Revision) ([]*entry, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	head := h.position.Revision
	if cursor > head || head-cursor > member.Revision(len(h.entries)) {
		return nil, false
	}
	return slices.Clone(h.entries[len(h.entries)-int(head-cursor):]), true
}

// refutes says why a point cannot be of this history, or is empty where it can.
// Of a revision that is too old to be known, nobody can say.
func (h *history) refutes(p point) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	head, oldest := h.position.Revision, h.base.Revision
	if p.Revision > head {
		return fmt.Sprintf("revision %d, the database only %d", p.Revision, head)
	}
	if p.changeID == "" || p.Revision < oldest {
		return ""
	}
	own := h.base
	if p.Revision > oldest {
		own = h.entries[p.Revision-oldest-1].position
	}
	if own.changeID == "" || own.changeID == p.changeID {
		return ""
	}
	return fmt.Sprintf("another change as revision %d than the database", p.Revision)
}

// entryOf returns the change that made a revision, or nil.
func (h *history) entryOf(revision member.Revision) *entry {
	if revision == 0 {
		return nil
	}
	entries, ok := h.after(revision - 1)
	if !ok || len(entries) == 0 {
		return nil
	}
	return entries[0]
}

// committedAt is when a revision was committed, zero where that is not known.
func (h *history) committedAt(revision member.Revision) time.Time {
	if e := h.entryOf(revision); e != nil {
		return e.at
	}
	return time.Time{}
}

// snapshot returns all rows, by id. All who ask at one revision get the same
// parcel.
func (h *history) snapshot() *parcel {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.whole == nil {
		rows := slices.Collect(maps.Values(h.rows))
		position := h.position
		h.whole = newParcel(position.Position, func() *pb.SubscribeResponse {
			slices.SortFunc(rows, byServerID)
			return &pb.SubscribeResponse{Message: &pb.SubscribeResponse_Snapshot{
				Snapshot: &pb.Snapshot{Position: position.toProto(h.name), Servers: rows},
			}}
		})
	}
	return h.whole
}

// sharedDeltas bounds the deltas that are kept for others. Those who keep up all
// need the same one.
const sharedDeltas = 16

// delta returns changes, of which there is at least one, as one. All who ask for
// the same changes up to the newest get the same parcel.
func (h *history) delta(entries []*entry) *parcel {
	from, to := entries[0].position.Revision-1, entries[len(entries)-1].position
	p := newParcel(to.Position, func() *pb.SubscribeResponse {
		return &pb.SubscribeResponse{Message: &pb.SubscribeResponse_Delta{Delta: coalesce(h.name, entries)}}
	})
	h.mu.Lock()
	defer h.mu.Unlock()
	if to.Revision != h.position.Revision {
		return p
	}
	if shared := h.deltas[from]; shared != nil {
		return shared
	}
	if h.deltas == nil {
		h.deltas = map[member.Revision]*parcel{}
	}
	if len(h.deltas) < sharedDeltas {
		h.deltas[from] = p
	}
	return p
}

func byServerID(a, b *pb.Server) int { return strings.Compare(a.GetServerId(), b.GetServerId()) }

// sizes counts the members per phase.
func (h *history) sizes() map[member.Phase]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.phases)
}

// upToConfirmed cuts changes after the last one that an operator has confirmed:
// what he confirmed is what went by then, and not what has gone since.
func upToConfirmed(entries []*entry) (confirmed, since []*entry) {
	for i, e := range slices.Backward(entries) {
		if e.confirmed {
			return entries[:i+1], entries[i+1:]
		}
	}
	return nil, entries
}

// coalesce turns changes, of which there is at least one, into one delta from
// the revision before the first: the rows as they are afterwards, and the
// members that are gone. It is confirmed if the last one is. Of a member that came back meanwhile and left again the
// last incarnation is listed; with it all earlier ones are over.
func coalesce(name member.Pool, entries []*entry) *pb.Delta {
	first, last := entries[0], entries[len(entries)-1]
	put, removed := map[string]*pb.Server{}, map[string]*pb.RemovedServer{}
	for _, e := range entries {
		for _, r := range e.removed {
			delete(put, r.GetServerId())
			removed[r.GetServerId()] = r
		}
		for _, row := range e.put {
			put[row.GetServerId()] = row
		}
	}
	delta := &pb.Delta{
		FromRevision: uint64(first.position.Revision) - 1, Position: last.position.toProto(name),
	}
	if last.confirmed {
		delta.MassChangeConfirmed = &last.confirmed
	}
	for _, id := range slices.Sorted(maps.Keys(put)) {
		delta.Put = append(delta.Put, put[id])
		delete(removed, id)
	}
	for _, id := range slices.Sorted(maps.Keys(removed)) {
		delta.Removed = append(delta.Removed, removed[id])
	}
	return delta
}

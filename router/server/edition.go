package server

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/buddyring/buddyring/internal/member"
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
	"github.com/buddyring/buddyring/router/door"
	"github.com/buddyring/buddyring/router/view"
)

// What a watcher may have missed and still get as a delta.
const (
	historySteps = 256
	historyIDs   = 16_384
)

// edition is one state of a pool as clients see it. It never changes, but for
// the counts and times behind pointers, which all editions of a pool share. It
// is safe for concurrent use.
type edition struct {
	pool member.Pool
	// seq orders all editions of all pools in this run.
	seq  uint64
	view *view.View
	// loads and turns are for picks.
	loads *loads
	turns *atomic.Uint64
	// contact is when the coordinator last confirmed the state.
	contact *contact
	metrics *poolMetrics
	// history is how the pool came here, this edition last.
	history []step
	// superseded is closed when there is a newer edition, or the pool is gone.
	superseded chan struct{}
	// state is the edition as the doors see it.
	state *door.State

	// resolved are the answers to Resolve by endpoint name, snapshot and deltas
	// those to watchers, deltas by the seq of the edition that the watcher has.
	// All are encoded when they are first needed, and only once.
	resolved map[string]func() ([]byte, error)
	snapshot func() ([]byte, error)
	deltas   sync.Map
}

// step is one edition in the history of its pool.
type step struct {
	seq      uint64
	position member.Position
	// first is set where a history begins: nothing led to it.
	first bool
	// changed are the servers that are not as in the edition before.
	changed []member.ID
}

// newEdition returns the edition of v after the one before, which may be nil.
func newEdition(b *book, seq uint64, v *view.View) *edition {
	e := &edition{
		pool: v.Pool(), seq: seq, view: v, turns: b.turns, contact: b.contact, metrics: b.metrics,
		loads: b.counts.loadsOf(v.Table()), superseded: make(chan struct{}),
	}
	e.state = &door.State{View: v, Superseded: e.superseded, Freshness: e.contact.age}
	e.history = nextHistory(b.edition, e)
	e.snapshot = sync.OnceValues(e.encodeSnapshot)
	e.resolved = map[string]func() ([]byte, error){}
	for _, name := range append(v.Table().EndpointNames(), "") {
		e.resolved[name] = sync.OnceValues(func() ([]byte, error) { return e.encodeServers(name) })
	}
	return e
}

// nextHistory continues the history of the edition before. A pool that has come
// from another store, or whose revision went back, begins a new one.
func nextHistory(before, e *edition) []step {
	next := step{seq: e.seq, position: e.view.Position()}
	if before == nil || before.view.StoreID() != e.view.StoreID() ||
		next.position.Revision < before.view.Position().Revision {
		next.first = true
		return []step{next}
	}
	next.changed = view.Changed(before.view.Table(), e.view.Table())
	history := append(slices.Clone(before.history), next)
	ids := 0
	for i, s := range slices.Backward(history) {
		if ids += len(s.changed); ids > historyIDs || len(history)-i > historySteps {
			return history[i+1:]
		}
	}
	return history
}

// since returns what has changed since an edition; false if that is not known.
func (e *edition) since(seq uint64) ([]member.ID, bool) {
	i := slices.IndexFunc(e.history, func(s step) bool { return s.seq == seq })
	if i < 0 {
		return nil, false
	}
	var changed []member.ID
	for _, s := range e.history[i+1:] {
		changed = append(changed, s.changed...)
	}
	slices.Sort(changed)
	return slices.Compact(changed), true
}

// resume returns the oldest edition that had a position, so that a watcher which
// saw any edition with that position gets all that has changed. It is 0 where
// the history does not reach back so far.
func (e *edition) resume(storeID string, at member.Position) uint64 {
	if storeID != e.view.StoreID() {
		return 0
	}
	i := slices.IndexFunc(e.history, func(s step) bool { return s.position == at })
	if i < 0 || i == 0 && !e.history[0].first {
		return 0
	}
	return e.history[i].seq
}

// freshness says how old an answer of now is.
func (e *edition) freshness(now time.Time) *routerv1.Freshness {
	p := e.view.Position()
	age, stale := e.contact.age(now)
	return &routerv1.Freshness{
		StoreId: e.view.StoreID(), Epoch: uint64(p.Epoch), Revision: uint64(p.Revision),
		Age: durationpb.New(age), Stale: &stale,
	}
}

// resolve answers Resolve. An endpoint that nobody has is an empty answer.
func (e *edition) resolve(endpoint string, now time.Time) (*routerv1.ResolveResponse, error) {
	encode, ok := e.resolved[endpoint]
	if !ok {
		return &routerv1.ResolveResponse{Pool: string(e.pool), Freshness: e.freshness(now)}, nil
	}
	servers, err := encode()
	if err != nil {
		return nil, err
	}
	return withEncoded(&routerv1.ResolveResponse{Freshness: e.freshness(now)}, servers), nil
}

// message is what a watcher gets that has the edition seq, or none if 0: a
// snapshot, a delta, or a bookmark.
func (e *edition) message(seq uint64, now time.Time) (*routerv1.WatchResponse, error) {
	head := &routerv1.WatchResponse{Freshness: e.freshness(now)}
	changed, ok := e.since(seq)
	if ok && len(changed) == 0 {
		head.Message = &routerv1.WatchResponse_Bookmark{Bookmark: &routerv1.WatchBookmark{}}
		return head, nil
	}
	encode := e.snapshot
	if ok {
		once, _ := e.deltas.LoadOrStore(seq, sync.OnceValues(func() ([]byte, error) { return e.encodeDelta(changed) }))
		encode = once.(func() ([]byte, error)) //nolint:forcetypeassert // only these are stored
	}
	body, err := encode()
	if err != nil {
		return nil, err
	}
	return withEncoded(head, body), nil
}

func (e *edition) encodeServers(endpoint string) ([]byte, error) {
	return proto.Marshal(&routerv1.ResolveResponse{Pool: string(e.pool), Servers: toServers(e.view.Table(), endpoint)})
}

func (e *edition) encodeSnapshot() ([]byte, error) {
	return proto.Marshal(&routerv1.WatchResponse{Message: &routerv1.WatchResponse_Snapshot{
		Snapshot: &routerv1.WatchSnapshot{Servers: toServers(e.view.Table(), "")},
	}})
}

func (e *edition) encodeDelta(changed []member.ID) ([]byte, error) {
	delta, table := &routerv1.WatchDelta{}, e.view.Table()
	for _, id := range changed {
		if i, ok := table.Find(id); ok {
			delta.Put = append(delta.Put, toServer(table.Entries()[i], ""))
		} else {
			delta.Removed = append(delta.Removed, string(id))
		}
	}
	return proto.Marshal(&routerv1.WatchResponse{Message: &routerv1.WatchResponse_Delta{Delta: delta}})
}

// withEncoded adds fields that are encoded already to a message. The wire
// format of a message is that of its fields one after the other, so that they
// may travel as if unknown: sending them again costs a copy, not an encoding.
func withEncoded[M proto.Message](m M, fields []byte) M {
	m.ProtoReflect().SetUnknown(fields)
	return m
}

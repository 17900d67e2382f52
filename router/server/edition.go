package server

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/rpc"
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
	// run is the run of the router.
	run string
	// seq orders all editions of all pools in this run.
	seq uint64
	// made is since when clients are answered from it.
	made time.Time
	view *view.View
	// table is the view's, with the weights of the moment: servers that are new to
	// work have less at first.
	table *view.Table
	// loads and turns are for picks.
	loads *loads
	turns *atomic.Uint64
	// contact is when the coordinator last confirmed the state, leader when it
	// confirmed anything.
	contact, leader *contact
	metrics         *poolMetrics
	// history is how the pool came here, this edition last.
	history []step
	// superseded is closed when there is a newer edition, or the pool is gone.
	superseded chan struct{}
	// state is the edition as the doors see it.
	state *door.State

	// What follows is encoded when it is first needed, and only once; all clients
	// get the same bytes.

	// head is the answer to any request as far as it is always the same.
	head []byte
	// resolved are the servers that Resolve answers by question, zones those that
	// it tells apart.
	resolved sync.Map
	zones    func() map[string]bool
	// snapshot and deltas are for watchers, deltas by the seq of the edition that
	// the watcher has.
	snapshot func() ([]byte, error)
	deltas   sync.Map
}

// question is what answers to Resolve depend on.
type question struct{ endpoint, zone string }

// step is one edition in the history of its pool.
type step struct {
	seq      uint64
	position member.Position
	// first is set where a history begins: nothing led to it.
	first bool
	// changed are the servers that are not as in the edition before.
	changed []member.ID
}

// newEdition returns the edition of the book's view and warm-up after the one
// before, which may be nil.
func newEdition(b *book, seq uint64) *edition {
	v, table := b.view, b.warmup.Table()
	e := &edition{
		pool: v.Pool(), run: b.run, seq: seq, made: time.Now(), view: v, table: table, turns: b.turns, contact: b.contact, leader: b.leader,
		metrics: b.metrics, loads: b.counts.loadsOf(table), superseded: make(chan struct{}), head: encodeHead(v),
	}
	e.state = &door.State{View: v, Table: table, Superseded: e.superseded, Freshness: e.contact.age, NotServed: e.notServed}
	e.history = nextHistory(b.edition, e)
	e.snapshot = sync.OnceValues(e.encodeSnapshot)
	e.zones = sync.OnceValue(e.findZones)
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
	next.changed = view.Changed(before.table, e.table)
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

// encodeHead encodes what Freshness says of a view for as long as it is served.
func encodeHead(v *view.View) []byte {
	p := v.Position()
	b := appendString(nil, 1, v.StoreID())
	b = appendUint(b, 2, uint64(p.Epoch))
	return appendUint(b, 3, uint64(p.Revision))
}

// appendFreshness appends a field that says how old an answer of now is.
func (e *edition) appendFreshness(b []byte, field protowire.Number, now time.Time) []byte {
	age, stale := e.contact.age(now)
	return appendMessage(b, field, func(b []byte) []byte {
		b = appendAge(append(b, e.head...), age, stale)
		if stale && e.notServed(now) {
			b = protowire.AppendVarint(protowire.AppendTag(b, 6, protowire.VarintType), protowire.EncodeBool(true))
		}
		return b
	})
}

// notServed reports whether a state that nobody confirms is so although a
// coordinator is in reach.
func (e *edition) notServed(now time.Time) bool {
	_, lost := e.leader.age(now)
	return !lost
}

// freshnessRoom is enough for all but the head of a Freshness.
const freshnessRoom = 32

// resolve answers Resolve. An endpoint that nobody has is an empty answer.
func (e *edition) resolve(q question, now time.Time) (*rpc.Encoded, error) {
	if !e.zones()[q.zone] {
		q.zone = ""
	}
	if q.endpoint != "" && !slices.Contains(e.table.EndpointNames(), q.endpoint) {
		return rpc.NewEncoded(e.appendFreshness(appendString(nil, 1, string(e.pool)), 3, now)), nil
	}
	once, ok := e.resolved.Load(q)
	if !ok {
		once, _ = e.resolved.LoadOrStore(q, sync.OnceValues(func() ([]byte, error) { return e.encodeServers(q) }))
	}
	servers, err := once.(func() ([]byte, error))() //nolint:forcetypeassert // only these are stored
	if err != nil {
		return nil, err
	}
	return rpc.NewEncoded(servers, e.appendFreshness(make([]byte, 0, len(e.head)+freshnessRoom), 3, now)), nil
}

func (e *edition) findZones() map[string]bool {
	zones := map[string]bool{}
	for _, entry := range e.table.Entries() {
		zones[entry.Server.Zone] = true
	}
	return zones
}

// message is what a watcher gets that has the edition seq, or none if 0: a
// snapshot, a delta, or a bookmark.
func (e *edition) message(seq uint64, now time.Time) (*rpc.Encoded, error) {
	body, err := e.body(seq)
	if err != nil {
		return nil, err
	}
	return rpc.NewEncoded(e.appendFreshness(make([]byte, 0, len(e.head)+freshnessRoom), 1, now), body), nil
}

func (e *edition) body(seq uint64) ([]byte, error) {
	if seq == e.seq {
		return encodeBookmark(), nil
	}
	if !slices.ContainsFunc(e.history, func(s step) bool { return s.seq == seq }) {
		return e.snapshot()
	}
	once, ok := e.deltas.Load(seq)
	if !ok {
		once, _ = e.deltas.LoadOrStore(seq, sync.OnceValues(func() ([]byte, error) { return e.encodeDelta(seq) }))
	}
	return once.(func() ([]byte, error))() //nolint:forcetypeassert // only these are stored
}

func (e *edition) encodeServers(q question) ([]byte, error) {
	return proto.Marshal(&routerv1.ResolveResponse{
		Pool: string(e.pool), Servers: toServers(e.table, q.endpoint, q.zone),
	})
}

func (e *edition) encodeSnapshot() ([]byte, error) {
	return proto.Marshal(&routerv1.WatchResponse{Message: &routerv1.WatchResponse_Snapshot{
		Snapshot: &routerv1.WatchSnapshot{Servers: toServers(e.table, "", ""), Run: e.run},
	}})
}

// encodeDelta encodes what has changed since an edition of the history; a
// bookmark if nothing has.
func (e *edition) encodeDelta(seq uint64) ([]byte, error) {
	changed, _ := e.since(seq)
	if len(changed) == 0 {
		return encodeBookmark(), nil
	}
	delta, table := &routerv1.WatchDelta{}, e.table
	for _, id := range changed {
		if i, ok := table.Find(id); ok {
			delta.Put = append(delta.Put, toServer(table.Entries()[i], ""))
		} else {
			delta.Removed = append(delta.Removed, string(id))
		}
	}
	return proto.Marshal(&routerv1.WatchResponse{Message: &routerv1.WatchResponse_Delta{Delta: delta}})
}

// encodeBookmark encodes the field bookmark of a WatchResponse, which has none
// itself.
func encodeBookmark() []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, 4, protowire.BytesType), nil)
}

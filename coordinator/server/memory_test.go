package server_test

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/buddyring/buddyring/coordinator/server"
	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
)

// table is a durable table in memory, which can be made to fail, to hang and to
// lose its answers.
type table struct {
	// Backups is nil but where a test is about them.
	server.Backups

	mu      sync.Mutex
	storeID string
	lease   member.Lease
	pools   map[member.Pool]*tablePool
	deleted map[member.Pool]member.DeletedPool
	// ends are the changes that have deleted them, kept the requests of theirs.
	ends    map[member.Pool]string
	kept    map[member.Pool][]member.Request
	routers map[string]store.RouterRow
	others  map[member.ID]member.Coordinator

	// failing is what writes, and looks at the lease, return; losing makes the next commit, or new pool,
	// happen without an answer; held makes commits wait until it closes.
	failing error
	losing  bool
	// crashing is what becomes of the next removal, by whose COMMIT the database goes
	// away.
	crashing func(member.Change)
	held     chan struct{}
	// unreadable says why rows of the default pool cannot be read, until they are written.
	unreadable map[member.ID]error
	// puts counts the writes of routers' rows.
	puts int
}

type tablePool struct {
	state     member.PoolState
	requests  []member.Request
	compacted member.Revision
	rows      map[member.ID]member.Server
	intents   map[member.ID]member.Intent
	departed  map[member.ID]member.Departed
	events    []member.Event
}

func newTable() *table {
	return &table{
		storeID: "store-1", pools: map[member.Pool]*tablePool{}, routers: map[string]store.RouterRow{},
		others: map[member.ID]member.Coordinator{}, deleted: map[member.Pool]member.DeletedPool{}, ends: map[member.Pool]string{},
		kept: map[member.Pool][]member.Request{},
	}
}

// backup returns a copy of the table as it stands.
func (t *table) backup() *table {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := &table{
		storeID: t.storeID, lease: t.lease, pools: map[member.Pool]*tablePool{}, routers: maps.Clone(t.routers),
		others: maps.Clone(t.others), deleted: maps.Clone(t.deleted), ends: maps.Clone(t.ends), kept: maps.Clone(t.kept),
	}
	for name, p := range t.pools {
		own := *p
		own.rows, own.intents, own.departed = maps.Clone(p.rows), maps.Clone(p.intents), maps.Clone(p.departed)
		own.events, own.requests = slices.Clone(p.events), slices.Clone(p.requests)
		c.pools[name] = &own
	}
	return c
}

// fail makes writes fail with err, nil to end that.
func (t *table) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failing = err
}

// hold makes commits hang until the returned function is called.
func (t *table) hold() (release func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	held := make(chan struct{})
	t.held = held
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.held = nil
		close(held)
	}
}

// lose makes the next commit, or new pool, happen, but its answer get lost.
func (t *table) lose() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.losing = true
}

// crash makes the database go away by the COMMIT of the next removal, after it or
// before it.
func (t *table) crash(after bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.crashing = func(c member.Change) {
		if after {
			_ = t.write(c)
		}
	}
}

// compact forgets the events up to a revision.
func (t *table) compact(name member.Pool, revision member.Revision) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.pools[name]
	p.compacted = revision
	p.events = slices.DeleteFunc(p.events, func(e member.Event) bool { return e.Revision <= revision })
}

func (t *table) Kind() string { return "memory" }

func (t *table) Lease(context.Context) (member.Lease, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lease, t.failing
}

func (t *table) Lead(_ context.Context, c store.Claim) (store.Leadership, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.failing != nil:
		return store.Leadership{}, t.failing
	case t.lease.Moved(c.Seen):
		return store.Leadership{}, member.ErrStale
	}
	t.lease = member.Lease{
		StoreID: t.storeID, Holder: c.Holder, Instance: c.Instance, Advertise: c.Advertise,
		Epoch: max(t.lease.Epoch, c.Above) + 1, Renewal: t.lease.Renewal + 1,
	}
	for _, p := range t.pools {
		p.state.Position.Epoch = t.lease.Epoch
	}
	return store.Leadership{StoreID: t.storeID, Epoch: t.lease.Epoch}, nil
}

// usurp lets another coordinator take the lead without asking who has it.
func (t *table) usurp(id member.ID) {
	now, _ := t.Lease(context.Background())
	_, _ = t.Lead(context.Background(), store.Claim{Holder: id, Instance: rand.Text(), Advertise: string(id) + ":7400", Seen: now})
}

func (t *table) Renew(_ context.Context, epoch member.Epoch) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.renew(epoch)
}

func (t *table) renew(epoch member.Epoch) error {
	if err := cmp.Or(t.failing, t.fenced(epoch)); err != nil {
		return err
	}
	t.lease.Renewal++
	return nil
}

func (t *table) Release(_ context.Context, epoch member.Epoch) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.renew(epoch); err != nil {
		return err
	}
	t.lease.Holder, t.lease.Instance, t.lease.Advertise = "", "", ""
	return nil
}

func (t *table) PutCoordinator(_ context.Context, c member.Coordinator) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.others[c.ID] = c
	return t.failing
}

func (t *table) Coordinators(_ context.Context, since time.Time) ([]member.Coordinator, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []member.Coordinator
	for _, id := range slices.Sorted(maps.Keys(t.others)) {
		if c := t.others[id]; !c.LastSeen.Before(since) {
			all = append(all, c)
		}
	}
	return all, t.failing
}

func (t *table) fenced(epoch member.Epoch) error {
	switch {
	case epoch < t.lease.Epoch:
		return fmt.Errorf("epoch %d is over: %w", epoch, member.ErrFenced)
	case epoch > t.lease.Epoch:
		return fmt.Errorf("%w: epoch %d instead of %d: %w", member.ErrUnavailable, t.lease.Epoch, epoch, store.ErrBehind)
	}
	return nil
}

// putBack makes the table what it was when a backup was taken.
func (t *table) putBack(b *table) {
	old := b.backup()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.storeID, t.lease, t.pools, t.routers = old.storeID, old.lease, old.pools, old.routers
}

func (t *table) LoadPools(context.Context) ([]member.PoolState, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var states []member.PoolState
	for _, name := range slices.Sorted(maps.Keys(t.pools)) {
		p := t.pools[name]
		state := p.state
		state.Servers = p.servers()
		state.Intents = slices.Collect(maps.Values(p.intents))
		state.Departed = slices.Collect(maps.Values(p.departed))
		states = append(states, state)
	}
	return states, nil
}

func (p *tablePool) servers() []member.Server {
	rows := slices.SortedFunc(maps.Values(p.rows), func(a, b member.Server) int { return cmp.Compare(a.ID, b.ID) })
	for i := range rows {
		rows[i] = rows[i].Clone()
	}
	return rows
}

func (t *table) CreatePool(_ context.Context, epoch member.Epoch, n store.NewPool) (member.PoolState, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.renew(epoch); err != nil {
		return member.PoolState{}, err
	}
	if t.pools[n.Name] != nil {
		return member.PoolState{}, member.ErrAlreadyExists
	}
	for _, r := range n.Requests {
		if slices.ContainsFunc(t.kept[n.Name], func(k member.Request) bool { return k.ID == r.ID && r.At.Sub(k.At) < store.RequestLife }) {
			return member.PoolState{}, member.ErrAlreadyExists
		}
	}
	first := t.deleted[n.Name].Position.Revision + 1
	p := &tablePool{
		state: member.PoolState{
			Name: n.Name, Position: member.Position{Epoch: epoch, Revision: first}, LastChange: rand.Text(),
			Settings: n.Settings,
		},
		requests: slices.Clone(n.Requests),
		rows:     map[member.ID]member.Server{}, intents: map[member.ID]member.Intent{}, departed: map[member.ID]member.Departed{},
	}
	for i := range p.requests {
		p.requests[i].Revision = first
	}
	p.requests = append(p.requests, t.kept[n.Name]...)
	p.record(n.Events)
	t.pools[n.Name] = p
	if t.losing {
		t.losing = false
		return member.PoolState{}, fmt.Errorf("%w: %w", member.ErrUnavailable, store.ErrOutcomeUnknown)
	}
	return p.state, nil
}

func (p *tablePool) record(events []member.Event) {
	for i, e := range events {
		e.Revision, e.Epoch, e.Seq = p.state.Position.Revision, p.state.Position.Epoch, i
		p.events = append(p.events, e)
	}
}

func (t *table) Commit(ctx context.Context, c member.Change) error {
	if err := t.wait(ctx); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.crashing != nil && len(c.Remove) > 0 {
		t.crashing(c)
		t.crashing, t.failing = nil, errDown
		return fmt.Errorf("%w: %w", errDown, store.ErrOutcomeUnknown)
	}
	if t.failing != nil {
		return t.failing
	}
	if err := t.write(c); err != nil {
		return err
	}
	if t.losing {
		t.losing = false
		return fmt.Errorf("%w: %w", member.ErrUnavailable, store.ErrOutcomeUnknown)
	}
	return nil
}

// wait waits while commits hang.
func (t *table) wait(ctx context.Context) error {
	t.mu.Lock()
	held := t.held
	t.mu.Unlock()
	if held == nil {
		return nil
	}
	select {
	case <-held:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w: %w", member.ErrUnavailable, store.ErrOutcomeUnknown, ctx.Err())
	}
}

func (t *table) Settle(ctx context.Context, c member.Change) (isIn bool, err error) {
	if err := t.wait(ctx); err != nil {
		return false, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.pools[c.Pool]
	switch {
	case t.failing != nil:
		return false, t.failing
	case p != nil && p.state.Position == c.Base:
		return false, nil
	}
	err = t.write(c)
	return err == nil, err
}

func (t *table) write(c member.Change) error {
	p := t.pools[c.Pool]
	switch {
	case p == nil && c.Delete != nil && t.ends[c.Pool] == c.ID:
		return nil
	case p == nil:
		return member.ErrNotFound
	case p.state.LastChange == c.ID:
		return nil
	case p.state.Position.Epoch > c.Base.Epoch:
		return member.ErrFenced
	case p.state.Position.Epoch < c.Base.Epoch, p.state.Position.Revision < c.Base.Revision:
		return fmt.Errorf("%w: %w", member.ErrUnavailable, store.ErrBehind)
	case p.state.Position != c.Base:
		return member.ErrStale
	}
	if c.Delete != nil {
		d := member.DeletedPool{Name: c.Pool, Position: member.Position{Epoch: c.Base.Epoch, Revision: c.Revision()}, Deletion: *c.Delete}
		if len(c.Requests) > 0 {
			d.Request = c.Requests[0]
		}
		t.deleted[c.Pool], t.ends[c.Pool] = d, c.ID
		t.kept[c.Pool] = slices.Concat(p.requests, c.Requests)
		delete(t.pools, c.Pool)
		return nil
	}
	for _, r := range c.Remove {
		if p.rows[r.ID].Incarnation != r.Incarnation {
			return member.ErrStale
		}
		delete(p.rows, r.ID)
	}
	p.state.LastChange, p.state.Position.Revision = c.ID, c.Revision()
	for _, s := range c.Put {
		p.rows[s.ID] = s.Clone()
		delete(t.unreadable, s.ID)
	}
	for _, id := range c.Forget {
		delete(p.intents, id)
	}
	for _, i := range c.Intents {
		p.intents[i.ID] = i
	}
	for _, d := range c.Departed {
		p.departed[d.ID] = d
	}
	if c.Settings != nil {
		p.state.Settings = *c.Settings
	}
	if c.ReferenceSize != nil {
		p.state.ReferenceSize = *c.ReferenceSize
	}
	p.requests = append(p.requests, c.Requests...)
	p.record(c.Events)
	return nil
}

func (t *table) Requests(_ context.Context, id string) ([]store.PoolRequest, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.failing != nil {
		return nil, t.failing
	}
	all := maps.Clone(t.kept)
	for name, p := range t.pools {
		all[name] = p.requests
	}
	var found []store.PoolRequest
	for _, name := range slices.Sorted(maps.Keys(all)) {
		for _, r := range all[name] {
			if r.ID == id && time.Since(r.At) < store.RequestLife {
				found = append(found, store.PoolRequest{Pool: name, Request: r})
			}
		}
	}
	return found, nil
}

func (t *table) DeletedPools(context.Context) ([]member.DeletedPool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []member.DeletedPool
	for _, d := range t.deleted {
		all = append(all, d)
	}
	return all, nil
}

func (t *table) Servers(_ context.Context, name member.Pool) (store.ServerRows, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.pools[name]
	if p == nil {
		return store.ServerRows{}, member.ErrNotFound
	}
	found := store.ServerRows{At: p.state.Position, Unreadable: map[member.ID]error{}}
	for _, row := range p.servers() {
		if why := t.unreadable[row.ID]; why != nil {
			found.Unreadable[row.ID] = why
		} else {
			found.Servers = append(found.Servers, row)
		}
	}
	return found, nil
}

// meddle changes a row behind the coordinator's back.
func (t *table) meddle(name member.Pool, id member.ID, change func(*member.Server)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	row := t.pools[name].rows[id]
	change(&row)
	t.pools[name].rows[id] = row
}

// spoil makes a row of the default pool one that cannot be read.
func (t *table) spoil(id member.ID, why error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pools[member.DefaultPool].rows[id] = member.Server{ID: id}
	if t.unreadable == nil {
		t.unreadable = map[member.ID]error{}
	}
	t.unreadable[id] = why
}

// has returns the phase of a row.
func (t *table) has(name member.Pool, id member.ID) member.Phase {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.pools[name].rows[id].Phase
}

// turnBack takes a pool back by one revision behind the coordinator's back.
func (t *table) turnBack(name member.Pool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pools[name].state.Position.Revision--
}

func (t *table) Events(_ context.Context, q store.EventQuery) ([]member.Event, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.failing != nil {
		return nil, t.failing
	}
	var found []member.Event
	for _, e := range slices.Backward(t.pools[q.Pool].events) {
		before := q.Before == nil || e.Revision < q.Before.Revision || e.Revision == q.Before.Revision && e.Seq < q.Before.Seq
		if before && e.Revision >= q.Since && (q.ID == "" || e.ID == q.ID) &&
			(len(q.Kinds) == 0 || slices.Contains(q.Kinds, e.Kind)) && len(found) < q.Limit {
			found = append(found, e)
		}
	}
	return found, nil
}

func (t *table) EventsFrom(_ context.Context, name member.Pool, from member.Revision, limit int) ([]member.Event, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.pools[name]
	if from <= p.compacted {
		return nil, fmt.Errorf("history starts after revision %d: %w", p.compacted, member.ErrCompacted)
	}
	var found []member.Event
	for _, e := range p.events {
		if e.Revision >= from && (len(found) < limit || found[len(found)-1].Revision == e.Revision) {
			found = append(found, e)
		}
	}
	return found, nil
}

func (t *table) PutRouter(_ context.Context, epoch member.Epoch, r store.RouterRow) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.renew(epoch); err != nil {
		return err
	}
	t.routers[r.ID] = r
	t.puts++
	return nil
}

func (t *table) routerWrites() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.puts
}

func (t *table) router(id string) (store.RouterRow, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r, ok := t.routers[id]
	return r, ok
}

func (t *table) Routers(context.Context) ([]store.RouterRow, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.SortedFunc(maps.Values(t.routers), func(a, b store.RouterRow) int { return cmp.Compare(a.ID, b.ID) }), nil
}

func (t *table) DropRouter(_ context.Context, epoch member.Epoch, id string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.renew(epoch); err != nil {
		return err
	}
	delete(t.routers, id)
	return nil
}

func (t *table) ForgetRouters(_ context.Context, epoch member.Epoch, since time.Time) (int64, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.renew(epoch); err != nil {
		return 0, err
	}
	before := len(t.routers)
	maps.DeleteFunc(t.routers, func(_ string, r store.RouterRow) bool { return r.LastSeen.Before(since) })
	return int64(before - len(t.routers)), nil
}

func (t *table) Prune(context.Context, member.Pool, store.Retention) (int64, error) { return 0, nil }

// errDown is what a database that cannot be reached comes to.
var errDown = fmt.Errorf("%w: %w", member.ErrUnavailable, errors.New("the database is down"))

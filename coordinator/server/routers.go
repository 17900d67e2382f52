package server

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
)

const (
	// maxRouters bounds the registry, since without TLS anybody may claim any id.
	maxRouters = 10_000
	// routerMemory is how long a router that went without a word is listed, and
	// has its alarm; goodbyeMemory, how long one is listed that said goodbye.
	routerMemory  = 24 * time.Hour
	goodbyeMemory = 10 * time.Minute
	// routerSilence is how long a router that did not say goodbye may be gone
	// before an alarm.
	routerSilence = time.Minute
	// routerWrite is how often a router's row is written when there is something
	// new; routerRefresh, when there is not.
	routerWrite   = 10 * time.Second
	routerRefresh = 5 * time.Minute
	// progressLength is how many steps of a router's progress are kept per pool.
	progressLength = 512
)

// routers knows the routers and what they have applied. It is safe for
// concurrent use.
type routers struct {
	alarms ownAlarms
	// heard rings when a router has confirmed something, or has gone.
	heard *bell

	mu sync.Mutex
	by map[member.ID]*router
}

// router is what is known about one router.
type router struct {
	id      member.ID
	version string
	// pools are those that it wants, nil for all.
	pools    map[member.Pool]bool
	lastSeen time.Time
	// streams counts its live subscriptions; goodbye says that the last one was
	// ended by the router itself, and goneAt since when there is none.
	streams int
	goodbye bool
	goneAt  time.Time
	// runs are those that are subscribed, by name; applied is what all of them have,
	// held what any of them keeps, and while there is none what the last one had.
	runs    map[string]*routerRun
	applied map[member.Pool]member.Position
	held    []heldServer
	// progress remembers when revisions were applied, in order.
	progress map[member.Pool][]step
	// kept says that the table has a row of it, dirty that the row is behind;
	// writtenAt is when it was written last.
	kept, dirty bool
	writtenAt   time.Time
}

type heldServer struct {
	pool member.Pool
	id   member.ID
}

// step says that a router had applied a revision at a time.
type step struct {
	revision member.Revision
	at       time.Time
}

// ack is a parsed Ack.
type ack struct {
	applied []placed
	held    []heldServer
}

// placed is a point with its pool.
type placed struct {
	pool member.Pool
	point
}

func newRouters(a ownAlarms) *routers {
	return &routers{alarms: a, heard: newBell(), by: map[member.ID]*router{}}
}

// remember takes over a router from the table. It has not said goodbye, or it
// would not be there; from now on it is waited for.
func (r *routers) remember(row store.RouterRow, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	id := member.ID(row.ID)
	known := newRouter(id)
	known.version, known.lastSeen, known.goneAt, known.kept = row.Version, row.LastSeen, now, true
	for _, a := range row.Applied {
		known.applied[a.Pool] = member.Position{Epoch: a.Epoch, Revision: a.Revision}
	}
	r.by[id] = known
}

func newRouter(id member.ID) *router {
	return &router{
		id: id, runs: map[string]*routerRun{}, applied: map[member.Pool]member.Position{}, progress: map[member.Pool][]step{},
	}
}

// arrival is what a router brings along.
type arrival struct {
	id      member.ID
	run     string
	version string
	// pools are those that it wants, nil for all.
	pools map[member.Pool]bool
	// has are the revisions that it has; it may have lost some that it had
	// confirmed. That it has them does not say that its clients have.
	has map[member.Pool]member.Revision
}

// connect begins a subscription.
func (r *routers) connect(in arrival, now time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	known := r.by[in.id]
	if known == nil {
		if len(r.by) >= maxRouters {
			return fmt.Errorf("accept router %s: %w: %d routers are known", in.id, member.ErrExhausted, maxRouters)
		}
		known = newRouter(in.id)
		r.by[in.id] = known
	}
	known.begin(in.run, in.has, now)
	known.streams++
	known.version, known.pools, known.lastSeen, known.goodbye, known.dirty = in.version, in.pools, now, false, true
	r.alarms.clear(silentKey(in.id), now)
	return nil
}

// disconnect ends a subscription; goodbye says that the router ended it.
func (r *routers) disconnect(id member.ID, run string, goodbye bool, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	known := r.by[id]
	known.streams--
	known.end(run)
	known.lastSeen, known.goneAt, known.goodbye, known.dirty = now, now, goodbye, true
	r.heard.ring()
}

// ack takes over what a run of a router has applied.
func (r *routers) ack(id member.ID, run string, a ack, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	known := r.by[id]
	known.lastSeen, known.dirty = now, true
	known.take(run, a, now)
	r.heard.ring()
}

// remember notes that the router has applied a revision now.
func (k *router) remember(name member.Pool, revision member.Revision, now time.Time) {
	steps := k.progress[name]
	if n := len(steps); n > 0 && steps[n-1].revision >= revision {
		return
	}
	if len(steps) == progressLength {
		steps = slices.Delete(steps, 0, 1)
	}
	k.progress[name] = append(steps, step{revision, now})
}

// forget drops what routers have applied, and keep, of a pool.
func (r *routers) forget(name member.Pool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ofPool := func(s heldServer) bool { return s.pool == name }
	for _, k := range r.by {
		for _, run := range k.runs {
			delete(run.applied, name)
			run.held = slices.DeleteFunc(run.held, ofPool)
		}
		delete(k.applied, name)
		k.held = slices.DeleteFunc(k.held, ofPool)
		delete(k.progress, name)
		k.dirty = true
	}
	r.heard.ring()
}

// wants reports whether a router that wants these pools, nil for all, wants one.
func wants(pools map[member.Pool]bool, name member.Pool) bool { return pools == nil || pools[name] }

// appliedAt is when the router had applied a revision; zero if it has not, or
// if that is not known any more.
func (k *router) appliedAt(name member.Pool, revision member.Revision) time.Time {
	steps := k.progress[name]
	i, found := slices.BinarySearchFunc(steps, revision, func(s step, r member.Revision) int {
		return cmp.Compare(s.revision, r)
	})
	if i == len(steps) || i == 0 && !found && len(steps) == progressLength {
		return time.Time{}
	}
	return steps[i].at
}

// progressOf lists the routers, by id, that are connected or have applied the
// revision, with the time of the latter.
func (r *routers) progressOf(name member.Pool, revision member.Revision) []routerStep {
	r.mu.Lock()
	defer r.mu.Unlock()
	var steps []routerStep
	for id, k := range r.by {
		if at := k.appliedAt(name, revision); k.streams > 0 || !at.IsZero() {
			steps = append(steps, routerStep{id, at})
		}
	}
	slices.SortFunc(steps, func(a, b routerStep) int { return cmp.Compare(a.id, b.id) })
	return steps
}

// routerStep says when a router applied a revision, zero if it has not.
type routerStep struct {
	id member.ID
	at time.Time
}

// routerInfo is what people see of a router.
type routerInfo struct {
	id        member.ID
	version   string
	lastSeen  time.Time
	connected bool
	goodbye   bool
	pools     map[member.Pool]bool
	applied   []placed
	held      []heldServer
}

// row is what the table keeps of a router.
func (i routerInfo) row() store.RouterRow {
	row := store.RouterRow{ID: string(i.id), Version: i.version, LastSeen: i.lastSeen}
	for _, p := range i.applied {
		row.Applied = append(row.Applied, store.Applied{Pool: p.pool, Epoch: p.Epoch, Revision: p.Revision})
	}
	return row
}

// list returns the routers by id.
func (r *routers) list() []routerInfo {
	r.mu.Lock()
	defer r.mu.Unlock()
	infos := make([]routerInfo, 0, len(r.by))
	for _, k := range r.by {
		infos = append(infos, k.info())
	}
	slices.SortFunc(infos, func(a, b routerInfo) int { return cmp.Compare(a.id, b.id) })
	return infos
}

// keptOf lists the servers of a pool that routers keep as a last resort, by id.
func (r *routers) keptOf(name member.Pool) []member.ID {
	var ids []member.ID
	for _, info := range r.list() {
		for _, s := range info.held {
			if s.pool == name {
				ids = append(ids, s.id)
			}
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

func (k *router) info() routerInfo {
	i := routerInfo{
		id: k.id, version: k.version, lastSeen: k.lastSeen, connected: k.streams > 0, goodbye: k.goodbye, pools: k.pools,
		held: slices.Clone(k.held),
	}
	for name, p := range k.applied {
		i.applied = append(i.applied, placed{name, point{Position: p}})
	}
	slices.SortFunc(i.applied, func(a, b placed) int { return cmp.Compare(a.pool, b.pool) })
	return i
}

// tend raises the alarms of silent routers and forgets those long gone. It
// returns the routers whose rows are to be written now, and those whose rows are
// to go because they have said goodbye.
func (r *routers) tend(now time.Time) (due []routerInfo, left []member.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, k := range r.by {
		r.lookTwice(k, now)
		switch {
		case k.streams > 0:
			if now.Sub(k.writtenAt) >= routerRefresh {
				k.lastSeen, k.dirty = now, true
			}
		case k.goodbye:
			if k.kept {
				left = append(left, id)
			} else if now.Sub(k.goneAt) >= goodbyeMemory {
				delete(r.by, id)
			}
			continue
		case now.Sub(k.lastSeen) >= routerMemory:
			delete(r.by, id)
			r.alarms.clear(silentKey(id), now)
			continue
		case now.Sub(k.goneAt) >= routerSilence:
			r.alarms.raise(silent(k))
		}
		if k.dirty && now.Sub(k.writtenAt) >= routerWrite {
			due = append(due, k.info())
		}
	}
	slices.SortFunc(due, func(a, b routerInfo) int { return cmp.Compare(a.id, b.id) })
	slices.Sort(left)
	return due, left
}

// written says that a router's row was written with what was known at a time.
func (r *routers) written(i routerInfo, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if k := r.by[i.id]; k != nil {
		k.kept, k.writtenAt, k.dirty = true, now, !k.lastSeen.Equal(i.lastSeen)
	}
}

// dropped says that a router's row is gone. If the router is back meanwhile, it
// gets a new one.
func (r *routers) dropped(id member.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if k := r.by[id]; k != nil {
		k.kept = false
	}
}

func silentKey(id member.ID) member.AlarmKey {
	return member.AlarmKey{Name: alarmRouterSilent, Subject: string(id)}
}

func silent(k *router) member.Alarm {
	return member.Alarm{
		Name: alarmRouterSilent, Subject: string(k.id), Since: k.lastSeen,
		Text: fmt.Sprintf("router %s was last heard at %s and did not say goodbye; its clients get its last list",
			k.id, k.lastSeen.UTC().Format(time.DateTime)),
	}
}

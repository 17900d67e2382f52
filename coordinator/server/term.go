package server

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/buddyring/buddyring/coordinator/lease"
	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/rpc"
)

// term is the time in which a coordinator leads, in one epoch. Everything that it
// knows beyond the table ends with it.
type term struct {
	*Server

	lead    leadership
	tenure  *tenure
	bell    *bell
	marks   *marks
	routers *routers
	pools   *pools
	// inherited are the deletions of pools by earlier leaders.
	inherited []member.DeletedPool
	// over ends when the term has to, with the reason; released, when the lease
	// is given back, with an error if it could not be; closing ends the streams.
	over, released, closing *ending

	agents  *agentService
	members *membershipService
	admin   *adminService

	// hosts run until stopHosts says why not, so that they outlive whoever waits
	// for their answers.
	stopHosts context.CancelCauseFunc
	hosts     crowd
}

// The reasons for which a term ends other than the end of the program and
// another leader.
var (
	errSteppedDown = errors.New("the coordinator was asked to step down")
	errTermOver    = fmt.Errorf("the term is over: %w", &member.NotLeaderError{})
)

// tenure is the lease as its holder knows it. It is safe for concurrent use.
type tenure struct {
	mu    sync.Mutex
	lease lease.Tenure
}

func (t *tenure) renewed(sent time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lease.Renewed(sent)
}

func (t *tenure) age(now time.Time) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lease.Age(now)
}

// check says why nothing may be made durable now, or nil.
func (t *tenure) check(now time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.lease.MayPropose(now) {
		return nil
	}
	return rpc.WithRetry(fmt.Errorf("%w: the database has not renewed the lease for %s; nothing is made durable until it has",
		member.ErrUnavailable, t.lease.Age(now).Round(100*time.Millisecond)), lease.RenewEvery)
}

// start begins a term: it loads the table and starts a host for every pool.
func (s *Server) start(ctx context.Context, w won, tenure *tenure) (*term, error) {
	within, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	states, err := s.deps.Store.LoadPools(within)
	if err != nil {
		return nil, err
	}
	for _, state := range states {
		if e := state.Position.Epoch; e != w.Epoch && state.Unreadable == nil {
			return nil, fmt.Errorf("pool %s is of epoch %d and not of %d: %w", state.Name, e, w.Epoch, member.ErrFenced)
		}
	}
	deleted, err := s.deps.Store.DeletedPools(within)
	if err != nil {
		return nil, err
	}
	rows, err := s.deps.Store.Routers(within)
	if err != nil {
		return nil, err
	}
	t := s.newTerm(ctx, w, tenure)
	t.inherited = deleted
	t.pools.recall(deleted)
	for _, r := range rows {
		t.routers.remember(r, time.Now())
	}
	if err := t.addPools(within, states); err != nil {
		t.endHosts(err)
		return nil, err
	}
	t.makeServices()
	s.own.forgetEdges()
	s.health.renewed(nil, time.Now())
	s.metrics.epoch.Set(float64(w.Epoch))
	s.metrics.leader.Set(1)
	s.metrics.terms.Inc()
	s.term.Store(t)
	s.admit(true)
	s.settled.end(nil)
	s.deps.Logger.InfoContext(ctx, "leading", "coordinator_id", s.cfg.ID, "epoch", w.Epoch,
		"store_id", w.StoreID, "store_kind", s.deps.Store.Kind(), "pools", len(t.pools.list()))
	return t, nil
}

func (s *Server) newTerm(ctx context.Context, w won, tenure *tenure) *term {
	b := newBell()
	hosts, stopHosts := context.WithCancelCause(context.WithoutCancel(ctx))
	t := &term{
		Server: s, tenure: tenure, bell: b, marks: newMarks(b), routers: newRouters(s.own),
		lead: leadership{epoch: w.Epoch, storeID: w.StoreID, addresses: s.addresses},
		over: newEnding(), released: newEnding(), closing: newEnding(), stopHosts: stopHosts,
	}
	t.pools = newPools(s.deps.Store, t.lead, b, s.cfg.AutoCreatePools)
	t.pools.tenure = t.tenure
	t.pools.start = func(state member.PoolState) (*host, error) { return t.host(hosts, state) }
	return t
}

// host makes the host of a pool and runs it.
func (t *term) host(ctx context.Context, state member.PoolState) (*host, error) {
	h, err := t.newHost(state)
	if err != nil {
		return nil, err
	}
	if !t.hosts.enter() {
		return nil, errTermOver
	}
	defer t.hosts.leave()
	t.hosts.run(func() {
		if err := h.run(ctx); err != nil {
			t.over.end(err)
		}
	})
	return h, nil
}

// endHosts ends all hosts, once the changes that they have under way are known
// to be made or not.
func (t *term) endHosts(why error) {
	t.hosts.close()
	t.stopHosts(why)
	t.hosts.empty()
}

// addPools starts the pools of the table, and makes the one that always exists.
func (t *term) addPools(ctx context.Context, states []member.PoolState) error {
	if err := t.openPools(states); err != nil {
		return err
	}
	if t.pools.has(member.DefaultPool) {
		return nil
	}
	_, err := t.pools.create(ctx, newPool{
		name: member.DefaultPool, settings: member.DefaultSettings(),
		call: pool.Call{Actor: actorSelf, Reason: "it always exists"},
	})
	return err
}

// newHost makes the machine of a pool and its host.
func (t *term) newHost(state member.PoolState) (*host, error) {
	var seed [8]byte
	_, _ = rand.Read(seed[:]) // it never fails
	machine, err := pool.New(state, pool.Config{Seed: binary.NativeEndian.Uint64(seed[:]), Now: time.Now()})
	if err != nil {
		return nil, fmt.Errorf("start pool %s: %w", state.Name, err)
	}
	history := newHistory(state, t.bell)
	t.metrics.pool(history)
	return &host{
		pool: state.Name, machine: machine, sessions: map[pool.SessionID]*session{}, calls: map[pool.Token]waiter{},
		lead: t.lead, tenure: t.tenure, table: t.deps.Store, dialer: newDialer(t.deps.Dialer), history: history, marks: t.marks,
		alarms: t.alarms, health: t.health, metrics: t.metrics, routers: t.routers, log: t.deps.Logger,
		mail: newMail(), inbox: make(chan work, inboxSize), outcomes: make(chan outcome, 1), over: newEnding(), gone: t.forget,
	}, nil
}

// forget lets go of a pool that was deleted. Its history has gone with it, so the
// one of the default pool tells.
func (t *term) forget(d member.DeletedPool) {
	t.pools.drop(d)
	t.routers.forget(d.Name)
	t.marks.forget(d.Name)
	t.metrics.forgetPool(d.Name)
	t.own.note("", eventOf(d))
}

func (t *term) makeServices() {
	t.agents = &agentService{
		lead: t.lead, pools: t.pools, closing: t.closing, metrics: t.metrics, allowLocal: t.cfg.AllowLocalAddresses,
	}
	t.members = &membershipService{
		lead: t.lead, pools: t.pools, marks: t.marks, bell: t.bell, routers: t.routers, alarms: t.own,
		closing: t.closing, metrics: t.metrics, snapshots: newLine(snapshotsAtOnce),
	}
	t.admin = &adminService{
		id: t.cfg.ID, version: t.cfg.Version, startedAt: t.startedAt, kind: t.deps.Store.Kind(),
		lead: t.lead, pools: t.pools, events: t.deps.Store, table: t.deps.Store, backups: t.deps.Store, routers: t.routers,
		alarms: t.alarms, health: t.health, bell: t.bell, closing: t.closing,
		agents: t.agents, members: t.members, allowLocal: t.cfg.AllowLocalAddresses,
		standing: t.standing, term: t,
	}
}

// run leads until ctx ends or the term is over, and returns why when all that
// belongs to it has ended.
func (t *term) run(ctx context.Context) error {
	working, stop := context.WithCancel(ctx)
	defer stop()
	var loops sync.WaitGroup
	for _, loop := range []func(context.Context){t.keepLead, t.askPeers, t.tendRouters, t.reopen, t.prune, t.deliver, t.tellInherited} {
		loops.Go(func() { loop(working) })
	}
	select {
	case <-ctx.Done():
		t.over.end(errStopping)
	case <-t.over.done():
	}
	if why := t.over.reason(); overtaken(why) {
		// Another one leads: nothing of this epoch is to be heard any more, however
		// long the database takes to answer.
		t.stopHosts(t.farewell(why))
		t.close()
		t.glance(ctx)
		t.closing.end(t.notLeader())
	}
	stop()
	loops.Wait()
	t.end(ctx)
	return t.over.reason()
}

// overtaken reports whether the lease is not this leader's any more: another one
// has it, or the table was put back to before it was won.
func overtaken(why error) bool {
	return errors.Is(why, member.ErrFenced) || errors.Is(why, store.ErrBehind)
}

// close lets nobody in any more.
func (t *term) close() {
	t.term.Store(nil)
	t.admit(false)
	t.metrics.leader.Set(0)
}

// end ends everything of the term. Where another one leads already, the streams
// have ended; else the hosts are first, so that whoever waits for a change hears of
// it, and then the lease is given back: it is the last write.
func (t *term) end(ctx context.Context) {
	t.close()
	why := t.over.reason()
	t.endHosts(t.farewell(why))
	var telling sync.WaitGroup
	defer telling.Wait()
	if !overtaken(why) {
		err := t.giveBack(ctx, t.lead.epoch)
		t.released.end(err)
		if err == nil {
			telling.Go(func() { t.tellPeers(ctx) })
		}
	}
	t.released.end(nil)
	t.closing.end(t.farewell(why))
	t.agents.streams.empty()
	t.members.streams.empty()
	t.alarms.forget(func(name string) bool { return !ofCoordinator(name) })
	t.metrics.forgetPools()
}

// farewell is what those are told who are served when a term ends.
func (t *term) farewell(why error) error {
	if errors.Is(why, errStopping) {
		return errStopping
	}
	return t.notLeader()
}

// deliver hands the coordinator's own alarms to the histories of the pools.
func (t *term) deliver(ctx context.Context) { t.own.deliver(ctx, t.pools) }

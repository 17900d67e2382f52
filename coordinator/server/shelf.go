package server

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/internal/member"
)

const (
	// shelfAge is how old what a standby shows may be before it reads the table
	// again.
	shelfAge = time.Second
	// shelfTime bounds such a reading.
	shelfTime = 5 * time.Second
	// toldTime is how long what is told without the table waits for it, while it is
	// known that the database fails.
	toldTime = 500 * time.Millisecond
)

// shelf is what a standby shows of the table: the same service that a leader
// has, over machines that nobody drives. It is read when somebody asks, once for
// all who ask meanwhile. It is safe for concurrent use.
type shelf struct {
	*Server

	mu sync.Mutex
	// last is the reading that is under way, or was the last.
	last *reading
	// shown is what was read last; nothing at first.
	shown shown
}

// shown is what was read of the table, and when that was asked for.
type shown struct {
	admin *adminService
	asked time.Time
}

// reading is one of the table. What comes of it is there when done is closed.
type reading struct {
	done  chan struct{}
	ended time.Time
	err   error
}

func newShelf(s *Server) *shelf {
	nothing := &shelf{Server: s, last: &reading{done: make(chan struct{})}}
	close(nothing.last.done)
	return nothing
}

// service returns what answers operators, and how old that is. Where the table
// cannot be read, it comes with the error and is what was read before, or empty;
// told does not wait for that any longer than until the database is known to fail.
func (s *shelf) service(ctx context.Context, told bool) (*adminService, time.Duration, error) {
	r := s.read(ctx)
	tick := time.NewTicker(toldTime)
	defer tick.Stop()
	var err error
	for waits := true; waits; {
		select {
		case <-r.done:
			waits, err = false, r.err
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		case <-tick.C:
			err = s.health.error()
			waits = !told || err == nil
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shown.admin == nil {
		return s.over(newPools(s.deps.Store, leadership{}, newBell(), false), newRouters(s.own)), 0, err
	}
	return s.shown.admin, time.Since(s.shown.asked), err
}

// read reads the table, unless somebody does, or has right now. A reading goes on
// when whoever asked first does not wait for it.
func (s *shelf) read(ctx context.Context) *reading {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.last.done:
		if s.last.err == nil && time.Since(s.last.ended) < shelfAge {
			return s.last
		}
	default:
		return s.last
	}
	r := &reading{done: make(chan struct{})}
	s.last = r
	ctx = context.WithoutCancel(ctx)
	go func() {
		within, cancel := context.WithTimeout(ctx, shelfTime)
		defer cancel()
		asked := time.Now()
		admin, err := s.load(within)
		s.mu.Lock()
		defer s.mu.Unlock()
		if err == nil {
			s.shown = shown{admin, asked}
		}
		r.ended, r.err = time.Now(), err
		close(r.done)
	}()
	return r
}

func (s *shelf) load(ctx context.Context) (*adminService, error) {
	states, err := s.deps.Store.LoadPools(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := s.deps.Store.Routers(ctx)
	if err != nil {
		return nil, err
	}
	pools := newPools(s.deps.Store, leadership{}, newBell(), false)
	pools.start = frozen
	for _, state := range states {
		if err := pools.open(state); err != nil {
			return nil, err
		}
	}
	routers := newRouters(s.own)
	for _, r := range rows {
		routers.remember(r, time.Now())
	}
	return s.over(pools, routers), nil
}

// over is the service over what was read.
func (s *shelf) over(p *pools, r *routers) *adminService {
	return &adminService{
		id: s.cfg.ID, version: s.cfg.Version, startedAt: s.startedAt, kind: s.deps.Store.Kind(),
		pools: p, events: s.deps.Store, table: s.deps.Store, routers: r, alarms: s.alarms, health: s.health,
		bell: p.bell, closing: newEnding(), agents: &agentService{}, members: &membershipService{}, standing: s.standing,
	}
}

// frozen makes a host that only answers queries.
func frozen(state member.PoolState) (*host, error) {
	var seed [8]byte
	_, _ = rand.Read(seed[:]) // it never fails
	machine, err := pool.New(state, pool.Config{Seed: binary.NativeEndian.Uint64(seed[:]), Now: time.Now()})
	if err != nil {
		return nil, fmt.Errorf("read pool %s: %w", state.Name, err)
	}
	return &host{
		pool: state.Name, machine: machine, history: newHistory(state, newBell()), marks: newMarks(newBell()),
		frozen: new(sync.Mutex), over: newEnding(),
	}, nil
}

package server

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/internal/member"
)

const (
	// shelfAge is how old what a standby shows may be before it reads the table
	// again.
	shelfAge = time.Second
	// shelfTime bounds the wait for such a reading; toldTime, for what is told without
	// it too: of a database that does not answer, for one.
	shelfTime = 5 * time.Second
	toldTime  = 500 * time.Millisecond
)

// shelf is what a standby shows of the table: the same service that a leader
// has, over machines that nobody drives. It is read when somebody asks. It is
// safe for concurrent use.
type shelf struct {
	*Server

	// reading is held by whoever reads the table.
	reading chan struct{}
	// shown is what was read last; nil for nothing.
	shown atomic.Pointer[shown]
}

// shown is what was read of the table, and when that was asked for.
type shown struct {
	admin *adminService
	asked time.Time
}

func newShelf(s *Server) *shelf { return &shelf{Server: s, reading: make(chan struct{}, 1)} }

// service returns what answers operators, and how old that is. Where the table
// cannot be read within a time, it comes with the error and is what was read before,
// or empty.
func (s *shelf) service(ctx context.Context, within time.Duration) (*adminService, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	err := s.refresh(ctx)
	now := s.shown.Load()
	if now == nil {
		now = &shown{admin: s.over(newPools(s.deps.Store, leadership{}, newBell(), false), newRouters(s.own))}
	}
	return now.admin, time.Since(now.asked), err
}

// refresh reads the table, unless what is shown is fresh.
func (s *shelf) refresh(ctx context.Context) error {
	select {
	case s.reading <- struct{}{}:
		defer func() { <-s.reading }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if now := s.shown.Load(); now != nil && time.Since(now.asked) < shelfAge {
		return nil
	}
	asked := time.Now()
	admin, err := s.load(ctx)
	if err == nil {
		s.shown.Store(&shown{admin: admin, asked: asked})
	}
	return err
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

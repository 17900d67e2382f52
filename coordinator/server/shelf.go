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
)

// shelf is what a standby shows of the table: the same service that a leader
// has, over machines that nobody drives. It is read when somebody asks. It is
// safe for concurrent use.
type shelf struct {
	*Server

	mu    sync.Mutex
	admin *adminService
	read  time.Time
}

// service returns what answers operators, and how old that is. Where the table
// cannot be read, it comes with the error and is what was read before, or empty.
func (s *shelf) service(ctx context.Context) (*adminService, time.Duration, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.admin != nil && !s.read.IsZero() && time.Since(s.read) < shelfAge {
		return s.admin, time.Since(s.read), nil
	}
	asked := time.Now()
	fresh, err := s.load(ctx)
	if err == nil {
		s.admin, s.read = fresh, asked
	} else if s.admin == nil {
		s.admin = s.over(newPools(s.deps.Store, leadership{}, newBell(), false), newRouters(s.own))
	}
	return s.admin, time.Since(s.read), err
}

func (s *shelf) load(ctx context.Context) (*adminService, error) {
	within, cancel := context.WithTimeout(ctx, shelfTime)
	defer cancel()
	states, err := s.deps.Store.LoadPools(within)
	if err != nil {
		return nil, err
	}
	rows, err := s.deps.Store.Routers(within)
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

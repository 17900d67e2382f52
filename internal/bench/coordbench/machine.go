package coordbench

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/coordinator/ring"
	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/coordinator/verdict"
	"github.com/buddyring/buddyring/internal/bench"
	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/testdb"
)

const (
	// stepInputs is how many waiting inputs a coordinator hands to one step.
	stepInputs = 256
	// machinePool is the pool that they join.
	machinePool member.Pool = "web"
)

// core is the machine of a pool on its store, as a coordinator runs them, with
// agents that answer at once and cost nothing.
type core struct {
	machine *pool.Machine
	store   *store.Store
	inbox   []pool.Input
	// outcome is that of the change under way, committing its id.
	outcome    chan error
	committing string

	// watches are whom each session watches; welcomed counts the sessions that were
	// accepted; active are the members that are.
	watches  map[pool.SessionID][]pool.Subject
	welcomed int
	active   map[member.ID]bool
	changes  []member.Change
}

// passage is how soon servers were through machine and store.
type passage struct {
	welcomed, active time.Duration
	// own is this process's processor time, with the machine and the store's client.
	own, database time.Duration
	changes       []member.Change
}

// machineJoins has all servers join an empty pool at once, durably, through
// machine and store alone, a few times.
func machineJoins(ctx context.Context, o Options) (row bench.Row, err error) {
	server, err := startDatabase() //nolint:contextcheck // it has a time-out of its own
	if err != nil {
		return bench.Row{}, err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	var rounds []passage
	revisions, broken := 0, ""
	for range joinRounds {
		p, err := pass(ctx, server, fmt.Sprintf("machine%d", len(rounds)), o.Agents)
		if err != nil {
			return bench.Row{}, err
		}
		revisions += len(p.changes)
		if b := brokenRing(p.changes); broken == "" {
			broken = b
		}
		rounds = append(rounds, p)
	}
	slices.SortFunc(rounds, func(a, b passage) int { return int(a.welcomed - b.welcomed) })
	rate := func(p passage) float64 { return float64(o.Agents) / p.welcomed.Seconds() }
	middle, slowest := rounds[len(rounds)/2], rounds[len(rounds)-1]
	return bench.Row{
		ID: "S5", Experiment: fmt.Sprintf("%d servers join an empty pool at once through machine and store, MariaDB, %d rounds", o.Agents, joinRounds),
		Target: fmt.Sprintf("≥ %d joins a second, ring valid at every revision", joinTarget),
		Met:    rate(middle) >= joinTarget && broken == "",
		Measured: fmt.Sprintf("%.0f joins a second (slowest round %.0f): all durable after %.2f s, all active after %.2f s; until then %.2f s of processor by machine and "+
			"store, %.2f by the database, on %d processors; %d revisions, ring %s",
			rate(middle), rate(slowest), middle.welcomed.Seconds(), middle.active.Seconds(), middle.own.Seconds(), middle.database.Seconds(),
			runtime.NumCPU(), revisions, validity(broken == "")),
		Figures: map[string]float64{
			"machine_joins_per_second": rate(middle), "machine_slowest_joins_per_second": rate(slowest), "machine_active_seconds": middle.active.Seconds(),
			"machine_processor_seconds": middle.own.Seconds(), "machine_database_seconds": middle.database.Seconds(), "machine_revisions": float64(revisions),
		},
	}, nil
}

// pass has n servers join a pool in a new database.
func pass(ctx context.Context, server *testdb.Server, database string, n int) (p passage, err error) {
	c, err := openCore(ctx, server, database)
	if err != nil {
		return passage{}, err
	}
	defer func() { err = errors.Join(err, c.store.Close()) }()
	for number := range n {
		c.inbox = append(c.inbox, arrival(number))
	}
	own, dbs := processorTimes(server)
	began := time.Now()
	for len(c.active) < n {
		if err := c.turn(ctx); err != nil {
			return passage{}, err
		}
		if p.welcomed == 0 && c.welcomed == n {
			p.welcomed = time.Since(began)
		}
	}
	p.active, p.changes = time.Since(began), c.changes
	ownAfter, dbsAfter := processorTimes(server)
	p.own, p.database = ownAfter-own, dbsAfter-dbs
	return p, nil
}

// processorTimes are those of this process and of the database, 0 where they
// cannot be read.
func processorTimes(server *testdb.Server) (own, database time.Duration) {
	own, _ = processorTime(os.Getpid())
	database, _ = processorTime(server.Pid())
	return own, database
}

// openCore makes a pool in a new database, and its machine.
func openCore(ctx context.Context, server *testdb.Server, database string) (*core, error) {
	if err := makeDatabase(ctx, server, database); err != nil {
		return nil, err
	}
	s, err := store.Open(ctx, store.Config{URL: server.URL(database), Migrate: store.MigrateAuto})
	if err != nil {
		return nil, err
	}
	machine, err := newMachine(ctx, s)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return &core{
		machine: machine, store: s, outcome: make(chan error, 1), watches: map[pool.SessionID][]pool.Subject{}, active: map[member.ID]bool{},
	}, nil
}

func newMachine(ctx context.Context, s *store.Store) (*pool.Machine, error) {
	seen, err := s.Lease(ctx)
	if err != nil {
		return nil, err
	}
	lead, err := s.Lead(ctx, store.Claim{Holder: "c1", Instance: rand.Text(), Advertise: "c1:7400", Seen: seen})
	if err != nil {
		return nil, err
	}
	state, err := s.CreatePool(ctx, lead.Epoch, store.NewPool{Name: machinePool, Settings: member.DefaultSettings()})
	if err != nil {
		return nil, err
	}
	return pool.New(state, pool.Config{Seed: 1, Now: time.Now()})
}

// arrival is the Hello of an agent, as in agent.hello.
func arrival(n int) pool.Hello {
	address := addressOf(n)
	return pool.Hello{
		Session: pool.SessionID(n + 1), ID: member.ID(serverID(n)), BootID: rand.Text(), InstanceID: rand.Text(), TellRemoval: true, Version: "bench",
		Peer: address + ":40000",
		Spec: member.Spec{
			ProbeAddresses: []netip.Addr{netip.MustParseAddr(address)}, Endpoints: []member.Endpoint{{Name: "http", Address: address + ":8080", Protocol: "http"}},
			Zone: zoneOf(n), Rack: rackOf(n), Weight: member.DefaultWeight, Labels: map[string]string{"version": "2026.11"},
		},
	}
}

// turn does one step: with the outcome of the change under way if that is known,
// or else with what waits.
func (c *core) turn(ctx context.Context) error {
	inputs := slices.Clip(c.inbox[:min(len(c.inbox), stepInputs)])
	wait := time.NewTimer(0)
	defer wait.Stop()
	if len(inputs) == 0 {
		wait.Reset(lookEvery)
	}
	select {
	case err := <-c.outcome:
		if err != nil {
			return err
		}
		inputs = []pool.Input{pool.Committed{ChangeID: c.committing}}
	case <-wait.C:
		c.inbox = c.inbox[len(inputs):]
		inputs = append(inputs, pool.Tick{})
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	effects := c.machine.Step(time.Now(), inputs...)
	for _, e := range effects {
		if p, ok := e.(pool.Propose); ok {
			c.committing = p.Change.ID
			go func() { c.outcome <- c.store.Commit(ctx, p.Change) }()
		}
	}
	for _, e := range effects {
		if err := c.carryOut(e); err != nil {
			return err
		}
	}
	return nil
}

func (c *core) carryOut(effect pool.Effect) error {
	switch e := effect.(type) {
	case pool.Publish:
		c.changes = append(c.changes, e.Change)
		for _, row := range e.Change.Put {
			if row.Phase == member.PhaseActive {
				c.active[row.ID] = true
			}
		}
	case pool.Welcome:
		c.welcomed++
		c.watch(e.Session, e.Assignment)
		c.inbox = append(c.inbox, pool.Digest{Session: e.Session})
	case pool.Assign:
		c.watch(e.Session, e.Assignment)
	case pool.Refuse:
		return fmt.Errorf("join: %w", e.Err)
	}
	return nil
}

// watch has an agent acknowledge its assignment and report whom it did not see
// before, all of them well.
func (c *core) watch(id pool.SessionID, a pool.Assignment) {
	c.inbox = append(c.inbox, pool.AssignmentAck{Session: id, Seq: a.Seq})
	for _, s := range a.Subjects {
		known := slices.ContainsFunc(c.watches[id], func(o pool.Subject) bool { return o.ID == s.ID && o.Incarnation == s.Incarnation })
		if !known {
			c.inbox = append(c.inbox, pool.Report{
				Session: id, Subject: s.ID, Incarnation: s.Incarnation,
				Evidence: pool.Evidence{Sight: verdict.SightUp, Sent: 10, RTT: 300 * time.Microsecond, LastReplyAge: 120 * time.Millisecond},
			})
		}
	}
	c.watches[id] = a.Subjects
}

// brokenRing plays changes and says what is wrong with the first ring that is.
func brokenRing(changes []member.Change) string {
	rows := map[member.ID]ring.Row{}
	for _, c := range changes {
		for _, r := range c.Remove {
			delete(rows, r.ID)
		}
		for _, s := range c.Put {
			rows[s.ID] = ring.Row{ID: s.ID, Buddies: member.Buddies{First: s.First, Second: s.Second}}
		}
		all := make([]ring.Row, 0, len(rows))
		for _, r := range rows {
			all = append(all, r)
		}
		if problems := ring.Check(all); len(problems) > 0 {
			return fmt.Sprintf("revision %d: %s", c.Revision(), problems[0])
		}
	}
	return ""
}

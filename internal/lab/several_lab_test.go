//go:build lab && mariadb && linux

package lab_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/buddyring/buddyring/internal/lab"
	"github.com/buddyring/buddyring/internal/process"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// several is three coordinators on one database, two routers and ten servers, under an
// operator who makes one change after the other.
type several struct {
	*world
	*audience
	o *operator
	// leader leads, in epoch.
	leader *lab.Coordinator
	epoch  uint64
	// crashed are the servers that did.
	crashed []string
	// rest ends operator and audience.
	rest func()
}

// newSeveral needs of cfg what is of the database, and hosts that no server runs on.
func newSeveral(t *testing.T, cfg lab.Config) *several {
	t.Helper()
	const routers = 2
	w := &world{t: t, dir: t.TempDir(), agents: map[string]*lab.Agent{}, servers: names(10)}
	cfg.Bin, cfg.Dir, cfg.Hosts, cfg.Routers, cfg.Coordinators = os.Getenv(binEnv), w.dir, append(cfg.Hosts, w.servers...), routers, 3
	w.Site = newSite(t, cfg)
	s := &several{world: w, o: &operator{}}
	s.follow(0)
	for _, server := range w.servers {
		w.start(lab.AgentConfig{Server: server})
	}
	w.settled()
	a, leave := w.audience(routers)
	s.audience = a
	ctx, stop := context.WithCancel(t.Context())
	var working sync.WaitGroup
	working.Go(func() { s.o.work(ctx, w.Admin) })
	s.rest = func() {
		leave()
		stop()
		working.Wait()
	}
	t.Cleanup(s.rest)
	for i := range routers {
		a.follows(i, s.epoch)
	}
	s.goesOn()
	return s
}

// follow waits until a coordinator leads in an epoch after a given one.
func (s *several) follow(after uint64) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	leader, epoch, err := s.Leader(ctx, after)
	if err != nil {
		s.t.Fatal(err)
	}
	s.leader, s.epoch = leader, epoch
}

// standby returns one of the coordinators that do not lead.
func (s *several) standby() *lab.Coordinator {
	for _, c := range s.Coordinators() {
		if c != s.leader {
			return c
		}
	}
	return nil
}

// ledOn checks that the leader leads on in its epoch, and waits until all others know.
func (s *several) ledOn() {
	s.t.Helper()
	for _, c := range s.Coordinators() {
		s.await(fmt.Sprintf("the knowledge at %s that %s leads in epoch %d", c.ID(), s.leader.ID(), s.epoch), func(ctx context.Context) error {
			status, err := c.Status(ctx)
			if err != nil {
				return err
			}
			leads := status.GetState() == coordinatorv1.LeaderState_LEADER_STATE_LEADER
			says := fmt.Sprintf("%s says that %q leads in epoch %d", c.ID(), status.GetLeaderId(), status.GetEpoch())
			switch {
			case c == s.leader && !leads, status.GetEpoch() > s.epoch:
				s.t.Errorf("%s; it was %s in epoch %d", says, s.leader.ID(), s.epoch)
			case leads != (c == s.leader), status.GetEpoch() != s.epoch, status.GetLeaderId() != s.leader.ID():
				return errors.New(says)
			}
			return nil
		})
	}
}

// goesOn waits until more changes are acknowledged.
func (s *several) goesOn() {
	s.t.Helper()
	before := s.o.done.Load()
	s.await("another change", func(context.Context) error {
		if n := s.o.done.Load() - before; n < 10 {
			return fmt.Errorf("%d changes acknowledged", n)
		}
		return nil
	})
}

func (s *several) crash(server string) {
	s.t.Helper()
	s.audience.crash(server)
	s.crashed = append(s.crashed, server)
}

// steersAtOnce waits until all routers steer clients away from a server that has
// crashed, and returns how long the last one took. While nothing can be made durable
// they do so by a mark, within a second on a machine that is quick enough.
func (s *several) steersAtOnce(server string) (last time.Duration) {
	s.t.Helper()
	for i := range s.routers {
		took, marked := s.steers(i, server)
		last = max(last, took)
		s.t.Logf("router %d steered away from %s after %v", i+1, server, took.Round(time.Millisecond))
		if !marked || took > watched(3*time.Second, time.Second) {
			s.t.Errorf("router %d steered away from %s after %v, by a mark: %t; want a mark, sooner", i+1, server, took, marked)
		}
	}
	return last
}

func killed(c *lab.Coordinator) error {
	c.Process().Kill()
	return nil
}

func signalled(sig syscall.Signal) func(*lab.Coordinator) error {
	return func(c *lab.Coordinator) error { return c.Process().Signal(sig) }
}

func (s *several) signal(p *process.Process, sig syscall.Signal) {
	s.t.Helper()
	if err := p.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// withoutLeader takes the leader away until another coordinator leads and routers
// follow that one.
func (s *several) withoutLeader(how string, away, back func(*lab.Coordinator) error, routers ...int) {
	s.t.Helper()
	begin, before, gone := time.Now(), s.epoch, s.leader
	if err := away(gone); err != nil {
		s.t.Fatal(err)
	}
	s.follow(before)
	s.t.Logf("the leader %s: another one led after %v", how, time.Since(begin).Round(time.Millisecond))
	if s.epoch != before+1 {
		s.t.Errorf("epoch %d after %d", s.epoch, before)
	}
	for _, i := range routers {
		s.follows(i, s.epoch)
	}
	s.goesOn()
	if err := back(gone); err != nil {
		s.t.Fatal(err)
	}
	s.ledOn()
	s.settled()
}

// nothingLost checks that the database has all that was acknowledged, and no change by
// a leader of the past. The coordinators must be dead.
func (s *several) nothingLost(db *sql.DB) {
	s.t.Helper()
	if len(s.o.acked) == 0 {
		s.t.Error("no request was ever acknowledged: the test has shown nothing")
	}
	var events []*coordinatorv1.Event
	for _, text := range ask(s.t, db, "SELECT text FROM event WHERE kind = 'intent'") {
		events = append(events, &coordinatorv1.Event{Text: text})
	}
	if err := s.o.check(events); err != nil {
		s.t.Error(err)
	}
	stale := ask(s.t, db, "SELECT revision FROM (SELECT revision, epoch, LAG(epoch) OVER (ORDER BY revision, seq) AS earlier "+
		"FROM event WHERE pool = '"+lab.Pool+"') AS history WHERE epoch < earlier")
	if len(stale) > 0 {
		s.t.Errorf("the changes of the revisions %q are of an earlier epoch than those before them", stale)
	}
}

// ends ends everything, and checks that only those servers were removed that crashed,
// and that nothing was lost.
func (s *several) ends(db *sql.DB) {
	s.t.Helper()
	s.onlyRemoved(s.crashed...)
	s.rest()
	for _, c := range s.Coordinators() {
		c.Process().Kill()
	}
	s.nothingLost(db)
	s.t.Logf("%d changes acknowledged", len(s.o.acked))
}

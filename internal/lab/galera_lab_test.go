//go:build lab && mariadb && linux

package lab_test

import (
	"context"
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

// galeraWorld is three coordinators on a Galera cluster, two routers and ten servers,
// under an operator who makes one change after the other.
type galeraWorld struct {
	*world
	*audience
	g *galera
	o *operator
	// leader leads, in epoch.
	leader *lab.Coordinator
	epoch  uint64
	// crashed are the servers that did.
	crashed []string
	// rest ends operator and audience.
	rest func()
}

func newGaleraWorld(t *testing.T) *galeraWorld {
	t.Helper()
	const routers = 2
	g := newGalera(t)
	w := &world{t: t, dir: t.TempDir(), agents: map[string]*lab.Agent{}, servers: names(10)}
	w.Site = newSite(t, lab.Config{
		Bin: os.Getenv(binEnv), Dir: w.dir, Hosts: w.servers, Routers: routers, Coordinators: 3, Store: g.store, Prepare: g.migrate,
	})
	gw := &galeraWorld{world: w, g: g, o: &operator{}}
	gw.follow(0)
	for _, server := range w.servers {
		w.start(lab.AgentConfig{Server: server})
	}
	w.settled()
	a, leave := w.audience(routers)
	gw.audience = a
	ctx, stop := context.WithCancel(t.Context())
	var working sync.WaitGroup
	working.Go(func() { gw.o.work(ctx, w.Admin) })
	gw.rest = func() {
		leave()
		stop()
		working.Wait()
	}
	t.Cleanup(gw.rest)
	for i := range routers {
		a.follows(i, gw.epoch)
	}
	gw.goesOn()
	return gw
}

// follow waits until a coordinator leads in an epoch after a given one.
func (w *galeraWorld) follow(after uint64) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	leader, epoch, err := w.Leader(ctx, after)
	if err != nil {
		w.t.Fatal(err)
	}
	w.leader, w.epoch = leader, epoch
}

// standby returns one of the coordinators that do not lead.
func (w *galeraWorld) standby() *lab.Coordinator {
	for _, c := range w.Coordinators() {
		if c != w.leader {
			return c
		}
	}
	return nil
}

// ledOn checks that the leader leads on in its epoch, and waits until all others know.
func (w *galeraWorld) ledOn() {
	w.t.Helper()
	for _, c := range w.Coordinators() {
		w.await(fmt.Sprintf("the knowledge at %s that %s leads in epoch %d", c.ID(), w.leader.ID(), w.epoch), func(ctx context.Context) error {
			status, err := c.Status(ctx)
			if err != nil {
				return err
			}
			leads := status.GetState() == coordinatorv1.LeaderState_LEADER_STATE_LEADER
			says := fmt.Sprintf("%s says that %q leads in epoch %d", c.ID(), status.GetLeaderId(), status.GetEpoch())
			switch {
			case c == w.leader && !leads, status.GetEpoch() > w.epoch:
				w.t.Errorf("%s; it was %s in epoch %d", says, w.leader.ID(), w.epoch)
			case leads != (c == w.leader), status.GetEpoch() != w.epoch, status.GetLeaderId() != w.leader.ID():
				return errors.New(says)
			}
			return nil
		})
	}
}

// goesOn waits until more changes are acknowledged.
func (w *galeraWorld) goesOn() {
	w.t.Helper()
	before := w.o.done.Load()
	w.await("another change", func(context.Context) error {
		if n := w.o.done.Load() - before; n < 10 {
			return fmt.Errorf("%d changes acknowledged", n)
		}
		return nil
	})
}

// withoutNode crashes a server at the moment in which harm takes a node of the cluster
// away, the one that the leader writes to. Clients are steered away while nothing can
// be made durable; the removal comes when it can; and the leader leads on.
func (w *galeraWorld) withoutNode(server, how string, harm func(node int)) (node int) {
	w.t.Helper()
	w.settled()
	node = w.g.Written(w.t)
	incarnation := w.row(server).GetIncarnation()
	harm(node)
	before, begin := w.o.done.Load(), time.Now()
	w.crash(server)
	var last time.Duration
	for i := range w.routers {
		took, marked := w.steers(i, server)
		last = max(last, took)
		w.t.Logf("node %d %s: router %d steered away from %s after %v", node, how, i+1, server, took.Round(time.Millisecond))
		if !marked || took > 3*time.Second {
			w.t.Errorf("router %d steered away from %s after %v, by a mark: %t; want a mark, sooner", i+1, server, took, marked)
		}
	}
	// What was under way may have been answered just now. On a slow machine the other
	// nodes may have given that one up by now, which takes them 2 s.
	if n := w.o.done.Load() - before; n > 1 && last < 1500*time.Millisecond {
		w.t.Errorf("%d changes were acknowledged meanwhile: the database was well", n)
	}
	w.goesOn()
	w.t.Logf("node %d %s: 10 more changes after %v", node, how, time.Since(begin).Round(time.Millisecond))
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	if _, _, err := w.Removed(ctx, server, incarnation); err != nil {
		w.t.Fatal(err)
	}
	w.ledOn()
	return node
}

func (w *galeraWorld) crash(server string) {
	w.t.Helper()
	w.audience.crash(server)
	w.crashed = append(w.crashed, server)
}

// TestFaultsOverGalera is an installation of three coordinators on a Galera cluster
// whose nodes, standbys and leaders are stopped and killed under load: as a server
// crashes, the node that is written to; then a standby; then the leader, once while a
// router is stopped. Routers steer away at once, nothing that was acknowledged is lost,
// only the end of a leader ends its epoch, and nobody who is well is removed.
func TestFaultsOverGalera(t *testing.T) {
	t.Parallel()
	w := newGaleraWorld(t)

	node := w.withoutNode("web-3", "stopped", func(node int) { w.g.Node(node).Signal(t, syscall.SIGSTOP) })
	w.g.Node(node).Signal(t, syscall.SIGCONT)
	w.g.Heal(t)
	node = w.withoutNode("web-7", "killed", func(node int) { w.g.Node(node).Kill(t) })
	if err := w.g.Rejoin(node); err != nil {
		t.Fatal(err)
	}
	w.g.Heal(t)

	w.withoutStandby()

	const first, second = 0, 1
	w.signal(w.RouterProcess(second), syscall.SIGSTOP)
	w.withoutLeader("killed", killed, (*lab.Coordinator).Start, first)
	w.signal(w.RouterProcess(second), syscall.SIGCONT)
	w.follows(second, w.epoch)
	w.withoutLeader("stopped", signalled(syscall.SIGSTOP), signalled(syscall.SIGCONT), first, second)

	w.onlyRemoved(w.crashed...)
	w.rest()
	for _, c := range w.Coordinators() {
		c.Process().Kill()
	}
	w.nothingLost()
	t.Logf("%d changes acknowledged", len(w.o.acked))
}

func killed(c *lab.Coordinator) error {
	c.Process().Kill()
	return nil
}

func signalled(sig syscall.Signal) func(*lab.Coordinator) error {
	return func(c *lab.Coordinator) error { return c.Process().Signal(sig) }
}

func (w *galeraWorld) signal(p *process.Process, sig syscall.Signal) {
	w.t.Helper()
	if err := p.Signal(sig); err != nil {
		w.t.Fatal(err)
	}
}

// withoutStandby stops a standby for longer than a lease may stand still, and then kills
// it. Neither changes anything.
func (w *galeraWorld) withoutStandby() {
	w.t.Helper()
	ring, standby := w.ring(), w.standby()
	w.signal(standby.Process(), syscall.SIGSTOP)
	time.Sleep(5 * time.Second)
	w.goesOn()
	w.signal(standby.Process(), syscall.SIGCONT)
	w.goesOn()
	w.ledOn()
	standby.Process().Kill()
	w.goesOn()
	if err := standby.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.ledOn()
	w.settled()
	sameRing(w.t, ring, w.ring())
}

// withoutLeader takes the leader away until another coordinator leads and routers
// follow that one.
func (w *galeraWorld) withoutLeader(how string, away, back func(*lab.Coordinator) error, routers ...int) {
	w.t.Helper()
	begin, before, gone := time.Now(), w.epoch, w.leader
	if err := away(gone); err != nil {
		w.t.Fatal(err)
	}
	w.follow(before)
	w.t.Logf("the leader %s: another one led after %v", how, time.Since(begin).Round(time.Millisecond))
	if w.epoch != before+1 {
		w.t.Errorf("epoch %d after %d", w.epoch, before)
	}
	for _, i := range routers {
		w.follows(i, w.epoch)
	}
	w.goesOn()
	if err := back(gone); err != nil {
		w.t.Fatal(err)
	}
	w.ledOn()
	w.settled()
}

// nothingLost checks that every node has the same tables, with all that was
// acknowledged and no change by a leader of the past. The coordinators must be dead.
func (w *galeraWorld) nothingLost() {
	w.t.Helper()
	w.g.equal()
	if len(w.o.acked) == 0 {
		w.t.Error("no request was ever acknowledged: the test has shown nothing")
	}
	var events []*coordinatorv1.Event
	for _, text := range w.g.ask(0, "SELECT text FROM event WHERE kind = 'intent'") {
		events = append(events, &coordinatorv1.Event{Text: text})
	}
	if err := w.o.check(events); err != nil {
		w.t.Error(err)
	}
	stale := w.g.ask(0, "SELECT revision FROM (SELECT revision, epoch, LAG(epoch) OVER (ORDER BY revision, seq) AS earlier "+
		"FROM event WHERE pool = '"+lab.Pool+"') AS history WHERE epoch < earlier")
	if len(stale) > 0 {
		w.t.Errorf("the changes of the revisions %q are of an earlier epoch than those before them", stale)
	}
}

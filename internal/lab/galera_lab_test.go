//go:build lab && mariadb && linux

package lab_test

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/buddyring/buddyring/internal/lab"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// galeraWorld is a Galera cluster under coordinators.
type galeraWorld struct {
	*several
	g *galera
}

func newGaleraWorld(t *testing.T, dirs ...string) *galeraWorld {
	t.Helper()
	g := newGalera(t, dirs...)
	return &galeraWorld{several: newSeveral(t, lab.Config{Store: g.store, Prepare: g.migrate}), g: g}
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
	last := w.steersAtOnce(server)
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

// TestFaultsOverGalera is an installation of three coordinators on a Galera cluster
// whose nodes, standbys and leaders are stopped and killed under load: as a server
// crashes, the node that is written to; then a standby; then the leader, once while a
// router is stopped, and once while all that stand by are on a node that lags. Routers
// steer away at once, nothing that was acknowledged is lost, only the end of a leader
// ends its epoch, and nobody who is well is removed.
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

	w.behindApplierLag("web-9")

	w.ends(w.g.nodes[0])
	w.g.equal()
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

// behindApplierLag kills the leader when both standbys write to a node that does not
// know yet what the leader has acknowledged. Whoever takes over does so when it knows
// all of it.
func (w *galeraWorld) behindApplierLag(server string) {
	w.t.Helper()
	node := (w.g.Written(w.t) + 1) % len(w.g.nodes)
	w.Move(w.g.URL(galeraDatabase, node))
	for _, c := range w.Coordinators() {
		if c == w.leader {
			continue
		}
		c.Process().Kill()
		if err := c.Start(); err != nil {
			w.t.Fatal(err)
		}
	}
	w.ledOn()
	incarnation := w.row(server).GetIncarnation()
	knows, release := w.g.hold(node)
	w.goesOn()
	w.crash(server)
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	if _, _, err := w.Removed(ctx, server, incarnation); err != nil {
		w.t.Fatal(err)
	}
	if knows("SELECT 1 FROM server WHERE server_id = '"+server+"'") != 1 {
		w.t.Error("the node knows of the removal: it does not lag")
	}
	w.withoutLeader("killed, and the others behind a node that lags", func(c *lab.Coordinator) error {
		c.Process().Kill()
		time.Sleep(5 * time.Second) // longer than a lease may stand still
		for _, other := range w.Coordinators() {
			if other == c {
				continue
			}
			status, err := other.Status(w.t.Context())
			if err != nil || status.GetState() != coordinatorv1.LeaderState_LEADER_STATE_STANDBY {
				w.t.Errorf("%s says %v, %v; want a standby, for it does not know what was acknowledged", other.ID(), status, err)
			}
		}
		release()
		return nil
	}, (*lab.Coordinator).Start, 0, 1)
	w.Move(w.g.store)
}

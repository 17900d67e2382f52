package server_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"github.com/buddyring/buddyring/coordinator/server"
	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// cluster is several coordinators, c1 and so on, on one table.
type cluster struct {
	t     *testing.T
	all   []*world
	links []*link
}

func startCluster(t *testing.T, table server.Store, n int) *cluster {
	t.Helper()
	c := &cluster{t: t}
	for i := range n {
		l := &link{Store: table}
		c.links = append(c.links, l)
		c.all = append(c.all, start(t, l, calledCoordinator(fmt.Sprintf("c%d", i+1))))
		// The first leads, and the rest find it leading.
		c.all[0].leads(time.Second)
	}
	for _, w := range c.all[1:] {
		w.standsBy(time.Second)
	}
	peers := map[string]*world{}
	for i, w := range c.all {
		peers[fmt.Sprintf("c%d:7400", i+1)] = w
		w.peers.Store(&peers)
	}
	return c
}

func calledCoordinator(id string) func(*server.Config) {
	return func(cfg *server.Config) { cfg.ID, cfg.Advertise = id, id+":7400" }
}

// successor waits until one of the coordinators but the first leads.
func (c *cluster) successor(within time.Duration) *world {
	c.t.Helper()
	return c.leaderOf(c.all[1:], within)
}

// leader waits until one of the coordinators leads.
func (c *cluster) leader(within time.Duration) *world {
	c.t.Helper()
	return c.leaderOf(c.all, within)
}

func (c *cluster) leaderOf(some []*world, within time.Duration) *world {
	c.t.Helper()
	var leader *world
	eventually(c.t, within, func() error {
		for _, w := range some {
			status, err := w.admin.GetStatus(c.t.Context(), &pb.GetStatusRequest{})
			if err == nil && status.GetState() == pb.LeaderState_LEADER_STATE_LEADER {
				leader = w
				return nil
			}
		}
		return errors.New("nobody leads")
	})
	return leader
}

// kill ends the first coordinator without a last write.
func (c *cluster) kill() {
	c.t.Helper()
	c.links[0].down.Store(true)
	c.all[0].shutDown()
}

// moveTo has agents connect to another coordinator, and waits until they are
// accepted.
func moveTo(t *testing.T, w *world, agents ...*agent) {
	t.Helper()
	for _, a := range agents {
		a.w = w
		a.network.Store(w.network)
		a.connect()
		if res := a.welcomed(); !res.GetResumed() {
			t.Errorf("%s was not resumed: %v", a.id, res)
		}
	}
}

func epochOf(t *testing.T, w *world) uint64 {
	t.Helper()
	status, err := w.admin.GetStatus(t.Context(), &pb.GetStatusRequest{})
	if err != nil {
		t.Fatalf("status: %v", err)
	}
	return status.GetEpoch()
}

// A leader dies: one of the others takes over when the lease has stood still for
// 4 s, keeps all members through the warm-up, and is in charge.
func TestFailover(t *testing.T) {
	t.Parallel()
	onEachTable(t, func(t *testing.T, table server.Store) {
		c := startCluster(t, table, 3)
		first := c.all[0]
		agents := first.join("web-1", "web-2", "web-3", "web-4", "web-5")
		epoch := epochOf(t, first)
		time.Sleep(20 * time.Second)
		c.kill()
		begin := time.Now()
		next := c.successor(6 * time.Second)
		if took := time.Since(begin); took < 3*time.Second || took > 5*time.Second {
			t.Errorf("the takeover took %s", took)
		}
		if got := epochOf(t, next); got != epoch+1 {
			t.Errorf("epoch %d after %d", got, epoch)
		}
		moveTo(t, next, agents[:4]...)
		// One has not come back and is unreachable: suspect at once, removed only
		// after the warm-up.
		next.network.set("web-5", true)
		r := next.newRouter("r1").subscribe()
		r.holdsSuspect("web-5", true, 3*time.Second)
		if got := len(next.phases()); got != 5 {
			t.Errorf("%d members", got)
		}
		next.gone("web-5", 20*time.Second)
		if took := time.Since(begin); took < 15*time.Second {
			t.Errorf("a removal %s after the leader's death", took)
		}
		next.consistent()
	})
}

// A leader that is told to stop gives the lease back with its last write.
func TestHandover(t *testing.T) {
	t.Parallel()
	onEachTable(t, func(t *testing.T, table server.Store) {
		c := startCluster(t, table, 3)
		agents := c.all[0].join("web-1", "web-2", "web-3")
		begin := time.Now()
		c.all[0].shutDown()
		next := c.successor(time.Second)
		moveTo(t, next, agents...)
		if took := time.Since(begin); took > 500*time.Millisecond {
			t.Errorf("the handover took %s", took)
		}
		next.consistent()
	})
}

func TestStepDown(t *testing.T) {
	t.Parallel()
	onEachTable(t, func(t *testing.T, table server.Store) {
		c := startCluster(t, table, 2)
		first := c.all[0]
		agents := first.join("web-1", "web-2", "web-3")
		epoch := epochOf(t, first)
		step := func(w *world, req *pb.StepDownRequest) error {
			res, err := w.admin.StepDown(t.Context(), req)
			if err == nil && res.GetEpoch() != epoch {
				t.Errorf("epoch %d has ended, not %d", res.GetEpoch(), epoch)
			}
			return err
		}
		if err := step(first, &pb.StepDownRequest{ExpectedEpoch: epoch + 1}); !errors.Is(err, member.ErrStale) {
			t.Errorf("another epoch: %v", err)
		}
		if err := step(first, &pb.StepDownRequest{ValidateOnly: true}); err != nil {
			t.Errorf("validate: %v", err)
		}
		if err := step(c.all[1], &pb.StepDownRequest{}); !errors.Is(err, member.ErrNotLeader) {
			t.Errorf("a standby: %v", err)
		}
		first.leads(0)

		begin := time.Now()
		if err := step(first, &pb.StepDownRequest{ExpectedEpoch: epoch, Reason: "an upgrade"}); err != nil {
			t.Fatalf("step down: %v", err)
		}
		for _, a := range agents {
			if err := <-a.over; !errors.Is(err, member.ErrNotLeader) {
				t.Errorf("session of %s: %v", a.id, err)
			}
		}
		next := c.successor(time.Second)
		if took := time.Since(begin); took > 500*time.Millisecond {
			t.Errorf("the handover took %s", took)
		}
		moveTo(t, next, agents...)
		time.Sleep(10 * time.Second)
		first.standsBy(0)
		next.consistent()

		// Where nobody else takes the lead, it comes back.
		c.links[0].down.Store(true)
		epoch++
		if err := step(next, &pb.StepDownRequest{}); err != nil {
			t.Fatalf("step down again: %v", err)
		}
		next.standsBy(0)
		time.Sleep(3900 * time.Millisecond)
		next.standsBy(0)
		next.leads(time.Second)
	})
}

// The alarms of pools end with the term, without an event. The next leader raises
// what lasts, and not what told of a moment.
func TestAlarmsEndWithTheTerm(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, newTable(), 2)
		first := c.all[0]
		agents := first.join("web-1", "web-2", "web-3", "web-4", "web-5")
		time.Sleep(time.Minute)
		agents[4].crash()
		first.gone("web-5", 10*time.Second)
		agents[4].revive()
		agents[4].connect()
		agents[4].welcomed()
		agents[0].kill()
		// The alarm is raised 5 s later, and its edge is written 5 s after that.
		time.Sleep(11 * time.Second)
		first.edges("default", "REMOVAL_CONTRADICTED", "AGENT_DOWN")
		if _, err := first.admin.StepDown(t.Context(), &pb.StepDownRequest{}); err != nil {
			t.Fatal(err)
		}
		next := c.successor(time.Second)
		moveTo(t, next, agents[1:]...)
		time.Sleep(15 * time.Minute)
		next.edges("default", "REMOVAL_CONTRADICTED", "AGENT_DOWN", "AGENT_DOWN")
		if old, now := first.alarms(), next.alarms(); len(old) != 0 || !slices.Equal(now, []string{"AGENT_DOWN"}) {
			t.Errorf("alarms of the old leader %v, of the new one %v", old, now)
		}
	})
}

// A standby sends agents, routers and changes to the leader, answers what the
// table tells, and says that it may be old.
func TestStandby(t *testing.T) {
	t.Parallel()
	onEachTable(t, func(t *testing.T, table server.Store) {
		c := startCluster(t, table, 2)
		first, standby := c.all[0], c.all[1]
		first.join("web-1", "web-2", "web-3")
		time.Sleep(2 * time.Second)

		a := standby.newAgent("web-4")
		a.connect()
		r := standby.newRouter("r1").subscribe()
		_, intent := standby.admin.SetIntent(t.Context(), &pb.SetIntentRequest{ServerId: "web-1", Wish: pb.Wish_WISH_MAINTENANCE})
		_, sessions := standby.admin.ListSessions(t.Context(), &pb.ListSessionsRequest{})
		watch, err := standby.admin.WatchEvents(t.Context(), &pb.WatchEventsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for what, err := range map[string]error{
			"session": <-a.over, "subscription": <-r.over, "intent": intent, "sessions": sessions, "watch": endOf(watch.Recv),
		} {
			if leader, ok := errors.AsType[*member.NotLeaderError](err); !ok || leader.Leader != "c1:7400" {
				t.Errorf("%s: %v", what, err)
			}
		}
		for name, want := range map[string]healthv1.HealthCheckResponse_ServingStatus{
			"agent": healthv1.HealthCheckResponse_NOT_SERVING, "admin": healthv1.HealthCheckResponse_SERVING,
		} {
			res, err := healthv1.NewHealthClient(standby.connect(name)).Check(t.Context(), &healthv1.HealthCheckRequest{})
			if err != nil || res.GetStatus() != want {
				t.Errorf("health of %s: %v, %v", name, res, err)
			}
		}
		if live, ready := standby.page("/livez"), standby.page("/readyz"); live != 200 || ready != 200 {
			t.Errorf("livez %d, readyz %d", live, ready)
		}
		readsOfStandby(t, first, standby)

		// The leader's change is shown within a second.
		first.join("web-4")
		time.Sleep(time.Second)
		if got := len(standby.phases()); got != 4 {
			t.Errorf("%d members", got)
		}
	})
}

func readsOfStandby(t *testing.T, first, standby *world) {
	t.Helper()
	var header metadata.MD
	status, err := standby.admin.GetStatus(t.Context(), &pb.GetStatusRequest{}, grpc.Header(&header))
	if err != nil || status.GetLeader() != "c1:7400" || status.GetLeaderId() != "c1" || status.GetEpoch() != epochOf(t, first) ||
		len(status.GetPools()) != 1 || status.GetLeaseAge().AsDuration() > 2*time.Second {
		t.Errorf("status: %v, %v", status, err)
	}
	if p := status.GetPools()[0]; p.WarmingUp != nil || p.BrakeEngaged != nil {
		t.Errorf("a standby knows what only the leader knows: %v", p)
	}
	if len(header.Get("buddyring-stale")) != 1 {
		t.Errorf("a standby does not say that its answer may be old: %v", header)
	}
	_, err = first.admin.GetStatus(t.Context(), &pb.GetStatusRequest{}, grpc.Header(&header))
	if err != nil || len(header.Get("buddyring-stale")) != 0 {
		t.Errorf("the leader calls its answer old: %v, %v", header, err)
	}
	want, got := ringOf(t, first), ringOf(t, standby)
	if len(got.GetMembers()) != 3 || got.GetRevision() != want.GetRevision() {
		t.Errorf("ring: %v, want %v", got, want)
	}
	events, err := standby.admin.ListEvents(t.Context(), &pb.ListEventsRequest{ServerId: "web-1"})
	if err != nil || len(events.GetEvents()) == 0 {
		t.Errorf("events: %v, %v", events, err)
	}
	for _, read := range []func() error{
		func() error { _, err := standby.admin.ListPools(t.Context(), &pb.ListPoolsRequest{}); return err },
		func() error { _, err := standby.admin.GetPool(t.Context(), &pb.GetPoolRequest{}); return err },
		func() error {
			_, err := standby.admin.GetServer(t.Context(), &pb.GetServerRequest{ServerId: "web-1"})
			return err
		},
		func() error {
			_, err := standby.admin.ExplainServer(t.Context(), &pb.ExplainServerRequest{ServerId: "web-1"})
			return err
		},
		func() error { _, err := standby.admin.ListRouters(t.Context(), &pb.ListRoutersRequest{}); return err },
		func() error { _, err := standby.admin.ListAlarms(t.Context(), &pb.ListAlarmsRequest{}); return err },
	} {
		if err := read(); err != nil {
			t.Error(err)
		}
	}
}

// Nobody reaches the database: the leader keeps everything but what is durable,
// tries nothing after 3 s, and goes on in its epoch without a warm-up.
func TestOutageKeepsTheLeader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, newTable(), 2)
		first, l := c.all[0], c.links[0]
		agents := first.join("web-1", "web-2", "web-3", "web-4", "web-5")
		r := first.newRouter("r1").subscribe()
		time.Sleep(20 * time.Second)
		epoch := epochOf(t, first)

		for _, l := range c.links {
			l.down.Store(true)
		}
		time.Sleep(4 * time.Second)
		tries := l.tries.Load()
		agents[2].crash()
		r.holdsSuspect("web-3", true, 2*time.Second)
		_, err := first.admin.SetIntent(t.Context(), &pb.SetIntentRequest{ServerId: "web-1", Wish: pb.Wish_WISH_MAINTENANCE})
		if !errors.Is(err, member.ErrUnavailable) || !strings.Contains(err.Error(), "lease") {
			t.Errorf("intent: %v", err)
		}
		_, err = first.admin.CreatePool(t.Context(), &pb.CreatePoolRequest{Pool: "games"})
		if !errors.Is(err, member.ErrUnavailable) {
			t.Errorf("create pool: %v", err)
		}
		time.Sleep(20 * time.Second)
		if n := l.tries.Load() - tries; n != 0 {
			t.Errorf("without the lease %d changes were tried", n)
		}
		if got := first.alarms(); !slices.Contains(got, "STORE_FAILING") {
			t.Errorf("alarms: %v", got)
		}
		status, err := first.admin.GetStatus(t.Context(), &pb.GetStatusRequest{})
		if err != nil || status.GetLeaseAge().AsDuration() < 20*time.Second || status.GetSessions() != 5 {
			t.Errorf("status: %v, %v", status, err)
		}
		first.leads(0)

		for _, l := range c.links {
			l.down.Store(false)
		}
		first.gone("web-3", 3*time.Second)
		if got := epochOf(t, first); got != epoch {
			t.Errorf("epoch %d after %d", got, epoch)
		}
		select {
		case err := <-r.over:
			t.Errorf("the subscription has ended: %v", err)
		default:
		}
		first.consistent()
		c.all[1].standsBy(0)
	})
}

// Only the leader does not reach the database: another one takes over. The first
// hears of it from the others, and sends its agents and routers there.
func TestLeaderWithoutDatabaseHearsOfItsSuccessor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, newTable(), 3)
		first := c.all[0]
		agents := first.join("web-1", "web-2", "web-3", "web-4")
		r := first.newRouter("r1").subscribe()
		time.Sleep(20 * time.Second)
		c.links[0].down.Store(true)
		next := c.successor(6 * time.Second)
		begin, leader := time.Now(), addressOfLeader(t, next)
		overs := []chan error{r.over}
		for _, a := range agents {
			overs = append(overs, a.over)
		}
		for _, over := range overs {
			err := heard(t, over)
			if named, ok := errors.AsType[*member.NotLeaderError](err); !ok || named.Leader != leader {
				t.Errorf("%v, want the name of %s", err, leader)
			}
		}
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("they were sent away %s after another one took the lead", took)
		}
		first.standsBy(time.Second)
		moveTo(t, next, agents...)
		next.consistent()
	})
}

func addressOfLeader(t *testing.T, w *world) string {
	t.Helper()
	status, err := w.admin.GetStatus(t.Context(), &pb.GetStatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return status.GetLeader()
}

// The same where it cannot ask the others either: it writes nothing any more, and
// names its successor when it hears of it.
func TestLeaderWithoutDatabase(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, newTable(), 2)
		first := c.all[0]
		agents := first.join("web-1", "web-2", "web-3", "web-4")
		r := first.newRouter("r1").subscribe()
		time.Sleep(20 * time.Second)
		c.links[0].down.Store(true)
		first.peers.Store(nil)
		next := c.successor(6 * time.Second)
		first.leads(0)
		moveTo(t, next, agents[:2]...)
		if agents[2].w.metric("buddyring_sessions") != 4 {
			t.Error("the old leader has ended sessions before it saw another")
		}
		revision := ringOf(t, next).GetRevision()
		tries := c.links[0].tries.Load()
		agents[3].crash()
		time.Sleep(5 * time.Second)

		c.links[0].down.Store(false)
		for what, over := range map[string]chan error{"session": agents[2].over, "subscription": r.over} {
			err := <-over
			if leader, ok := errors.AsType[*member.NotLeaderError](err); !ok || leader.Leader != "c2:7400" {
				t.Errorf("%s: %v", what, err)
			}
		}
		first.standsBy(time.Second)
		if n := c.links[0].tries.Load() - tries; n != 0 {
			t.Errorf("the old leader tried %d changes", n)
		}
		if got := ringOf(t, next).GetRevision(); got != revision {
			t.Errorf("revision %d after %d", got, revision)
		}
		synctest.Wait() // the term has ended, what belonged to it ends
		if got := first.metric("buddyring_members"); got != 0 {
			t.Errorf("a standby shows %v members", got)
		}
	})
}

// Whoever may lead again is at once in charge.
func TestRestartOfTheLeader(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		predecessor string
		killed      bool
		most        time.Duration
	}{
		"told to stop":                           {most: 0},
		"killed, known to have ended":            {killed: true, predecessor: "run-1", most: 0},
		"killed, not known to have ended":        {killed: true, most: 5 * time.Second},
		"killed, another is known to have ended": {killed: true, predecessor: "run-0", most: 5 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := &link{Store: newTable()}
				w := start(t, l, func(cfg *server.Config) { cfg.Instance = "run-1" })
				w.join("web-1", "web-2", "web-3")
				l.down.Store(c.killed)
				w.shutDown()
				l.down.Store(false)
				begin := time.Now()
				w.run(func(cfg *server.Config) { cfg.Instance, cfg.Predecessor = "run-2", c.predecessor })
				w.leads(c.most + time.Second)
				took := time.Since(begin)
				if took > c.most || c.most > 0 && took < 4*time.Second {
					t.Errorf("it took %s, want up to %s", took, c.most)
				}
			})
		})
	}
}

// Of two live coordinators with one id the second gives way, and says why.
func TestTwin(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table := newTable()
		first := start(t, table)
		first.join("web-1", "web-2")
		second := start(t, table)
		err := second.ended(6 * time.Second)
		if !errors.Is(err, member.ErrAlreadyExists) || !strings.Contains(err.Error(), "--id") {
			t.Errorf("run: %v", err)
		}
		first.leads(0)
		first.consistent()
	})
}

// Agents are told of all coordinators, this one first.
func TestAgentsHearOfTheOthers(t *testing.T) {
	t.Parallel()
	onEachTable(t, func(t *testing.T, table server.Store) {
		c := startCluster(t, table, 3)
		time.Sleep(11 * time.Second)
		a := c.all[0].newAgent("web-1")
		a.connect()
		if got, want := a.welcomed().GetCoordinators(), []string{"c1:7400", "c2:7400", "c3:7400"}; !slices.Equal(got, want) {
			t.Errorf("told of %v, want %v", got, want)
		}
	})
}

// A change that is under way when the coordinator is told to stop is waited for,
// and whoever waits hears of it.
func TestLastChangeIsAnswered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table := newTable()
		w := start(t, table)
		w.join("web-1", "web-2", "web-3")
		release := table.hold()
		answered := make(chan error, 1)
		go func() {
			_, err := w.admin.SetIntent(context.Background(), &pb.SetIntentRequest{ServerId: "web-1", Wish: pb.Wish_WISH_MAINTENANCE})
			answered <- err
		}()
		time.Sleep(100 * time.Millisecond)
		time.AfterFunc(time.Second, release)
		w.shutDown()
		if err := <-answered; err != nil {
			t.Errorf("the last change: %v", err)
		}
	})
}

// overtakenTable is one whose pools belong to a later epoch when they are first
// loaded: another coordinator has taken the lead in between.
type overtakenTable struct {
	server.Store

	once sync.Once
}

func (o *overtakenTable) LoadPools(ctx context.Context) ([]member.PoolState, error) {
	states, err := o.Store.LoadPools(ctx)
	o.once.Do(func() {
		states = append(states, member.PoolState{Name: "games", Settings: member.DefaultSettings(), Position: member.Position{Epoch: 99, Revision: 1}})
	})
	return states, err
}

// Pools of another epoch are not led: what is written about them would pass their
// fence.
func TestNobodyLeadsThePoolsOfAnotherEpoch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &overtakenTable{Store: newTable()})
		time.Sleep(2 * time.Second) // it leaves the lead to others for a while
		status, err := w.admin.GetStatus(t.Context(), &pb.GetStatusRequest{})
		if err != nil || status.GetState() != pb.LeaderState_LEADER_STATE_LEADER || status.GetEpoch() != 2 || len(status.GetPools()) != 1 {
			t.Errorf("%v, %v", status, err)
		}
	})
}

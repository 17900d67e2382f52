package server_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/buddyring/buddyring/coordinator/server"
	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// ambush is a table that lies in wait for one change.
type ambush struct {
	server.Store

	mu sync.Mutex
	// matches tells the change, nil for none; reaches says that it is made, and lost
	// that nobody is told.
	matches       func(member.Change) bool
	reaches, lost bool
	met, goesOn   chan struct{}
}

// lie waits for a change, which hangs from met on until goesOn closes.
func (a *ambush) lie(m moment, matches func(member.Change) bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.matches, a.reaches, a.lost = matches, m.reaches, m.lost
	a.met, a.goesOn = make(chan struct{}), make(chan struct{})
}

func (a *ambush) meets(c member.Change) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.matches == nil || !a.matches(c) {
		return false
	}
	a.matches = nil
	return true
}

// hang makes the change unless it is not to reach the table, and answers it unless
// that gets lost.
func (a *ambush) hang(write func() error) error {
	var err error
	if a.reaches {
		err = write()
	}
	close(a.met)
	<-a.goesOn
	if a.lost {
		return fmt.Errorf("%w: %w", errDown, store.ErrOutcomeUnknown)
	}
	return err
}

func (a *ambush) Commit(ctx context.Context, c member.Change) error {
	write := func() error { return a.Store.Commit(ctx, c) }
	if !a.meets(c) {
		return write()
	}
	return a.hang(write)
}

func (a *ambush) CreatePool(ctx context.Context, epoch member.Epoch, n store.NewPool) (state member.PoolState, err error) {
	write := func() error {
		state, err = a.Store.CreatePool(ctx, epoch, n)
		return err
	}
	if !a.meets(member.Change{Requests: n.Requests}) {
		return state, write()
	}
	err = a.hang(write)
	return state, err
}

// moment is how far a change has come when its leader ends.
type moment struct {
	// answered says that whoever asked has heard of it, or waits for routers.
	answered bool
	// reaches says that it is in the table, and lost that the leader does not hear so.
	reaches, lost bool
}

var (
	missed   = moment{lost: true}
	lost     = moment{reaches: true, lost: true}
	slowly   = moment{reaches: true}
	answered = moment{reaches: true, answered: true}
)

// ends are how the leader ends, or what else happens to it, and the moments of that;
// goOn lets the change go on. They return who leads then.
var ends = map[string]struct {
	end     func(c *cluster, goOn func()) *world
	moments map[string]moment
}{
	"killed": {func(c *cluster, goOn func()) *world {
		c.links[0].down.Store(true)
		goOn()
		c.kill()
		time.Sleep(3900 * time.Millisecond)
		return c.successor(2 * time.Second)
	}, map[string]moment{"before the commit": missed, "with its answer lost": lost, "after the commit": answered}},
	"steps down": {func(c *cluster, goOn func()) *world {
		time.AfterFunc(50*time.Millisecond, goOn)
		if _, err := c.all[0].admin.StepDown(c.t.Context(), &pb.StepDownRequest{}); err != nil {
			c.t.Fatalf("step down: %v", err)
		}
		return c.successor(time.Second)
	}, map[string]moment{"before the commit": missed, "with its answer lost": lost, "during the commit": slowly, "after the commit": answered}},
	"killed with all others": {func(c *cluster, goOn func()) *world {
		for _, l := range c.links {
			l.down.Store(true)
		}
		goOn()
		for _, w := range c.all {
			w.shutDown()
		}
		for i, w := range c.all {
			c.links[i].down.Store(false)
			w.run(calledCoordinator(fmt.Sprintf("c%d", i+1)))
		}
		time.Sleep(3900 * time.Millisecond)
		return c.leader(2 * time.Second)
	}, map[string]moment{"before the commit": missed, "after the commit": answered}},
	"without a database": {func(c *cluster, goOn func()) *world {
		for _, l := range c.links {
			l.down.Store(true)
		}
		goOn()
		time.Sleep(6 * time.Second)
		for _, l := range c.links {
			l.down.Store(false)
		}
		c.all[0].leads(0)
		return c.all[0]
	}, map[string]moment{"before the commit": missed, "with its answer lost": lost}},
}

// order is a change that an operator asks for.
type order struct {
	// before makes what it needs, if anything.
	before func(w *world)
	// ask asks for it once, by one request id, and returns what the answer tells of it.
	ask func(ctx context.Context, w *world) (answer string, err error)
	// waits says that the answer waits for routers, until confirm.
	waits   bool
	confirm func(w *world)
	// pool is whose events there are, the default pool where it is empty: "KIND ID", and
	// how many.
	pool   string
	events map[string]int
	// holds checks what the leader shows, and how servers are received.
	holds func(w *world)
}

// orderID is the request id of an order.
const orderID = "once"

// isOrdered reports whether a change is an order, or the end of a wish.
func isOrdered(c member.Change) bool {
	return len(c.Forget) > 0 || slices.ContainsFunc(c.Requests, func(r member.Request) bool { return r.ID == orderID })
}

// A change that an operator asks for is made once, whenever its leader ends and
// however, also where nobody was told: who asks again by the same request id gets the
// answer of the first time, from the leaders that follow too.
func TestOrdersSurviveEverything(t *testing.T) {
	t.Parallel()
	for what, order := range orders {
		for how, e := range ends {
			for when, m := range e.moments {
				t.Run(what+"/"+how+" "+when, func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) { survives(t, newTable(), order(), m, e.end) })
				})
			}
		}
		t.Run(what+"/on each table", func(t *testing.T) {
			t.Parallel()
			onEachTable(t, func(t *testing.T, table server.Store) {
				survives(t, table, order(), lost, ends["killed with all others"].end)
			})
		})
	}
}

// survives asks for an order, ends the leader, asks again, and does so once more under
// the next leader.
func survives(t *testing.T, table server.Store, o order, m moment, end func(c *cluster, goOn func()) *world) {
	t.Helper()
	a := &ambush{Store: table}
	c := startCluster(t, a, 2)
	first := c.all[0]
	agents := first.join("web-1", "web-2", "web-3", "web-4")
	if o.before != nil {
		o.before(first)
	}
	before := first.tally(cmp.Or(o.pool, "default"))
	answers := make(chan string, 1)
	asked := func() {
		answer, err := o.ask(context.Background(), first)
		if err != nil && !errors.Is(err, member.ErrUnavailable) && !errors.Is(err, member.ErrNotLeader) {
			t.Errorf("the answer: %v", err)
		}
		answers <- answer
	}
	goOn := func() {}
	switch {
	case !m.answered:
		a.lie(m, isOrdered)
		go asked()
		<-a.met
		goOn = func() { close(a.goesOn) }
	case o.waits:
		go asked()
		time.Sleep(time.Second)
	default:
		asked()
	}
	next := end(c, goOn)
	if next.metric("buddyring_sessions") == 0 {
		phases := next.phases()
		agents = slices.DeleteFunc(agents, func(a *agent) bool { return phases[a.id] == pb.Phase_PHASE_UNSPECIFIED })
		moveTo(t, next, agents...)
	}
	if o.confirm != nil {
		o.confirm(next)
	}
	want := o.repeat(t, next)
	if answer := <-answers; answer != "" && answer != want {
		t.Errorf("the answer was %s, and is %s when it is asked for again", answer, want)
	}
	time.Sleep(6 * time.Second)
	o.holds(next)
	next.consistent()

	if _, err := next.admin.StepDown(t.Context(), &pb.StepDownRequest{}); err != nil {
		t.Fatalf("step down: %v", err)
	}
	time.Sleep(10 * time.Second)
	last := c.leader(0)
	if o.confirm != nil {
		o.confirm(last)
	}
	if again := o.repeat(t, last); again != want {
		t.Errorf("the next leader answers %s, not %s", again, want)
	}
	o.holds(last)
	after := last.tally(cmp.Or(o.pool, "default"))
	for what, n := range before {
		if after[what] -= n; after[what] == 0 {
			delete(after, what)
		}
	}
	if !maps.Equal(after, o.events) {
		t.Errorf("events %v, want %v", after, o.events)
	}
}

// repeat asks until there is an answer.
func (o order) repeat(t *testing.T, w *world) (answer string) {
	t.Helper()
	eventually(t, 20*time.Second, func() (err error) {
		answer, err = o.ask(t.Context(), w)
		return err
	})
	return answer
}

// tally counts the events of a pool that tell of changes, by kind and server.
func (w *world) tally(pool string) map[string]int {
	w.t.Helper()
	res, err := w.admin.ListEvents(w.t.Context(), &pb.ListEventsRequest{Pool: pool, PageSize: 1000, Kinds: []string{
		"joined", "removed", "replaced", "intent", "updated", "pool_created", "pool_updated", "pool_deleted",
	}})
	if err != nil && !errors.Is(err, member.ErrNotFound) {
		w.t.Fatalf("list events: %v", err)
	}
	n := map[string]int{}
	for _, e := range res.GetEvents() {
		n[e.GetKind()+" "+e.GetServerId()]++
	}
	return n
}

// orders are the changes.
var orders = map[string]func() order{
	"a server is replaced": func() order {
		var ring []string
		return order{
			before: func(w *world) {
				for _, id := range membersOf(w) {
					switch id {
					case "web-4":
					case "web-3":
						ring = append(ring, "web-4")
					default:
						ring = append(ring, id)
					}
				}
			},
			ask: func(ctx context.Context, w *world) (string, error) {
				res, err := w.admin.ReplaceServer(ctx, &pb.ReplaceServerRequest{ServerId: "web-3", ReplacementId: "web-4", RequestId: orderID})
				return at(res.GetRevision(), err, res.GetServer().GetServerId())
			},
			events: map[string]int{"removed web-3": 1, "replaced web-4": 1, "intent web-3": 1},
			holds: func(w *world) {
				if got := membersOf(w); !slices.Equal(got, ring) {
					w.t.Errorf("the ring is %v, want %v", got, ring)
				}
				w.bans("web-3")
			},
		}
	},
	"a machine is replaced": func() order {
		return order{
			ask: func(ctx context.Context, w *world) (string, error) {
				res, err := w.admin.ReplaceServer(ctx, &pb.ReplaceServerRequest{ServerId: "web-3", ReplacementId: "web-3", RequestId: orderID})
				return at(res.GetRevision(), err, res.GetServer().GetIncarnation())
			},
			events: map[string]int{"replaced web-3": 1},
			holds:  func(w *world) { w.isPhase("web-3", pb.Phase_PHASE_ACTIVE) },
		}
	},
	"a server is removed": func() order {
		return order{
			ask: func(ctx context.Context, w *world) (string, error) {
				res, err := w.admin.RemoveServer(ctx, &pb.RemoveServerRequest{ServerId: "web-3", RequestId: orderID})
				return at(res.GetRevision(), err)
			},
			events: map[string]int{"removed web-3": 1},
			holds: func(w *world) {
				if got := membersOf(w); slices.Contains(got, "web-3") {
					w.t.Errorf("the ring is %v", got)
				}
			},
		}
	},
	"a pool is deleted": func() order {
		return order{
			before: func(w *world) {
				w.makePool("games")
				w.inPool("games", "g-1").welcomed()
			},
			ask: func(ctx context.Context, w *world) (string, error) {
				res, err := w.admin.DeletePool(ctx, &pb.DeletePoolRequest{Pool: "games", Force: true, RequestId: orderID})
				return at(res.GetRevision(), err)
			},
			events: map[string]int{"pool_deleted ": 1},
			holds: func(w *world) {
				if _, err := w.admin.GetPool(w.t.Context(), &pb.GetPoolRequest{Pool: "games"}); !errors.Is(err, member.ErrNotFound) {
					w.t.Errorf("the pool: %v", err)
				}
				a := w.inPool("games", "g-1")
				if err := <-a.over; !errors.Is(err, member.ErrNotFound) {
					w.t.Errorf("its server is told %v", err)
				}
			},
		}
	},
	"a pool is created": func() order {
		return order{
			ask: func(ctx context.Context, w *world) (string, error) {
				res, err := w.admin.CreatePool(ctx, &pb.CreatePoolRequest{Pool: "games", RequestId: orderID})
				return at(res.GetPool().GetRevision(), err)
			},
			pool:   "games",
			events: map[string]int{"pool_created ": 1},
			holds:  func(w *world) { w.hasSettings("games", 10) },
		}
	},
	"a pool is updated": func() order {
		return order{
			ask: func(ctx context.Context, w *world) (string, error) {
				_, err := w.admin.UpdatePool(ctx, &pb.UpdatePoolRequest{
					Settings: &pb.PoolSettings{HeldPercent: new(uint32(20))}, RequestId: orderID,
				})
				return at(0, err)
			},
			events: map[string]int{"pool_updated ": 1},
			holds:  func(w *world) { w.hasSettings("default", 20) },
		}
	},
	"a server is updated": func() order {
		return order{
			ask: func(ctx context.Context, w *world) (string, error) {
				res, err := w.admin.UpdateServer(ctx, &pb.UpdateServerRequest{
					ServerId: "web-2", Spec: &pb.ServerSpec{Weight: new(uint32(7))}, UpdateMask: mask("weight"), RequestId: orderID,
				})
				return at(res.GetRevision(), err, res.GetServer().GetSpec().GetWeight())
			},
			events: map[string]int{"updated web-2": 1},
			holds: func(w *world) {
				if spec := w.server("web-2").GetSpec(); spec.GetWeight() != 7 {
					w.t.Errorf("it is %v", spec)
				}
			},
		}
	},
	"a server is drained": func() order {
		return order{
			// A router that confirms nothing makes the answer wait.
			before: func(w *world) {
				r := w.newRouter("r1").subscribe()
				r.caughtUp("default", ringOf(w.t, w).GetRevision())
				r.hang()
			},
			ask: func(ctx context.Context, w *world) (string, error) {
				res, err := w.admin.DrainServer(ctx, &pb.DrainServerRequest{
					ServerId: "web-2", Timeout: durationpb.New(time.Minute), RequestId: orderID,
				})
				return at(res.GetRevision(), err, res.GetState(), " ", res.GetServer().GetPhase())
			},
			waits:   true,
			confirm: func(w *world) { w.newRouter("r1").subscribe() },
			events:  map[string]int{"intent web-2": 1},
			holds:   func(w *world) { w.isPhase("web-2", pb.Phase_PHASE_DRAINING) },
		}
	},
	"a server is resumed": func() order {
		return order{
			before: func(w *world) { w.drains("web-2", 0) },
			ask: func(ctx context.Context, w *world) (string, error) {
				res, err := w.admin.ResumeServer(ctx, &pb.ResumeServerRequest{ServerId: "web-2", RequestId: orderID})
				return at(res.GetRevision(), err, res.GetServer().GetPhase())
			},
			events: map[string]int{"intent web-2": 1},
			holds:  func(w *world) { w.isPhase("web-2", pb.Phase_PHASE_ACTIVE) },
		}
	},
	"a server is banned": func() order {
		return order{
			ask:    intends("web-3", pb.Wish_WISH_BANNED, 0),
			events: map[string]int{"intent web-3": 1, "removed web-3": 1},
			holds:  func(w *world) { w.bans("web-3") },
		}
	},
	"a stranger is banned": func() order {
		return order{
			ask:    intends("late", pb.Wish_WISH_BANNED, 0),
			events: map[string]int{"intent late": 1},
			holds:  func(w *world) { w.bans("late") },
		}
	},
	"a wish with an end": func() order {
		const life = 2 * time.Minute
		var leaders int
		var ends time.Time
		return order{
			ask: func(ctx context.Context, w *world) (string, error) {
				if leaders == 0 {
					ends = time.Now().Add(life)
				}
				return intends("web-2", pb.Wish_WISH_DRAIN, life)(ctx, w)
			},
			events: map[string]int{"intent web-2": 2},
			// It holds under one leader after the other, and ends under the last.
			holds: func(w *world) {
				w.isPhase("web-2", pb.Phase_PHASE_DRAINING)
				if leaders++; leaders == 2 {
					time.Sleep(time.Until(ends) + time.Second)
					w.isPhase("web-2", pb.Phase_PHASE_ACTIVE)
				}
			},
		}
	},
	"a wish ends": func() order {
		var ends time.Time
		return order{
			before: func(w *world) {
				w.drains("web-2", 5*time.Second)
				ends = time.Now().Add(5 * time.Second)
			},
			// Nobody asks for it.
			ask: func(context.Context, *world) (string, error) {
				time.Sleep(time.Until(ends))
				return "", nil
			},
			events: map[string]int{"intent web-2": 1},
			holds:  func(w *world) { w.isPhase("web-2", pb.Phase_PHASE_ACTIVE) },
		}
	},
}

// intends asks for a wish, without an end where life is 0.
func intends(id string, wish pb.Wish, life time.Duration) func(context.Context, *world) (string, error) {
	return func(ctx context.Context, w *world) (string, error) {
		req := &pb.SetIntentRequest{ServerId: id, Wish: wish, RequestId: orderID}
		if life > 0 {
			req.ExpiresIn = durationpb.New(life)
		}
		res, err := w.admin.SetIntent(ctx, req)
		return at(res.GetRevision(), err)
	}
}

// at is what an answer tells, nothing where it is an error.
func at(revision uint64, err error, more ...any) (string, error) {
	if err != nil {
		return "", err
	}
	return fmt.Sprint(append([]any{"revision ", revision, " "}, more...)...), nil
}

// drains sets the wish to drain, without an end where life is 0.
func (w *world) drains(id string, life time.Duration) {
	w.t.Helper()
	req := &pb.SetIntentRequest{ServerId: id, Wish: pb.Wish_WISH_DRAIN}
	if life > 0 {
		req.ExpiresIn = durationpb.New(life)
	}
	if _, err := w.admin.SetIntent(w.t.Context(), req); err != nil {
		w.t.Fatalf("set intent: %v", err)
	}
}

// membersOf lists the default pool in the order of its ring.
func membersOf(w *world) []string {
	w.t.Helper()
	var ids []string
	for _, m := range ringOf(w.t, w).GetMembers() {
		ids = append(ids, m.GetServerId())
	}
	return ids
}

func (w *world) server(id string) *pb.Server {
	w.t.Helper()
	res, err := w.admin.GetServer(w.t.Context(), &pb.GetServerRequest{ServerId: id, Pool: "default"})
	if err != nil {
		w.t.Fatalf("get server: %v", err)
	}
	return res.GetServer()
}

// isPhase checks the phase of a member, and that it is as the operator wants it.
func (w *world) isPhase(id string, want pb.Phase) {
	w.t.Helper()
	s := w.server(id)
	if drains := want == pb.Phase_PHASE_DRAINING; s.GetPhase() != want || (s.GetIntent() == pb.Wish_WISH_DRAIN) != drains {
		w.t.Errorf("%s is %s with the intent %s", id, s.GetPhase(), s.GetIntent())
	}
}

// bans checks that a server is no member, and may not become one.
func (w *world) bans(id string) {
	w.t.Helper()
	res, err := w.admin.ListIntents(w.t.Context(), &pb.ListIntentsRequest{})
	if err != nil || len(res.GetIntents()) != 1 || res.GetIntents()[0].GetServerId() != id || res.GetIntents()[0].GetWish() != pb.Wish_WISH_BANNED {
		w.t.Errorf("the wishes are %v, %v", res, err)
	}
	a := w.newAgent(id)
	a.connect()
	if err := heard(w.t, a.over); !errors.Is(err, member.ErrRefused) {
		w.t.Errorf("%s is told %v", id, err)
	}
	if phase, ok := w.phases()[id]; ok {
		w.t.Errorf("%s is %s", id, phase)
	}
}

// hasSettings checks a setting of a pool.
func (w *world) hasSettings(pool string, held uint32) {
	w.t.Helper()
	res, err := w.admin.GetPool(w.t.Context(), &pb.GetPoolRequest{Pool: pool})
	if err != nil || res.GetPool().GetSettings().GetHeldPercent() != held {
		w.t.Errorf("the pool is %v, %v", res, err)
	}
}

package server_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// router is a scripted router: it applies what it receives as strictly as the
// contract promises it, keeps a log, and acknowledges.
type router struct {
	w  *world
	id string
	// run is that of its program.
	run string

	mu      sync.Mutex
	stream  pb.MembershipService_SubscribeClient
	cancel  context.CancelFunc
	storeID string
	epoch   uint64
	at      map[string]*pb.Position
	servers map[string]map[string]*pb.Server
	suspect map[string]bool
	down    map[string]bool
	synced  bool
	// kept are removed servers that it keeps; confirmed says that a delta told it
	// that an operator has confirmed a mass change.
	kept      []*pb.HeldServer
	confirmed bool
	// log tells the messages but bookmarks; fault is the first broken promise.
	log   []string
	sizes []int
	fault error
	// deltas counts them; bookmarks too.
	bookmarks int
	over      chan error
	// hangs says that it acknowledges nothing.
	hangs atomic.Bool
}

func (r *router) hang() { r.hangs.Store(true) }

func (w *world) newRouter(id string) *router {
	return &router{
		w: w, id: id, at: map[string]*pb.Position{}, servers: map[string]map[string]*pb.Server{},
		suspect: map[string]bool{}, down: map[string]bool{},
	}
}

// subscribe opens a stream that resumes from what the router has.
func (r *router) subscribe(pools ...string) *router {
	r.w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	stream, err := pb.NewMembershipServiceClient(r.w.connect("agent")).Subscribe(ctx)
	if err != nil {
		r.w.t.Fatalf("subscribe: %v", err)
	}
	r.w.t.Cleanup(cancel)
	hello := &pb.SubscribeHello{RouterId: r.id, StoreId: r.storeID, Version: "test", Pools: pools, Run: r.run}
	r.mu.Lock()
	r.stream, r.cancel, r.synced, r.log = stream, cancel, false, nil
	r.over = make(chan error, 1)
	over := r.over
	for _, name := range slices.Sorted(maps.Keys(r.at)) {
		hello.Resume = append(hello.Resume, r.at[name])
	}
	r.mu.Unlock()
	_ = stream.Send(&pb.SubscribeRequest{Message: &pb.SubscribeRequest_Hello{Hello: hello}}) // Recv tells the end
	go r.receive(stream, over)
	return r
}

func (r *router) receive(stream pb.MembershipService_SubscribeClient, over chan<- error) {
	for {
		res, err := stream.Recv()
		if err != nil {
			over <- err
			return
		}
		r.mu.Lock()
		changed, err := r.apply(res)
		if err != nil && r.fault == nil {
			r.fault = err
		}
		ack := &pb.Ack{SoftEpoch: r.epoch, Held: r.kept}
		for _, name := range slices.Sorted(maps.Keys(r.at)) {
			ack.Applied = append(ack.Applied, r.at[name])
		}
		r.mu.Unlock()
		if changed && !r.hangs.Load() {
			_ = stream.Send(&pb.SubscribeRequest{Message: &pb.SubscribeRequest_Ack{Ack: ack}}) // Recv tells the end
		}
	}
}

func (r *router) apply(res *pb.SubscribeResponse) (changed bool, err error) {
	switch m := res.GetMessage().(type) {
	case *pb.SubscribeResponse_Start:
		r.log = append(r.log, "start")
		r.storeID, r.epoch = m.Start.GetStoreId(), m.Start.GetEpoch()
	case *pb.SubscribeResponse_Compacted:
		what := "compacted " + m.Compacted.GetPool()
		if m.Compacted.GetOtherHistory() {
			what += " other"
		}
		r.log = append(r.log, what)
	case *pb.SubscribeResponse_Snapshot:
		p := m.Snapshot.GetPosition()
		r.log = append(r.log, fmt.Sprintf("snapshot %s %d", p.GetPool(), p.GetRevision()))
		r.at[p.GetPool()] = p
		rows := map[string]*pb.Server{}
		for _, s := range m.Snapshot.GetServers() {
			rows[s.GetServerId()] = s
		}
		r.servers[p.GetPool()] = rows
		r.sizes = append(r.sizes, len(rows))
		return true, nil
	case *pb.SubscribeResponse_PoolDeleted:
		d := m.PoolDeleted
		r.log = append(r.log, fmt.Sprintf("deleted %s %d in epoch %d", d.GetPool(), d.GetRevision(), d.GetEpoch()))
		delete(r.at, d.GetPool())
		delete(r.servers, d.GetPool())
		return true, nil
	case *pb.SubscribeResponse_Delta:
		return true, r.applyDelta(m.Delta)
	case *pb.SubscribeResponse_SoftMarks:
		return true, r.applyMarks(m.SoftMarks)
	case *pb.SubscribeResponse_SoftSynced:
		r.log = append(r.log, "synced")
		r.synced = true
	case *pb.SubscribeResponse_Bookmark:
		r.bookmarks++
		for _, p := range m.Bookmark.GetPositions() {
			if has := r.at[p.GetPool()]; has.GetRevision() != p.GetRevision() {
				return false, fmt.Errorf("bookmark %v while at %v", p, has)
			}
		}
	}
	return false, nil
}

func (r *router) applyDelta(d *pb.Delta) error {
	p := d.GetPosition()
	r.log = append(r.log, fmt.Sprintf("delta %s %d-%d", p.GetPool(), d.GetFromRevision(), p.GetRevision()))
	if has := r.at[p.GetPool()].GetRevision(); has != d.GetFromRevision() || p.GetRevision() <= has {
		return fmt.Errorf("delta from %d to %d while at %d", d.GetFromRevision(), p.GetRevision(), has)
	}
	r.at[p.GetPool()] = p
	r.confirmed = r.confirmed || d.GetMassChangeConfirmed()
	rows := r.servers[p.GetPool()]
	for _, gone := range d.GetRemoved() {
		if rows[gone.GetServerId()].GetIncarnation() <= gone.GetIncarnation() {
			delete(rows, gone.GetServerId())
		}
	}
	for _, s := range d.GetPut() {
		rows[s.GetServerId()] = s
	}
	r.sizes = append(r.sizes, len(rows))
	return nil
}

func (r *router) applyMarks(m *pb.SoftMarks) error {
	for _, mark := range m.GetMarks() {
		r.log = append(r.log, fmt.Sprintf("mark %s suspect=%t", mark.GetServerId(), mark.GetSuspect()))
		r.suspect[mark.GetServerId()] = mark.GetSuspect()
		r.down[mark.GetServerId()] = mark.GetServiceDown()
		row, ok := r.servers[mark.GetPool()][mark.GetServerId()]
		if mark.GetSuspect() && (!ok || row.GetIncarnation() != mark.GetIncarnation()) {
			return fmt.Errorf("mark %v on a row that is not there", mark)
		}
	}
	return nil
}

// caughtUp waits until the router is synced and at a pool's revision.
func (r *router) caughtUp(name string, revision uint64) {
	r.w.t.Helper()
	eventually(r.w.t, 10*time.Second, func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if got := r.at[name].GetRevision(); !r.synced || got != revision {
			return fmt.Errorf("synced %t, at %d instead of %d", r.synced, got, revision)
		}
		return nil
	})
}

// messages returns the log so far, and fails on a broken promise.
func (r *router) messages() []string {
	r.w.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fault != nil {
		r.w.t.Fatalf("router %s: %v", r.id, r.fault)
	}
	return slices.Clone(r.log)
}

// label returns a label of a server of the default pool.
func (r *router) label(id, name string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.servers["default"][id].GetSpec().GetLabels()[name]
}

// keep says that the router keeps a removed server.
func (r *router) keep(id string) {
	r.w.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kept = append(r.kept, &pb.HeldServer{Pool: "default", ServerId: id, Incarnation: 1})
	if err := r.stream.Send(&pb.SubscribeRequest{Message: &pb.SubscribeRequest_Ack{Ack: &pb.Ack{Held: r.kept}}}); err != nil {
		r.w.t.Error(err)
	}
}

func (r *router) sawConfirmed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.confirmed
}

func (r *router) holdsDown(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.down[id]
}

// names returns the members that the router knows of.
func (r *router) names(pool string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.servers[pool]))
}

// waits until the router holds a server suspect, or not.
func (r *router) holdsSuspect(id string, want bool, within time.Duration) time.Duration {
	r.w.t.Helper()
	begin := time.Now()
	eventually(r.w.t, within, func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.suspect[id] != want {
			return fmt.Errorf("suspect of %s is %t", id, !want)
		}
		return nil
	})
	return time.Since(begin)
}

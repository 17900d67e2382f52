package xdsbench

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

const bookmarkEvery = 100 * time.Millisecond

// Coordinator is played: it publishes what it is told to. It is safe for
// concurrent use.
type Coordinator struct {
	pb.UnimplementedMembershipServiceServer

	mu    sync.Mutex
	pools map[string]*played
	// routers are the queues of the subscriptions.
	routers map[chan *pb.SubscribeResponse]struct{}
	seq     uint64
	// acked are the revisions that a router has acknowledged, by pool; changed is
	// closed and replaced when they change.
	acked   map[string]uint64
	changed chan struct{}
}

// played is a pool as the coordinator says it is.
type played struct {
	revision uint64
	rows     map[string]*pb.Server
}

func newCoordinator() *Coordinator {
	return &Coordinator{
		pools: map[string]*played{}, routers: map[chan *pb.SubscribeResponse]struct{}{},
		acked: map[string]uint64{}, changed: make(chan struct{}),
	}
}

// Put adds or replaces rows, and makes the pool if it is not there. It returns
// the revision.
func (c *Coordinator) Put(pool string, rows ...*pb.Server) uint64 {
	return c.change(pool, &pb.Delta{Put: rows})
}

// Remove takes servers out.
func (c *Coordinator) Remove(pool string, cause pb.Cause, ids ...string) uint64 {
	d := &pb.Delta{}
	for _, id := range ids {
		d.Removed = append(d.Removed, &pb.RemovedServer{ServerId: id, Incarnation: 1, Cause: cause})
	}
	return c.change(pool, d)
}

func (c *Coordinator) change(name string, d *pb.Delta) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.pools[name]
	if p == nil {
		p = &played{rows: map[string]*pb.Server{}}
		c.pools[name] = p
	}
	d.FromRevision = p.revision
	p.revision++
	d.Position = position(name, p.revision)
	for _, r := range d.GetRemoved() {
		delete(p.rows, r.GetServerId())
	}
	for _, row := range d.GetPut() {
		p.rows[row.GetServerId()] = row
	}
	if p.revision == 1 {
		c.tell(p.snapshot(name))
	} else {
		c.tell(&pb.SubscribeResponse{Message: &pb.SubscribeResponse_Delta{Delta: d}})
	}
	return p.revision
}

// Suspect marks a server, or clears its mark.
func (c *Coordinator) Suspect(pool, id string, yes bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seq++
	c.tell(&pb.SubscribeResponse{Message: &pb.SubscribeResponse_SoftMarks{SoftMarks: &pb.SoftMarks{
		Epoch: 1,
		Marks: []*pb.SoftMark{{
			Pool: pool, ServerId: id, Incarnation: 1, Suspect: &yes, SoftSeq: c.seq, Ttl: durationpb.New(time.Minute),
		}},
	}}})
}

// Delete deletes a pool.
func (c *Coordinator) Delete(pool string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pools, pool)
	c.tell(&pb.SubscribeResponse{Message: &pb.SubscribeResponse_PoolDeleted{PoolDeleted: &pb.PoolDeleted{Pool: pool, Epoch: 1}}})
}

// Acked returns when a router has acknowledged a revision.
func (c *Coordinator) Acked(ctx context.Context, pool string, revision uint64) error {
	for {
		c.mu.Lock()
		acked, changed := c.acked[pool], c.changed
		c.mu.Unlock()
		if acked >= revision {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("await acknowledgement of revision %d of %s: %w", revision, pool, ctx.Err())
		}
	}
}

// Subscribe implements pb.MembershipServiceServer.
func (c *Coordinator) Subscribe(stream pb.MembershipService_SubscribeServer) error {
	if _, err := stream.Recv(); err != nil {
		return err
	}
	queue := c.join()
	defer c.leave(queue)
	ended := make(chan error, 1)
	go func() { ended <- c.listen(stream) }()
	tick := time.NewTicker(bookmarkEvery)
	defer tick.Stop()
	for {
		select {
		case msg := <-queue:
			if err := stream.Send(msg); err != nil {
				return err
			}
		case <-tick.C:
			c.bookmark(queue)
		case err := <-ended:
			return err
		}
	}
}

// join begins a subscription with everything there is.
func (c *Coordinator) join() chan *pb.SubscribeResponse {
	c.mu.Lock()
	defer c.mu.Unlock()
	queue := make(chan *pb.SubscribeResponse, 10_000)
	c.routers[queue] = struct{}{}
	queue <- &pb.SubscribeResponse{Message: &pb.SubscribeResponse_Start{Start: &pb.StreamStart{
		StoreId: "played", Epoch: 1, BookmarkInterval: durationpb.New(bookmarkEvery * 10),
	}}}
	for name, p := range c.pools {
		queue <- p.snapshot(name)
	}
	queue <- &pb.SubscribeResponse{Message: &pb.SubscribeResponse_SoftSynced{SoftSynced: &pb.SoftSynced{Epoch: 1, SoftSeq: c.seq}}}
	queue <- c.positions()
	return queue
}

func (c *Coordinator) leave(queue chan *pb.SubscribeResponse) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.routers, queue)
}

func (c *Coordinator) listen(stream pb.MembershipService_SubscribeServer) error {
	for {
		req, err := stream.Recv()
		if err != nil {
			return err
		}
		c.mu.Lock()
		for _, p := range req.GetAck().GetApplied() {
			c.acked[p.GetPool()] = p.GetRevision()
		}
		close(c.changed)
		c.changed = make(chan struct{})
		c.mu.Unlock()
	}
}

func (c *Coordinator) bookmark(queue chan *pb.SubscribeResponse) {
	c.mu.Lock()
	defer c.mu.Unlock()
	queue <- c.positions()
}

func (c *Coordinator) positions() *pb.SubscribeResponse {
	b := &pb.Bookmark{}
	for _, name := range slices.Sorted(maps.Keys(c.pools)) {
		b.Positions = append(b.Positions, position(name, c.pools[name].revision))
	}
	return &pb.SubscribeResponse{Message: &pb.SubscribeResponse_Bookmark{Bookmark: b}}
}

func (c *Coordinator) tell(msg *pb.SubscribeResponse) {
	for queue := range c.routers {
		queue <- msg
	}
}

func (p *played) snapshot(name string) *pb.SubscribeResponse {
	s := &pb.Snapshot{Position: position(name, p.revision)}
	for _, id := range slices.Sorted(maps.Keys(p.rows)) {
		s.Servers = append(s.Servers, p.rows[id])
	}
	return &pb.SubscribeResponse{Message: &pb.SubscribeResponse_Snapshot{Snapshot: s}}
}

func position(pool string, revision uint64) *pb.Position {
	return &pb.Position{Pool: pool, Epoch: 1, Revision: revision}
}

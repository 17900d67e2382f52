package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/buddyring/buddyring/internal/history"
	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

const (
	// streamTime is how long a watcher holds a stream, at most.
	streamTime = 15 * time.Second
	// quietTime is how long nothing may come, as for a router: three bookmarks.
	quietTime = 3 * time.Second
)

// watcher subscribes as a router does, breaks off, resumes, and writes down all
// that it is sent.
type watcher struct {
	site    *site
	history *history.Recorder
	rng     *rand.Rand
	id      string
	at      int
	// far says that it goes through the coordinators' fronts.
	far bool

	storeID string
	epoch   uint64

	mu sync.Mutex
	// pools are where it stands.
	pools map[string]history.Position
	// told is the highest epoch that its hello has named.
	told uint64
	// stale are the streams of leaders that had been told of a later one.
	stale []string
}

func newWatcher(s *site, h *history.Recorder, rng *rand.Rand, n int) *watcher {
	return &watcher{
		site: s, history: h, rng: rng, at: n, far: isFar(n), id: fmt.Sprintf("watcher-%d", n+1), pools: map[string]history.Position{},
	}
}

// live holds one stream after the other until ctx ends.
func (w *watcher) live(ctx context.Context) {
	addresses, hint := w.site.addresses(), ""
	for ctx.Err() == nil {
		address := addresses[w.at%len(addresses)]
		if hint != "" {
			address, hint = hint, ""
		}
		err := w.stream(ctx, address)
		leader, named := errors.AsType[*member.NotLeaderError](err)
		switch {
		case named && leader.Leader != "":
			hint = leader.Leader
		case !errors.Is(err, errEnough):
			w.at++
		}
		sleep(ctx, w.draw(retryTime))
	}
}

var (
	errEnough = errors.New("the watcher breaks off")
	errPast   = errors.New("the leader is one of the past")
)

// stream holds one stream and returns how it ended.
func (w *watcher) stream(ctx context.Context, address string) error {
	conn, err := w.site.reach(address, w.far)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeoutCause(ctx, w.draw(streamTime), errEnough)
	defer cancel()
	quiet := time.AfterFunc(quietTime, cancel)
	defer quiet.Stop()
	stream, err := pb.NewMembershipServiceClient(conn).Subscribe(ctx)
	if err != nil {
		return err
	}
	hello, record := w.hello()
	if err := stream.Send(&pb.SubscribeRequest{Message: &pb.SubscribeRequest_Hello{Hello: hello}}); err != nil {
		_, err := stream.Recv()
		return err
	}
	feed := w.history.Open(record, time.Now())
	lazy := w.rng.IntN(4) == 0
	for {
		m, err := stream.Recv()
		if err != nil {
			return errors.Join(err, context.Cause(ctx))
		}
		quiet.Reset(quietTime)
		feed.Receive(recorded(m), time.Now())
		if err := w.take(m); err != nil {
			return err
		}
		if ack := w.ack(m); ack != nil {
			_ = stream.Send(&pb.SubscribeRequest{Message: &pb.SubscribeRequest_Ack{Ack: ack}}) // Recv says why it fails
		}
		if lazy {
			// What comes meanwhile is coalesced.
			sleep(ctx, w.draw(time.Second))
		}
	}
}

func (w *watcher) draw(limit time.Duration) time.Duration {
	return time.Duration(w.rng.Int64N(int64(limit)))
}

// hello resumes, or begins anew now and then.
func (w *watcher) hello() (*pb.SubscribeHello, history.Stream) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.rng.IntN(6) == 0 {
		clear(w.pools)
	}
	record := history.Stream{Watcher: w.id}
	w.told = 0
	hello := &pb.SubscribeHello{RouterId: w.id, Version: "chaos"}
	if len(w.pools) > 0 {
		hello.StoreId, record.StoreID = w.storeID, w.storeID
	}
	for _, p := range w.pools {
		hello.Resume = append(hello.Resume, &pb.Position{Pool: p.Pool, Epoch: p.Epoch, Revision: p.Revision, ChangeId: p.ChangeID})
		record.Resume = append(record.Resume, p)
		w.told = max(w.told, p.Epoch)
	}
	return hello, record
}

// take goes on to where a message leads. A leader of the past is left.
func (w *watcher) take(m *pb.SubscribeResponse) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch m := m.GetMessage().(type) {
	case *pb.SubscribeResponse_Start:
		if m.Start.GetStoreId() == w.storeID && m.Start.GetEpoch() < w.epoch {
			if m.Start.GetEpoch() < w.told {
				w.stale = append(w.stale, fmt.Sprintf("%s got a stream of epoch %d and had named %d", w.id, m.Start.GetEpoch(), w.told))
			}
			return errPast
		}
		w.storeID, w.epoch = m.Start.GetStoreId(), m.Start.GetEpoch()
	case *pb.SubscribeResponse_Snapshot:
		w.pools[m.Snapshot.GetPosition().GetPool()] = position(m.Snapshot.GetPosition())
	case *pb.SubscribeResponse_Delta:
		w.pools[m.Delta.GetPosition().GetPool()] = position(m.Delta.GetPosition())
	case *pb.SubscribeResponse_Bookmark:
		for _, p := range m.Bookmark.GetPositions() {
			at := position(p)
			at.ChangeID = w.pools[at.Pool].ChangeID
			w.pools[at.Pool] = at
		}
	case *pb.SubscribeResponse_PoolDeleted:
		delete(w.pools, m.PoolDeleted.GetPool())
	}
	return nil
}

// ack acknowledges what a message has changed; nil for nothing.
func (w *watcher) ack(m *pb.SubscribeResponse) *pb.Ack {
	var at *pb.Position
	switch m := m.GetMessage().(type) {
	case *pb.SubscribeResponse_Snapshot:
		at = m.Snapshot.GetPosition()
	case *pb.SubscribeResponse_Delta:
		at = m.Delta.GetPosition()
	default:
		return nil
	}
	return &pb.Ack{Applied: []*pb.Position{at}}
}

// has reports whether it has got as far as these revisions.
func (w *watcher) has(revisions map[string]uint64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for pool, revision := range revisions {
		if w.pools[pool].Revision < revision {
			return false
		}
	}
	return true
}

func position(p *pb.Position) history.Position {
	return history.Position{Pool: p.GetPool(), Epoch: p.GetEpoch(), Revision: p.GetRevision(), ChangeID: p.GetChangeId()}
}

// recorded is a message as it is written down.
func recorded(m *pb.SubscribeResponse) history.Message {
	switch m := m.GetMessage().(type) {
	case *pb.SubscribeResponse_Start:
		return history.Message{Kind: history.Start, StoreID: m.Start.GetStoreId(), Position: history.Position{Epoch: m.Start.GetEpoch()}}
	case *pb.SubscribeResponse_Compacted:
		return history.Message{
			Kind: history.Compacted, Position: history.Position{Pool: m.Compacted.GetPool()}, OtherHistory: m.Compacted.GetOtherHistory(),
		}
	case *pb.SubscribeResponse_Snapshot:
		return history.Message{Kind: history.Snapshot, Position: position(m.Snapshot.GetPosition()), Put: members(m.Snapshot.GetServers())}
	case *pb.SubscribeResponse_Delta:
		out := history.Message{
			Kind: history.Delta, From: m.Delta.GetFromRevision(), Position: position(m.Delta.GetPosition()), Put: members(m.Delta.GetPut()),
		}
		for _, r := range m.Delta.GetRemoved() {
			out.Gone = append(out.Gone, r.GetServerId())
		}
		return out
	case *pb.SubscribeResponse_SoftMarks:
		out := history.Message{Kind: history.Marks, Position: history.Position{Epoch: m.SoftMarks.GetEpoch()}}
		for _, mark := range m.SoftMarks.GetMarks() {
			out.SoftSeqs = append(out.SoftSeqs, mark.GetSoftSeq())
		}
		return out
	case *pb.SubscribeResponse_SoftSynced:
		return history.Message{
			Kind: history.Synced, Position: history.Position{Epoch: m.SoftSynced.GetEpoch()}, SoftSeqs: []uint64{m.SoftSynced.GetSoftSeq()},
		}
	case *pb.SubscribeResponse_Bookmark:
		out := history.Message{Kind: history.Bookmark}
		for _, p := range m.Bookmark.GetPositions() {
			out.Positions = append(out.Positions, position(p))
		}
		return out
	case *pb.SubscribeResponse_PoolDeleted:
		return history.Message{Kind: history.Deleted, Position: history.Position{Pool: m.PoolDeleted.GetPool()}}
	}
	return history.Message{}
}

func members(servers []*pb.Server) []history.Row {
	var list []history.Row
	for _, s := range servers {
		list = append(list, history.Row{
			ID: s.GetServerId(), Incarnation: s.GetIncarnation(), Phase: phase(s.GetPhase()),
			First: s.GetFirstBuddy(), Second: s.GetSecondBuddy(), Note: s.GetSpec().GetLabels()[noteLabel],
		})
	}
	return list
}

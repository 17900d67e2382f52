package coordbench

import (
	"bytes"
	"context"
	"fmt"
	"math"
	mathrand "math/rand/v2"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

const (
	// How routers come back: within retryFirst of each other when they have lost a
	// coordinator, and after a growing pause where there is none.
	retryFirst = 200 * time.Millisecond
	retryMax   = 3 * time.Second
	// subscriberBytes is enough to tell what a message is.
	subscriberBytes = 64
	snapshotField   = 3
)

// subscribers are routers, as far as a coordinator can tell: they subscribe, come
// back as routers do, and want a snapshot each time.
type subscribers struct {
	address string
	running sync.WaitGroup
	cancel  context.CancelFunc

	mu sync.Mutex
	// resume is the resume point that they have, 0 for none.
	resume uint64
	// storeID is that of the resume point.
	storeID string
	// times are when snapshots were whole since mark; bytes the size of one.
	times []time.Time
	bytes int
}

func startSubscribers(ctx context.Context, address string, n int) *subscribers {
	ctx, cancel := context.WithCancel(ctx)
	s := &subscribers{address: address, cancel: cancel}
	for number := range n {
		s.running.Go(func() { s.live(ctx, number) })
	}
	return s
}

func (s *subscribers) stop() {
	s.cancel()
	s.running.Wait()
}

// mark begins to note snapshots anew. From now on the subscribers have a resume
// point.
func (s *subscribers) mark(storeID string, resume uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.times, s.resume, s.storeID = nil, resume, storeID
}

func (s *subscribers) live(ctx context.Context, number int) {
	failures := 0
	for ctx.Err() == nil {
		had := s.session(ctx, number)
		if had {
			failures = 0
		}
		failures++
		wait := min(float64(retryMax), float64(retryFirst)*math.Pow(1.6, float64(failures-1)))
		if sleep(ctx, time.Duration(wait*(0.5+mathrand.Float64()/2))) != nil { //nolint:gosec // jitter is no secret
			return
		}
	}
}

// session subscribes until the stream ends, and reports whether there was a
// snapshot.
func (s *subscribers) session(ctx context.Context, number int) (had bool) {
	stream, err := connect(ctx, sourceOf(number), s.address, subscriberBytes)
	if err != nil {
		return false
	}
	defer stream.close()
	defer context.AfterFunc(ctx, stream.close)()
	if stream.call(pb.MembershipService_Subscribe_FullMethodName, s.hello(number)) != nil {
		return false
	}
	for {
		head, size, err := stream.receive()
		if err != nil {
			return had
		}
		if field, _, n := protowire.ConsumeTag(head); n > 0 && field == snapshotField {
			had = true
			s.snapshot(size)
		}
	}
}

func (s *subscribers) hello(number int) *pb.SubscribeRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := &pb.SubscribeHello{RouterId: fmt.Sprintf("router-%d", number), Version: "bench"}
	if s.resume > 0 {
		h.StoreId = s.storeID
		h.Resume = []*pb.Position{{Pool: string(member.DefaultPool), Epoch: 1, Revision: s.resume}}
	}
	return &pb.SubscribeRequest{Message: &pb.SubscribeRequest_Hello{Hello: h}}
}

func (s *subscribers) snapshot(size int) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.times, s.bytes = append(s.times, now), size
}

// await waits until n snapshots have come since mark, and returns when those came.
func (s *subscribers) await(ctx context.Context, n int, patience time.Duration) ([]time.Time, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("it took longer than %s", patience))
	defer cancel()
	for {
		s.mu.Lock()
		times := slices.Clone(s.times)
		s.mu.Unlock()
		if len(times) >= n {
			return times, nil
		}
		if err := sleep(ctx, lookEvery); err != nil {
			return nil, fmt.Errorf("%d of %d subscribers have a snapshot: %w", len(times), n, err)
		}
	}
}

// tape records all that one subscriber is sent, to be looked at afterwards: so it
// never falls behind, and nothing is coalesced for it.
type tape struct {
	stream  *stream
	started chan struct{}
	done    chan struct{}

	mu   sync.Mutex
	sent [][]byte
}

// tapeBytes is the largest message that is kept.
const tapeBytes = 64 << 20

func startTape(ctx context.Context, address string) (*tape, error) {
	stream, err := connect(ctx, sourceOf(0), address, tapeBytes)
	if err != nil {
		return nil, err
	}
	t := &tape{stream: stream, started: make(chan struct{}), done: make(chan struct{})}
	hello := &pb.SubscribeRequest{Message: &pb.SubscribeRequest_Hello{Hello: &pb.SubscribeHello{RouterId: "tape", Version: "bench"}}}
	if err := stream.call(pb.MembershipService_Subscribe_FullMethodName, hello); err != nil {
		stream.close()
		return nil, err
	}
	go t.record()
	select {
	case <-t.started:
		return t, nil
	case <-t.done:
		return nil, fmt.Errorf("subscribe: %w", member.ErrUnavailable)
	}
}

func (t *tape) record() {
	defer close(t.done)
	for {
		m, _, err := t.stream.receive()
		if err != nil {
			return
		}
		t.mu.Lock()
		t.sent = append(t.sent, bytes.Clone(m))
		if len(t.sent) == 2 { // the start and the snapshot
			close(t.started)
		}
		t.mu.Unlock()
	}
}

// stop returns what was sent.
func (t *tape) stop() [][]byte {
	t.stream.close()
	<-t.done
	return t.sent
}

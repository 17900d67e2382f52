package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
)

const watchMethod = "/buddyring.router.v1.RouterService/Watch"

// watchOrder starts watchers; further orders of a process wait until each of them
// has a revision, and ask for when that was.
type watchOrder struct {
	Address               string
	Connections, Watchers int
	// Deaf watchers do not read.
	Deaf bool
	// Await is the revision to wait for.
	Await uint64
}

// smallBuffer is for clients of which there are thousands in one process.
const smallBuffer = 4 << 10

// watchResult is what watchers have received of one revision.
type watchResult struct {
	// Times are since 1970 in nanoseconds.
	Times []int64
	// Bytes are those of all messages.
	Bytes int64
}

// watchers watch, in the other process.
func watchers(ctx context.Context, orders *json.Decoder, results *json.Encoder) error {
	var o watchOrder
	if err := orders.Decode(&o); err != nil {
		return fmt.Errorf("read order: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	l := &ledger{received: map[uint64]*watchResult{}, began: make(chan error, o.Watchers), changed: make(chan struct{}, 1)}
	defer l.running.Wait()
	defer cancel()
	if err := l.start(ctx, o); err != nil {
		return err
	}
	if err := results.Encode(true); err != nil {
		return fmt.Errorf("write result: %w", err)
	}
	for {
		var again watchOrder
		if err := orders.Decode(&again); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read order: %w", err)
		}
		result, err := l.await(again.Await, o.Watchers)
		if err != nil {
			return err
		}
		if err := results.Encode(result); err != nil {
			return fmt.Errorf("write result: %w", err)
		}
	}
}

// ledger is what all watchers have seen.
type ledger struct {
	running sync.WaitGroup
	// began gets each watcher's first message, or why there is none.
	began chan error
	// changed is set when something was written.
	changed chan struct{}

	mu       sync.Mutex
	received map[uint64]*watchResult
	// wrong is why a watcher has ended.
	wrong error
}

// start starts the watchers of an order and returns when each has begun.
func (l *ledger) start(ctx context.Context, o watchOrder) error {
	var options []grpc.DialOption
	if o.Connections == o.Watchers {
		options = append(options, grpc.WithReadBufferSize(smallBuffer))
	}
	for i := range o.Connections {
		conn, err := connect(o.Address, options...)
		if err != nil {
			return err
		}
		for range o.Watchers / o.Connections {
			stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, watchMethod)
			if err != nil {
				return fmt.Errorf("watch: %w", err)
			}
			if err := errors.Join(stream.SendMsg(new([]byte)), stream.CloseSend()); err != nil {
				return fmt.Errorf("watch: %w", err)
			}
			if !o.Deaf {
				l.running.Go(func() { l.follow(ctx, stream, i == 0) })
			}
		}
	}
	for range o.Watchers {
		if o.Deaf {
			break
		}
		if err := <-l.began; err != nil {
			return err
		}
	}
	return nil
}

// await returns when so many watchers have a revision, or one has ended.
func (l *ledger) await(revision uint64, watchers int) (*watchResult, error) {
	for {
		l.mu.Lock()
		result, err := l.received[revision], l.wrong
		done := result != nil && len(result.Times) == watchers
		l.mu.Unlock()
		if done || err != nil {
			return result, err
		}
		<-l.changed
	}
}

// follow reads a stream to its end. A reader also decodes what it gets.
func (l *ledger) follow(ctx context.Context, stream grpc.ClientStream, reader bool) {
	var message []byte
	var seen uint64
	for first := true; ; first = false {
		err := stream.RecvMsg(&message)
		if first {
			l.began <- err
		}
		if err != nil {
			if ctx.Err() == nil {
				l.fail(err)
			}
			return
		}
		now := time.Now().UnixNano()
		revision, err := revisionOf(message)
		if err == nil && reader {
			err = proto.Unmarshal(message, new(routerv1.WatchResponse))
		}
		if err != nil {
			l.fail(err)
			return
		}
		if !first && revision > seen {
			l.record(revision, now, len(message))
		}
		seen = revision
	}
}

func (l *ledger) record(revision uint64, at int64, size int) {
	defer l.signal()
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.received[revision]
	if r == nil {
		r = &watchResult{}
		l.received[revision] = r
	}
	r.Times = append(r.Times, at)
	r.Bytes += int64(size)
}

func (l *ledger) fail(err error) {
	defer l.signal()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wrong = err
}

func (l *ledger) signal() {
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// revisionOf finds Freshness.revision in a WatchResponse.
func revisionOf(message []byte) (uint64, error) {
	freshness, err := field(message, 1)
	if err != nil {
		return 0, err
	}
	content, _ := protowire.ConsumeBytes(freshness)
	revision, err := field(content, 3)
	if err != nil {
		return 0, err
	}
	n, _ := protowire.ConsumeVarint(revision)
	return n, nil
}

// field returns what follows the tag of a field.
func field(b []byte, number protowire.Number) ([]byte, error) {
	for len(b) > 0 {
		found, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		b = b[n:]
		if found == number {
			return b, nil
		}
		if n = protowire.ConsumeFieldValue(found, kind, b); n < 0 {
			return nil, protowire.ParseError(n)
		}
		b = b[n:]
	}
	return nil, fmt.Errorf("field %d is missing", number)
}

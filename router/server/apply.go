package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
	"github.com/buddyring/buddyring/router/view"
)

// recentAge is for how long a coordinator keeps changes, so that within this time a
// snapshot is what another one sends in their place; and for how long the router is
// waited for before servers that leave may stop.
const recentAge = 10 * time.Minute

// errProtocol says that a coordinator broke the contract of Subscribe.
var errProtocol = errors.New("coordinator broke the protocol")

// outcome is what a message asks of the router beyond being applied.
type outcome struct {
	// started is set by the first message: how often bookmarks come.
	started time.Duration
	// confirmed is set when the router is known to be up to date.
	confirmed bool
	// ack and save are set when there is something to acknowledge or to keep.
	ack, save bool
}

// apply takes one message of a stream that began with start, or of one that
// begins with this message if start is nil. An error means that the stream is of
// no more use. Effects of lower epochs are ignored.
func (p *pools) apply(ctx context.Context, start *pb.StreamStart, msg *pb.SubscribeResponse) (outcome, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if first := msg.GetStart(); (first == nil) == (start == nil) {
		return outcome{}, fmt.Errorf("%w: the first message, and no other, is StreamStart", errProtocol)
	}
	now := time.Now()
	switch m := msg.GetMessage().(type) {
	case *pb.SubscribeResponse_Start:
		return p.begin(m.Start)
	case *pb.SubscribeResponse_Compacted:
		p.log.InfoContext(ctx, "no resuming, a snapshot follows", "pool", m.Compacted.GetPool(),
			"other_history", m.Compacted.GetOtherHistory())
		if b := p.books[member.Pool(m.Compacted.GetPool())]; b != nil {
			b.otherHistory = m.Compacted.GetOtherHistory()
		}
	case *pb.SubscribeResponse_Snapshot:
		return p.applySnapshot(ctx, start.GetStoreId(), m.Snapshot)
	case *pb.SubscribeResponse_Delta:
		return p.applyDelta(ctx, start.GetStoreId(), m.Delta)
	case *pb.SubscribeResponse_SoftMarks:
		return p.applyMarks(m.SoftMarks, now)
	case *pb.SubscribeResponse_SoftSynced:
		return p.endMarks(m.SoftSynced), nil
	case *pb.SubscribeResponse_Bookmark:
		return p.confirm(start.GetStoreId(), m.Bookmark, now)
	case *pb.SubscribeResponse_PoolDeleted:
		return p.applyDeletion(ctx, m.PoolDeleted)
	}
	return outcome{}, nil
}

// begin takes the start of a stream. A coordinator of a lower epoch than known
// has been succeeded by another and does not know it yet, also where the other
// one had nothing to say of any pool.
func (p *pools) begin(start *pb.StreamStart) (outcome, error) {
	if start.GetStoreId() == "" {
		return outcome{}, fmt.Errorf("%w: StreamStart has no store_id", errProtocol)
	}
	epoch := member.Epoch(start.GetEpoch())
	if start.GetStoreId() == p.storeID && epoch < p.epoch {
		return outcome{}, fmt.Errorf("begin at epoch %d after epoch %d: %w", epoch, p.epoch, member.ErrFenced)
	}
	p.storeID, p.epoch, p.interval = start.GetStoreId(), epoch, parseInterval(start)
	p.soft = softPoint{}
	for _, b := range p.books {
		p.publish(b, b.view.BeginMarks())
	}
	return outcome{started: p.interval}, nil
}

func (p *pools) applySnapshot(ctx context.Context, storeID string, in *pb.Snapshot) (outcome, error) {
	name, snapshot, err := parseSnapshot(storeID, in)
	if err != nil {
		return outcome{}, fmt.Errorf("apply snapshot: %w", err)
	}
	b := p.book(name)
	snapshot.OtherHistory, b.otherHistory = b.otherHistory, false
	age, _ := b.contact.age(time.Now())
	snapshot.Recent = age <= recentAge
	next, err := b.view.ApplySnapshot(snapshot)
	if err != nil {
		return p.fenced(err)
	}
	b.metrics.applied("snapshot")
	if !b.view.Continues(snapshot) {
		b.metrics.historyChanged()
		p.log.WarnContext(ctx, "pool has another history, as after the restore of a backup", "pool", name,
			"store_id", storeID, "revision", snapshot.Position.Revision,
			"old_store_id", b.view.StoreID(), "old_revision", b.view.Position().Revision)
	}
	p.replaceView(ctx, b, next)
	return outcome{ack: true, save: true}, nil
}

func (p *pools) applyDelta(ctx context.Context, storeID string, in *pb.Delta) (outcome, error) {
	name, delta, err := parseDelta(in)
	if err != nil {
		return outcome{}, fmt.Errorf("apply delta: %w", err)
	}
	b, err := p.bookOf(name, storeID)
	if err != nil {
		return outcome{}, fmt.Errorf("apply delta: %w", err)
	}
	next, err := b.view.ApplyDelta(delta)
	if err != nil {
		return p.fenced(err)
	}
	b.metrics.applied("delta")
	p.replaceView(ctx, b, next)
	return outcome{ack: true, save: true}, nil
}

// bookOf returns the book of a pool that is known from a store.
func (p *pools) bookOf(name member.Pool, storeID string) (*book, error) {
	b := p.books[name]
	if b == nil || !b.view.Known() || b.view.StoreID() != storeID {
		return nil, fmt.Errorf("pool %q of store %q was never sent: %w", name, storeID, view.ErrGap)
	}
	return b, nil
}

// replaceView publishes what the coordinator has just sent, and says when the
// router keeps servers against it.
func (p *pools) replaceView(ctx context.Context, b *book, next *view.View) {
	if before, after := len(b.view.Held()), len(next.Held()); after > before {
		p.log.WarnContext(ctx, "too many servers went at once and are kept as a last resort",
			"pool", next.Pool(), "revision", next.Position().Revision, "held", after)
	}
	b.contact.confirm(time.Now(), p.interval)
	p.publish(b, next)
}

func (p *pools) applyDeletion(ctx context.Context, in *pb.PoolDeleted) (outcome, error) {
	name := member.Pool(in.GetPool())
	if b := p.books[name]; b != nil && b.view.StoreID() == p.storeID && member.Epoch(in.GetEpoch()) < b.view.Epoch() {
		return p.fenced(member.ErrFenced)
	}
	p.log.InfoContext(ctx, "pool was deleted", "pool", name, "revision", in.GetRevision())
	p.remove(name)
	return outcome{ack: true, save: true}, nil
}

func (p *pools) applyMarks(in *pb.SoftMarks, now time.Time) (outcome, error) {
	byPool, err := parseMarks(in)
	if err != nil {
		return outcome{}, fmt.Errorf("apply marks: %w", err)
	}
	for name, marks := range byPool {
		b := p.book(name)
		b.metrics.applied("marks")
		p.publish(b, b.view.ApplyMarks(marks, now))
		for _, m := range marks {
			p.soft.reach(m.Epoch, m.Seq)
		}
	}
	return outcome{ack: true}, nil
}

func (p *pools) endMarks(in *pb.SoftSynced) outcome {
	epoch := member.Epoch(in.GetEpoch())
	for _, b := range p.books {
		p.publish(b, b.view.EndMarks(epoch))
	}
	p.soft.reach(epoch, in.GetSoftSeq())
	return outcome{ack: true}
}

func (s *softPoint) reach(epoch member.Epoch, seq uint64) {
	if epoch > s.epoch || epoch == s.epoch && seq > s.seq {
		*s = softPoint{epoch, seq}
	}
}

// confirm takes a bookmark.
func (p *pools) confirm(storeID string, in *pb.Bookmark, now time.Time) (outcome, error) {
	for _, position := range in.GetPositions() {
		name, at, err := parsePosition(position)
		if err != nil {
			return outcome{}, fmt.Errorf("confirm: %w", err)
		}
		b, err := p.bookOf(name, storeID)
		if err != nil {
			return outcome{}, fmt.Errorf("confirm: %w", err)
		}
		next, err := b.view.Confirm(at)
		if err != nil {
			return p.fenced(err)
		}
		b.contact.confirm(now, p.interval)
		p.publish(b, next)
	}
	p.leader.confirm(now, p.interval)
	if p.current.Load() == nil {
		p.replace("", nil)
	}
	p.settle()
	return outcome{confirmed: true}, nil
}

// fenced ignores what comes from a lower epoch.
func (p *pools) fenced(err error) (outcome, error) {
	if errors.Is(err, member.ErrFenced) {
		p.metrics.fenced.Inc()
		return outcome{}, nil
	}
	return outcome{}, err
}

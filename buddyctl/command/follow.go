package command

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"google.golang.org/grpc"

	"github.com/buddyring/buddyring/buddyctl/output"
	"github.com/buddyring/buddyring/internal/member"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// reconnectPause is between attempts to follow events again.
const reconnectPause = time.Second

// errWentBack: the event that was seen last is not in the history.
var errWentBack = errors.New("the history went back")

// follower writes a pool's events as they happen.
type follower struct {
	*app

	query eventQuery
	// head is the event that was seen last, nil where there was none yet.
	head *coordinatorv1.Event
	// lost says that somebody was told that no coordinator answers.
	lost bool
}

// follow writes the events after head until ctx ends, which is no error. When
// the coordinator is lost it goes on where it was as soon as one is back.
func (a *app) follow(ctx context.Context, q eventQuery, head *coordinatorv1.Event) error {
	f := &follower{app: a, query: q, head: head}
	for {
		err := a.reach(ctx, a.coordinators(), func(ctx context.Context, cc *grpc.ClientConn) error {
			c := coordinatorv1.NewAdminServiceClient(cc)
			err := f.watch(ctx, c)
			if errors.Is(err, errWentBack) || errors.Is(err, member.ErrAhead) {
				return f.begin(ctx, c)
			}
			return err
		})
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // to be interrupted is how following ends
		case err == nil: // it has begun anew
		case errors.Is(err, member.ErrCompacted):
			return fmt.Errorf("the history no longer reaches back to revision %d; start again: %w", f.head.GetRevision(), err)
		case !elsewhere(err):
			return err
		}
		if err != nil && !f.lost {
			f.lost = true
			a.complain(output.Line(err.Error()) + "; trying again")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(reconnectPause):
		}
	}
}

// watch passes events on until the stream ends. A stream begins with what was seen
// last, or the history went back.
func (f *follower) watch(ctx context.Context, c coordinatorv1.AdminServiceClient) error {
	stream, err := c.WatchEvents(ctx, &coordinatorv1.WatchEventsRequest{Pool: f.pool, FromRevision: f.head.GetRevision()})
	if err != nil {
		return err
	}
	for resumed := f.head == nil; ; {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("%w: the coordinator ended the stream", member.ErrUnavailable)
		}
		if err != nil {
			return err
		}
		f.lost = false
		switch e := m.GetEvent(); {
		case resumed:
			if err := f.pass(e); err != nil {
				return err
			}
		case place(e, f.head) < 0:
		case same(e, f.head):
			resumed = true
		default:
			return errWentBack
		}
	}
}

// pass passes on an event, which is then the one that was seen last.
func (f *follower) pass(e *coordinatorv1.Event) error {
	f.head = e
	if !f.query.wants(e) {
		return nil
	}
	return f.writeEvent(f.Stdout, e)
}

// begin says that the history went back, and passes on what has happened in it since
// the event that was seen last: by the clock, for it has nothing else in common with
// what was shown.
func (f *follower) begin(ctx context.Context, c coordinatorv1.AdminServiceClient) error {
	before := f.head
	newest, err := f.newest(ctx, c) // what happens after it, the next stream tells
	if err != nil {
		return err
	}
	var events []*coordinatorv1.Event
	_, err = pages(func(token string) ([]*coordinatorv1.Event, string, error) {
		page, err := c.ListEvents(ctx, &coordinatorv1.ListEventsRequest{Pool: f.pool, PageSize: pageSize, PageToken: token})
		for _, e := range page.GetEvents() {
			if !e.GetAt().AsTime().After(before.GetAt().AsTime()) {
				return nil, "", err
			}
			events = append(events, e)
		}
		return nil, page.GetNextPageToken(), err
	})
	if err != nil {
		return err
	}
	f.complain(fmt.Sprintf("the history went back: revision %d, which was told before, is not in it; what follows has happened since", before.GetRevision()))
	slices.Reverse(events)
	for _, e := range events {
		if err := f.pass(e); err != nil {
			return err
		}
	}
	if len(events) == 0 {
		f.head = newest
	}
	return nil
}

// place compares where two events stand in a pool's history. Nil is before all, for
// revisions begin with 1.
func place(a, b *coordinatorv1.Event) int {
	return cmp.Or(cmp.Compare(a.GetRevision(), b.GetRevision()), cmp.Compare(a.GetSeq(), b.GetSeq()))
}

// same reports whether two events are one, told twice: times are rounded in a table.
func same(a, b *coordinatorv1.Event) bool {
	return place(a, b) == 0 && a.GetEpoch() == b.GetEpoch() && a.GetKind() == b.GetKind() && a.GetServerId() == b.GetServerId() &&
		a.GetAt().AsTime().Sub(b.GetAt().AsTime()).Abs() < time.Millisecond
}

// wants reports whether the event is asked for; the stream has no filter.
func (q eventQuery) wants(e *coordinatorv1.Event) bool {
	return (q.server == "" || q.server == e.GetServerId()) &&
		(len(q.kinds) == 0 || slices.Contains(q.kinds, e.GetKind())) && e.GetRevision() >= q.since
}

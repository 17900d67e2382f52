package server

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// eventPage is how many events are read from the store at a time for a watcher.
const eventPage = 500

// ListEvents lists a pool's history, newest first.
func (a *adminService) ListEvents(ctx context.Context, req *pb.ListEventsRequest) (*pb.ListEventsResponse, error) {
	h, err := a.pools.pick(req.GetPool())
	if err != nil {
		return nil, err
	}
	q, p, err := parseEventQuery(h.pool, req)
	if err != nil {
		return nil, err
	}
	events, err := a.events.Events(ctx, q)
	if err != nil {
		return nil, err
	}
	res := &pb.ListEventsResponse{}
	if len(events) > p.size {
		events = events[:p.size]
		last := events[p.size-1]
		res.NextPageToken = p.token(eventKey(store.EventCursor{Revision: last.Revision, Seq: last.Seq}))
	}
	for _, e := range events {
		res.Events = append(res.Events, toEvent(h.pool, e))
	}
	return res, nil
}

// parseEventQuery asks for one event more than the page holds, to know whether
// there is another page.
func parseEventQuery(name member.Pool, req *pb.ListEventsRequest) (store.EventQuery, page, error) {
	q := store.EventQuery{Pool: name, Since: member.Revision(req.GetSinceRevision())}
	var err error
	if req.GetServerId() != "" {
		if q.ID, err = member.ParseID("server_id", req.GetServerId()); err != nil {
			return q, page{}, err
		}
	}
	if q.Kinds, err = parseKinds("kinds", req.GetKinds()); err != nil {
		return q, page{}, err
	}
	p, err := parsePage(req)
	if err != nil {
		return q, page{}, err
	}
	if p.after != "" {
		cursor, ok := parseEventKey(p.after)
		if !ok {
			return q, page{}, member.Invalid("page_token", "is not the next_page_token of this list")
		}
		q.Before = &cursor
	}
	q.Limit = p.size + 1
	return q, p, nil
}

func eventKey(c store.EventCursor) string {
	return fmt.Sprintf("%d.%d", c.Revision, c.Seq)
}

func parseEventKey(s string) (store.EventCursor, bool) {
	revision, seq, ok := strings.Cut(s, ".")
	r, err := strconv.ParseUint(revision, 10, 64)
	if !ok || err != nil {
		return store.EventCursor{}, false
	}
	n, err := strconv.Atoi(seq)
	return store.EventCursor{Revision: member.Revision(r), Seq: n}, err == nil && n >= 0
}

// WatchEvents streams a pool's history from a revision on, then live. The cursor
// is a revision, and revisions are sent whole, so that there is neither a gap
// nor a repetition where the store's events end and those in memory begin.
func (a *adminService) WatchEvents(req *pb.WatchEventsRequest, stream pb.AdminService_WatchEventsServer) error {
	h, err := a.pools.pick(req.GetPool())
	if err != nil {
		return err
	}
	cursor := h.history.head().Revision
	if from := member.Revision(req.GetFromRevision()); from > 0 {
		if from > cursor+1 {
			if err := h.tenure.check(time.Now()); err != nil {
				return err // another one may lead, and have made that revision
			}
			return fmt.Errorf("watch pool %s from revision %d: %w, at %d", h.pool, from, member.ErrAhead, cursor)
		}
		cursor = from - 1
	}
	for {
		news := a.bell.next()
		if cursor, err = a.sendEvents(h.history, cursor, stream); err != nil {
			return err
		}
		select {
		case <-news:
		case <-stream.Context().Done():
			return stream.Context().Err()
		case <-a.closing.done():
			return a.closing.reason()
		case <-h.over.done():
			// What was told last is told before the end.
			if _, err := a.sendEvents(h.history, cursor, stream); err != nil {
				return err
			}
			return h.over.reason()
		}
	}
}

// sendEvents sends the events of all revisions after the cursor, and returns the
// revision that was sent last.
func (a *adminService) sendEvents(
	h *history, cursor member.Revision, stream pb.AdminService_WatchEventsServer,
) (member.Revision, error) {
	for {
		head := h.head().Revision
		if cursor >= head {
			return cursor, nil
		}
		entries, ok := h.after(cursor)
		var events []member.Event
		if ok {
			for _, e := range entries {
				events = append(events, e.events...)
			}
			cursor = entries[len(entries)-1].position.Revision
		} else {
			page, err := a.events.EventsFrom(stream.Context(), h.name, cursor+1, eventPage)
			if err != nil {
				return cursor, err
			}
			events, cursor = page, head
			if n := len(page); n > 0 {
				cursor = page[n-1].Revision
			}
		}
		for _, e := range events {
			if err := stream.Send(&pb.WatchEventsResponse{Event: toEvent(h.name, e)}); err != nil {
				return cursor, err
			}
		}
	}
}

package command

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/buddyring/buddyring/buddyctl/output"
	"github.com/buddyring/buddyring/internal/member"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// defaultLast is how many events are shown unless more are asked for.
const defaultLast = 50

// eventQuery says which events are wanted.
type eventQuery struct {
	server string
	kinds  []string
	since  uint64
	last   int
	follow bool
}

func (a *app) eventsCommand() *cobra.Command {
	var q eventQuery
	cmd := &cobra.Command{
		Use:               "events",
		Short:             "Show a pool's history, newest last; -f follows it",
		Example:           "  buddyctl events -f\n  buddyctl events --server web-3 --last 0\n  buddyctl events --kind removed,not_removed -o json",
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if q.last < 0 {
				return member.Invalid("last", "%d is negative", q.last)
			}
			return a.events(cmd.Context(), q)
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&q.follow, "follow", "f", false, "go on with new events until interrupted")
	f.IntVarP(&q.last, "last", "n", defaultLast, "at most this many past events; 0 for all")
	f.StringVar(&q.server, "server", "", "only events about this server")
	f.StringSliceVar(&q.kinds, "kind", nil, "only these kinds, such as removed,not_removed")
	f.Uint64Var(&q.since, "since", 0, "only events of this revision or later")
	complete(cmd, "server", a.completeServers)
	complete(cmd, "kind", fixed("joined", "activated", "adopted", "held", "released", "removed", "not_removed", "updated",
		"intent", "pool_created", "pool_updated", "alarm_raised", "alarm_cleared", "contradicted"))
	return cmd
}

func (a *app) events(ctx context.Context, q eventQuery) error {
	var past []*coordinatorv1.Event
	var head *coordinatorv1.Event
	err := a.askAdmin(ctx, func(ctx context.Context, c coordinatorv1.AdminServiceClient) (err error) {
		if head, err = a.newest(ctx, c); err != nil {
			return err
		}
		past, err = a.past(ctx, c, q)
		return err
	})
	if err != nil {
		return err
	}
	slices.Reverse(past)
	if !q.follow {
		return a.showGrid(&coordinatorv1.ListEventsResponse{Events: past}, a.eventGrid(past), "no events")
	}
	for _, e := range past {
		if err := a.writeEvent(a.Stdout, e); err != nil {
			return err
		}
		if place(head, e) < 0 {
			head = e
		}
	}
	return a.follow(ctx, q, head)
}

// newest returns the newest event of the pool, nil if there is none.
func (a *app) newest(ctx context.Context, c coordinatorv1.AdminServiceClient) (*coordinatorv1.Event, error) {
	page, err := c.ListEvents(ctx, &coordinatorv1.ListEventsRequest{Pool: a.pool, PageSize: 1})
	if err != nil || len(page.GetEvents()) == 0 {
		return nil, err
	}
	return page.GetEvents()[0], nil
}

// past returns past events, newest first.
func (a *app) past(ctx context.Context, c coordinatorv1.AdminServiceClient, q eventQuery) ([]*coordinatorv1.Event, error) {
	size, have := pageSize, 0
	if q.last > 0 {
		size = min(size, q.last)
	}
	events, err := pages(func(token string) ([]*coordinatorv1.Event, string, error) {
		page, err := c.ListEvents(ctx, &coordinatorv1.ListEventsRequest{
			Pool: a.pool, ServerId: q.server, Kinds: q.kinds, SinceRevision: q.since, PageSize: int32(size), PageToken: token,
		})
		have += len(page.GetEvents())
		if q.last > 0 && have >= q.last {
			return page.GetEvents(), "", err
		}
		return page.GetEvents(), page.GetNextPageToken(), err
	})
	if q.last > 0 && len(events) > q.last {
		events = events[:q.last]
	}
	return events, err
}

func (a *app) eventGrid(events []*coordinatorv1.Event) *output.Grid {
	g := output.NewGrid("TIME", "REVISION", "KIND", "SERVER", "BY", "TEXT")
	for _, e := range events {
		g.Add(a.clock(e), fmt.Sprint(e.GetRevision()), e.GetKind(), e.GetServerId(), actor(e), e.GetText())
	}
	return g
}

// actor is who asked for it, without the trust domain.
func actor(e *coordinatorv1.Event) string {
	if _, short, ok := strings.Cut(e.GetActor(), "/buddyring/"); ok {
		return short
	}
	return e.GetActor()
}

// clock is an event's time: of day, with the date unless it is today's.
func (a *app) clock(e *coordinatorv1.Event) string {
	now := a.Now()
	t := e.GetAt().AsTime().In(now.Location())
	if t.Format(time.DateOnly) == now.Format(time.DateOnly) {
		return t.Format("15:04:05.000")
	}
	return t.Format("2006-01-02 15:04:05.000")
}

// writeEvent writes one event of a stream, as a line or as a document.
func (a *app) writeEvent(w io.Writer, e *coordinatorv1.Event) error {
	switch a.format {
	case output.JSON:
		return output.WriteJSONLine(w, e)
	case output.YAML:
		return output.WriteYAMLDocument(w, e)
	case output.Table:
	}
	about := e.GetServerId()
	if about == "" {
		about = "-"
	}
	line := output.Line(fmt.Sprintf("%s  %-6d %-13s %-12s %s", a.clock(e), e.GetRevision(), e.GetKind(), about, e.GetText()))
	if _, err := fmt.Fprintln(w, output.Truncate(line, a.Terminal.Width)); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}

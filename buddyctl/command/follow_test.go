package command_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/buddyring/buddyring/buddyctl/command"
	"github.com/buddyring/buddyring/buddyctl/output"
	"github.com/buddyring/buddyring/internal/member"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// runIn runs a command line until it ends or ctx does.
func (n *network) runIn(ctx context.Context, args ...string) result {
	var stdout, stderr bytes.Buffer
	code := command.Run(ctx, args, n.world(&stdout, &stderr, output.Terminal{}))
	return result{code, stdout.String(), stderr.String()}
}

// runUntil runs a command line until it has been quiet for a minute of the
// bubble's time, as an operator who then presses Ctrl-C.
func (n *network) runUntil(t *testing.T, args ...string) result {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	return n.runIn(ctx, args...)
}

// stream serves WatchEvents part by part; a part without an error at its end
// stays open until the caller goes.
type stream struct {
	parts [][]*coordinatorv1.Event
	ends  []error

	mu   sync.Mutex
	from []uint64
}

func (s *stream) watch(ctx context.Context, r *coordinatorv1.WatchEventsRequest, send func(*coordinatorv1.Event) error) error {
	s.mu.Lock()
	i := len(s.from)
	s.from = append(s.from, r.GetFromRevision())
	s.mu.Unlock()
	for _, e := range s.parts[i] {
		if err := send(e); err != nil {
			return err
		}
	}
	if s.ends[i] == nil {
		<-ctx.Done()
	}
	return s.ends[i]
}

func lastWords(text string) []string {
	var words []string
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		words = append(words, fields[len(fields)-1])
	}
	return words
}

// seen are the events of the last revision that the list has, oldest first.
func seen(t *testing.T) []*coordinatorv1.Event {
	t.Helper()
	all := busyEvents()
	last := slices.DeleteFunc(all, func(e *coordinatorv1.Event) bool { return e.GetRevision() < all[0].GetRevision() })
	slices.Reverse(last)
	return last
}

func TestFollowGoesOnAfterALostStream(t *testing.T) {
	t.Parallel()
	event := func(revision uint64, seq uint32, server, text string) *coordinatorv1.Event {
		return &coordinatorv1.Event{Revision: revision, Seq: seq, At: ago(time.Second), Kind: "joined", ServerId: server, Text: text}
	}
	// Streams begin with what was seen already.
	known := seen(t)
	for name, c := range map[string]struct {
		args []string
		want []string
	}{
		"all":        {[]string{"-n", "1"}, []string{"12:00:07.000", "a", "b", "c"}},
		"one server": {[]string{"-n", "1", "--server", "db-9"}, []string{"12:00:07.000", "b"}},
		"one kind":   {[]string{"-n", "1", "--kind", "removed"}, []string{"12:00:07.000"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				n, admin := busy(t)
				s := &stream{
					parts: [][]*coordinatorv1.Event{
						append(slices.Clone(known), event(42, 2, "db-6", "a"), event(43, 0, "db-9", "b")),
						{event(43, 0, "db-9", "b"), event(44, 0, "db-7", "c")},
					},
					ends: []error{member.ErrUnavailable, nil},
				}
				admin.watch = s.watch
				r := n.runUntil(t, append([]string{"events", "-f"}, c.args...)...)
				if r.code != 0 {
					t.Errorf("exit %d, stderr %q", r.code, r.stderr)
				}
				if diff := cmp.Diff(c.want, lastWords(r.stdout)); diff != "" {
					t.Errorf("events (-want +got):\n%s", diff)
				}
				if diff := cmp.Diff([]uint64{42, 43}, s.from); diff != "" {
					t.Errorf("resumed from (-want +got):\n%s", diff)
				}
				if !strings.HasSuffix(r.stderr, "; trying again\n") || strings.Count(r.stderr, "\n") != 1 {
					t.Errorf("stderr %q", r.stderr)
				}
			})
		})
	}
}

// TestFollowGoesOnWhenTheHistoryWentBack is of a history that lacks what was shown: it
// ends before that, goes on otherwise, or has something else there.
func TestFollowGoesOnWhenTheHistoryWentBack(t *testing.T) {
	t.Parallel()
	event := func(revision uint64, since time.Duration, text string) *coordinatorv1.Event {
		return &coordinatorv1.Event{Revision: revision, Seq: 1, At: timestamppb.New(noon.Add(since)), Kind: "joined", ServerId: "db-7", Text: text}
	}
	for name, first := range map[string]*stream{
		"it ends before":     {parts: [][]*coordinatorv1.Event{nil}, ends: []error{member.ErrAhead}},
		"it goes on at once": {parts: [][]*coordinatorv1.Event{{event(43, 2*time.Second, "x")}}, ends: []error{nil}},
		"another event":      {parts: [][]*coordinatorv1.Event{{event(42, 2*time.Second, "x")}}, ends: []error{nil}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				n, admin := busy(t)
				head := admin.events[0]
				again := []*coordinatorv1.Event{event(41, 2*time.Second, "since"), event(40, time.Second, "since"), event(39, -time.Hour, "long-ago")}
				s := &stream{
					parts: [][]*coordinatorv1.Event{first.parts[0], {again[0], event(42, 3*time.Second, "new")}},
					ends:  []error{first.ends[0], nil},
				}
				admin.watch = func(ctx context.Context, r *coordinatorv1.WatchEventsRequest, send func(*coordinatorv1.Event) error) error {
					admin.events = again
					return s.watch(ctx, r, send)
				}
				r := n.runUntil(t, "events", "-f", "-n", "1")
				if r.code != 0 {
					t.Errorf("exit %d", r.code)
				}
				if diff := cmp.Diff([]string{"since", "since", "new"}, lastWords(r.stdout)[1:]); diff != "" {
					t.Errorf("events (-want +got):\n%s", diff)
				}
				if diff := cmp.Diff([]uint64{head.GetRevision(), 41}, s.from); diff != "" {
					t.Errorf("asked from (-want +got):\n%s", diff)
				}
				if !strings.Contains(r.stderr, "the history went back: revision 42") || strings.Count(r.stderr, "\n") != 1 {
					t.Errorf("stderr %q", r.stderr)
				}
			})
		})
	}
}

// TestFollowMissesNothingWhenTheHistoryWentBack, also not what happens while it looks how
// far that goes.
func TestFollowMissesNothingWhenTheHistoryWentBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n, admin := busy(t)
		event := func(revision uint64, since time.Duration, text string) *coordinatorv1.Event {
			return &coordinatorv1.Event{Revision: revision, At: timestamppb.New(noon.Add(since)), Kind: "joined", ServerId: "db-7", Text: text}
		}
		old, news := event(40, -time.Hour, "long-ago"), event(41, time.Second, "meanwhile")
		admin.watch = func(ctx context.Context, r *coordinatorv1.WatchEventsRequest, send func(*coordinatorv1.Event) error) error {
			if r.GetFromRevision() > news.GetRevision() {
				admin.events = []*coordinatorv1.Event{old}
				admin.listed = func() { admin.events = []*coordinatorv1.Event{news, old} }
				return member.ErrAhead
			}
			for _, e := range []*coordinatorv1.Event{old, news} {
				if e.GetRevision() >= r.GetFromRevision() {
					if err := send(e); err != nil {
						return err
					}
				}
			}
			<-ctx.Done()
			return nil
		}
		r := n.runUntil(t, "events", "-f", "-n", "1")
		if diff := cmp.Diff([]string{"meanwhile"}, lastWords(r.stdout)[1:]); r.code != 0 || diff != "" {
			t.Errorf("exit %d, events (-want +got):\n%s", r.code, diff)
		}
	})
}

func TestFollowAsDocuments(t *testing.T) {
	t.Parallel()
	for format, count := range map[string]func(string) int{
		"json": func(s string) int { return strings.Count(s, "\n") },
		"yaml": func(s string) int { return strings.Count(s, "---\n") },
	} {
		synctest.Test(t, func(t *testing.T) {
			n, admin := busy(t)
			events := append(seen(t), &coordinatorv1.Event{Revision: 43, Kind: "joined"})
			admin.watch = (&stream{parts: [][]*coordinatorv1.Event{events}, ends: []error{nil}}).watch
			r := n.runUntil(t, "events", "-f", "-n", "2", "-o", format)
			if r.code != 0 || count(r.stdout) != 3 {
				t.Errorf("%s: exit %d, stdout %q, stderr %q", format, r.code, r.stdout, r.stderr)
			}
		})
	}
}

func TestFollowSaysOnceThatNobodyIsThere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n, admin := busy(t)
		ends := make([]error, 100)
		for i := range ends {
			ends[i] = member.ErrUnavailable
		}
		admin.watch = (&stream{parts: make([][]*coordinatorv1.Event, len(ends)), ends: ends}).watch
		r := n.runUntil(t, "events", "-f", "-n", "1")
		if r.code != 0 || strings.Count(r.stderr, "\n") != 1 {
			t.Errorf("exit %d, stderr %q", r.code, r.stderr)
		}
	})
}

func TestFollowEndsWhenTheHistoryIsTooShort(t *testing.T) {
	t.Parallel()
	n, admin := busy(t)
	admin.watch = (&stream{parts: [][]*coordinatorv1.Event{nil}, ends: []error{errors.Join(errors.New("too old"), member.ErrCompacted)}}).watch
	r := n.run(t, "events", "-f")
	if r.code != 1 || !strings.Contains(r.stderr, "no longer reaches back to revision 42") {
		t.Errorf("exit %d, stderr %q", r.code, r.stderr)
	}
}

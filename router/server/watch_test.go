package server_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/rpc"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
)

// mirror is a client that keeps a pool by watching it.
type mirror struct {
	t      *testing.T
	stream routerv1.RouterService_WatchClient
	// servers are lines by id; kinds are the messages received.
	servers map[string]string
	kinds   []string
	last    *routerv1.Freshness
}

func (w *world) watch(client routerv1.RouterServiceClient, resume *routerv1.ResumePoint) *mirror {
	w.t.Helper()
	stream, err := client.Watch(w.t.Context(), &routerv1.WatchRequest{Resume: resume})
	if err != nil {
		w.t.Fatal(err)
	}
	return &mirror{t: w.t, stream: stream, servers: map[string]string{}}
}

func (m *mirror) recv() error {
	res, err := m.stream.Recv()
	if err != nil {
		return err
	}
	m.last = res.GetFreshness()
	switch msg := res.GetMessage().(type) {
	case *routerv1.WatchResponse_Snapshot:
		m.kinds = append(m.kinds, "snapshot")
		clear(m.servers)
		m.put(msg.Snapshot.GetServers())
	case *routerv1.WatchResponse_Delta:
		m.kinds = append(m.kinds, "delta")
		m.put(msg.Delta.GetPut())
		for _, id := range msg.Delta.GetRemoved() {
			delete(m.servers, id)
		}
	case *routerv1.WatchResponse_Bookmark:
		m.kinds = append(m.kinds, "bookmark")
	default:
		m.t.Errorf("message %v", res)
	}
	return nil
}

func (m *mirror) put(servers []*routerv1.Server) {
	for i, line := range lines(servers) {
		m.servers[servers[i].GetServerId()] = line
	}
}

func (m *mirror) next() {
	m.t.Helper()
	if err := m.recv(); err != nil {
		m.t.Fatal(err)
	}
}

func (m *mirror) lines() []string {
	out := make([]string, 0, len(m.servers))
	for _, l := range m.servers {
		out = append(out, l)
	}
	slices.Sort(out)
	return out
}

func TestWatch_SnapshotDeltasBookmarks(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		s := w.coordinators[first].next()
		s.send(catchUp(3)...)
		m := w.watch(w.client(), nil)
		m.next()
		s.send(delta(&pb.Delta{Position: at(1, 11), Put: []*pb.Server{row("new")}, Removed: crashed("s000")}))
		m.next()
		s.send(suspect(1, 1, "s001", time.Minute))
		m.next()
		if diff := cmp.Diff([]string{"active new", "active s002", "suspect s001"}, m.lines()); diff != "" {
			t.Errorf("mirror (-want +got):\n%s", diff)
		}
		// A revision that changes nothing to clients is told by a bookmark.
		s.send(delta(&pb.Delta{Position: at(1, 12), Put: []*pb.Server{row("new")}}))
		m.next()
		if m.last.GetRevision() != 12 {
			t.Errorf("revision %d, want 12", m.last.GetRevision())
		}
		before := time.Now()
		m.next()
		if waited := time.Since(before); waited > time.Second {
			t.Errorf("a bookmark after %v, want at most a second", waited)
		}
		if diff := cmp.Diff([]string{"snapshot", "delta", "delta", "bookmark", "bookmark"}, m.kinds); diff != "" {
			t.Errorf("messages (-want +got):\n%s", diff)
		}
	}, first)
}

func TestWatch_Resume(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		resume *routerv1.ResumePoint
		want   string
	}{
		"at the present":          {&routerv1.ResumePoint{StoreId: "store", Epoch: 1, Revision: 12}, "bookmark"},
		"before the last change":  {&routerv1.ResumePoint{StoreId: "store", Epoch: 1, Revision: 11}, "delta"},
		"before all changes":      {&routerv1.ResumePoint{StoreId: "store", Epoch: 1, Revision: 10}, "delta"},
		"before the history":      {&routerv1.ResumePoint{StoreId: "store", Epoch: 1, Revision: 9}, "snapshot"},
		"in the future":           {&routerv1.ResumePoint{StoreId: "store", Epoch: 1, Revision: 13}, "snapshot"},
		"in another epoch":        {&routerv1.ResumePoint{StoreId: "store", Epoch: 2, Revision: 12}, "snapshot"},
		"in another store":        {&routerv1.ResumePoint{StoreId: "other", Epoch: 1, Revision: 12}, "snapshot"},
		"without any resumepoint": {nil, "snapshot"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inWorld(t, func(t *testing.T, w *world) {
				w.start()
				s := w.coordinators[first].next()
				s.send(catchUp(3)...)
				s.send(delta(&pb.Delta{Position: at(1, 11), Put: []*pb.Server{row("new")}}))
				s.send(suspect(1, 1, "s001", time.Minute))
				s.send(delta(&pb.Delta{Position: at(1, 12), Removed: crashed("s000")}))
				m := w.watch(w.client(), c.resume)
				// What the watcher had at its resume point, before the soft mark.
				switch c.resume.GetRevision() {
				case 10:
					m.servers = map[string]string{"s000": "active s000", "s001": "active s001", "s002": "active s002"}
				case 11:
					m.servers = map[string]string{
						"s000": "active s000", "s001": "active s001", "s002": "active s002", "new": "active new",
					}
				default:
					m.servers = map[string]string{"s001": "suspect s001", "s002": "active s002", "new": "active new"}
				}
				m.next()
				if diff := cmp.Diff([]string{c.want}, m.kinds); diff != "" {
					t.Errorf("messages (-want +got):\n%s", diff)
				}
				if diff := cmp.Diff([]string{"active new", "active s002", "suspect s001"}, m.lines()); diff != "" {
					t.Errorf("mirror (-want +got):\n%s", diff)
				}
			}, first)
		})
	}
}

// A position that the history still names, but not from its beginning, is none
// to resume from: soft changes since then may be forgotten.
func TestWatch_ResumeWhereSoftChangesAreForgotten(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		s := w.coordinators[first].next()
		s.send(catchUp(3)...)
		for i := range uint64(300) {
			m := suspect(1, i+1, fmt.Sprintf("s00%d", i%2), time.Minute)
			on := i%4 < 2
			m.GetSoftMarks().GetMarks()[0].Suspect = &on
			s.send(m)
		}
		m := w.watch(w.client(), &routerv1.ResumePoint{StoreId: "store", Epoch: 1, Revision: 10})
		m.next()
		if diff := cmp.Diff([]string{"snapshot"}, m.kinds); diff != "" {
			t.Errorf("messages (-want +got):\n%s", diff)
		}
	}, first)
}

// A watcher that does not read is sent one message for all that it missed.
func TestWatch_CoalescesForASlowWatcher(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		s := w.coordinators[first].next()
		// A snapshot that fills the stream's window and the connection.
		s.send(catchUp(2000)...)
		m := w.watch(w.slowClient(), nil)
		synctest.Wait()
		const changes = 200
		for i := range changes {
			s.send(delta(&pb.Delta{Position: at(1, uint64(11+i)), Put: []*pb.Server{row(fmt.Sprintf("new%03d", i))}}))
		}
		if got := s.ack().GetApplied()[0].GetRevision(); got != 10 {
			t.Errorf("acknowledged %d while a watcher has not been told, want 10", got)
		}
		for m.last.GetRevision() < 10+changes {
			m.next()
		}
		if len(m.kinds) > 4 {
			t.Errorf("messages %v, want few", m.kinds)
		}
		if got := len(m.servers); got != 2000+changes {
			t.Errorf("%d servers, want %d", got, 2000+changes)
		}
		if got := s.ack().GetApplied()[0].GetRevision(); got != 10+changes {
			t.Errorf("acknowledged %d, want %d", got, 10+changes)
		}
	}, first)
}

// A watcher that missed more than the history holds gets a snapshot.
func TestWatch_SnapshotWhereTheHistoryIsTooShort(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		s := w.coordinators[first].next()
		s.send(catchUp(2000)...)
		m := w.watch(w.slowClient(), nil)
		synctest.Wait()
		const changes = 300
		for i := range changes {
			s.send(delta(&pb.Delta{Position: at(1, uint64(11+i)), Removed: removed(pb.Cause_CAUSE_SHUTDOWN, fmt.Sprintf("s%03d", i))}))
		}
		for m.last.GetRevision() < 10+changes {
			m.next()
		}
		// The delta was under way when the watcher stopped reading.
		if diff := cmp.Diff([]string{"snapshot", "delta", "snapshot"}, m.kinds); diff != "" {
			t.Errorf("messages (-want +got):\n%s", diff)
		}
		if got := len(m.servers); got != 2000-changes {
			t.Errorf("%d servers, want %d", got, 2000-changes)
		}
	}, first)
}

func TestWatch_DropsAWatcherThatDoesNotRead(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		s := w.coordinators[first].next()
		s.send(catchUp(2000)...)
		m := w.watch(w.slowClient(), nil)
		s.bookmarks(6, at(1, 10))
		var err error
		for err == nil {
			err = m.recv()
		}
		if !errors.Is(rpc.FromStatus(err), member.ErrExhausted) {
			t.Errorf("ended with %v, want %v", err, member.ErrExhausted)
		}
		if got := w.value("buddyring_router_watchers_dropped_total"); got != 1 {
			t.Errorf("watchers_dropped_total = %v, want 1", got)
		}
	}, first)
}

// A watcher that does not read holds up the acknowledgement for two seconds, and
// is dropped then.
func TestWatch_AcknowledgesWithoutAWatcherThatDoesNotRead(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		s := w.coordinators[first].next()
		s.send(catchUp(2000)...)
		m := w.watch(w.slowClient(), nil)
		reader := w.watch(w.client(), nil)
		reader.next()
		if got := s.ack().GetApplied()[0].GetRevision(); got != 10 {
			t.Fatalf("acknowledged %d, want 10", got)
		}
		before := time.Now()
		// More than one message, so that the second one has to wait.
		for i := range 3 {
			s.send(delta(&pb.Delta{Position: at(1, uint64(11+i)), Put: []*pb.Server{row(fmt.Sprintf("new%03d", i))}}))
			synctest.Wait()
		}
		for s.ack().GetApplied()[0].GetRevision() < 13 {
		}
		if took := time.Since(before); took < 2*time.Second || took > 5*time.Second {
			t.Errorf("acknowledged after %v, want the two seconds that a watcher has", took)
		}
		var err error
		for err == nil {
			err = m.recv()
		}
		if !errors.Is(rpc.FromStatus(err), member.ErrExhausted) {
			t.Errorf("ended with %v, want %v", err, member.ErrExhausted)
		}
		if got := w.value("buddyring_router_watchers_dropped_total"); got != 1 {
			t.Errorf("watchers_dropped_total = %v, want 1", got)
		}
		for reader.last.GetRevision() < 13 {
			reader.next()
		}
	}, first)
}

func TestWatch_ThousandWatchers(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		s := w.coordinators[first].next()
		s.send(catchUp(100)...)
		const connections, each = 20, 50
		var mirrors []*mirror
		for range connections {
			client := w.client()
			for range each {
				m := w.watch(client, nil)
				m.next()
				mirrors = append(mirrors, m)
			}
		}
		if got := w.value("buddyring_router_watchers"); got != connections*each {
			t.Errorf("%v watchers, want %d", got, connections*each)
		}
		s.send(delta(&pb.Delta{Position: at(1, 11), Removed: crashed("s000")}))
		if got := s.ack().GetApplied()[0].GetRevision(); got != 11 {
			t.Errorf("acknowledged %d, want 11", got)
		}
		var all sync.WaitGroup
		for _, m := range mirrors {
			all.Go(func() {
				for m.last.GetRevision() < 11 {
					if err := m.recv(); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		all.Wait()
		for _, m := range mirrors {
			if len(m.servers) != 99 {
				t.Fatalf("a mirror of %d servers, want 99", len(m.servers))
			}
		}
	}, first)
}

func TestWatch_EndsWithTheRouter(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.coordinators[first].next().send(catchUp(1)...)
		m := w.watch(w.client(), nil)
		m.next()
		before := time.Now()
		w.stopRouter()
		if took := time.Since(before); took > time.Second {
			t.Errorf("the router took %v to stop", took)
		}
		if err := m.recv(); !errors.Is(err, member.ErrUnavailable) {
			t.Errorf("ended with %v, want %v", err, member.ErrUnavailable)
		}
	}, first)
}

func TestWatch_EndsWithItsClient(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.coordinators[first].next().send(catchUp(1)...)
		ctx, cancel := context.WithCancel(t.Context())
		stream, err := w.client().Watch(ctx, &routerv1.WatchRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
		cancel()
		synctest.Wait()
		if got := w.value("buddyring_router_watchers"); got != 0 {
			t.Errorf("%v watchers, want none", got)
		}
	}, first)
}

package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/internal/connect"
	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/rpc"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// The types below have no way in from outside the package that would show what
// is tested here.

// The numbers of the contract's enums are those of the vocabulary.
func TestEnumsAgree(t *testing.T) {
	t.Parallel()
	for prefix, names := range map[string][2]func(int) string{
		"PHASE_": {func(n int) string { return member.Phase(n).String() }, func(n int) string { return toPhase(member.Phase(n)).String() }},
		"CAUSE_": {func(n int) string { return member.Cause(n).String() }, func(n int) string { return toCause(member.Cause(n)).String() }},
		"WISH_":  {func(n int) string { return member.Wish(n).String() }, func(n int) string { return toWish(member.Wish(n)).String() }},
		"MODE_":  {func(n int) string { return member.Mode(n).String() }, func(n int) string { return toMode(member.Mode(n)).String() }},
	} {
		for n := 1; names[0](n) != "unknown"; n++ {
			if want := prefix + strings.ToUpper(names[0](n)); names[1](n) != want {
				t.Errorf("%s is %s on the wire", want, names[1](n))
			}
		}
	}
}

// Who comes while, or after, the end is waited for is not let in, and those who are
// in may still start what belongs to them.
func TestCrowd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var c crowd
		if !c.enter() {
			t.Fatal("nobody is let in")
		}
		emptied := make(chan struct{})
		go func() {
			defer close(emptied)
			c.empty()
		}()
		synctest.Wait()
		if c.enter() {
			t.Error("let in at the end")
		}
		done := make(chan struct{})
		c.run(func() { <-done })
		c.leave()
		synctest.Wait()
		select {
		case <-emptied:
			t.Error("empty while somebody is in")
		default:
		}
		close(done)
		<-emptied
	})
}

// A stream that has found its term just before that ended is turned away.
func TestStreamsOfATermThatIsOver(t *testing.T) {
	t.Parallel()
	closing := newEnding()
	closing.end(errTermOver)
	agents, members := &agentService{closing: closing}, &membershipService{closing: closing}
	agents.streams.empty()
	members.streams.empty()
	if err := agents.Session(nil); !errors.Is(err, member.ErrNotLeader) {
		t.Errorf("session: %v", err)
	}
	if err := members.Subscribe(nil); !errors.Is(err, member.ErrNotLeader) {
		t.Errorf("subscription: %v", err)
	}
}

func TestOutboxOverflowEndsTheSession(t *testing.T) {
	t.Parallel()
	var writers []func()
	sent := 0
	s := newSession(1, 1, func(write func()) { writers = append(writers, write) },
		func(any) error { sent++; return nil })
	for range outboxSize {
		s.challenge(1)
	}
	if s.over.ended() {
		t.Fatal("ended early")
	}
	s.challenge(1)
	if err := s.over.reason(); !errors.Is(err, member.ErrExhausted) {
		t.Errorf("ended with %v", err)
	}
	unsent := s.flushed()
	writers[0]()
	select {
	case <-unsent:
	default:
		t.Error("the writer has ended, and nobody knows")
	}
	if sent != outboxSize || len(writers) != 1 {
		t.Errorf("%d messages left by %d writers", sent, len(writers))
	}
	if s.challenge(1); len(writers) != 1 {
		t.Error("something was sent after the end")
	}
}

// There is a writer while there is something to send.
func TestSessionAtRestHasNoWriter(t *testing.T) {
	t.Parallel()
	var writers []func()
	var sent []uint64
	var s *session
	s = newSession(1, 1, func(write func()) { writers = append(writers, write) }, func(m any) error {
		n := m.(*pb.SessionResponse).GetChallenge().GetNonce()
		if sent = append(sent, n); n < 3 {
			s.challenge(n + 1)
		}
		return nil
	})
	s.challenge(1)
	writers[0]()
	if want := []uint64{1, 2, 3}; !slices.Equal(sent, want) || len(writers) != 1 || s.flushed() != nil {
		t.Errorf("sent %v by %d writers", sent, len(writers))
	}
}

// What cannot be sent is dropped.
func TestSessionThatCannotBeSentTo(t *testing.T) {
	t.Parallel()
	var writers []func()
	tried := 0
	s := newSession(1, 1, func(write func()) { writers = append(writers, write) }, func(any) error {
		tried++
		return io.EOF
	})
	s.challenge(1)
	s.challenge(2)
	writers[0]()
	s.challenge(3)
	if tried != 1 || len(writers) != 1 || s.over.ended() || s.flushed() != nil {
		t.Errorf("tried %d times, %d writers, ended %v", tried, len(writers), s.over.ended())
	}
}

// greeted is the stream of an agent that has sent its Hello and waits.
type greeted struct {
	pb.AgentService_SessionServer

	context func() context.Context
	hello   *pb.Hello
}

func (g *greeted) Context() context.Context { return g.context() }

func (g *greeted) RecvMsg(m any) error {
	if g.hello == nil {
		<-g.context().Done()
		return g.context().Err()
	}
	text, err := proto.Marshal(&pb.SessionRequest{Message: &pb.SessionRequest_Hello{Hello: g.hello}})
	*m.(*rpc.Raw), g.hello = rpc.NewRaw(text), nil
	return err
}

// An agent whose Hello has to wait for its turn is told to come back, and not that
// it has said nothing: agents take that for something that only a person can mend.
func TestBusyMachineRefusesNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		busy := &host{pool: member.DefaultPool, mail: newMail(), over: newEnding()}
		all := &pools{}
		all.present.Store(&roster{all: []*host{busy}})
		a := &agentService{pools: all, closing: newEnding(), metrics: newMetrics(prometheus.NewRegistry())}
		ctx, cancel := context.WithCancel(t.Context())
		err := a.Session(&greeted{context: func() context.Context { return ctx }, hello: &pb.Hello{
			Pool: string(member.DefaultPool), ServerId: "web-1", BootId: "b", InstanceId: "i",
			Spec: &pb.ServerSpec{ProbeAddresses: []string{"10.0.0.1"}},
		}})
		if !errors.Is(err, member.ErrUnavailable) {
			t.Errorf("ended with %v", err)
		}
		cancel()
		busy.over.end(nil)
		a.streams.empty()
	})
}

func newTestHistory() *history {
	return newHistory(member.PoolState{Name: "p", Position: member.Position{Epoch: 1, Revision: 1}}, newBell())
}

func row(id string, incarnation, weight int) member.Server {
	return member.Server{
		ID: member.ID(id), Incarnation: member.Incarnation(incarnation), Phase: member.PhaseActive,
		Spec: member.Spec{Weight: uint32(weight)},
	}
}

// However the changes are cut into deltas, a reader ends with the same rows.
func TestCoalescedDeltasAddUp(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		h := newTestHistory()
		rows, copies := map[string]member.Server{}, map[string]*pb.Server{}
		cursor := member.Revision(1)
		for range rapid.IntRange(1, 30).Draw(t, "changes") {
			at := h.head()
			c := member.Change{Pool: "p", Base: at}
			for n := range rapid.IntRange(0, 3).Draw(t, "edits") {
				id := fmt.Sprint(n, rapid.IntRange(0, 3).Draw(t, "id"))
				if s, ok := rows[id]; ok && rapid.Bool().Draw(t, "remove") {
					c.Remove = append(c.Remove, member.Removal{ID: s.ID, Incarnation: s.Incarnation, Cause: member.CauseCrashed})
					delete(rows, id)
					if rapid.Bool().Draw(t, "stay away") {
						continue
					}
				}
				s, ok := rows[id]
				if !ok {
					s = row(id, int(at.Revision)+1, 0)
				}
				s.Spec.Weight = rapid.Uint32Range(0, 9).Draw(t, "weight")
				rows[id] = s
				c.Put = append(c.Put, s)
			}
			h.publish(c, time.Time{})
			if rapid.Bool().Draw(t, "read") {
				cursor = read(t, h, cursor, copies)
			}
		}
		read(t, h, cursor, copies)
		want := map[string]*pb.Server{}
		for id, s := range rows {
			want[id] = toRow("p", s, member.WishActive)
		}
		if diff := cmp.Diff(want, copies, protocmp.Transform()); diff != "" {
			t.Fatalf("rows differ (-want +got):\n%s", diff)
		}
		if got := h.sizes()[member.PhaseActive]; got != len(rows) {
			t.Fatalf("counted %d of %d", got, len(rows))
		}
	})
}

func read(t *rapid.T, h *history, cursor member.Revision, copies map[string]*pb.Server) member.Revision {
	entries, ok := h.after(cursor)
	if !ok {
		t.Fatalf("no way from %d", cursor)
	}
	if len(entries) == 0 {
		return cursor
	}
	d := h.delta(entries).pack().GetDelta()
	if d.GetFromRevision() != uint64(cursor) {
		t.Fatalf("delta from %d instead of %d", d.GetFromRevision(), cursor)
	}
	for _, r := range d.GetRemoved() {
		if copies[r.GetServerId()].GetIncarnation() <= r.GetIncarnation() {
			delete(copies, r.GetServerId())
		}
	}
	for _, s := range d.GetPut() {
		copies[s.GetServerId()] = s
	}
	return member.Revision(d.GetPosition().GetRevision())
}

// An entry goes when it is outside both limits of the window.
func TestHistoryWindow(t *testing.T) {
	t.Parallel()
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	h := newTestHistory()
	change := func(now time.Time) {
		h.publish(member.Change{Pool: "p", Base: h.head(), Put: []member.Server{row("a", 2, 1)}}, now)
	}
	for range windowRevisions + 500 {
		change(begin)
	}
	if _, ok := h.after(1); !ok {
		t.Error("young entries are gone")
	}
	change(begin.Add(windowAge + time.Second))
	head := h.head().Revision
	if _, ok := h.after(head - windowRevisions); !ok {
		t.Error("the newest entries are gone")
	}
	if _, ok := h.after(head - windowRevisions - 1); ok {
		t.Error("old entries stay")
	}
	if _, ok := h.after(head + 1); ok {
		t.Error("the future can be read")
	}
	if e := h.entryOf(head); e == nil || e.position.Revision != head || h.entryOf(2) != nil || h.entryOf(0) != nil {
		t.Error("entries are not found by revision")
	}
}

// A point is refuted by another change at its revision, as far back as that is
// known.
func TestHistoryRefutes(t *testing.T) {
	t.Parallel()
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	h := newHistory(member.PoolState{Name: "p", Position: member.Position{Epoch: 1, Revision: 5}, LastChange: "c5"}, newBell())
	change := func(now time.Time) {
		h.publish(member.Change{ID: fmt.Sprint("c", h.head().Revision+1), Pool: "p", Base: h.head()}, now)
	}
	refuted := func(revision member.Revision, id string) bool {
		return h.refutes(point{member.Position{Revision: revision}, id}) != ""
	}
	check := func(revision member.Revision, known bool) {
		t.Helper()
		if own := fmt.Sprint("c", revision); refuted(revision, own) || refuted(revision, "") || refuted(revision, "other") != known {
			t.Errorf("revision %d: own is refuted %t, unknown %t, another %t", revision, refuted(revision, own), refuted(revision, ""), refuted(revision, "other"))
		}
	}
	check(5, true)
	check(4, false)
	change(begin)
	change(begin)
	for revision := range member.Revision(3) {
		check(5+revision, true)
	}
	if !refuted(8, "c8") || !refuted(8, "") {
		t.Error("the future is not refuted")
	}
	for range windowRevisions {
		change(begin.Add(windowAge + time.Second))
	}
	check(6, false)
	check(7, true)
	check(8, true)
}

// A member's row shows the operator's wish, and is sent again when that changes.
func TestHistoryShowsIntents(t *testing.T) {
	t.Parallel()
	h := newTestHistory()
	h.publish(member.Change{Pool: "p", Base: h.head(), Put: []member.Server{row("a", 2, 1)}}, time.Time{})
	h.publish(member.Change{Pool: "p", Base: h.head(), Intents: []member.Intent{{ID: "a", Wish: member.WishMaintenance}, {ID: "b", Wish: member.WishBanned}}}, time.Time{})
	entries, _ := h.after(2)
	if len(entries) != 1 || len(entries[0].put) != 1 || entries[0].put[0].GetIntent() != pb.Wish_WISH_MAINTENANCE {
		t.Fatalf("entries: %v", entries)
	}
	h.publish(member.Change{Pool: "p", Base: h.head(), Forget: []member.ID{"a"}}, time.Time{})
	if got := h.snapshot().pack().GetSnapshot().GetServers()[0].GetIntent(); got != pb.Wish_WISH_ACTIVE {
		t.Errorf("the intent is %s", got)
	}
}

func TestHistorySharesTimes(t *testing.T) {
	t.Parallel()
	h := newTestHistory()
	joined, since := time.Unix(1_000, 5), time.Unix(2_000, 5)
	row := member.Server{ID: "a", Incarnation: 2, Phase: member.PhaseJoining, JoinedAt: joined, Since: since}
	first := h.put(row)
	row.Phase, row.Since, row.HeldUntil = member.PhaseHeld, time.Unix(2_000, 6), time.Unix(3_000, 0)
	second := h.put(row)
	if second.GetJoinedAt() != first.GetJoinedAt() {
		t.Error("a row with the same JoinedAt has one of its own")
	}
	if diff := cmp.Diff(toRow(h.name, row, 0), second, protocmp.Transform()); diff != "" {
		t.Errorf("the second version (-want +got):\n%s", diff)
	}
	third := h.put(row)
	if third.GetPhaseSince() != second.GetPhaseSince() {
		t.Error("a row in the same phase has a PhaseSince of its own")
	}
	row.JoinedAt, row.Since = time.Unix(1_001, 5), time.Time{}
	if diff := cmp.Diff(toRow(h.name, row, 0), h.put(row), protocmp.Transform()); diff != "" {
		t.Errorf("the last version (-want +got):\n%s", diff)
	}
	if first.GetPhaseSince().AsTime() != since.UTC() {
		t.Errorf("the first version is since %s now, want %s", first.GetPhaseSince().AsTime(), since.UTC())
	}
}

// Versions of a row share what the server says about itself, as long as it says the
// same.
func TestHistorySharesSpecs(t *testing.T) {
	t.Parallel()
	spec := func() member.Spec {
		return member.Spec{
			ProbeAddresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}, Probe: member.Probe{Method: member.ProbeTCP, Port: 22},
			Endpoints: []member.Endpoint{{Name: "http", Address: "10.0.0.1:80", Protocol: "http"}},
			Zone:      "z", Rack: "r", Weight: 100, Labels: map[string]string{"a": "b"},
		}
	}
	h := newTestHistory()
	put := func(s member.Spec) *pb.ServerSpec {
		return h.put(member.Server{ID: "a", Incarnation: 2, Phase: member.PhaseActive, Spec: s}).GetSpec()
	}
	for name, edit := range map[string]func(*member.Spec){
		"nothing":   nil,
		"addresses": func(s *member.Spec) { s.ProbeAddresses[0] = netip.MustParseAddr("10.0.0.2") },
		"family":    func(s *member.Spec) { s.ProbeAddresses = append(s.ProbeAddresses, netip.MustParseAddr("fd00::1")) },
		"probe":     func(s *member.Spec) { s.Probe.Port = 23 },
		"name":      func(s *member.Spec) { s.Endpoints[0].Name = "web" },
		"address":   func(s *member.Spec) { s.Endpoints[0].Address = "10.0.0.1:81" },
		"protocol":  func(s *member.Spec) { s.Endpoints[0].Protocol = "grpc" },
		"endpoints": func(s *member.Spec) { s.Endpoints = nil },
		"zone":      func(s *member.Spec) { s.Zone = "y" },
		"rack":      func(s *member.Spec) { s.Rack = "" },
		"weight":    func(s *member.Spec) { s.Weight = 0 },
		"label":     func(s *member.Spec) { s.Labels["a"] = "c" },
		"labels":    func(s *member.Spec) { s.Labels = nil },
	} {
		before, next := put(spec()), spec()
		if edit != nil {
			edit(&next)
		}
		after := put(next)
		if shared := before == after; shared != (edit == nil) {
			t.Errorf("%s changed: shared is %v", name, shared)
		}
		if diff := cmp.Diff(toSpec(next), after, protocmp.Transform()); diff != "" {
			t.Errorf("%s changed (-want +got):\n%s", name, diff)
		}
	}
}

// Those who need the same get the same bytes, as long as they are the newest.
func TestHistorySharesParcels(t *testing.T) {
	t.Parallel()
	h := newTestHistory()
	put := func(id string) {
		h.publish(member.Change{Pool: "p", Base: h.head(), Put: []member.Server{row(id, 2, 1)}}, time.Time{})
	}
	delta := func(cursor member.Revision, n int) *parcel {
		entries, ok := h.after(cursor)
		if !ok {
			t.Fatalf("no way from %d", cursor)
		}
		return h.delta(entries[:n])
	}
	put("a")
	first := h.snapshot()
	if h.snapshot() != first {
		t.Error("two snapshots of one revision")
	}
	put("b")
	if h.snapshot() == first || h.snapshot().leads != h.head() {
		t.Error("the snapshot is not the newest")
	}
	start := h.head().Revision - 2
	newest := delta(start, 2)
	switch {
	case delta(start, 2) != newest:
		t.Error("two deltas for the same subscribers")
	case delta(start+1, 1) == newest, delta(start, 1) == newest, delta(start, 1).leads.Revision != start+1:
		t.Error("one delta for different subscribers")
	}
	message, isFirst, err := newest.open()
	again, isFirstAgain, _ := newest.open()
	if err != nil || !isFirst || isFirstAgain || message != again {
		t.Errorf("opened for the first time %v, then %v; error %v", isFirst, isFirstAgain, err)
	}
	for i := range 3 * sharedDeltas {
		put(fmt.Sprint(i))
	}
	for cursor := h.head().Revision - 2*sharedDeltas; cursor < h.head().Revision; cursor++ {
		delta(cursor, int(h.head().Revision-cursor))
	}
	if n := len(h.deltas); n != sharedDeltas {
		t.Errorf("%d deltas are kept", n)
	}
}

func TestMarks(t *testing.T) {
	t.Parallel()
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	l := newMarks(newBell())
	mark := func(id string, suspect bool) {
		l.publish("p", member.Mark{ID: member.ID(id), Incarnation: 1, Suspect: suspect, TTL: 30 * time.Second}, begin)
	}
	mark("a", true)
	mark("b", true)
	mark("a", false)
	all, head := l.full(begin.Add(10 * time.Second))
	if head != 3 || len(all) != 1 || all[0].GetServerId() != "b" || all[0].GetTtl().AsDuration() != 20*time.Second {
		t.Errorf("all: %v up to %d", all, head)
	}
	if recent, ok := l.after(1); !ok || len(recent) != 2 || recent[1].GetSuspect() {
		t.Errorf("recent: %v, %t", recent, ok)
	}
	if all, _ := l.full(begin.Add(time.Minute)); len(all) != 0 {
		t.Errorf("expired marks: %v", all)
	}
	for range softWindow {
		mark("c", true)
	}
	if _, ok := l.after(2); ok {
		t.Error("marks are kept for ever")
	}
	if _, ok := l.after(3); !ok {
		t.Error("marks are gone early")
	}
}

// A mark that says only that a service is down holds like any other, and is no
// suspect.
func TestServiceMarks(t *testing.T) {
	t.Parallel()
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	l := newMarks(newBell())
	l.publish("p", member.Mark{ID: "a", Incarnation: 1, ServiceDown: true, TTL: 30 * time.Second}, begin)
	if all, _ := l.full(begin); len(all) != 1 || !all[0].GetServiceDown() || all[0].GetSuspect() || l.suspects("p") != 0 {
		t.Errorf("%v, %d suspects", all, l.suspects("p"))
	}
	l.publish("p", member.Mark{ID: "a", Incarnation: 1, Suspect: true, ServiceDown: true, TTL: 30 * time.Second}, begin)
	if all, _ := l.full(begin); len(all) != 1 || !all[0].GetServiceDown() || !all[0].GetSuspect() || l.suspects("p") != 1 {
		t.Errorf("%v, %d suspects", all, l.suspects("p"))
	}
	l.publish("p", member.Mark{ID: "a", Incarnation: 1}, begin)
	if all, _ := l.full(begin); len(all) != 0 {
		t.Errorf("%v", all)
	}
}

// What an operator has confirmed is what went by then: a router that lags does
// not get it in one delta with what has gone since.
func TestConfirmedChangesAreCutOff(t *testing.T) {
	t.Parallel()
	h := newTestHistory()
	for _, confirmed := range []bool{false, true, false, true, false, false} {
		h.publish(member.Change{Pool: "p", Base: h.head(), MassChangeConfirmed: confirmed}, time.Time{})
	}
	entries, ok := h.after(1)
	if !ok || len(entries) != 6 {
		t.Fatalf("%d entries", len(entries))
	}
	confirmed, since := upToConfirmed(entries)
	if len(confirmed) != 4 || len(since) != 2 {
		t.Fatalf("%d and %d", len(confirmed), len(since))
	}
	first, second := coalesce("p", confirmed), coalesce("p", since)
	if !first.GetMassChangeConfirmed() || second.MassChangeConfirmed != nil || second.GetFromRevision() != first.GetPosition().GetRevision() {
		t.Errorf("%v, %v", first, second)
	}
	if none, all := upToConfirmed(since); len(none) != 0 || len(all) != 2 {
		t.Errorf("%d and %d", len(none), len(all))
	}
}

func TestRouterProgress(t *testing.T) {
	t.Parallel()
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	r := newRouters(newOwnAlarms(newAlarms(slog.New(slog.DiscardHandler), prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "x"}, []string{"name", "pool"}))))
	if err := r.connect(arrival{id: "r1", run: "x"}, begin); err != nil {
		t.Fatal(err)
	}
	apply := func(revision, second int) {
		r.ack("r1", "x", ack{applied: []placed{{"p", point{Position: member.Position{Revision: member.Revision(revision)}}}}}, begin.Add(time.Duration(second)*time.Second))
	}
	apply(5, 1)
	apply(5, 2)
	apply(8, 3)
	for revision, want := range map[member.Revision]int{5: 1, 6: 3, 8: 3, 9: -1} {
		at := r.by["r1"].appliedAt("p", revision)
		if want < 0 != at.IsZero() || want >= 0 && !at.Equal(begin.Add(time.Duration(want)*time.Second)) {
			t.Errorf("revision %d was applied at %v", revision, at)
		}
	}
	for n := range 2 * progressLength {
		apply(10+n, n)
	}
	if got := len(r.by["r1"].progress["p"]); got != progressLength {
		t.Errorf("%d steps are kept", got)
	}
	if at := r.by["r1"].appliedAt("p", 5); !at.IsZero() {
		t.Errorf("what is forgotten was applied at %v", at)
	}
}

func TestPageTokens(t *testing.T) {
	t.Parallel()
	all := []string{"a", "b", "c", "d", "e"}
	key := func(s string) string { return s }
	p, err := parsePage(&pb.ListPoolsRequest{PageSize: 2})
	if err != nil {
		t.Fatal(err)
	}
	first, token := cut(all, p, key)
	// The item at the cursor may have gone meanwhile.
	all = append(all[:1:1], all[2:]...)
	p, err = parsePage(&pb.ListPoolsRequest{PageSize: 3, PageToken: token})
	if err != nil {
		t.Fatal(err)
	}
	second, token := cut(all, p, key)
	if !cmp.Equal(first, []string{"a", "b"}) || !cmp.Equal(second, []string{"c", "d", "e"}) || token != "" {
		t.Errorf("pages %v and %v, then %q", first, second, token)
	}
	// A token is good for its own list only.
	if _, err := parsePage(&pb.ListRoutersRequest{PageToken: p.token("a")}); !errors.Is(err, member.ErrInvalid) {
		t.Errorf("a token of another list: %v", err)
	}
}

func TestDial(t *testing.T) {
	t.Parallel()
	results := map[string]error{
		"refused:1": syscall.ECONNREFUSED, "reset:1": syscall.ECONNRESET, "unroutable:1": syscall.ENETUNREACH,
		"forbidden:1": syscall.EPERM, "unreachable:1": syscall.EHOSTUNREACH, "rejected:1": connect.ErrRefusedElsewhere,
		"unknown:1": &net.DNSError{Err: "no such host", Name: "unknown", IsTimeout: true},
	}
	d := newDialer(func(ctx context.Context, address string) (net.Conn, error) {
		if address == "open:1" {
			a, b := net.Pipe()
			return a, b.Close()
		}
		if err, ok := results[address]; ok {
			return nil, &net.OpError{Op: "dial", Err: err}
		}
		<-ctx.Done()
		return nil, ctx.Err()
	})
	for _, c := range []struct {
		addresses              []string
		answered, cannot, slow bool
	}{
		{[]string{"open:1"}, true, false, false},
		{[]string{"refused:1"}, true, false, false},
		{[]string{"reset:1"}, true, false, false},
		{[]string{"silent:1"}, false, false, true},
		{[]string{"unreachable:1"}, false, false, false},
		{[]string{"unroutable:1"}, false, true, false},
		{[]string{"forbidden:1"}, false, true, false},
		{[]string{"rejected:1"}, false, true, false},
		{[]string{"unknown:1"}, false, true, false},
		{nil, false, true, false},
		{[]string{"silent:1", "open:1"}, true, false, false},
		{[]string{"silent:1", "unroutable:1"}, false, false, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			begin := time.Now()
			got := d.dial(t.Context(), pool.Dial{Round: 7, Addresses: c.addresses, Timeout: time.Second})
			if got.Answered != c.answered || got.CannotJudge != c.cannot || got.Round != 7 || got.Text == "" {
				t.Errorf("%v: %+v", c.addresses, got)
			}
			if took := time.Since(begin); (took > 0) != c.slow {
				t.Errorf("%v took %s", c.addresses, took)
			}
		})
	}
}

// Whoever still wants something of a host that has stopped is told so.
func TestStoppedHost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		state := member.PoolState{Name: "p", Position: member.Position{Epoch: 1, Revision: 1}, Settings: member.DefaultSettings()}
		m, err := pool.New(state, pool.Config{Seed: 1, Now: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		h := &host{pool: "p", machine: m, mail: newMail(), inbox: make(chan work), outcomes: make(chan outcome, 1), over: newEnding()}
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errStopping)
		if err := h.run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
		if err := h.view(t.Context(), func(*pool.Machine) {}); !errors.Is(err, member.ErrUnavailable) {
			t.Errorf("view: %v", err)
		}
		h.tell(pool.Tick{}) // it returns
	})
}

// callTable is a table that says when a change begins to be committed.
type callTable struct {
	Table

	begun chan member.Change
}

func (c *callTable) Commit(_ context.Context, change member.Change) error {
	c.begun <- change
	return nil
}

// What follows a change is carried out while the database works on the next one: here
// the answer to a command does not return before that has begun.
func TestNextChangeBeforeWhatFollowsTheLast(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		state := member.PoolState{Name: "p", Position: member.Position{Epoch: 1, Revision: 1}, Settings: member.DefaultSettings()}
		m, err := pool.New(state, pool.Config{Seed: 1, Now: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		table, metrics := &callTable{begun: make(chan member.Change, 2)}, newMetrics(prometheus.NewRegistry())
		h := &host{
			pool: "p", machine: m, calls: map[pool.Token]waiter{}, tenure: &tenure{}, table: table, history: newHistory(state, newBell()),
			health: &health{up: prometheus.NewGauge(prometheus.GaugeOpts{Name: "up"})}, metrics: metrics, log: slog.New(slog.DiscardHandler), outcomes: make(chan outcome, 1), timer: time.NewTimer(time.Hour),
		}
		h.tenure.renewed(time.Now())
		wish := func(n pool.Token, then waiter) pool.Input {
			h.calls[n] = then
			return pool.SetIntent{Call: pool.Call{Token: n, Actor: "op"}, ID: member.ID(fmt.Sprintf("web-%d", n)), Wish: member.WishBanned}
		}
		h.step(t.Context(), wish(1, func(*pool.Machine, pool.Reply) {
			select {
			case c := <-table.begun:
				if c.Base.Revision != 2 {
					t.Errorf("the next change is one of revision %d", c.Base.Revision)
				}
			case <-time.After(time.Second):
				t.Error("the next change had to wait")
			}
		}))
		<-table.begun
		h.step(t.Context(), wish(2, func(*pool.Machine, pool.Reply) {}))
		h.step(t.Context(), (<-h.outcomes).input)
		h.helpers.Wait()
	})
}

func TestFreeBytes(t *testing.T) {
	t.Parallel()
	if free, err := freeBytes(t.TempDir()); err != nil || free == 0 {
		t.Errorf("%d bytes, %v", free, err)
	}
	if _, err := freeBytes("/nowhere/at/all"); err == nil {
		t.Error("a directory that is not there has room")
	}
}

package server

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	"github.com/buddyring/buddyring/internal/member"
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
	"github.com/buddyring/buddyring/router/view"
)

// What is encoded by hand says the same as what protobuf would make of it.
func TestPickAnswer_IsWhatProtobufWouldSay(t *testing.T) {
	t.Parallel()
	text := rapid.StringN(0, 40, 300)
	rapid.Check(t, func(t *rapid.T) {
		position := member.Position{Epoch: member.Epoch(rapid.Uint64().Draw(t, "epoch")), Revision: member.Revision(rapid.Uint64().Draw(t, "revision"))}
		store := text.Draw(t, "store")
		v := view.Restore(member.Pool(text.Draw(t, "pool")), view.Snapshot{StoreID: store, Position: position}, nil)
		age := time.Duration(rapid.Int64Range(0, 1<<60).Draw(t, "age"))
		now := time.Unix(1_800_000_000, 0)
		e := &edition{pool: v.Pool(), view: v, head: encodeHead(v), contact: newContact(now.Add(-age)), leader: newContact(now), turns: new(atomic.Uint64)}
		stale := rapid.Bool().Draw(t, "stale")
		if !stale {
			e.contact.last.Store(&confirmation{at: now.Add(-age), good: age + 1})
		}
		reached := rapid.Bool().Draw(t, "reached")
		if reached {
			e.leader.confirm(now, time.Second)
		}
		want := &routerv1.PickResponse{Pool: string(v.Pool()), Freshness: &routerv1.Freshness{
			StoreId: store, Epoch: uint64(position.Epoch), Revision: uint64(position.Revision),
			Age: durationpb.New(age), Stale: &stale,
		}}
		if stale && reached {
			want.Freshness.NotServed = new(true)
		}
		var chosen []view.Choice
		for range rapid.IntRange(0, 3).Draw(t, "choices") {
			server := &view.Server{
				ID: member.ID(text.Draw(t, "id")), Incarnation: member.Incarnation(rapid.Uint64().Draw(t, "incarnation")), Weight: 1,
				Endpoints: []member.Endpoint{{Address: text.Draw(t, "address")}},
			}
			state := view.State(rapid.IntRange(0, 3).Draw(t, "state"))
			c, _ := view.NewTable([]view.Entry{{Server: server, State: state}}).Pick(&view.Request{})
			chosen = append(chosen, c)
			want.Choices = append(want.Choices, &routerv1.Choice{
				ServerId: string(server.ID), Incarnation: uint64(server.Incarnation), Address: server.Endpoints[0].Address, State: toState(state),
			})
		}
		got := &routerv1.PickResponse{}
		if err := proto.Unmarshal(e.encodeChoices(chosen, now), got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	})
}

// The choice itself, with its count and its metric, allocates nothing; the answer
// is one slice.
func TestPickPath_Allocations(t *testing.T) {
	p := newPools(newMetrics(prometheus.NewRegistry()), nil)
	b := p.book("default")
	rows := make([]*view.Server, 100)
	for i := range rows {
		rows[i] = tableOf(member.ID(rune('a' + i))).Entries()[0].Server
		rows[i].Phase, rows[i].Weight = member.PhaseActive, uint32(50+i)
		rows[i].Endpoints = []member.Endpoint{{Name: "http", Address: "192.0.2.1:80"}}
	}
	v, err := b.view.ApplySnapshot(view.Snapshot{StoreID: "store", Servers: rows})
	if err != nil {
		t.Fatal(err)
	}
	p.publish(b, v)
	e, now := b.edition, time.Now()
	for _, r := range []view.Request{
		{Policy: view.P2C}, {Policy: view.RoundRobin}, {Policy: view.Random}, {Policy: view.Maglev, Key: "alice"},
	} {
		var room [1]view.Choice
		if n := testing.AllocsPerRun(1000, func() { e.pick(room[:0], &r, 1) }); n != 0 {
			t.Errorf("%v: a choice makes %v allocations", r.Policy, n)
		}
		chosen := e.pick(nil, &r, 1)
		if n := testing.AllocsPerRun(1000, func() { e.encodeChoices(chosen, now) }); n > 1 {
			t.Errorf("%v: an answer makes %v allocations", r.Policy, n)
		}
	}
}

// All watchers get the same bytes, whichever of them asks first.
func TestWatchers_ShareWhatIsEncoded(t *testing.T) {
	t.Parallel()
	p := newPools(newMetrics(prometheus.NewRegistry()), nil)
	b := p.book("default")
	server := tableOf("a").Entries()[0].Server
	server.Phase, server.Weight, server.Endpoints = member.PhaseActive, 100, []member.Endpoint{{Address: "192.0.2.1:80"}}
	v, err := b.view.ApplySnapshot(view.Snapshot{StoreID: "store", Servers: []*view.Server{server}})
	if err != nil {
		t.Fatal(err)
	}
	p.publish(b, v)
	old := b.edition.seq
	v, err = v.ApplyDelta(view.Delta{To: member.Position{Revision: 1}, Removed: []member.Removal{{ID: "a", Incarnation: 1, Cause: member.CauseShutdown}}})
	if err != nil {
		t.Fatal(err)
	}
	p.publish(b, v)
	for name, seq := range map[string]uint64{"snapshot": 0, "delta": old} {
		one, err := b.edition.body(seq)
		if err != nil || len(one) == 0 {
			t.Fatal(err)
		}
		two, _ := b.edition.body(seq)
		if &one[0] != &two[0] {
			t.Errorf("the %s was encoded twice", name)
		}
	}
}

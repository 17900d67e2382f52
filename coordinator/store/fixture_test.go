package store_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
)

// noon is a time that both databases keep exactly.
var noon = time.Date(2026, 3, 29, 12, 0, 0, 123456000, time.UTC)

func openStore(t testing.TB, url string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), store.Config{URL: url, Migrate: store.MigrateAuto})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// lead takes the lead, whoever has it.
func lead(t testing.TB, s *store.Store) store.Leadership {
	t.Helper()
	l, err := s.Lead(t.Context(), claim(t, s, "c1"))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// claim returns a claim of another run to the lease as it stands.
func claim(t testing.TB, s *store.Store, holder member.ID) store.Claim {
	t.Helper()
	return store.Claim{Holder: holder, Instance: rand.Text(), Advertise: string(holder) + ".example:7400", Seen: leaseOf(t, s)}
}

func leaseOf(t testing.TB, s *store.Store) member.Lease {
	t.Helper()
	l, err := s.Lease(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// newPool returns a store that leads and has the pool "web", and that pool's
// position.
func newPool(t testing.TB) (*store.Store, member.Position) {
	t.Helper()
	s := openStore(t, freshURL(t))
	p, err := s.CreatePool(t.Context(), lead(t, s).Epoch, store.NewPool{Name: "web", Settings: member.DefaultSettings()})
	if err != nil {
		t.Fatal(err)
	}
	return s, p.Position
}

func commit(t testing.TB, s *store.Store, c member.Change) member.Position {
	t.Helper()
	if err := s.Commit(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	return member.Position{Epoch: c.Base.Epoch, Revision: c.Revision()}
}

// change returns a change of "web" from base, with an id of its own.
func change(base member.Position) member.Change {
	return member.Change{ID: fmt.Sprintf("change-%d-%d", base.Epoch, base.Revision), Pool: "web", Base: base}
}

// server returns a row with a value in every column.
func server(id member.ID, incarnation member.Incarnation) member.Server {
	return member.Server{
		ID: id, Incarnation: incarnation, Phase: member.PhaseHeld, First: "next", Second: "previous",
		Spec: member.Spec{
			ProbeAddresses: []netip.Addr{netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::7")},
			Probe:          member.Probe{Method: member.ProbeTCP, Port: 22},
			Endpoints: []member.Endpoint{
				{Address: "192.0.2.7:80"}, {Name: "admin", Address: "[2001:db8::7]:81", Protocol: "http"},
			},
			Zone: "z1", Rack: "r1", Weight: 50,
			Labels: map[string]string{"os": "linux", "note": `it's "quoted" \ ü 🦫 `},
		},
		BootID: "boot", InstanceID: "instance", Identity: "spiffe://example/buddyring/agent/web/" + string(id),
		JoinedAt: noon, Since: noon.Add(time.Second), HeldUntil: noon.Add(time.Minute),
	}
}

// bare returns a row with nothing but what every row has.
func bare(id member.ID, incarnation member.Incarnation) member.Server {
	return member.Server{
		ID: id, Incarnation: incarnation, Phase: member.PhaseActive, JoinedAt: noon, Since: noon,
		Spec: member.Spec{ProbeAddresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}},
	}
}

func servers(t testing.TB, s *store.Store) []member.Server {
	t.Helper()
	rows, err := s.Servers(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	for id, why := range rows.Unreadable {
		t.Errorf("%s: %v", id, why)
	}
	return rows.Servers
}

func ids(list []member.Server) []member.ID {
	names := make([]member.ID, len(list))
	for i, s := range list {
		names[i] = s.ID
	}
	return names
}

// events returns the pool's history, oldest first.
func events(t testing.TB, s *store.Store) []member.Event {
	t.Helper()
	list, err := s.EventsFrom(t.Context(), "web", 1, 100)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func diff(t testing.TB, what string, want, got any) {
	t.Helper()
	if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}), cmpopts.EquateEmpty()); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

// alter runs statements behind the store's back.
func alter(t testing.TB, s *store.Store, statements ...string) {
	t.Helper()
	for _, statement := range statements {
		if err := s.Exec(context.Background(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
}

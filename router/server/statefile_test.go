package server

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/statedir"
	"github.com/buddyring/buddyring/router/view"
)

func exampleState() state {
	server := func(id member.ID, phase member.Phase) *view.Server {
		return &view.Server{
			ID: id, Incarnation: 7, Phase: phase, Zone: "z", Weight: 50, Labels: map[string]string{"a": "b"},
			Endpoints: []member.Endpoint{{Name: "http", Address: "192.0.2.1:80", Protocol: "http"}},
		}
	}
	position := member.Position{Epoch: 3, Revision: 1 << 60}
	return state{storeID: "store", pools: []savedPool{
		{
			view: view.Restore("default", view.Snapshot{
				StoreID: "store", Position: position, ChangeID: "3-7-salt",
				Servers: []*view.Server{server("a", member.PhaseActive), server("b", member.PhaseDraining)},
			}, []*view.Server{server("c", member.PhaseActive)}),
			confirmed: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC),
		},
		{view: view.Restore("empty", view.Snapshot{StoreID: "other", Position: position}, nil)},
	}}
}

func TestState_RoundTrip(t *testing.T) {
	t.Parallel()
	want := exampleState()
	data, err := encodeState(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeState(data)
	if err != nil {
		t.Fatal(err)
	}
	if got.storeID != want.storeID || len(got.pools) != len(want.pools) {
		t.Fatalf("store %q with %d pools", got.storeID, len(got.pools))
	}
	for i, p := range got.pools {
		w := want.pools[i]
		if p.view.Pool() != w.view.Pool() || p.view.StoreID() != w.view.StoreID() || p.view.Position() != w.view.Position() ||
			p.view.ChangeID() != w.view.ChangeID() || !p.confirmed.Equal(w.confirmed) {
			t.Errorf("pool %d is %q of %q at %v, confirmed %v", i, p.view.Pool(), p.view.StoreID(), p.view.Position(), p.confirmed)
		}
		if diff := cmp.Diff(w.view.Table().Entries(), p.view.Table().Entries()); diff != "" {
			t.Errorf("entries (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(w.view.Rows(), p.view.Rows(), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("rows (-want +got):\n%s", diff)
		}
	}
}

// reseal gives a document the right first line, so that only its content can be
// wrong.
func reseal(t *testing.T, change ...string) []byte {
	t.Helper()
	data, err := encodeState(exampleState())
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := strings.Cut(string(data), "\n")
	changed := strings.NewReplacer(change...).Replace(body)
	if changed == body {
		t.Fatalf("%q changes nothing", change)
	}
	return statedir.Seal(stateKind, []byte(changed))
}

func TestState_RefusesWhatIsNotWhole(t *testing.T) {
	t.Parallel()
	whole, err := encodeState(exampleState())
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string][]byte{
		"pool":    reseal(t, `"default"`, `"Default"`),
		"id":      reseal(t, `"server_id":"a"`, `"server_id":""`),
		"phase":   reseal(t, `"active"`, `"alive"`),
		"weight":  reseal(t, `"weight":50`, `"weight":10001`),
		"address": reseal(t, `192.0.2.1:80`, `192.0.2.1`),
		"json":    reseal(t, `}`, `]`),
		"version": []byte(strings.Replace(string(whole), " 1 ", " 2 ", 1)),
	}
	for n := range whole {
		if _, err := decodeState(whole[:n]); !errors.Is(err, statedir.ErrCorrupt) {
			t.Fatalf("cut after %d bytes: %v, want %v", n, err, statedir.ErrCorrupt)
		}
	}
	for name, data := range cases {
		if _, err := decodeState(data); !errors.Is(err, statedir.ErrCorrupt) {
			t.Errorf("%s: %v, want %v", name, err, statedir.ErrCorrupt)
		}
	}
}

// FuzzDecodeState takes any document behind a right checksum: whatever is taken
// can be served and written again.
func FuzzDecodeState(f *testing.F) {
	data, err := encodeState(exampleState())
	if err != nil {
		f.Fatal(err)
	}
	_, body, _ := strings.Cut(string(data), "\n")
	f.Add([]byte(body))
	f.Add([]byte(`{"pools":[{"pool":"p","servers":[{"server_id":"a","phase":"active","weight":1},{"server_id":"a","phase":"held"}]}]}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if _, err := decodeState(body); err == nil {
			t.Fatal("taken without a checksum")
		}
		s, err := decodeState(statedir.Seal(stateKind, body))
		if err != nil {
			return
		}
		for _, p := range s.pools {
			for _, policy := range []view.Policy{view.P2C, view.RoundRobin, view.Random} {
				p.view.Table().PickN(nil, &view.Request{Policy: policy, Random: 1, Turn: 1}, 100)
			}
		}
		again, err := encodeState(s)
		if err != nil {
			t.Fatalf("encode what was decoded: %v", err)
		}
		if _, err := decodeState(again); err != nil {
			t.Fatalf("decode what was encoded: %v", err)
		}
	})
}

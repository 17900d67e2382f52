package client

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/statedir"
	"github.com/buddyring/buddyring/router/view"
)

func exampleSaved() saved {
	server := func(id member.ID) *view.Server {
		return &view.Server{
			ID: id, Incarnation: 1 << 60, Phase: member.PhaseActive, Zone: "z", Weight: 0, Labels: map[string]string{"a": "b"},
			Endpoints: []member.Endpoint{{Name: "http", Address: "192.0.2.1:80", Protocol: "http"}},
		}
	}
	return saved{
		pool: "web", confirmed: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC),
		list: &list{storeID: "store", position: member.Position{Epoch: 3, Revision: 1 << 60}, entries: []view.Entry{
			{Server: server("a"), State: view.StateActive},
			{Server: server("b"), State: view.StateServiceDown},
			{Server: server("c"), State: view.StateSuspect},
			{Server: server("d"), State: view.StateHeldBack},
		}},
	}
}

func mustEncode(t testing.TB, s saved) []byte {
	t.Helper()
	data, err := encode(s)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func sameSaved(a, b saved) string {
	return cmp.Diff(a, b, cmp.AllowUnexported(saved{}, list{}), cmp.Comparer(func(a, b *view.Server) bool { return a.Equal(b) }))
}

func TestFile_RoundTrip(t *testing.T) {
	t.Parallel()
	for _, want := range []saved{exampleSaved(), {pool: "empty", list: &list{entries: []view.Entry{}}}} {
		got, err := decode(want.pool, mustEncode(t, want))
		if err != nil {
			t.Fatal(err)
		}
		if diff := sameSaved(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

func TestFile_WhatIsNotWholeIsRefused(t *testing.T) {
	t.Parallel()
	whole := mustEncode(t, exampleSaved())
	for n := range whole {
		if _, err := decode("web", whole[:n]); !errors.Is(err, statedir.ErrCorrupt) {
			t.Fatalf("cut after %d bytes: %v", n, err)
		}
		broken := slices.Clone(whole)
		broken[n] ^= 0x20
		if _, err := decode("web", broken); !errors.Is(err, statedir.ErrCorrupt) {
			t.Fatalf("byte %d changed: %v", n, err)
		}
	}
}

func TestFile_WhatASealDoesNotProveIsChecked(t *testing.T) {
	t.Parallel()
	_, body, _ := strings.Cut(string(mustEncode(t, exampleSaved())), "\n")
	for name, change := range map[string][2]string{
		"pool":    {`"pool":"web"`, `"pool":"db"`},
		"id":      {`"a"`, `"-"`},
		"twins":   {`"b",`, `"a",`},
		"address": {`192.0.2.1:80`, `192.0.2.1`},
		"view":    {`"snapshot"`, `"other"`},
		"json":    {`}`, `]`},
	} {
		changed := strings.ReplaceAll(body, change[0], change[1])
		if changed == body {
			t.Fatalf("%s: %q is not there", name, change[0])
		}
		if _, err := decode("web", statedir.Seal(fileKind, []byte(changed))); !errors.Is(err, statedir.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzDecode feeds the decoder documents with a right first line, which only a
// defect of this program can write. What it takes it must be able to write again.
func FuzzDecode(f *testing.F) {
	_, body, _ := strings.Cut(string(mustEncode(f, exampleSaved())), "\n")
	f.Add([]byte(body))
	f.Add([]byte(`{"pool":"web","view":{}}`))
	f.Add([]byte(`{"pool":"web","view":{"snapshot":{}}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		s, err := decode("web", statedir.Seal(fileKind, body))
		if err != nil {
			if !errors.Is(err, statedir.ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		again, err := decode("web", mustEncode(t, s))
		if err != nil {
			t.Fatal(err)
		}
		again.confirmed = s.confirmed
		if diff := sameSaved(s, again); diff != "" {
			t.Errorf("(-first +again):\n%s", diff)
		}
		unknown(nil).then(s.list)
	})
}

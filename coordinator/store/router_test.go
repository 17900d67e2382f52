package store_test

import (
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/store"
)

func TestRouters(t *testing.T) {
	t.Parallel()
	s := openStore(t, freshURL(t))
	epoch := lead(t, s).Epoch
	put := func(r store.RouterRow) {
		t.Helper()
		if err := s.PutRouter(t.Context(), epoch, r); err != nil {
			t.Fatal(err)
		}
	}
	list := func() []store.RouterRow {
		t.Helper()
		routers, err := s.Routers(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return routers
	}
	diff(t, "at first", []store.RouterRow(nil), list())
	b := store.RouterRow{ID: "b", Version: "1", LastSeen: noon}
	a := store.RouterRow{
		ID: "a", Version: "2", LastSeen: noon.Add(time.Minute),
		Applied: []store.Applied{{Pool: "db", Epoch: 1, Revision: 3}, {Pool: "web", Epoch: 1, Revision: 4}},
	}
	put(b)
	put(a)
	put(a)
	diff(t, "two", []store.RouterRow{a, b}, list())

	late := store.RouterRow{ID: "a", Version: "1", LastSeen: noon}
	put(late)
	diff(t, "after a late write", []store.RouterRow{a, b}, list())
	b.LastSeen, b.Version, b.Applied = noon.Add(time.Hour), "3", a.Applied[:1]
	put(b)
	diff(t, "after news", []store.RouterRow{a, b}, list())

	n, err := s.ForgetRouters(t.Context(), epoch, noon.Add(2*time.Minute))
	if err != nil || n != 1 {
		t.Errorf("forgot %d (%v), want 1", n, err)
	}
	diff(t, "after forgetting", []store.RouterRow{b}, list())
	for range 2 {
		if err := s.DropRouter(t.Context(), epoch, "b"); err != nil {
			t.Fatal(err)
		}
	}
	diff(t, "after dropping", []store.RouterRow(nil), list())
}

package client_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/buddyring/buddyring/client"
)

func TestWatch_YieldsTheNewestView(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		p := w.open(w.config(first))
		var seen []string
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for v := range p.Watch(ctx) {
				ids := []string{}
				for _, s := range v.Servers {
					ids = append(ids, s.ID)
				}
				seen = append(seen, strings.Join(ids, ""))
				time.Sleep(time.Second)
			}
		}()
		s := w.router(first).session()
		s.snapshot(1, 1, "a")
		s.delta(1, 2, []string{"b"}, nil)
		s.delta(1, 3, []string{"c"}, nil)
		time.Sleep(1500 * time.Millisecond)
		s.bookmark(1, 4)
		s.snapshot(1, 4, "c", "b", "a")
		time.Sleep(1500 * time.Millisecond)
		cancel()
		<-ended
		if want := []string{"a", "abc"}; !slices.Equal(seen, want) {
			t.Errorf("seen %q, want %q", seen, want)
		}
	})
}

func TestWatch_EndsWithThePool(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		p := w.open(w.config(first))
		w.router(first).session().snapshot(1, 1, "a")
		n := 0
		go func() {
			time.Sleep(time.Second)
			_ = p.Close()
		}()
		for range p.Watch(t.Context()) {
			n++
		}
		if n != 1 {
			t.Errorf("%d views", n)
		}
		if err := p.Wait(t.Context()); err != nil {
			t.Errorf("a wait for what is known: %v", err)
		}
		if got := slices.Collect(maps.Keys(picks(t, p, 1, client.Request{}))); !slices.Equal(got, []string{"a"}) {
			t.Errorf("a pick after Close: %v", got)
		}
	})
}

func TestWait_EndsWithThePool(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		p := w.open(w.config(first))
		go func() {
			time.Sleep(time.Second)
			_ = p.Close()
		}()
		if err := p.Wait(t.Context()); !errors.Is(err, client.ErrClosed) {
			t.Errorf("the wait ends with %v", err)
		}
	})
}

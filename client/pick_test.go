package client_test

import (
	"errors"
	"fmt"
	"testing"

	"google.golang.org/grpc/credentials/insecure"

	"github.com/buddyring/buddyring/client"
)

func TestPick_PrefersByState(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		p := w.open(w.config(first))
		s := w.router(first).session()
		for _, c := range []struct {
			servers []string
			want    string
		}{
			{[]string{"a", "suspect b", "service_down c", "held_back d"}, "a"},
			{[]string{"suspect b", "service_down c", "held_back d"}, "b"},
			{[]string{"service_down c", "held_back d"}, "c"},
			{[]string{"held_back d"}, "d"},
		} {
			s.snapshot(1, 1, c.servers...)
			if got := picks(t, p, 50, client.Request{}); got[c.want] != 50 {
				t.Errorf("%v: %v", c.servers, got)
			}
		}
		s.snapshot(1, 2)
		if _, err := p.Pick(client.Request{}); !errors.Is(err, client.ErrNoServer) {
			t.Errorf("a pick in an empty pool: %v", err)
		}
	})
}

func TestPick_RequestSaysWhat(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		cfg := w.config(first)
		cfg.Endpoint = "admin"
		p := w.open(cfg)
		w.router(first).session().snapshot(1, 1, "a", "b", "suspect c")
		for _, policy := range []client.Policy{client.DefaultPolicy, client.P2C, client.RoundRobin, client.Random} {
			got := picks(t, p, 200, client.Request{Policy: policy})
			if len(got) != 2 || got["a"] < 50 || got["b"] < 50 {
				t.Errorf("%q: %v", policy, got)
			}
			if got := picks(t, p, 50, client.Request{Policy: policy, Exclude: []string{"a", "b"}}); got["c"] != 50 {
				t.Errorf("%q without a and b: %v", policy, got)
			}
		}
		if got := picks(t, p, 200, client.Request{Policy: client.RoundRobin}); got["a"] != 100 {
			t.Errorf("in turn: %v", got)
		}
		for endpoint, want := range map[string]string{"": "c.test:81", "main": "c.test:80", "admin": "c.test:81"} {
			c, err := p.Pick(client.Request{Endpoint: endpoint, Exclude: []string{"a", "b"}})
			if err != nil || c.Address != want {
				t.Errorf("endpoint %q: %q, %v", endpoint, c.Address, err)
			}
		}
		for name, r := range map[string]client.Request{
			"nobody has it": {Endpoint: "other"}, "nobody is left": {Exclude: []string{"a", "b", "c"}},
		} {
			if _, err := p.Pick(r); !errors.Is(err, client.ErrNoServer) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := p.Pick(client.Request{Policy: "best"}); err == nil || errors.Is(err, client.ErrNoServer) {
			t.Errorf("a policy that is none: %v", err)
		}
	})
}

func TestPick_P2CGoesByWorkInFlight(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		p := w.open(w.config(first))
		s := w.router(first).session()
		s.snapshot(1, 1, "a", "b")
		var busy []client.Choice
		for len(busy) < 10 {
			c, err := p.Pick(client.Request{Exclude: []string{"b"}})
			if err != nil {
				t.Fatal(err)
			}
			busy = append(busy, c)
		}
		if got := picks(t, p, 100, client.Request{}); got["b"] != 100 {
			t.Errorf("with ten in flight on a: %v", got)
		}
		s.delta(1, 2, []string{"b*50"}, nil)
		if got := picks(t, p, 100, client.Request{}); got["b"] < 80 {
			t.Errorf("after a change of the pool: %v", got)
		}
		for _, c := range busy {
			c.Done()
		}
		if got := picks(t, p, 300, client.Request{}); got["a"] < 100 {
			t.Errorf("with none in flight: %v", got)
		}
		busy[0].Done()
		if got := picks(t, p, 300, client.Request{}); got["a"] < 100 {
			t.Errorf("after one Done too many: %v", got)
		}
	})
}

func TestPick_KeyKeepsItsServer(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		p := w.open(w.config(first))
		s := w.router(first).session()
		s.snapshot(1, 1, "a", "b", "c", "d")
		home := func(key string) string {
			for id := range picks(t, p, 10, client.Request{Key: key}) {
				return id
			}
			return ""
		}
		before := map[string]string{}
		for i := range 100 {
			key := fmt.Sprintf("user-%d", i)
			if got := picks(t, p, 10, client.Request{Key: key}); len(got) != 1 {
				t.Fatalf("%s: %v", key, got)
			}
			before[key] = home(key)
		}
		s.delta(1, 2, []string{"suspect a"}, nil)
		moved := 0
		for key, id := range before {
			switch now := home(key); {
			case now == "a":
				t.Errorf("%s is at a suspect", key)
			case id != "a" && now != id:
				moved++
			}
		}
		if moved > 5 {
			t.Errorf("%d keys of others have moved", moved)
		}
	})
}

func TestPick_KeyGivesWayWhenItsServerIsFull(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		p := w.open(w.config(first))
		w.router(first).session().snapshot(1, 1, "a", "b", "c", "d")
		at := map[string]int{}
		for range 100 {
			c, err := p.Pick(client.Request{Key: "hot"})
			if err != nil {
				t.Fatal(err)
			}
			at[c.Server.ID]++
		}
		for id, n := range at {
			if n > 38 {
				t.Errorf("%s has %d of 100 in flight, more than 1.5 times its share", id, n)
			}
		}
	})
}

func TestPick_PrefersItsZone(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		cfg := w.config(first)
		cfg.Zone = "z1"
		p := w.open(cfg)
		s := w.router(first).session()
		s.snapshot(1, 1, "z1/a", "z2/b")
		if got := picks(t, p, 100, client.Request{}); got["a"] != 100 {
			t.Errorf("at home: %v", got)
		}
		s.snapshot(1, 2, "suspect z1/a", "z2/b")
		if got := picks(t, p, 100, client.Request{}); got["b"] != 100 {
			t.Errorf("with a suspect at home: %v", got)
		}
	})
}

func TestOpen_RefusesWhatCannotWork(t *testing.T) {
	t.Parallel()
	good := client.Config{Pool: "web", Routers: []string{first}, Credentials: insecure.NewCredentials()}
	for name, change := range map[string]func(*client.Config){
		"no pool":        func(c *client.Config) { c.Pool = "" },
		"a wrong pool":   func(c *client.Config) { c.Pool = "Web!" },
		"no router":      func(c *client.Config) { c.Routers = nil },
		"no port":        func(c *client.Config) { c.Routers = []string{"router"} },
		"no credentials": func(c *client.Config) { c.Credentials = nil },
		"a wrong policy": func(c *client.Config) { c.Policy = "best" },
	} {
		cfg := good
		change(&cfg)
		if p, err := client.Open(cfg); err == nil {
			t.Errorf("%s: no error", name)
			_ = p.Close()
		}
	}
}

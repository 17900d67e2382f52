package client_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/buddyring/buddyring/client"
)

// routerFor returns the one of two routers that is watched, its session, and the
// other.
func routerFor(t *testing.T, a, b *router) (*router, *session, *router) {
	t.Helper()
	select {
	case s := <-a.sessions:
		return a, s, b
	case s := <-b.sessions:
		return b, s, a
	case <-time.After(time.Minute):
		t.Fatal("nobody watches")
		return nil, nil, nil
	}
}

func TestFollow_SnapshotDeltasAndBookmarks(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		p := w.open(w.config(first))
		if _, err := p.Pick(client.Request{}); !errors.Is(err, client.ErrUnknown) {
			t.Errorf("a pick before anything is known: %v", err)
		}
		s := w.router(first).session()
		s.snapshot(1, 5, "b", "a", "held_back d", "suspect c")
		expect(t, p, "a, b, suspect c, held_back d")
		s.delta(1, 6, []string{"suspect a", "c", "e"}, []string{"d", "unheard-of"})
		expect(t, p, "b, c, e, suspect a")
		s.bookmark(1, 7)
		if v := p.View(); v.Pool != "web" || v.StoreID != "store" || v.Epoch != 1 || v.Revision != 7 {
			t.Errorf("the view is %+v", v)
		}
		s.snapshot(2, 8, "newer f")
		expect(t, p, "held_back f")
	})
}

func TestFollow_LostRouterLosesNothing(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		p := w.open(w.config(first))
		r := w.router(first)
		r.session().snapshot(1, 5, "a", "b")
		r.kill()
		time.Sleep(10 * time.Minute)
		expect(t, p, "a, b")
		if got := picks(t, p, 100, client.Request{}); len(got) != 2 {
			t.Errorf("picks: %v", got)
		}
		st := p.Status()
		if st.Router != "" || st.Failure == nil || time.Since(st.Confirmed) < 10*time.Minute {
			t.Errorf("status of a lost router: %+v", st)
		}
		s := w.router(first).session()
		s.snapshot(1, 6, "a")
		expect(t, p, "a")
		if st := p.Status(); st.Router != first || st.Failure != nil || time.Since(st.Confirmed) != time.Second {
			t.Errorf("status of a router that is back: %+v", st)
		}
	})
}

func TestFollow_RouterWithoutStateLosesNothing(t *testing.T) {
	t.Parallel()
	for name, refusal := range map[string]error{
		"restarted empty": status.Error(codes.Unavailable, "the router has never seen any state"),
		"no such pool":    status.Error(codes.NotFound, "pool web: not found"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inWorld(t, func(t *testing.T, w *world) {
				p := w.open(w.config(first))
				r := w.router(first)
				r.session().snapshot(1, 5, "a", "b")
				r.kill()
				w.refusing(first, refusal)
				time.Sleep(10 * time.Minute)
				expect(t, p, "a, b")
			})
		})
	}
}

func TestFollow_SticksWithARouterUntilItFails(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.router(first), w.router(second)
		p := w.open(w.config(first, second))
		at, s, other := routerFor(t, a, b)
		s.snapshot(1, 5, "a", "b")
		s.keep(time.Minute, 1, 5)
		other.idle()
		at.kill()
		s = other.session()
		s.snapshot(1, 6, "b")
		expect(t, p, "b")
		s.keep(time.Minute, 1, 6)
	})
}

// A router that is out of touch with its coordinators is left for one that is not,
// and looked at again each minute while none is in touch.
func TestFollow_RouterOutOfTouchIsLeft(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.router(first), w.router(second)
		p := w.open(w.config(first, second))
		at, s, other := routerFor(t, a, b)
		s.snapshot(1, 5, "a", "b")
		s.keep(10*time.Second, 1, 5)
		s.stale = true
		start := time.Now()
		s.keep(time.Minute, 1, 5)
		if d := time.Since(start); d < 5*time.Second || d > 7*time.Second {
			t.Errorf("left after %v", d)
		}
		s = other.session()
		s.snapshot(1, 6, "b")
		expect(t, p, "b")
		s.keep(2*time.Minute, 1, 6)
		if s.over() {
			t.Fatal("the one in touch was left")
		}

		s.stale = true
		for range 3 {
			start := time.Now()
			s.keep(5*time.Minute, 1, 6)
			if d := time.Since(start); d > 62*time.Second {
				t.Errorf("left after %v", d)
			}
			at, other = other, at
			s = other.session()
			s.stale = true
			s.snapshot(1, 6, "b")
			expect(t, p, "b")
		}
	})
}

func TestFollow_SilentRouterIsLeft(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.router(first), w.router(second)
		p := w.open(w.config(first, second))
		_, s, other := routerFor(t, a, b)
		s.snapshot(1, 5, "a", "b")
		start := time.Now()
		other.session().snapshot(1, 6, "b")
		if d := time.Since(start); d < 3*time.Second || d > 4*time.Second {
			t.Errorf("left after %v", d)
		}
		expect(t, p, "b")
	})
}

func TestFollow_UnknownPoolIsAnErrorAndAWait(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		r := w.refusing(first, status.Error(codes.NotFound, "pool web: not found"))
		p := w.open(w.config(first))
		time.Sleep(time.Second)
		if _, err := p.Pick(client.Request{}); !errors.Is(err, client.ErrUnknown) || !strings.Contains(err.Error(), "pool web: not found") {
			t.Errorf("the pick says %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		before := r.refusals()
		if err := p.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, client.ErrUnknown) {
			t.Errorf("the wait ends with %v", err)
		}
		if n := r.refusals() - before; n < 10 || n > 60 {
			t.Errorf("asked %d times in a minute", n)
		}
		r.refuse(nil)
		waited := make(chan error, 1)
		go func() { waited <- p.Wait(t.Context()) }()
		r.session().snapshot(1, 1, "a")
		if err := <-waited; err != nil {
			t.Error(err)
		}
		expect(t, p, "a")
	})
}

// TestFollow_WhoIsBelieved lets a second router say something after the first
// one, at 2/10, is gone.
func TestFollow_WhoIsBelieved(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		store           string
		epoch, revision uint64
		stale           bool
		// age is a second if 0.
		age time.Duration
		// at once and after are the pool at once and after half a minute.
		atOnce, after string
	}{
		"the same point, in touch":             {"store", 2, 10, false, 0, "new", "new"},
		"the same point, out of touch":         {"store", 2, 10, true, time.Hour, "old", "old"},
		"later":                                {"store", 2, 11, true, time.Hour, "new", "new"},
		"a later leader":                       {"store", 3, 10, true, time.Hour, "new", "new"},
		"behind, out of touch":                 {"store", 2, 9, true, 0, "old", "old"},
		"behind for long, in touch":            {"store", 2, 9, false, 0, "old", "new"},
		"an earlier leader, in touch":          {"store", 1, 99, false, 0, "old", "old"},
		"another history, in touch":            {"backup", 1, 3, false, 0, "new", "new"},
		"another history, out of touch":        {"backup", 9, 99, true, time.Hour, "old", "old"},
		"another history, with the same point": {"backup", 2, 10, true, time.Hour, "old", "old"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inWorld(t, func(t *testing.T, w *world) {
				a, b := w.router(first), w.router(second)
				p := w.open(w.config(first, second))
				at, s, other := routerFor(t, a, b)
				s.snapshot(2, 10, "old")
				at.kill()
				for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
					s := other.session()
					s.store, s.stale = c.store, c.stale
					s.age = max(s.age, c.age)
					s.snapshot(c.epoch, c.revision, "new")
					if c.atOnce != "" {
						expect(t, p, c.atOnce)
						c.atOnce = ""
					}
					s.keep(time.Until(deadline), c.epoch, c.revision)
				}
				expect(t, p, c.after)
			})
		})
	}
}

func TestFollow_RouterThatCatchesUpIsBelieved(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.router(first), w.router(second)
		p := w.open(w.config(first, second))
		at, s, other := routerFor(t, a, b)
		s.snapshot(2, 10, "a", "b")
		at.kill()
		s = other.session()
		s.snapshot(2, 7, "a", "b", "gone")
		s.delta(2, 9, []string{"suspect a"}, nil)
		expect(t, p, "a, b")
		s.delta(2, 10, nil, []string{"gone"})
		expect(t, p, "b, suspect a")
	})
}

func TestFollow_RouterThatIsFollowedMayGoBack(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		p := w.open(w.config(first))
		s := w.router(first).session()
		s.snapshot(2, 10, "a", "b")
		s.snapshot(2, 4, "c")
		expect(t, p, "c")
	})
}

func TestFollow_BrokenProtocolEndsTheSession(t *testing.T) {
	t.Parallel()
	for name, say := range map[string]func(s *session){
		"a bookmark first":  func(s *session) { s.bookmark(1, 1) },
		"a delta first":     func(s *session) { s.delta(1, 1, []string{"a"}, nil) },
		"twins":             func(s *session) { s.snapshot(1, 1, "a", "a") },
		"twins in a delta":  func(s *session) { s.snapshot(1, 1, "b"); s.delta(1, 2, []string{"a", "a"}, nil) },
		"no id":             func(s *session) { s.snapshot(1, 1, "active ") },
		"an address beyond": func(s *session) { s.snapshot(1, 1, "a:b") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inWorld(t, func(t *testing.T, w *world) {
				p := w.open(w.config(first))
				r := w.router(first)
				s := r.session()
				say(s)
				if !s.over() {
					t.Error("the session goes on")
				}
				before := shown(p)
				if before != "" && before != "b" {
					t.Errorf("the pool is %q", before)
				}
				r.session().snapshot(1, 3, "c")
				expect(t, p, "c")
			})
		})
	}
}

// TestFollow_Resume loses the stream, not the router, and lets the router go on.
func TestFollow_Resume(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		run   string
		again func(s *session)
		want  string
	}{
		"with a delta":              {"run", func(s *session) { s.delta(1, 7, []string{"c"}, []string{"a"}) }, "c, suspect b"},
		"with a bookmark":           {"run", func(s *session) { s.bookmark(1, 6) }, "a, suspect b"},
		"compacted: a snapshot":     {"run", func(s *session) { s.snapshot(1, 999, "c") }, "c"},
		"another run":               {"run", func(s *session) { s.run = "next"; s.snapshot(1, 6, "b", "c") }, "b, c"},
		"a router that has no runs": {"", func(s *session) { s.snapshot(1, 6, "b", "c") }, "b, c"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inWorld(t, func(t *testing.T, w *world) {
				p := w.open(w.config(first))
				r := w.router(first)
				s := r.session()
				s.run = c.run
				if s.req.GetResume() != nil {
					t.Errorf("the first resume point is %v", s.req.GetResume())
				}
				s.snapshot(1, 5, "a")
				s.delta(1, 6, []string{"suspect b"}, nil)
				s.end <- status.Error(codes.Internal, "the stream is lost")
				s = r.session()
				s.run = c.run
				if got := s.req.GetResume(); got.GetRun() != c.run || c.run != "" && (got.GetRevision() != 6 || got.GetEpoch() != 1 || got.GetStoreId() != "store") {
					t.Errorf("the resume point is %v", got)
				}
				expect(t, p, "a, suspect b")
				c.again(s)
				expect(t, p, c.want)
			})
		})
	}
}

// TestFollow_ResumesWithTheRouterThatToldIt goes from one router to the other and
// back.
func TestFollow_ResumesWithTheRouterThatToldIt(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.router(first), w.router(second)
		p := w.open(w.config(first, second))
		at, s, other := routerFor(t, a, b)
		s.run = "one"
		s.snapshot(1, 5, "a", "suspect b")
		s.end <- status.Error(codes.Internal, "the stream is lost")
		s = other.session()
		if s.req.GetResume() != nil {
			t.Errorf("the other router is asked to go on from %v", s.req.GetResume())
		}
		s.run = "two"
		s.snapshot(1, 7, "a", "b", "c")
		s.end <- status.Error(codes.Internal, "the stream is lost")
		s = at.session()
		if got := s.req.GetResume(); got.GetRun() != "one" || got.GetRevision() != 5 {
			t.Errorf("the first router is asked to go on from %v", got)
		}
		s.delta(1, 6, []string{"b"}, nil)
		expect(t, p, "a, b, c")
		s.delta(1, 8, []string{"d"}, nil)
		expect(t, p, "a, b, d")
	})
}

package xds_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/router/view"
)

// settling is a door with a client that has everything, and a change that it has
// not confirmed.
type settling struct {
	*world
	client *client
	update *discoveryv3.DiscoveryResponse
	view   *view.View
	seq    uint64
}

func settle(t *testing.T, w *world) *settling {
	t.Helper()
	s := &settling{world: w, client: w.client(), view: pool("web", row("a", "10.0.0.1:80"), row("b", "10.0.0.2:80"))}
	w.put(s.view)
	s.client.ask(eds, "web")
	s.client.ack(s.client.recv(), "web")
	synctest.Wait()
	s.change("a")
	return s
}

// change takes a server out, and receives that.
func (s *settling) change(id member.ID) {
	s.t.Helper()
	s.view = after(s.t, s.view, nil, left(id))
	s.seq = s.put(s.view)
	s.update = s.client.recv()
}

// took returns how long the state needs to be settled.
func (s *settling) took(seq uint64) time.Duration {
	s.t.Helper()
	begun := time.Now()
	if err := s.door.Settled(s.t.Context(), map[member.Pool]uint64{"web": seq}); err != nil {
		s.t.Error(err)
	}
	return time.Since(begun)
}

func TestSettledWhenConfirmed(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		s := settle(t, w)
		time.AfterFunc(time.Second, func() { s.client.ack(s.update, "web") })
		if took := s.took(s.seq); took != time.Second {
			t.Errorf("settled after %v", took)
		}
		if acks := w.metric("answers_total", "eds", "ack"); acks != 2 {
			t.Errorf("%v confirmations", acks)
		}
		s.client.close()
	})
}

func TestSettledWhenRejected(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		s := settle(t, w)
		time.AfterFunc(time.Second, func() { s.client.nack(s.update, "web") })
		if took := s.took(s.seq); took != time.Second {
			t.Errorf("settled after %v", took)
		}
		if nacks, rejecting := w.metric("answers_total", "eds", "nack"), w.metric("clients_rejecting"); nacks != 1 || rejecting != 1 {
			t.Errorf("%v rejections, %v clients that reject", nacks, rejecting)
		}
		s.change("b")
		s.client.ack(s.update, "web")
		synctest.Wait()
		if rejecting := w.metric("clients_rejecting"); rejecting != 0 {
			t.Errorf("%v clients that reject", rejecting)
		}
		s.client.close()
	})
}

func TestSettledWhenGone(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		s := settle(t, w)
		time.AfterFunc(time.Second, s.client.close)
		if took := s.took(s.seq); took != time.Second {
			t.Errorf("settled after %v", took)
		}
	})
}

func TestSettledWhenPublished(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		s := settle(t, w)
		s.client.ack(s.update, "web")
		time.AfterFunc(time.Second, func() { w.put(after(t, s.view, nil)) })
		if took := s.took(s.seq + 1); took != time.Second {
			t.Errorf("settled after %v", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := w.door.Settled(ctx, map[member.Pool]uint64{"web": s.seq + 2}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		s.client.close()
	})
}

// A client that says nothing holds up one acknowledgement for a while, and no
// other until it has caught up.
func TestASilentClientIsGivenUp(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		s := settle(t, w)
		if took := s.took(s.seq); took != 2*time.Second {
			t.Errorf("settled after %v", took)
		}
		if took := s.took(s.seq); took != 0 {
			t.Errorf("settled again after %v", took)
		}
		if n := w.metric("laggards_total"); n != 1 {
			t.Errorf("%v laggards", n)
		}
		s.client.ack(s.update, "web")
		synctest.Wait()
		if took := s.took(s.seq); took != 0 {
			t.Errorf("settled after %v", took)
		}
		s.change("b")
		if took := s.took(s.seq); took != 2*time.Second {
			t.Errorf("settled after %v", took)
		}
		s.client.close()
	})
}

// Who follows other pools is not waited for, nor is who answers an older response.
func TestOnlyThoseWhoFollowThePoolAreWaitedFor(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.put(pool("db", row("d", "10.0.1.1:80")))
		other := w.client()
		other.ask(eds, "db")
		other.recv() // and says nothing
		s := settle(t, w)
		s.client.send(&discoveryv3.DiscoveryRequest{TypeUrl: eds, ResourceNames: []string{"web"}, ResponseNonce: "1"})
		time.AfterFunc(time.Second, func() { s.client.ack(s.update, "web") })
		if took := s.took(s.seq); took != time.Second {
			t.Errorf("settled after %v", took)
		}
		other.close()
		s.client.close()
	})
}

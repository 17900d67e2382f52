package fleet_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
)

// load is clients that pick a server and ask it, one after the other.
type load struct {
	f *fleet

	mu sync.Mutex
	// down are the servers whose service does not answer.
	down          map[string]bool
	asked, failed int
}

// startLoad lets clients ask until the returned function is called.
func (f *fleet) startLoad(clients int) (l *load, stop func()) {
	l = &load{f: f, down: map[string]bool{}}
	ctx, cancel := context.WithCancel(f.t.Context())
	var all sync.WaitGroup
	for n := range clients {
		all.Go(func() {
			for ctx.Err() == nil {
				l.ask(ctx)
				time.Sleep(time.Duration(3+n) * time.Millisecond)
			}
		})
	}
	stop = sync.OnceFunc(func() { cancel(); all.Wait() })
	f.t.Cleanup(stop)
	return l, stop
}

func (l *load) ask(ctx context.Context) {
	res, err := l.f.picks.Pick(ctx, &routerv1.PickRequest{Pool: "default"})
	if ctx.Err() != nil {
		return
	}
	time.Sleep(time.Millisecond) // on the way to the server
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked++
	if err != nil || l.down[res.GetChoices()[0].GetServerId()] {
		l.failed++
	}
}

func (l *load) set(id string, down bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down[id] = down
}

// Every server of a pool is shut down, is away for a while and comes back, one
// after the other: no request fails.
func TestRollingRestartUnderLoad(t *testing.T) {
	inVirtualTime(t, func(f *fleet) {
		all := names("web", 8)
		f.add(all...)
		f.settled(20*time.Second, all...)
		f.warm()
		l, stop := f.startLoad(4)
		for _, id := range all {
			f.leave(id)
			time.Sleep(5 * time.Millisecond) // a request that was on its way
			l.set(id, true)
			time.Sleep(2 * time.Second)
			l.set(id, false)
			f.startAgent(id)
			f.settled(5*time.Second, all...)
		}
		stop()
		if l.failed > 0 || l.asked < 1000 {
			f.t.Errorf("%d of %d requests failed", l.failed, l.asked)
		}
		f.consistent()
		if got := f.removals(); len(got) != 0 {
			f.t.Errorf("removals: %v", got)
		}
	})
}

// Without a drain the same loses requests: the measure measures.
func TestLoadSeesAStopWithoutADrain(t *testing.T) {
	inVirtualTime(t, func(f *fleet) {
		all := names("web", 4)
		f.add(all...)
		f.settled(20*time.Second, all...)
		f.warm()
		l, stop := f.startLoad(4)
		l.set("web-2", true)
		f.crash("web-2")
		f.settled(5*time.Second, without(all, "web-2")...)
		stop()
		if l.failed == 0 {
			f.t.Error("no request has failed")
		}
	})
}

// The coordinator stops while a server drains for its shutdown, and another one
// takes over: the server leaves, and its agent hears that it was safe.
func TestLeaveThroughARestartOfTheCoordinator(t *testing.T) {
	inVirtualTime(t, func(f *fleet) {
		all := names("web", 4)
		f.add(all...)
		f.settled(20*time.Second, all...)
		f.warm()
		// The router hears nothing, so the leave waits.
		f.network.set(func(n *network) { n.down[routerAddress] = true })
		left := make(chan error, 1)
		go func() { left <- f.servers["web-2"].agent.Leave(context.Background(), "test") }()
		time.Sleep(time.Second)
		f.stopCoordinator()
		f.startCoordinator()
		f.network.set(func(n *network) { delete(n.down, routerAddress) })
		if err := <-left; err != nil {
			f.t.Errorf("leave: %v", err)
		}
		f.settled(5*time.Second, without(all, "web-2")...)
		time.Sleep(10 * time.Second) // the other agents come back meanwhile
		f.consistent()
	})
}

// A drain of half a pool at once stops at the floor, whoever asks.
func TestTheFloorHoldsShutdowns(t *testing.T) {
	inVirtualTime(t, func(f *fleet) {
		all := names("web", 4)
		f.add(all...)
		f.settled(20*time.Second, all...)
		f.warm()
		for _, id := range all[:2] {
			res, err := f.admin.DrainServer(f.t.Context(), &coordinatorv1.DrainServerRequest{ServerId: id, Timeout: durationpb.New(time.Second)})
			if err != nil || res.GetState() != coordinatorv1.DrainState_DRAIN_STATE_SAFE {
				f.t.Errorf("drain: %v, %v", res, err)
			}
		}
		ctx, cancel := context.WithTimeout(f.t.Context(), 5*time.Second)
		defer cancel()
		if err := f.servers["web-3"].agent.Leave(ctx, "test"); err == nil {
			f.t.Error("it has left")
		}
		f.until(time.Second, func() error {
			active, _ := f.routed()
			if len(active) != 2 {
				return fmt.Errorf("routed to %v", active)
			}
			return nil
		})
	})
}

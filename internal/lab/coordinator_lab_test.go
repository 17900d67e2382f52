//go:build lab && linux

package lab_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/buddyring/buddyring/internal/lab"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// operator sets intents one after another for as long as it is let, each with a
// reason of its own, and keeps which were acknowledged.
type operator struct {
	acked []string
	// done is how many those are; it may be read at any time.
	done atomic.Int64
	// asked counts the requests, failed those without an answer.
	asked, failed int
}

func reason(i int) string { return "reason " + strconv.Itoa(i) + "." }

func (o *operator) work(ctx context.Context, admin func() coordinatorv1.AdminServiceClient) {
	for i := 0; ctx.Err() == nil; i++ {
		request := &coordinatorv1.SetIntentRequest{
			Pool: lab.Pool, ServerId: "planned-" + strconv.Itoa(i%20), Wish: coordinatorv1.Wish_WISH_MAINTENANCE,
			Reason: reason(i), RequestId: "request-" + strconv.Itoa(i),
		}
		// Until it is acknowledged it is repeated, under the same request id.
		err := lab.Await(ctx, func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			o.asked++
			_, err := admin().SetIntent(ctx, request)
			if err != nil {
				o.failed++
			}
			return err
		})
		if err != nil {
			return
		}
		o.acked = append(o.acked, request.GetReason())
		o.done.Add(1)
	}
}

// check finds what was acknowledged in the history, exactly once.
func (o *operator) check(events []*coordinatorv1.Event) error {
	found := map[string]int{}
	for _, e := range events {
		if _, because, ok := strings.Cut(e.GetText(), "reason "); ok {
			found["reason "+because]++
		}
	}
	var errs []error
	for _, reason := range o.acked {
		if n := found[reason]; n != 1 {
			errs = append(errs, fmt.Errorf("the intent with %q was acknowledged, and is %d times in the history", reason, n))
		}
	}
	return errors.Join(errs...)
}

// kill kills the coordinator and starts it again.
func (w *world) kill() {
	w.t.Helper()
	w.Coordinator().Kill()
	if err := w.StartCoordinator(); err != nil {
		w.t.Fatal(err)
	}
}

func TestCoordinatorKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	const servers = 12
	w := newWorld(t, 0, names(servers)...)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	o := &operator{}
	var working sync.WaitGroup
	working.Go(func() { o.work(ctx, w.Admin) })
	// The joins are a storm, and the coordinator dies in the middle of it.
	for _, server := range names(servers) {
		w.start(lab.AgentConfig{Server: server})
	}
	w.servers = names(servers)
	kills := 6
	if watched(0, 1) == 1 {
		kills = 60
	}
	for range kills {
		time.Sleep(rand.N(600 * time.Millisecond))
		w.kill()
	}
	w.settled()
	stop()
	working.Wait()
	events, err := w.intents()
	if err != nil {
		t.Fatal(err)
	}
	if err := o.check(events); err != nil {
		t.Error(err)
	}
	if len(o.acked) == 0 {
		t.Error("no request was ever acknowledged: the test has shown nothing")
	}
	t.Logf("%d kills, %d requests, %d without an answer, %d members", kills, o.asked, o.failed, len(w.servers))
	w.nobodyRemoved()
}

func names(n int) (all []string) {
	for i := range n {
		all = append(all, "web-"+strconv.Itoa(i+1))
	}
	return all
}

// intents returns all events about intents, newest first.
func (w *world) intents() (all []*coordinatorv1.Event, err error) {
	for token := ""; ; {
		page, err := w.Admin().ListEvents(w.t.Context(), &coordinatorv1.ListEventsRequest{
			Pool: lab.Pool, Kinds: []string{"intent"}, PageSize: 1000, PageToken: token,
		})
		if err != nil {
			return nil, err
		}
		all = append(all, page.GetEvents()...)
		if token = page.GetNextPageToken(); token == "" {
			return all, nil
		}
	}
}

func TestAgentsComeBackAfterACoordinatorOutage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 5)
	before := w.ring()
	w.Coordinator().Kill()
	// The router serves on, and says how old its view is.
	w.watchRouter(3 * time.Second)
	if err := w.StartCoordinator(); err != nil {
		t.Fatal(err)
	}
	w.settled()
	sameRing(t, before, w.ring())
	w.nobodyRemoved()
}

// watchRouter checks for a while that the router names all servers as well, but for
// a blink.
func (w *world) watchRouter(d time.Duration) {
	w.t.Helper()
	well := time.Now()
	for end := well.Add(d); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		err := w.routed(w.t.Context())
		switch {
		case err == nil:
			well = time.Now()
		case !errors.Is(err, errSuspect) || time.Since(well) > blink():
			w.t.Fatal(err)
		}
	}
}

func TestCoordinatorStoppedForAWhileRemovesNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 5)
	before := w.ring()
	coordinator := w.Coordinator()
	if err := coordinator.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	w.watchRouter(5 * time.Second)
	if err := coordinator.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	w.watch(5 * time.Second)
	w.settled()
	sameRing(t, before, w.ring())
	w.nobodyRemoved()
}

func TestRouterServesAfterARestartWithoutACoordinator(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 4)
	w.await("the view on the router's disk", func(context.Context) error {
		text, err := os.ReadFile(filepath.Join(w.dir, "router-1", "router.view"))
		if n := bytes.Count(text, []byte(`"phase":"active"`)); err == nil && n != len(w.servers) {
			err = fmt.Errorf("it has %d active servers", n)
		}
		return err
	})
	w.Coordinator().Kill()
	w.RouterProcess(0).Kill()
	if err := w.StartRouter(0); err != nil {
		t.Fatal(err)
	}
	w.await("the router's answer from disk", w.routed)
}

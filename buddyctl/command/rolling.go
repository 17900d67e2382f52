package command

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/buddyring/buddyring/buddyctl/output"
	"github.com/buddyring/buddyring/internal/member"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

const (
	// lookEvery is how often a server is looked at that is to come back.
	lookEvery = 250 * time.Millisecond
	// defaultBack is how long it may take.
	defaultBack = 5 * time.Minute
	// defaultSteady is longer than a service that is down passes for well: three
	// checks a second apart, the last of which takes a second.
	defaultSteady = 5 * time.Second
	// killAfter is how long a command may take to end when it is told to.
	killAfter = 10 * time.Second
)

// rolling is a rolling restart.
type rolling struct {
	*app

	zone, reason string
	parallel     int
	wait, back   time.Duration
	// steady is how long a server must be well without a break before it is resumed.
	steady time.Duration
	// rejoins says that the command makes the agent leave and join again.
	rejoins, partial bool
	progress         string
	command          []string

	// mu guards what is written.
	mu   sync.Mutex
	log  *progress
	all  int
	done int
}

func (a *app) rollingCommand() *cobra.Command {
	r := &rolling{app: a}
	cmd := &cobra.Command{
		Use:   "rolling-restart [flags] -- COMMAND [ARGUMENT]...",
		Short: "Restart the servers of a pool one after the other, each drained first",
		Long: "rolling-restart walks a pool: it drains a server, runs COMMAND when it is safe to stop it, waits\n" +
			"until the server is back, resumes it, waits until it is active, and goes on. Never two neighbours\n" +
			"on the ring at once, never below the floor, and it stops at the first thing that goes wrong.\n\n" +
			"COMMAND runs here, with BUDDYRING_SERVER_ID, BUDDYRING_POOL, BUDDYRING_INCARNATION, BUDDYRING_ZONE,\n" +
			"BUDDYRING_RACK, BUDDYRING_ADDRESSES and BUDDYRING_ENDPOINTS (with commas between) in its environment.\n" +
			"A server is back when its agent is connected, its service passes its checks and nobody suspects it,\n" +
			"all of that for --steady, so that a check has had time to fail. If COMMAND makes the agent leave and\n" +
			"join again, as a reboot does, say --rejoins.",
		Example: "  buddyctl rolling-restart --progress web.log -- sh -c 'ssh $BUDDYRING_SERVER_ID systemctl restart web'\n" +
			"  buddyctl rolling-restart --rejoins -- sh -c 'ssh $BUDDYRING_SERVER_ID reboot; true'",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if r.parallel < 1 || r.wait < 0 || r.back <= 0 || r.steady < 0 {
				return member.Invalid("parallel, wait, back and steady", "must be more than nothing")
			}
			r.command = args
			return r.run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.StringVar(&r.zone, "zone", "", "only the servers of this zone")
	f.IntVar(&r.parallel, "parallel", 1, "how many at once")
	f.DurationVar(&r.wait, "wait", defaultWait, "how long routers may take to confirm each drain")
	f.DurationVar(&r.back, "back", defaultBack, "how long each server may take to be back and active after its command")
	f.DurationVar(&r.steady, "steady", defaultSteady, "how long each server must be well before it gets work again")
	f.BoolVar(&r.rejoins, "rejoins", false, "wait for a new incarnation of each server")
	f.BoolVar(&r.partial, "allow-partial", false, "go on though some routers have not confirmed")
	f.StringVar(&r.progress, "progress", "", "`FILE` that remembers which servers are done: the same command goes on from there")
	f.StringVar(&r.reason, "reason", "rolling restart", "why, for the history")
	complete(cmd, "zone", cobra.NoFileCompletions)
	return cmd
}

// run restarts all servers, and ends at the first failure when those under way
// have ended.
func (r *rolling) run(ctx context.Context) error {
	var err error
	if r.log, err = openProgress(r.progress); err != nil {
		return err
	}
	pending, err := r.pending(ctx)
	if err != nil {
		return errors.Join(err, r.log.close())
	}
	r.all = len(pending)
	ended := make(chan ending)
	under := map[string]bool{}
	var failed error
	for {
		for failed == nil && len(under) < r.parallel && len(pending) > 0 {
			next, err := r.next(ctx, pending, under)
			if err != nil {
				failed = err
			}
			if next < 0 {
				break
			}
			id := pending[next]
			pending = slices.Delete(pending, next, next+1)
			under[id] = true
			go func() { ended <- ending{id, r.restart(ctx, id)} }()
		}
		if len(under) == 0 {
			break
		}
		e := <-ended
		delete(under, e.id)
		failed = errors.Join(failed, e.err)
	}
	return errors.Join(r.sum(failed), r.log.close())
}

// ending is how the restart of one server has ended.
type ending struct {
	id  string
	err error
}

// sum says where the walk stands.
func (r *rolling) sum(failed error) error {
	if failed == nil {
		return r.tell("all of %s restarted", count(uint32(r.done), "server"))
	}
	again := "run the same command again to go on"
	if r.progress == "" {
		again = "with --progress FILE the same command would go on from here"
	}
	return fmt.Errorf("stopped after %d of %d servers: %w; %s", r.done, r.all, failed, again)
}

// tell writes a line.
func (r *rolling) tell(format string, args ...any) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return say(r.Stdout, format, args...)
}

// pending lists the servers to restart by id. Who is drained already is somebody
// else's, unless an earlier run has begun with it.
func (r *rolling) pending(ctx context.Context) ([]string, error) {
	var servers []*coordinatorv1.Server
	err := r.askAdmin(ctx, func(ctx context.Context, c coordinatorv1.AdminServiceClient) error {
		list, err := listServers(ctx, c, &coordinatorv1.ListServersRequest{Pool: r.pool, Zone: r.zone})
		servers = list.GetServers()
		return err
	})
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, s := range servers {
		id := s.GetServerId()
		switch {
		case r.log.is(id, progressDone):
		case s.GetIntent() == coordinatorv1.Wish_WISH_DRAIN && !r.log.is(id, progressBegun):
			if err := r.tell("%s is drained already, and left alone", id); err != nil {
				return nil, err
			}
		default:
			ids = append(ids, id)
		}
	}
	// What was begun comes first.
	slices.SortStableFunc(ids, func(a, b string) int { return r.log.order(a) - r.log.order(b) })
	return ids, nil
}

// next chooses a server that is no neighbour of those under way; -1 for none now.
func (r *rolling) next(ctx context.Context, pending []string, under map[string]bool) (int, error) {
	if len(under) == 0 {
		return 0, nil
	}
	var ring *coordinatorv1.GetRingResponse
	err := r.askAdmin(ctx, func(ctx context.Context, c coordinatorv1.AdminServiceClient) (err error) {
		ring, err = c.GetRing(ctx, &coordinatorv1.GetRingRequest{Pool: r.pool})
		return err
	})
	if err != nil {
		return -1, err
	}
	beside := map[string]bool{}
	for _, m := range ring.GetMembers() {
		if under[m.GetServerId()] {
			beside[m.GetFirstBuddy()], beside[m.GetSecondBuddy()] = true, true
		}
	}
	return slices.IndexFunc(pending, func(id string) bool { return !beside[id] }), nil
}

// restart does all for one server.
func (r *rolling) restart(ctx context.Context, id string) error {
	begin := time.Now()
	before, err := r.server(ctx, id)
	if errors.Is(err, member.ErrNotFound) {
		return r.tell("%s has left meanwhile", id)
	}
	if err != nil {
		return err
	}
	if err := r.log.add(id, progressBegun); err != nil {
		return err
	}
	if err := r.drained(ctx, id); err != nil {
		return err
	}
	if err := r.execute(ctx, before); err != nil {
		return fmt.Errorf("command for %s: %w; it stays drained: mend it, and then buddyctl resume %s", id, err, id)
	}
	old := uint64(0)
	if r.rejoins {
		old = before.GetIncarnation()
	}
	if err := r.await(ctx, id, awaited{old, resumable, r.steady}); err != nil {
		return err
	}
	_, err = r.resume(ctx, &coordinatorv1.ResumeServerRequest{Pool: r.pool, ServerId: id, Reason: r.reason, RequestId: rand.Text()})
	if err != nil {
		return fmt.Errorf("resume %s: %w", id, err)
	}
	if err := r.await(ctx, id, awaited{wanted: active}); err != nil {
		return err
	}
	if err := r.log.add(id, progressDone); err != nil {
		return err
	}
	r.mu.Lock()
	r.done++
	n := r.done
	r.mu.Unlock()
	return r.tell("%s is back after %.1f s, %d of %d", id, time.Since(begin).Seconds(), n, r.all)
}

// drained makes it safe to stop a server, or leaves it as it was.
func (r *rolling) drained(ctx context.Context, id string) error {
	answer, err := r.drain(ctx, &coordinatorv1.DrainServerRequest{
		Pool: r.pool, ServerId: id, Timeout: durationpb.New(r.wait), Reason: r.reason, RequestId: rand.Text(),
	})
	if err != nil {
		return fmt.Errorf("drain %s: %w", id, err)
	}
	if answer.GetState() != coordinatorv1.DrainState_DRAIN_STATE_PARTIAL {
		return r.tell("%s is safe to stop", id)
	}
	who := r.missing(answer.GetMissing())
	if r.partial {
		return r.tell("%s may get work still: not confirmed by %s", id, who)
	}
	_, err = r.resume(ctx, &coordinatorv1.ResumeServerRequest{Pool: r.pool, ServerId: id, Reason: r.reason, RequestId: rand.Text()})
	return errors.Join(fmt.Errorf("drain %s: PARTIAL, not confirmed by %s; it was resumed; --allow-partial goes on without them", id, who), err)
}

func (r *rolling) execute(ctx context.Context, s *coordinatorv1.Server) error {
	c := exec.CommandContext(ctx, r.command[0], r.command[1:]...) //nolint:gosec // it is the operator's own
	c.Stdout, c.Stderr, c.WaitDelay = r.Stdout, r.Stderr, killAfter
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
	var endpoints []string
	for _, e := range s.GetSpec().GetEndpoints() {
		endpoints = append(endpoints, e.GetAddress())
	}
	c.Env = append(os.Environ(),
		"BUDDYRING_SERVER_ID="+s.GetServerId(), "BUDDYRING_POOL="+s.GetPool(),
		fmt.Sprintf("BUDDYRING_INCARNATION=%d", s.GetIncarnation()),
		"BUDDYRING_ZONE="+s.GetSpec().GetZone(), "BUDDYRING_RACK="+s.GetSpec().GetRack(),
		"BUDDYRING_ADDRESSES="+strings.Join(s.GetSpec().GetProbeAddresses(), ","),
		"BUDDYRING_ENDPOINTS="+strings.Join(endpoints, ","))
	if r.Exec != nil {
		return r.Exec(c)
	}
	return c.Run()
}

// resumable says that a server is back, and only its drain keeps work away.
func resumable(s *coordinatorv1.Server) bool {
	return active(s) || well(s) && s.GetPhase() == coordinatorv1.Phase_PHASE_DRAINING
}

// active says that a server gets work.
func active(s *coordinatorv1.Server) bool {
	return well(s) && s.GetPhase() == coordinatorv1.Phase_PHASE_ACTIVE
}

func well(s *coordinatorv1.Server) bool {
	return s.GetAgentConnected() && !s.GetSuspect() && s.GetServiceText() == ""
}

// awaited is how a server is to be: in another incarnation than an old one, and as
// wanted for so long without a break.
type awaited struct {
	old    uint64
	wanted func(*coordinatorv1.Server) bool
	steady time.Duration
}

// await waits until a server is in a state.
func (r *rolling) await(ctx context.Context, id string, want awaited) error {
	limit := time.Now().Add(r.back)
	var since time.Time
	for {
		s, err := r.server(ctx, id)
		is := err == nil && s.GetIncarnation() != want.old && want.wanted(s)
		switch {
		case !is:
			since = time.Time{}
		case since.IsZero():
			since = time.Now()
		}
		switch {
		case is && time.Since(since) >= want.steady:
			return nil
		case err != nil && !errors.Is(err, member.ErrNotFound) && !elsewhere(err):
			return err
		case time.Now().After(limit):
			return fmt.Errorf("%s is not back within %s: %s: %w", id, r.back, standing(s, err), context.DeadlineExceeded)
		}
		select {
		case <-time.After(lookEvery):
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", id, ctx.Err())
		}
	}
}

// standing says in plain words why a server is not back.
func standing(s *coordinatorv1.Server, err error) string {
	switch {
	case err != nil:
		return err.Error()
	case !s.GetAgentConnected():
		return "its agent is not connected"
	case s.GetSuspect():
		return "it is suspect"
	case s.GetServiceText() != "":
		return "its service is down: " + s.GetServiceText()
	}
	return fmt.Sprintf("it is %s in incarnation %d, and waits for %s", output.Name(s.GetPhase()), s.GetIncarnation(), s.GetWaitingFor())
}

func (r *rolling) server(ctx context.Context, id string) (*coordinatorv1.Server, error) {
	var s *coordinatorv1.Server
	err := r.askAdmin(ctx, func(ctx context.Context, c coordinatorv1.AdminServiceClient) error {
		answer, err := c.GetServer(ctx, &coordinatorv1.GetServerRequest{Pool: r.pool, ServerId: id})
		s = answer.GetServer()
		return err
	})
	return s, err
}

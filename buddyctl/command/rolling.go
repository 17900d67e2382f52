package command

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/buddyring/buddyring/internal/member"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

const (
	// defaultBack is how long a server may take to be back.
	defaultBack = 5 * time.Minute
	// defaultSteady is longer than a service that is down passes for well: three
	// checks a second apart, the last of which takes a second.
	defaultSteady = 5 * time.Second
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

	turns turns

	// mu guards what is written.
	mu   sync.Mutex
	log  *progress
	all  int
	done int
	// alone is how many were left to whom they belong.
	alone int
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
	r.all, r.turns.away = len(pending), map[string]bool{}
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
		if e.err != nil {
			failed = errors.Join(failed, e.err)
			r.turns.stop()
		}
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
		if r.alone > 0 {
			return r.tell("all of %s restarted, %d left alone", count(uint32(r.done), "server"), r.alone)
		}
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
// else's, unless an earlier run has begun with it, and so is who is in maintenance:
// resuming it would end that.
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
		id, others := s.GetServerId(), ""
		switch {
		case r.log.is(id, progressDone):
			continue
		case s.GetIntent() == coordinatorv1.Wish_WISH_DRAIN && !r.log.is(id, progressBegun):
			others = "drained already"
		case s.GetIntent() == coordinatorv1.Wish_WISH_MAINTENANCE:
			others = "in maintenance"
		}
		if others == "" {
			ids = append(ids, id)
			continue
		}
		r.alone++
		if err := r.tell("%s is %s, and left alone", id, others); err != nil {
			return nil, err
		}
	}
	// What was begun comes first.
	slices.SortStableFunc(ids, func(a, b string) int { return r.log.order(a) - r.log.order(b) })
	return ids, nil
}

// next chooses a server that is no neighbour of those under way; -1 for none now.
func (r *rolling) next(ctx context.Context, pending []string, under map[string]bool) (int, error) {
	beside, err := r.beside(ctx, under)
	if err != nil {
		return -1, err
	}
	return slices.IndexFunc(pending, func(id string) bool { return !beside[id] }), nil
}

// beside are the neighbours of servers on the ring as it is now.
func (r *rolling) beside(ctx context.Context, servers map[string]bool) (map[string]bool, error) {
	beside := map[string]bool{}
	if len(servers) == 0 {
		return beside, nil
	}
	var ring *coordinatorv1.GetRingResponse
	err := r.askAdmin(ctx, func(ctx context.Context, c coordinatorv1.AdminServiceClient) (err error) {
		ring, err = c.GetRing(ctx, &coordinatorv1.GetRingRequest{Pool: r.pool})
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, m := range ring.GetMembers() {
		if servers[m.GetServerId()] {
			beside[m.GetFirstBuddy()], beside[m.GetSecondBuddy()] = true, true
		}
	}
	return beside, nil
}

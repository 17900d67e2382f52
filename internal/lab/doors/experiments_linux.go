package doors

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/buddyring/buddyring/internal/lab"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// experiments makes all of them, one after the other.
func (r *run) experiments(ctx context.Context) error {
	all := []func(context.Context) error{r.restartByShutdown, r.restartByOperator}
	if r.cfg.DNS {
		all = append(all, r.loseRouter, r.restartRouter, r.loseCoordinator, r.restartCoordinator, r.loseServer)
	}
	r.begun = time.Now()
	for _, experiment := range all {
		if err := experiment(ctx); err != nil {
			return err
		}
	}
	return nil
}

// restartByShutdown stops each agent by SIGTERM and its service then, and starts
// both again.
func (r *run) restartByShutdown(ctx context.Context) error {
	for _, id := range r.servers {
		if err := r.leave(ctx, id); err != nil {
			return err
		}
		if err := errors.Join(r.restartService(ctx, id), r.startAgent(id), r.settle(ctx)); err != nil {
			return err
		}
	}
	r.over(Experiment{Name: "rolling restart by SIGTERM to the agents"})
	return nil
}

// leave ends an agent as its host's shutdown does.
func (r *run) leave(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := r.agents[id].Terminate(ctx); err != nil {
		return err
	}
	if !strings.Contains(r.Log("agent-"+id), "SAFE") {
		return fmt.Errorf("the agent of %s does not say that it is safe to stop", id)
	}
	return nil
}

// restartByOperator lets buddyctl walk the pool. Its command asks for the restart of
// a service, by a file, and waits until the file is gone.
func (r *run) restartByOperator(ctx context.Context) error {
	const command = `touch "$STOP/$BUDDYRING_SERVER_ID"; while [ -e "$STOP/$BUDDYRING_SERVER_ID" ]; do sleep 0.02; done`
	dir := filepath.Join(r.cfg.Dir, "stop")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, filepath.Join(r.cfg.Bin, "buddyctl"), //nolint:gosec // it is the one under test
		"rolling-restart", "--admin", r.AdminAddress(), "--insecure", "--steady", "300ms", "--", "sh", "-c", command)
	cmd.Env = append(os.Environ(), "STOP="+dir)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start buddyctl: %w", err)
	}
	err := r.restartAsked(ctx, dir)
	if err != nil {
		_ = cmd.Process.Kill() // it may have ended
	}
	if err := errors.Join(err, cmd.Wait()); err != nil {
		return fmt.Errorf("%w\n%s", err, &out)
	}
	r.over(Experiment{Name: "buddyctl rolling-restart"})
	return nil
}

// restartAsked restarts services as files in a folder ask for it.
func (r *run) restartAsked(ctx context.Context, dir string) error {
	for left := slices.Clone(r.servers); len(left) > 0; {
		next := -1
		err := await(ctx, "the next restart", func(context.Context) error {
			next = slices.IndexFunc(left, func(id string) bool {
				_, err := os.Stat(filepath.Join(dir, id))
				return err == nil
			})
			if next < 0 {
				return errors.New("nobody asks for one")
			}
			return nil
		})
		if err != nil {
			return err
		}
		id := left[next]
		if err := errors.Join(r.restartService(ctx, id), os.Remove(filepath.Join(dir, id))); err != nil {
			return err
		}
		left = slices.Delete(left, next, next+1)
	}
	return nil
}

// loseRouter kills one of two routers; clients go to the other one.
func (r *run) loseRouter(ctx context.Context) error {
	r.RouterProcess(0).Kill()
	if err := pause(ctx, r.cfg.Router); err != nil {
		return err
	}
	r.over(Experiment{Name: "SIGKILL of one router of two"})
	return nil
}

// restartRouter drains a server while the router is missed, for nothing is safe
// without it, and again when it is back.
func (r *run) restartRouter(ctx context.Context) error {
	id := r.servers[0]
	const partial, safe = coordinatorv1.DrainState_DRAIN_STATE_PARTIAL, coordinatorv1.DrainState_DRAIN_STATE_SAFE
	if err := r.drain(ctx, id, time.Second, partial); err != nil {
		return err
	}
	if err := r.StartRouter(0); err != nil {
		return err
	}
	if err := r.drain(ctx, id, patience, safe); err != nil {
		return err
	}
	if _, err := r.Admin().ResumeServer(ctx, &coordinatorv1.ResumeServerRequest{Pool: lab.Pool, ServerId: id}); err != nil {
		return fmt.Errorf("resume %s: %w", id, err)
	}
	if err := r.settle(ctx); err != nil {
		return err
	}
	r.over(Experiment{Name: "restart of that router, drains meanwhile"})
	return nil
}

// drain drains a server and expects an outcome.
func (r *run) drain(ctx context.Context, id string, timeout time.Duration, want coordinatorv1.DrainState) error {
	res, err := r.Admin().DrainServer(ctx, &coordinatorv1.DrainServerRequest{
		Pool: lab.Pool, ServerId: id, Timeout: durationpb.New(timeout),
	})
	if err != nil {
		return fmt.Errorf("drain %s: %w", id, err)
	}
	if res.GetState() != want {
		return fmt.Errorf("drain %s: %v, missing %v; want %v", id, res.GetState(), res.GetMissing(), want)
	}
	return nil
}

// loseCoordinator kills the coordinator, and with it its database.
func (r *run) loseCoordinator(ctx context.Context) error {
	r.Coordinator().Kill()
	if err := pause(ctx, r.cfg.Coordinator); err != nil {
		return err
	}
	r.over(Experiment{Name: "coordinator and database dead"})
	return nil
}

// restartCoordinator waits until the leader's warm-up is over, in which nobody is
// removed.
func (r *run) restartCoordinator(ctx context.Context) error {
	if err := errors.Join(r.StartCoordinator(), r.settle(ctx)); err != nil {
		return err
	}
	err := await(ctx, "the end of the warm-up", func(ctx context.Context) error {
		pool, err := r.Admin().GetPool(ctx, &coordinatorv1.GetPoolRequest{Pool: lab.Pool})
		if warming := pool.GetPool().WarmingUp; err == nil && (warming == nil || *warming) {
			err = errors.New("it warms up, or does not lead yet")
		}
		return err
	})
	if err != nil {
		return err
	}
	r.over(Experiment{Name: "their return"})
	removals, err := r.Removals(ctx)
	if err != nil {
		return err
	}
	for _, e := range removals {
		if e.GetCause() != coordinatorv1.Cause_CAUSE_SHUTDOWN {
			return fmt.Errorf("%s was removed without a crash: %v, %s", e.GetServerId(), e.GetCause(), e.GetText())
		}
	}
	return nil
}

// loseServer pulls a cable and kills the agent: requests fail until routers hear
// that the server is suspect.
func (r *run) loseServer(ctx context.Context) error {
	id := r.servers[3]
	row, err := r.Admin().GetServer(ctx, &coordinatorv1.GetServerRequest{Pool: lab.Pool, ServerId: id})
	if err != nil {
		return fmt.Errorf("look at %s: %w", id, err)
	}
	crash := time.Now()
	r.begun = crash
	if err := r.agents[id].Crash(); err != nil {
		return err
	}
	limited, cancel := context.WithTimeoutCause(ctx, patience, errors.New("the crashed server stays"))
	defer cancel()
	why, _, err := r.Removed(limited, id, row.GetServer().GetIncarnation())
	if err != nil {
		return err
	}
	e := Experiment{Name: "crash of one server", Crash: true}
	for _, m := range why.GetTimeline() {
		if m.GetKind() == "suspect" {
			e.Suspect = why.GetStarted().AsTime().Add(m.GetAt().AsDuration()).Sub(crash)
		}
	}
	// Who was under way then.
	if err := pause(ctx, requestTime+pickTime); err != nil {
		return err
	}
	r.over(e)
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

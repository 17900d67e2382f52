package command

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/buddyring/buddyring/buddyctl/output"
	"github.com/buddyring/buddyring/internal/member"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

const (
	// lookEvery is how often a server is looked at that is to come back.
	lookEvery = 250 * time.Millisecond
	// killAfter is how long a command may take to end when it is told to.
	killAfter = 10 * time.Second
)

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
	if err := r.awaitTurn(ctx, id); err != nil {
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
		return fmt.Errorf("%w; it stays drained: buddyctl resume %s when it is well", err, id)
	}
	r.turns.comeBack(id)
	_, err = r.resume(ctx, &coordinatorv1.ResumeServerRequest{Pool: r.pool, ServerId: id, Reason: r.reason, RequestId: rand.Text()})
	if err != nil {
		return fmt.Errorf("resume %s: %w; unless it was resumed all the same, it stays drained: buddyctl resume %s", id, err, id)
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
		return r.undrained(id, err)
	}
	if answer.GetState() != coordinatorv1.DrainState_DRAIN_STATE_PARTIAL {
		return r.tell("%s is safe to stop", id)
	}
	who := r.missing(answer.GetMissing())
	if r.partial {
		return r.tell("%s may get work still: not confirmed by %s", id, who)
	}
	// Also when the walk was told to end meanwhile.
	_, err = r.resume(context.WithoutCancel(ctx), &coordinatorv1.ResumeServerRequest{Pool: r.pool, ServerId: id, Reason: r.reason, RequestId: rand.Text()})
	return errors.Join(fmt.Errorf("drain %s: PARTIAL, not confirmed by %s; it was resumed; --allow-partial goes on without them", id, who), err)
}

// undrained says what to do about a drain that has failed. Where no leader could
// say so, it may have been made.
func (r *rolling) undrained(id string, err error) error {
	err = fmt.Errorf("drain %s: %w", id, err)
	switch {
	case !elsewhere(err):
		return err
	case r.progress == "":
		return fmt.Errorf("%w; %s may be drained all the same, and then the next run leaves it alone: buddyctl resume %s first", err, id, id)
	}
	return fmt.Errorf("%w; %s may be drained all the same: the next run takes it up again, buddyctl resume %s gives it work till then", err, id, id)
}

// execute runs the operator's command for a server.
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

package command

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/buddyring/buddyring/buddyctl/output"
	"github.com/buddyring/buddyring/internal/member"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// defaultWait is how long routers may take to confirm a drain.
const defaultWait = 10 * time.Second

func (a *app) drainCommand() *cobra.Command {
	var m mutation
	var wait time.Duration
	var incarnation uint64
	var force bool
	cmd := &cobra.Command{
		Use:   "drain SERVER",
		Short: "Take a server out of routing, and say when it is safe to stop it",
		Long: "drain sees to it that a server gets no new work, and waits until every router, and its clients,\n" +
			"have confirmed that. The server stays in the ring and draining, also through a restart, until\n" +
			"\"buddyctl resume SERVER\", or until it shuts down.\n\n" +
			"Exit status: 0 SAFE, 1 PARTIAL: routers that have not confirmed are named, 4 refused: too many\n" +
			"others are away, 5 no answer in time.",
		Example:           "  buddyctl drain web-3 --reason \"new kernel\"\n  buddyctl resume web-3",
		Args:              exactly("SERVER"),
		ValidArgsFunction: arguments(a.completeServers),
		RunE: func(cmd *cobra.Command, args []string) error {
			if wait < 0 {
				return member.Invalid("wait", "%s is less than nothing", wait)
			}
			req := &coordinatorv1.DrainServerRequest{
				Pool: a.pool, ServerId: args[0], Incarnation: incarnation, Timeout: durationpb.New(wait), Force: force,
				ExpectedRevision: m.revision, RequestId: m.requestID, Reason: m.reason, ValidateOnly: m.validateOnly,
			}
			answer, err := a.drain(cmd.Context(), req)
			if err != nil {
				return m.unsure(err)
			}
			if err := a.show(answer, func(w io.Writer) error { return a.writeDrained(w, &m, args[0], answer) }); err != nil {
				return err
			}
			if answer.GetState() == coordinatorv1.DrainState_DRAIN_STATE_PARTIAL {
				return &noError{"some routers have not confirmed"}
			}
			return nil
		},
	}
	cmd.Flags().DurationVar(&wait, "wait", defaultWait, "how long routers may take to confirm")
	cmd.Flags().Uint64Var(&incarnation, "incarnation", 0, "only this incarnation; 0 for any")
	cmd.Flags().BoolVar(&force, "force", false, "however many others are away")
	m.flags(cmd, true)
	return cmd
}

// drain asks a coordinator to drain a server, and gives every address the time of
// the wait.
func (a *app) drain(ctx context.Context, req *coordinatorv1.DrainServerRequest) (answer *coordinatorv1.DrainServerResponse, err error) {
	end := a.timeout + time.Duration(len(a.admin))*req.GetTimeout().AsDuration()
	err = a.limited(ctx, a.coordinators(), end, func(ctx context.Context, cc *grpc.ClientConn) error {
		answer, err = coordinatorv1.NewAdminServiceClient(cc).DrainServer(ctx, req)
		return err
	})
	return answer, err
}

func (a *app) writeDrained(w io.Writer, m *mutation, id string, r *coordinatorv1.DrainServerResponse) error {
	switch {
	case m.validateOnly && len(r.GetMissing()) > 0:
		return say(w, "valid; nothing was changed; not connected now: %s", a.missing(r.GetMissing()))
	case m.validateOnly:
		return say(w, "valid; nothing was changed")
	case r.GetState() == coordinatorv1.DrainState_DRAIN_STATE_PARTIAL:
		return say(w, "PARTIAL: %s drains since revision %d, not confirmed by %s", id, r.GetRevision(), a.missing(r.GetMissing()))
	}
	return say(w, "SAFE: %s drains since revision %d, confirmed by every router", id, r.GetRevision())
}

// missing names routers and since when each is behind.
func (a *app) missing(routers []*coordinatorv1.LaggingRouter) string {
	texts := make([]string, len(routers))
	for i, r := range routers {
		state := "gone"
		if r.GetConnected() {
			state = "connected"
		}
		texts[i] = fmt.Sprintf("%s (%s, last heard %s ago, at revision %d)",
			r.GetRouterId(), state, output.Since(a.Now(), r.GetLastSeen()), r.GetAppliedRevision())
	}
	return strings.Join(texts, ", ")
}

func (a *app) resumeCommand() *cobra.Command {
	var m mutation
	cmd := &cobra.Command{
		Use:               "resume SERVER",
		Short:             "End a drain: the server may get work again",
		Args:              exactly("SERVER"),
		ValidArgsFunction: arguments(a.completeServers),
		RunE: func(cmd *cobra.Command, args []string) error {
			req := &coordinatorv1.ResumeServerRequest{
				Pool: a.pool, ServerId: args[0], ExpectedRevision: m.revision,
				RequestId: m.requestID, Reason: m.reason, ValidateOnly: m.validateOnly,
			}
			answer, err := a.resume(cmd.Context(), req)
			if err != nil {
				return m.unsure(err)
			}
			state := "not a member now"
			if s := answer.GetServer(); s != nil {
				state = output.Name(s.GetPhase())
			}
			return a.changed(&m, answer, fmt.Sprintf("%s is not drained any more, at revision %d: it is %s", args[0], answer.GetRevision(), state))
		},
	}
	m.flags(cmd, true)
	return cmd
}

func (a *app) resume(ctx context.Context, req *coordinatorv1.ResumeServerRequest) (answer *coordinatorv1.ResumeServerResponse, err error) {
	err = a.askAdmin(ctx, func(ctx context.Context, c coordinatorv1.AdminServiceClient) error {
		answer, err = c.ResumeServer(ctx, req)
		return err
	})
	return answer, err
}

package command

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/buddyring/buddyring/buddyctl/output"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "status",
		Short:             "How the coordinator and the pools are",
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var status *coordinatorv1.GetStatusResponse
			err := a.askAdmin(cmd.Context(), func(ctx context.Context, c coordinatorv1.AdminServiceClient) (err error) {
				status, err = c.GetStatus(ctx, &coordinatorv1.GetStatusRequest{})
				return err
			})
			if err != nil {
				return err
			}
			return a.show(status, func(w io.Writer) error { return a.writeStatus(w, status) })
		},
	}
}

func (a *app) writeStatus(w io.Writer, s *coordinatorv1.GetStatusResponse) error {
	part := output.Name(s.GetState())
	store := s.GetStoreKind() + ", " + output.Name(s.GetStoreState())
	if s.GetStoreError() != "" {
		store += ": " + s.GetStoreError()
	}
	connected, alarms := count(s.GetSessions(), "agent")+", "+count(s.GetSubscriptions(), "router"), alarmCount(s.GetAlarms())
	if s.GetState() == coordinatorv1.LeaderState_LEADER_STATE_STANDBY {
		connected = "only the leader knows"
		alarms += ", of this coordinator; only the leader knows those of pools"
	}
	lines := []error{
		say(w, "coordinator  %s: %s, epoch %d, version %s, up %s",
			s.GetCoordinatorId(), part, s.GetEpoch(), s.GetVersion(), output.Since(a.Now(), s.GetStartedAt())),
		say(w, "lease        %s", leaseLine(s)),
		say(w, "store        %s (id %s)", store, s.GetStoreId()),
		say(w, "connected    %s", connected),
		say(w, "alarms       %s", alarms),
		say(w, ""),
	}
	for _, err := range lines {
		if err != nil {
			return err
		}
	}
	return poolGrid(s.GetPools(), a.standby).Write(w, a.Terminal.Width)
}

// leaseLine tells who leads, and since when the lease has not been renewed.
func leaseLine(s *coordinatorv1.GetStatusResponse) string {
	line := "nobody leads"
	if s.GetLeaderId() != "" {
		line = s.GetLeaderId() + " leads"
		if s.GetLeader() != "" {
			line += " at " + s.GetLeader()
		}
	}
	if s.GetLeaseAge() == nil {
		return line
	}
	return fmt.Sprintf("%s, renewed %.1f s ago", line, s.GetLeaseAge().AsDuration().Seconds())
}

func count(n uint32, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

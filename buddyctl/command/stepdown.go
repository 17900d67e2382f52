package command

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

func (a *app) stepDownCommand() *cobra.Command {
	m := mutation{}
	cmd := &cobra.Command{
		Use:   "step-down",
		Short: "Have the leader give the lead to a standby",
		Long: "step-down has the leader give the lead back; a standby takes it within half a second, and agents and routers\n" +
			"find it by themselves. Without a standby the same coordinator leads again after 4 s.",
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			req := &coordinatorv1.StepDownRequest{Reason: m.reason, ValidateOnly: m.validateOnly}
			var answer *coordinatorv1.StepDownResponse
			err := a.askAdmin(cmd.Context(), func(ctx context.Context, c coordinatorv1.AdminServiceClient) (err error) {
				if req.ExpectedEpoch == 0 {
					// Asking again must not make the next leader step down too.
					status, err := c.GetStatus(ctx, &coordinatorv1.GetStatusRequest{})
					if err != nil {
						return err
					}
					req.ExpectedEpoch = status.GetEpoch()
				}
				answer, err = c.StepDown(ctx, req)
				return err
			})
			if err != nil {
				return err
			}
			return a.changed(&m, answer, fmt.Sprintf("epoch %d is over", answer.GetEpoch()))
		},
	}
	cmd.Flags().StringVar(&m.reason, "reason", "", "why, for the log")
	cmd.Flags().BoolVar(&m.validateOnly, "validate-only", false, "check everything and change nothing; also --dry-run")
	return cmd
}

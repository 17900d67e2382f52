package command

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

func (a *app) removeCommand() *cobra.Command {
	var m mutation
	var incarnation uint64
	cmd := &cobra.Command{
		Use:   "remove SERVER",
		Short: "Take a server out of its pool and close the ring",
		Long: "remove takes a server out of its pool and closes the ring. Its agent may join again at once;\n" +
			"\"buddyctl intent SERVER banned\" prevents that.",
		Args:              exactly("SERVER"),
		ValidArgsFunction: arguments(a.completeServers),
		RunE: func(cmd *cobra.Command, args []string) error {
			req := &coordinatorv1.RemoveServerRequest{
				Pool: a.pool, ServerId: args[0], Incarnation: incarnation, ExpectedRevision: m.revision,
				RequestId: m.requestID, Reason: m.reason, ValidateOnly: m.validateOnly,
			}
			var answer *coordinatorv1.RemoveServerResponse
			err := a.askAdmin(cmd.Context(), func(ctx context.Context, c coordinatorv1.AdminServiceClient) (err error) {
				answer, err = c.RemoveServer(ctx, req)
				return err
			})
			if err != nil {
				return m.unsure(err)
			}
			return a.changed(&m, answer, fmt.Sprintf("removed %s at revision %d", args[0], answer.GetRevision()))
		},
	}
	cmd.Flags().Uint64Var(&incarnation, "incarnation", 0, "only this incarnation; 0 for any")
	m.flags(cmd, true)
	return cmd
}

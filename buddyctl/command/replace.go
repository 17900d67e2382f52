package command

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

func (a *app) replaceCommand() *cobra.Command {
	var m mutation
	var incarnation uint64
	var force bool
	cmd := &cobra.Command{
		Use:   "replace SERVER BY",
		Short: "Put another member into the place of a server, which leaves",
		Long: "replace puts a member into the place of another server on the ring, which leaves, in one\n" +
			"change. The server that leaves is banned; \"buddyctl intent SERVER active\" ends that.\n\n" +
			"With the same name twice, another machine may take that name within a minute, also from one\n" +
			"that lives.\n\n" +
			"Exit status: 4 refused: BY is not active, removals are held, or too many others are away.",
		Example: "  buddyctl drain web-3\n  buddyctl replace web-3 web-9 --reason \"new hardware\"\n" +
			"  buddyctl replace web-3 web-3 --reason \"its disk was moved into another machine\"",
		Args:              exactly("SERVER", "BY"),
		ValidArgsFunction: arguments(a.completeServers, a.completeServers),
		RunE: func(cmd *cobra.Command, args []string) error {
			req := &coordinatorv1.ReplaceServerRequest{
				Pool: a.pool, ServerId: args[0], ReplacementId: args[1], Incarnation: incarnation, Force: force,
				ExpectedRevision: m.revision, RequestId: m.requestID, Reason: m.reason, ValidateOnly: m.validateOnly,
			}
			var answer *coordinatorv1.ReplaceServerResponse
			err := a.askAdmin(cmd.Context(), func(ctx context.Context, c coordinatorv1.AdminServiceClient) (err error) {
				answer, err = c.ReplaceServer(ctx, req)
				return err
			})
			if err != nil {
				return m.unsure(err)
			}
			done := fmt.Sprintf("%s has the place of %s at revision %d; %s has left and is banned", args[1], args[0], answer.GetRevision(), args[0])
			if args[0] == args[1] {
				done = fmt.Sprintf("another machine may take the name %s for a minute, since revision %d", args[0], answer.GetRevision())
			}
			return a.changed(&m, answer, done)
		},
	}
	cmd.Flags().Uint64Var(&incarnation, "incarnation", 0, "only this incarnation of SERVER; 0 for any")
	cmd.Flags().BoolVar(&force, "force", false, "however BY, brake and floor stand")
	m.flags(cmd, true)
	return cmd
}

package command

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/buddyring/buddyring/buddyctl/explain"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

func (a *app) explainCommand() *cobra.Command {
	var all bool
	var limit int32
	cmd := &cobra.Command{
		Use:               "explain SERVER",
		Short:             "Why a server was removed, or was not: who saw what and when",
		Example:           "  buddyctl explain web-3\n  buddyctl explain web-3 --all",
		Args:              exactly("SERVER"),
		ValidArgsFunction: arguments(a.completeServers),
		RunE: func(cmd *cobra.Command, args []string) error {
			var answer *coordinatorv1.ExplainServerResponse
			req := &coordinatorv1.ExplainServerRequest{Pool: a.pool, ServerId: args[0], Limit: limit}
			err := a.askAdmin(cmd.Context(), func(ctx context.Context, c coordinatorv1.AdminServiceClient) (err error) {
				answer, err = c.ExplainServer(ctx, req)
				return err
			})
			if err != nil {
				return err
			}
			return a.show(answer, func(w io.Writer) error {
				return explain.Write(w, args[0], answer, explain.View{Terminal: a.Terminal, Now: a.Now(), All: all})
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "show earlier decisions in full too")
	cmd.Flags().Int32Var(&limit, "limit", 5, "at most this many decisions, up to 100")
	return cmd
}

package command

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/buddyring/buddyring/buddyctl/output"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

func (a *app) routersCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "routers",
		Short:             "List the routers and what each has applied",
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var routers []*coordinatorv1.Router
			err := a.askAdmin(cmd.Context(), func(ctx context.Context, c coordinatorv1.AdminServiceClient) (err error) {
				routers, err = pages(func(token string) ([]*coordinatorv1.Router, string, error) {
					page, err := c.ListRouters(ctx, &coordinatorv1.ListRoutersRequest{PageSize: pageSize, PageToken: token})
					return page.GetRouters(), page.GetNextPageToken(), err
				})
				return err
			})
			if err != nil {
				return err
			}
			return a.showGrid(&coordinatorv1.ListRoutersResponse{Routers: routers}, a.routerGrid(routers), "no routers")
		},
	}
}

func (a *app) routerGrid(routers []*coordinatorv1.Router) *output.Grid {
	g := output.NewGrid("ROUTER", "CONNECTED", "SEEN", "VERSION", "APPLIED", "HOLDS_BACK")
	for _, r := range routers {
		applied := make([]string, len(r.GetApplied()))
		for i, p := range r.GetApplied() {
			applied[i] = fmt.Sprintf("%s@%d", p.GetPool(), p.GetRevision())
		}
		held := make([]string, len(r.GetHeld()))
		for i, h := range r.GetHeld() {
			held[i] = h.GetPool() + "/" + h.GetServerId()
		}
		g.Add(r.GetRouterId(), yesNo(r.GetConnected()), output.Since(a.Now(), r.GetLastSeen()), r.GetVersion(),
			strings.Join(applied, ","), strings.Join(held, ","))
	}
	return g
}

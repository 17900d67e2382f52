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
		Use:   "routers",
		Short: "List the routers, what each has applied, and how far it is behind",
		Long: "routers lists the routers with what each has applied and passed on to its clients, per pool; BEHIND\n" +
			"says how many revisions of a pool it has not confirmed, and for how long; HOLDS_BACK, which servers\n" +
			"it keeps against a removal as a last resort.",
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
	g := output.NewGrid("ROUTER", "CONNECTED", "SEEN", "VERSION", "APPLIED", "BEHIND", "HOLDS_BACK")
	for _, r := range routers {
		applied := make([]string, len(r.GetApplied()))
		for i, p := range r.GetApplied() {
			applied[i] = fmt.Sprintf("%s@%d", p.GetPool(), p.GetRevision())
		}
		held := make([]string, len(r.GetHeld()))
		for i, h := range r.GetHeld() {
			held[i] = h.GetPool() + "/" + h.GetServerId()
		}
		seen := "now"
		if !r.GetConnected() {
			seen = output.Since(a.Now(), r.GetLastSeen())
		}
		g.Add(r.GetRouterId(), yesNo(r.GetConnected()), seen, r.GetVersion(),
			strings.Join(applied, ","), a.behind(r.GetLags()), strings.Join(held, ","))
	}
	return g
}

// behind says of which pools a router has not confirmed the newest revision, how
// many it lacks and since when.
func (a *app) behind(lags []*coordinatorv1.RouterLag) string {
	texts := make([]string, len(lags))
	for i, l := range lags {
		texts[i] = fmt.Sprintf("%s:%d", l.GetPool(), l.GetRevisions())
		if l.GetSince() != nil {
			texts[i] += " for " + output.Since(a.Now(), l.GetSince())
		}
	}
	return strings.Join(texts, ",")
}
